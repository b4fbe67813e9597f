"""The parts of AutoSegNet as modules: a cell, a searched layer of cells, the HDC layer and a long skip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from nni.nas.nn.pytorch import ChosenInputs, InputChoice, LayerChoice
from torch import Tensor, nn

from autoseg.nn.hdc import hdc
from autoseg.nn.ops import EXTRA_OPERATIONS, Operation, separable
from autoseg.spaces.autosegnet_blocks import Blocks, Calibration, Width
from autoseg.spaces.autosegnet_code import Grammar
from autoseg.spaces.parts import operation_choice


def cell_operations(grammar: Grammar, form: str) -> dict[str, Operation]:
    """What makes each operation that a cell may use, by name.

    Args:
        grammar: Says which operations there are.
        form: Form of the hybrid dilated convolution.

    Example:
        >>> list(cell_operations(Grammar(use_hdc=False), "split"))
        ['sep3', 'sep5', 'identity']
    """
    makers: dict[str, Operation] = {
        "sep3": lambda c, order: separable(c, 3, order),
        "sep5": lambda c, order: separable(c, 5, order),
        "hdc": lambda c, order: hdc(c, form, order),
        "identity": lambda c, order: nn.Identity(),
        **EXTRA_OPERATIONS,
    }
    return {name: makers[name] for name in grammar.operations}


class Cell(nn.Module):
    """The sum of two operations; what they read is searched.

    Under ``"enas"`` each operation reads one of h[t-1], h[t] and the earlier cells of the layer. Under
    ``"binary"`` the first reads h[t-1] and the second reads h[t] plus those earlier cells whose bit is 1 (their
    sum): the text gives the bits, not how a cell joins what it reads.

    Args:
        label: Start of the labels of its decisions, such as ``"down_c0"``.
        number: Number of the cell in its layer.
        channels: C.
        grammar: The decisions.
        operations: What makes each operation to choose from, by name.
        order: Order of ReLU, convolution and normalisation.
    """

    def __init__(
        self,
        label: str,
        number: int,
        channels: int,
        grammar: Grammar,
        operations: Mapping[str, Operation],
        order: str,
    ) -> None:
        super().__init__()
        self.binary = grammar.encoding == "binary"
        self.decisions = nn.ModuleDict()  # in the order of the paper's tokens
        for end in grammar.labels(number):
            name = f"{label}_{end}"
            if end.startswith("op"):
                self.decisions[end] = operation_choice(channels, operations, order, name)
            else:
                self.decisions[end] = InputChoice(len(grammar.values(end, number)), 1, label=name)

    @property
    def reads(self) -> set[int] | None:
        """Codes of the inputs that it reads, or None in a supernet, where that is not settled."""
        choices = [module for end, module in self.decisions.items() if not end.startswith("op")]
        chosen: list[int] = [choice.chosen[0] for choice in choices if isinstance(choice, ChosenInputs)]
        if len(chosen) < len(choices):
            return None
        if self.binary:
            return {0, 1, *(2 + i for i, bit in enumerate(chosen) if bit)}
        return set(chosen)

    def pick(self, inputs: list[Any]) -> tuple[Tensor, Tensor, set[int]]:
        """What the two operations read, and the codes of the inputs that are known to be read.

        Args:
            inputs: h[t-1], h[t] and the earlier cells, ``(N, C, H, W)`` each; None where nobody reads.
        """
        read: set[int] = set()
        if not self.binary:
            first, second = (self.decisions[end](inputs) for end in ("in1", "in2"))
            # A sampled or frozen choice hands one input through; a mixture is none of them.
            read.update(code for code, x in enumerate(inputs) if x is first or x is second)
            return first, second, read
        first, second = inputs[0], inputs[1]
        for i, cell in enumerate(inputs[2:]):
            choice = self.decisions[f"skip{i}"]
            if isinstance(choice, ChosenInputs) and not choice.chosen[0]:
                continue
            nothing = torch.zeros_like(cell)
            part = choice([nothing, cell])
            if part is not nothing:
                second = second + part
            if part is cell:
                read.add(2 + i)
        return first, second, read

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Sum of the two operations on what they read, ``(N, C, H, W)`` each."""
        result: Tensor = self.decisions["op1"](first) + self.decisions["op2"](second)
        return result


