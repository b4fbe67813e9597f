"""The two kinds of cell of ED-NAS as modules: multi-branch (encoder, ablation) and chain (decoder)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from nni.nas.nn.pytorch import ChosenInputs, InputChoice
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.nn.ops import Operation, pointwise
from autoseg.spaces.ednas_code import candidates
from autoseg.spaces.parts import operation_choice


class LooseConcat(nn.Module):
    """Concatenate the blocks that no other block reads, then 1x1 convolution, normalisation, ReLU.

    Which blocks are loose depends on the choices. In a derived network it is known and the
    convolution has just the inputs it needs; in a supernet it changes with every sample, and the
    matching slices of one large weight are used.

    Args:
        blocks: Number of blocks that may be loose.
        channels: Channels of each block.
        out_channels: Channels after the convolution.

    Example:
        >>> merge = LooseConcat(blocks=3, channels=4, out_channels=8)
        >>> tuple(merge([torch.rand(1, 4, 2, 2)] * 3, loose=[0, 2]).shape)
        (1, 8, 2, 2)
    """

    def __init__(self, blocks: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.blocks, self.channels = blocks, channels
        self.conv = nn.Conv2d(blocks * channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, outputs: list[Tensor], loose: list[int]) -> Tensor:
        """``outputs[i]`` is ``(N, C, H, W)`` of block ``i``; returns ``(N, out_channels, H, W)``.

        Args:
            outputs: One tensor per block.
            loose: Numbers of the blocks to concatenate, rising; at least one.
        """
        joined = torch.cat([outputs[i] for i in loose], 1) if len(loose) > 1 else outputs[loose[0]]
        weight = self.conv.weight
        if len(loose) < self.blocks:
            weight = weight.unflatten(1, (self.blocks, self.channels))[:, loose].flatten(1, 2)
        return F.relu(self.norm(F.conv2d(joined, weight)))


class MultiBranchCell(nn.Module):
    """N blocks, each the sum of two operations on two inputs; the loose blocks are concatenated.

    Args:
        prefix: ``"enc"`` or ``"dec"``; labels are ``{prefix}{block}_in1`` and so on, equal in all cells
            of a network, so that one genotype serves every position.
        blocks: N.
        inputs: ``"enas"`` (previous cell, the one before, earlier blocks) or ``"fig"`` (without the one before).
        in_channels: Channels of the previous cell's output.
        before_channels: Channels of the output of the cell before it.
        channels: Channels C inside the cell.
        out_channels: Channels of the result.
        operations: What makes each operation to choose from, by name.
        order: Order of ReLU, convolution and normalisation.

    Outside NNI's ``model_context`` it is the supernet's cell with all operations. Inside, it is a derived
    cell: inputs that no block reads have no calibration, and the last convolution has just the channels of
    the loose blocks.

    Source: ED-NAS, section 2.1; which blocks are concatenated is as in ENAS.
    """

    def __init__(
        self,
        prefix: str,
        *,
        blocks: int,
        inputs: str,
        in_channels: int,
        before_channels: int,
        channels: int,
        out_channels: int,
        operations: Mapping[str, Operation],
        order: str,
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.externals = 2 if inputs == "enas" else 1
        self.inputs = nn.ModuleDict()
        self.operations = nn.ModuleDict()
        for b in range(blocks):
            for side in ("1", "2"):
                count = candidates(b, inputs)
                if count > 1:
                    self.inputs[f"{b}_{side}"] = InputChoice(count, 1, label=f"{prefix}{b}_in{side}")
                label = f"{prefix}{b}_op{side}"
                self.operations[f"{b}_{side}"] = operation_choice(channels, operations, order, label)
        used = self._inputs_of_a_derived_cell()
        self.calibrate = pointwise(in_channels, channels) if used is None or 0 in used else None
        reads_before = self.externals == 2 and (used is None or 1 in used)
        self.calibrate_before = pointwise(before_channels, channels) if reads_before else None
        self.loose = None if used is None else self._loose(used)
        self.merge = LooseConcat(blocks if self.loose is None else len(self.loose), channels, out_channels)

    def _inputs_of_a_derived_cell(self) -> set[int] | None:
        """Candidates that some block reads, or None in a supernet, where that is not settled."""
        chosen = [choice.chosen[0] for choice in self.inputs.values() if isinstance(choice, ChosenInputs)]
        if len(chosen) < len(self.inputs):
            return None
        used = set(chosen)
        return used | {0} if self.externals == 1 else used  # block 0 of "fig" has no choice and reads the cell

    def _loose(self, used: set[int]) -> list[int]:
        return [b for b in range(self.blocks) if b + self.externals not in used]

    def forward(self, previous: Tensor, before: Tensor) -> Tensor:
        """One cell.

        Args:
            previous: Output of the previous cell at this cell's scale, ``(N, in_channels, H, W)``.
            before: Output of the cell before it at the same scale, ``(N, before_channels, H, W)``.

        Returns:
            ``(N, out_channels, H, W)``.
        """
        candidates_: list[Tensor | None] = [None if self.calibrate is None else self.calibrate(previous)]
        if self.externals == 2:
            candidates_.append(None if self.calibrate_before is None else self.calibrate_before(before))
        used: set[int] = set()
        for b in range(self.blocks):
            branches = []
            for side in ("1", "2"):
                key = f"{b}_{side}"
                x = self.inputs[key](candidates_) if key in self.inputs else candidates_[0]
                # A sampled or frozen choice hands one candidate through; a mixture is none of them.
                used.update(i for i, candidate in enumerate(candidates_) if candidate is x)
                branches.append(self.operations[key](x))
            candidates_.append(branches[0] + branches[1])
        outputs = [c for c in candidates_[self.externals :] if c is not None]
        if self.loose is not None:
            return self.merge([outputs[b] for b in self.loose], list(range(len(self.loose))))
        return self.merge(outputs, self._loose(used))


class ChainCell(nn.Module):
    """N operations one after another; only the operations are free (the decoder cell of ED-NAS).

    Args:
        blocks: N.
        in_channels: Channels of the input.
        channels: Channels C inside the cell.
        out_channels: Channels of the result; a 1x1 convolution follows where it differs from C.
        operations: What makes each operation to choose from, by name.
        order: Order of ReLU, convolution and normalisation.

    Source: ED-NAS, section 2.1.
    """

    def __init__(
        self,
        *,
        blocks: int,
        in_channels: int,
        channels: int,
        out_channels: int,
        operations: Mapping[str, Operation],
        order: str,
    ) -> None:
        super().__init__()
        self.calibrate = pointwise(in_channels, channels)
        self.operations = nn.ModuleList(
            operation_choice(channels, operations, order, f"dec{b}_op1") for b in range(blocks)
        )
        self.project = pointwise(channels, out_channels) if out_channels != channels else nn.Identity()

    def forward(self, previous: Tensor, before: Tensor | None = None) -> Tensor:
        """``(N, in_channels, H, W)`` to ``(N, out_channels, H, W)``.

        Args:
            previous: Output of the previous cell, unpooled.
            before: Accepted and ignored, so that both kinds of cell are called alike.
        """
        x = self.calibrate(previous)
        for operation in self.operations:
            x = operation(x)
        return self.project(x)
