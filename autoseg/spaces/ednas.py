"""ED-NAS: an encoder cell and a decoder cell, stacked L times, joined by pooling indices.

The space of "ED-NAS" (ceramic grains in SEM): N blocks per cell, five operations, encoder cells with
two branches per block, decoder cells that are chains (or, in the ablation, have branches too). Every
encoder cell is followed by 2x2 max pooling whose indices unpool the input of its mirror decoder cell.
The cells are shared by all positions as genotypes, not as weights; width and depth are free, so cells
found in a small network rebuild a large one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.nn.batchnorm import tolerate_single_values
from autoseg.nn.ops import ED_NAS_OPERATIONS, EXTRA_OPERATIONS, ORDERS, pointwise
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.nn.pool import pool_with_indices, unpool, upsample_like
from autoseg.spaces.base import CellDrawing
from autoseg.spaces.ednas_cells import ChainCell, MultiBranchCell
from autoseg.spaces.ednas_code import (
    DECODERS,
    ED_NAS_N3,
    ED_NAS_N4,
    READINGS,
    Genotype,
    from_choices,
    labels,
    space_size,
    to_choices,
)
from autoseg.spaces.ednas_draw import LABELS, draw_cells
from autoseg.spaces.extras import check_extra


class EdNas(ModelSpace):
    """ED-NAS: searched encoder and decoder cells with pooling indices (RL search, ceramic grains).

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        blocks: N, blocks per cell (paper: 3 or 4).
        layers: L, encoder cells and as many decoder cells (paper: 3 to 6).
        decoder: ``"chain"`` (the paper's choice) or ``"multi"`` (its ablation).
        inputs: Which tensors a block may read: ``"enas"`` = the two previous cells and earlier blocks,
            ``"fig"`` = the previous cell and earlier blocks. The paper's text allows both readings.
        width: Channels at full resolution; cell i has ``min(width * 2**i, max_width)``. Not in the paper.
        max_width: Upper limit of the channels.
        order: ``"relu-conv-bn"`` or ``"conv-bn-relu"``.
        pooling_indices: Unpool with the mirror cell's indices; False upsamples by nearest neighbour.
        encdec_skip: Also concatenate the mirror encoder cell's output, as a U-Net does. Not in the paper.
        extra: Operations to choose from besides the paper's five: ``"se"`` (squeeze-and-excitation) and
            ``"context"`` (global context block), the attention and context that the paper leaves to the future.

    The kwargs ``layers``, ``width`` and ``max_width`` may differ between search and final network, and so
    may ``order``, ``pooling_indices`` and ``encdec_skip``; the labels of the decisions do not depend on them.

    Source: "ED-NAS", sections 2.1 and 2.3 with Table 1; what the text leaves open is said at each option.

    Raises:
        ValueError: An option is out of range, or the choices (inside NNI's ``model_context``) have decisions
            that a space with these options has not.

    Example:
        >>> EdNas(1, 3, blocks=4, layers=3, width=8).size()
        3515625000000
    """

    pass_through: frozenset[str] = frozenset()
    operation_labels: ClassVar[dict[str, str]] = LABELS

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        blocks: int = 4,
        layers: int = 3,
        decoder: str = "chain",
        inputs: str = "enas",
        width: int = 16,
        max_width: int = 512,
        order: str = "relu-conv-bn",
        pooling_indices: bool = True,
        encdec_skip: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if blocks < 1 or layers < 1 or width < 1 or max_width < width:
            raise ValueError(
                f"need blocks, layers, width >= 1 and max_width >= width, got {blocks=} {layers=} {width=} {max_width=}"
            )
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {DECODERS}, got {decoder!r}")
        if inputs not in READINGS:
            raise ValueError(f"inputs must be one of {READINGS}, got {inputs!r}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
        foreign = sorted((current_model() or {}).keys() - set(labels(blocks, decoder, inputs)))
        if foreign:  # NNI ignores them, and a cell would silently lose its blocks
            raise ValueError(
                f"a space with {blocks=}, {decoder=}, {inputs=} has no decisions {', '.join(foreign)}; "
                "these three options must be those of the search"
            )
        self.blocks, self.layers, self.decoder_kind, self.reading = blocks, layers, decoder, inputs
        self.extra = check_extra(extra)
        self.pooling_indices = pooling_indices
        self.size_divisor = 2**layers
        channels = [min(width * 2**i, max_width) for i in range(layers)]
        operations = ED_NAS_OPERATIONS | {name: EXTRA_OPERATIONS[name] for name in self.extra}
        common: dict[str, Any] = {"blocks": blocks, "operations": operations, "order": order}

        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        outputs = [width, width, *channels]  # channels of: before, previous, then each encoder cell
        self.encoder = nn.ModuleList(
            MultiBranchCell(
                "enc",
                inputs=inputs,
                in_channels=outputs[i + 1],
                before_channels=outputs[i],
                channels=channels[i],
                out_channels=channels[i],
                **common,
            )
            for i in range(layers)
        )
        self.decoder = nn.ModuleList()
        self.fuse = nn.ModuleList()
        for i in reversed(range(layers)):
            shape: dict[str, Any] = {
                "in_channels": channels[i],
                "channels": channels[i],
                "out_channels": channels[max(i - 1, 0)],
                **common,
            }
            if decoder == "multi":
                before = channels[min(i + 1, layers - 1)]
                self.decoder.append(MultiBranchCell("dec", inputs=inputs, before_channels=before, **shape))
            else:
                self.decoder.append(ChainCell(**shape))
            if encdec_skip:
                self.fuse.append(pointwise(2 * channels[i], channels[i]))
        self.head = nn.Conv2d(channels[0], num_classes, 1)
        tolerate_single_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``.

        Args:
            x: Normalised images of any size; they are padded and the logits cropped inside.
        """
        x, image = pad_to_multiple(x, self.size_divisor)
        before = previous = self.stem(x)
        mirrors: list[tuple[Tensor, Tensor]] = []
        for i, cell in enumerate(self.encoder):
            # The cell before the previous one has twice the size, except at the stem.
            y = cell(previous, F.max_pool2d(before, 2) if i else before)
            before = previous
            previous, where = pool_with_indices(y)
            mirrors.append((y, where))
        before = None
        for i, cell in enumerate(self.decoder):
            mirror, where = mirrors[-1 - i]
            size = (mirror.shape[-2], mirror.shape[-1])
            up = unpool(previous, where, size) if self.pooling_indices else upsample_like(previous, size)
            if self.fuse:
                up = self.fuse[i](torch.cat([up, mirror], 1))
            previous = cell(up, up if before is None else upsample_like(before, size))
            before = up
        return crop_to(self.head(previous), image)

    def size(self) -> int:
        """Number of architectures in the space, exactly (two orders of branches count as two)."""
        return space_size(self.blocks, self.decoder_kind, self.reading, extra=self.extra)

    @staticmethod
    def named(kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Hand-made and published points of the space with these options, as choices.

        Args:
            kwargs: Options of the space; those left out have their defaults.

        Returns:
            ``{name: {label: value}}``; empty when no published cell has these blocks, decoder and inputs.

        Example:
            >>> sorted(EdNas.named({"blocks": 4}))
            ['ed-nas-n4 (assumed wiring)']
        """
        published = {"ed-nas-n3 (assumed wiring)": ED_NAS_N3, "ed-nas-n4 (assumed wiring)": ED_NAS_N4}
        options = {"blocks": 4, "decoder": "chain", "inputs": "enas", **kwargs}
        return {
            name: to_choices(genotype)
            for name, genotype in published.items()
            if genotype.blocks == options["blocks"]
            and options["decoder"] == "chain"
            and options["inputs"] == genotype.inputs
        }

    @staticmethod
    def code(choices: dict[str, Any], kwargs: dict[str, Any]) -> str:
        """The paper's tuples, ``E=[(I1,I2,OP1,OP2),...] D=[(I1,OP1),...]``.

        Raises:
            ValueError: These are not choices of the space.

        Example:
            >>> EdNas.code(to_choices(ED_NAS_N3), {"blocks": 3})
            'E=[(0,0,1,2),(0,0,0,0),(0,0,1,0)] D=[(0,0),(1,0),(2,2)]'
        """
        return str(_genotype(choices, kwargs))

    @staticmethod
    def cells(choices: dict[str, Any], kwargs: dict[str, Any]) -> list[CellDrawing]:
        """The two cells as graphs for the report, encoder first.

        Raises:
            ValueError: These are not choices of the space.

        Example:
            >>> [len(cell["nodes"]) for cell in EdNas.cells(to_choices(ED_NAS_N3), {"blocks": 3})]
            [11, 5]
        """
        return draw_cells(_genotype(choices, kwargs))


def _genotype(choices: dict[str, Any], kwargs: dict[str, Any]) -> Genotype:
    """The genotype of choices; where ``kwargs`` say how many blocks and which decoder, it must have these."""
    genotype = from_choices(choices, kwargs.get("inputs", "enas"), kwargs.get("extra", ()))
    found = {"blocks": genotype.blocks, "decoder": genotype.decoder_kind}
    wrong = [f"{option}={kwargs[option]!r}" for option, value in found.items() if kwargs.get(option, value) != value]
    if wrong:
        theirs = ", ".join(f"{option}={value!r}" for option, value in found.items())
        raise ValueError(f"these are not choices of the ED-NAS space with {', '.join(wrong)}: they have {theirs}")
    return genotype