class SearchedLayer(nn.Module):
    """A down, bridge or up layer: cells on the outputs of the two previous layers.

    Args:
        name: ``"down"``, ``"bridge"`` or ``"up"``; layers of one name share their decisions.
        before: Size of the output of the layer before the previous one, h[t-1].
        previous: Size of the output of the previous layer, h[t].
        channels: C of this layer.
        level: How often its map is halved.
        grammar: The decisions.
        operations: What makes each operation to choose from, by name.
        order: Order of ReLU, convolution and normalisation.

    Attributes:
        width: Size of its output. In a derived network an input that no cell reads has no calibration, and
            only the loose cells count.

    Source: AutoSegNet, Figures 2 to 4; which cells are concatenated is as in ENAS.
    """

    def __init__(
        self,
        name: str,
        *,
        before: Width,
        previous: Width,
        channels: int,
        level: int,
        grammar: Grammar,
        operations: Mapping[str, Operation],
        order: str,
    ) -> None:
        super().__init__()
        cells = [
            Cell(f"{name}_c{number}", number, channels, grammar, operations, order) for number in range(grammar.cells)
        ]
        self.cells = nn.ModuleList(cells)
        read = [cell.reads for cell in cells]
        known = None if None in read else {code for codes in read if codes for code in codes}
        self.loose = None if known is None else self._loose(known)
        self.calibrate_before = Calibration(before, channels, level, order) if known is None or 0 in known else None
        self.calibrate = Calibration(previous, channels, level, order) if known is None or 1 in known else None
        self.width = Width(grammar.cells if self.loose is None else len(self.loose), channels, level)

    def _loose(self, read: set[int]) -> list[int]:
        return [number for number in range(len(self.cells)) if number + 2 not in read]

    def forward(self, before: Blocks, previous: Blocks, skip: Tensor | None = None) -> Blocks:
        """One layer.

        Args:
            before: Output of the layer before the previous one, at its own scale.
            previous: Output of the previous layer, at its own scale.
            skip: A long skip to this layer, ``(N, C, H, W)``.
        """
        inputs: list[Any] = [
            None if self.calibrate_before is None else self.calibrate_before(before),
            None if self.calibrate is None else self.calibrate(previous, skip),
        ]
        read: set[int] = set()
        cells: Iterable[Any] = self.cells
        for cell in cells:
            first, second, codes = cell.pick(inputs)
            inputs.append(cell(first, second))
            read |= codes
        loose = self._loose(read) if self.loose is None else self.loose
        outputs = torch.cat([inputs[2 + number] for number in loose], 1)
        return Blocks(outputs, loose if self.loose is None else None)


class HdcLayer(nn.Module):
    """The layer that stands where no further downsampling is allowed: calibration, then HDC.

    Args:
        previous: Size of the output of the previous layer.
        channels: C.
        level: How often its map is halved.
        form: Form of the hybrid dilated convolution.
        order: Order of ReLU, convolution and normalisation.
    """

    def __init__(self, previous: Width, channels: int, level: int, form: str, order: str) -> None:
        super().__init__()
        self.calibrate = Calibration(previous, channels, level, order)
        self.operation = hdc(channels, form, order)
        self.width = Width(1, channels, level)

    def forward(self, previous: Blocks) -> Blocks:
        """Output of the previous layer, at its own scale, to ``(N, C, H, W)``."""
        return Blocks(self.operation(self.calibrate(previous)))


class NoSkip(nn.Module):
    """A long skip that is not there: zeros in the shape of one that is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """``(N, k * C, H, W)`` to zeros ``(N, channels, H, W)``."""
        return x.new_zeros(x.shape[0], self.channels, *x.shape[2:])


def long_skip(width: Width, channels: int, order: str, label: str) -> nn.Module:
    """A choice between a long skip from a down layer and none.

    The skip is the 1x1 calibration of the down layer's output; the up layer's own calibration adds it.

    Args:
        width: Size of the output of the down layer.
        channels: C of the up layer.
        order: Order of ReLU, convolution and normalisation.
        label: Label of the decision; its values are ``"skip"`` and ``"none"``.
    """
    conv = nn.Conv2d(width.blocks * width.channels, channels, 1, bias=False)
    skip = nn.Sequential(nn.ReLU(), conv) if order == "relu-conv-bn" else conv
    return LayerChoice({"skip": skip, "none": NoSkip(channels)}, label=label)
