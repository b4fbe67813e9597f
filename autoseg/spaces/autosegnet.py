"""AutoSegNet: three searched layers (down, bridge, up) and searched long skips, as deep as the image asks for.

The space of "AutoSegNet" (surface flaws, membranes in serial-section TEM): one genotype each for the layers
of the encoder, the bridge and the layers of the decoder, every layer being three cells of two operations;
and one bit per pair of layers of equal size. The depth is computed from the size of the image, so that
an architecture found on small crops is built deeper for large images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.nn.batchnorm import tolerate_single_values
from autoseg.nn.hdc import FORMS
from autoseg.nn.ops import ORDERS
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.spaces.autosegnet_blocks import Blocks, Pointwise, Width
from autoseg.spaces.autosegnet_code import Grammar, from_choices, to_choices
from autoseg.spaces.autosegnet_draw import LABELS, draw_network
from autoseg.spaces.autosegnet_layers import HdcLayer, NoSkip, SearchedLayer, cell_operations, long_skip
from autoseg.spaces.autosegnet_named import named_points
from autoseg.spaces.autosegnet_shape import Shape, transfer
from autoseg.spaces.base import CellDrawing


class AutoSegNet(ModelSpace):
    """AutoSegNet: searched down, bridge and up layers with hybrid dilated convolution, and searched long skips.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        input_size: Side of the image in pixels that the depth is meant for (paper: 32 or 64 in the search, 160 and
            512 in the end). Images of any size are accepted.
        min_size: Smallest side of a map (paper: 16).
        ratio: Largest ratio of the image to the smallest map (paper: 32 in the text, 16 in its Figure 6).
        width: Channels C of a cell at full resolution; doubled by each downsampling. The paper does not say; its
            41.93 M parameters fit 64 with ``ratio=16`` or 32 with ``ratio=32``.
        max_width: Upper limit of C.
        encoding: ``"enas"`` = the two inputs of each cell are searched; ``"binary"`` = one bit per pair of cells of
            a layer (see :class:`autoseg.spaces.autosegnet_layers.Cell`).
        hdc: Form of the hybrid dilated convolution: ``"split"``, ``"sum"`` or ``"serial"``.
        n_hdc: HDC layers before the bridge (the other reading of the paper: see ``depth``).
        depth: Number of encoder layers; those that may not downsample are HDC layers, ``max(0, depth - n)`` of them
            where n layers do. Replaces ``n_hdc``.
        cells: Cells per layer (paper: 3).
        use_hdc: Whether cells may choose HDC; False is the paper's ablation. The HDC layers stay.
        extra: ``"se"`` and/or ``"context"``: operations beyond the paper's. Empty = exactly its space.
        order: ``"relu-conv-bn"`` or ``"conv-bn-relu"``.

    All options but ``encoding``, ``cells``, ``use_hdc`` and ``extra`` may differ between search and final network.
    Choices from another depth are transferred: long skips are counted from the coarsest, and pairs that were not in
    the search repeat the shallowest bit that was (:func:`autoseg.spaces.autosegnet_shape.transfer`).

    With ``width=64``, four downsamplings, one grey channel and two classes, a network whose layers read both
    previous layers has 13,420,226 (identities, one loose cell) to 113,410,498 parameters (HDC, three loose cells, all
    skips), as worked out from the paper. A layer that reads one of them only has no calibration for the other;
    such networks go down to 11,313,090. An up or down layer may also leave the previous layer unread, and
    then every other layer of its kind is computed for nothing: a corner of the published space.

    Source: "AutoSegNet", the text on layers, skips and depth with Figures 1 to 6. What it leaves open is said at
    each option; the long skips are those between layers of equal size.

    Raises:
        ValueError: An option is out of range, or the choices (inside NNI's ``model_context``) are not of this space.

    Example:
        >>> AutoSegNet(1, 2, input_size=64, width=4).size() == 2359296**3 * 2**2
        True
    """

    pass_through: frozenset[str] = frozenset({"identity"})
    operation_labels: ClassVar[dict[str, str]] = LABELS

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        input_size: int = 64,
        min_size: int = 16,
        ratio: int = 32,
        width: int = 16,
        max_width: int = 1024,
        encoding: str = "enas",
        hdc: str = "split",
        n_hdc: int = 1,
        depth: int | None = None,
        cells: int = 3,
        use_hdc: bool = True,
        extra: Sequence[str] = (),
        order: str = "relu-conv-bn",
    ) -> None:
        super().__init__()
        if hdc not in FORMS:
            raise ValueError(f"hdc must be one of {FORMS}, got {hdc!r}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
        self.grammar = Grammar.of({"encoding": encoding, "cells": cells, "use_hdc": use_hdc, "extra": extra})
        self.shape = Shape(input_size, min_size, ratio, width, max_width, n_hdc, depth)
        n, channels = self.shape.downsamplings, self.shape.channels
        self.size_divisor = 2**n
        labels = _skip_labels(n, self.grammar)
        operations = cell_operations(self.grammar, hdc)
        common: dict[str, Any] = {"grammar": self.grammar, "operations": operations, "order": order}

        def layer(name: str, level: int) -> SearchedLayer:
            """A searched layer that reads the last two of ``outputs``, to which its own is appended."""
            before, previous = outputs[-2:]
            found = SearchedLayer(
                name, before=before, previous=previous, channels=channels[level], level=level, **common
            )
            outputs.append(found.width)
            return found

        stem = 3 * width
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, padding=1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        outputs = [Width(1, stem, 0), Width(1, stem, 0)]  # of all layers so far; the first reads the stem twice
        down = [layer("down", level) for level in range(n)]
        self.widths = [found.width for found in down]
        self.down, self.hdc = nn.ModuleList(down), nn.ModuleList()
        for _ in range(self.shape.hdc_layers):
            replacement = HdcLayer(outputs[-1], channels[n], n, hdc, order)
            self.hdc.append(replacement)
            outputs.append(replacement.width)
        self.bridge = layer("bridge", n)
        up = [layer("up", level) for level in reversed(range(n))]
        self.up = nn.ModuleList(up)
        self.skips = nn.ModuleDict()
        for i, (label, mirror, reader) in enumerate(zip(labels, reversed(down), up, strict=True)):
            skip = long_skip(mirror.width, channels[n - 1 - i], order, label)
            if reader.calibrate is not None and not isinstance(skip, NoSkip):
                self.skips[str(i)] = skip
        self.head = Pointwise(outputs[-1], num_classes, bias=True)
        tolerate_single_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``.

        Args:
            x: Normalised images of any size; they are padded and the logits cropped inside.
        """
        x, size = pad_to_multiple(x, self.size_divisor)
        before = previous = Blocks(self.stem(x))
        mirrors = []
        for layer in self.down:
            before, previous = previous, layer(before, previous)
            mirrors.append(previous)
        for layer in self.hdc:
            before, previous = previous, layer(previous)
        before, previous = previous, self.bridge(before, previous)
        for i, layer in enumerate(self.up):
            skip = self.skips[str(i)](mirrors[-1 - i].filled(self.widths[-1 - i])) if str(i) in self.skips else None
            before, previous = previous, layer(before, previous, skip)
        logits: Tensor = self.head(previous._replace(tensor=F.relu(previous.tensor)))
        return crop_to(logits, size)

    def size(self) -> int:
        """Number of architectures in the space, exactly (two orders of operations count as two)."""
        return self.grammar.size(self.shape.downsamplings)

    @staticmethod
    def is_operation(label: str) -> bool:
        """Whether a decision is an operation of a cell, not an input or a skip."""
        return "_op" in label

    @staticmethod
    def named(kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Hand-made points of the space with these options, as choices: chains of cells with all long skips.

        Args:
            kwargs: Options of the space; those left out have their defaults.

        Returns:
            ``{name: {label: value}}``. The paper's own architectures are not among them: their codes are not given.

        Example:
            >>> sorted(AutoSegNet.named({"use_hdc": False}))
            ['residual sep3 chain, all skips', 'sep3 chain, all skips']
        """
        skips = Shape.of(kwargs).downsamplings
        return {name: to_choices(genotype) for name, genotype in named_points(Grammar.of(kwargs), skips).items()}

    @staticmethod
    def code(choices: dict[str, Any], kwargs: dict[str, Any]) -> str:
        """The paper's tokens grouped by layer, as explained in :mod:`autoseg.spaces.autosegnet_code`.

        Raises:
            ValueError: These are not choices of the space.

        Example:
            >>> AutoSegNet.code(AutoSegNet.named({"cells": 1})["sep3 chain, all skips"], {"cells": 1})
            'down=[(1,0,1,0)] bridge=[(1,0,1,0)] up=[(1,0,1,0)] skips=[1,1]'
        """
        return str(from_choices(choices, kwargs))

    @staticmethod
    def cells(choices: dict[str, Any], kwargs: dict[str, Any]) -> list[CellDrawing]:
        """Drawings for the report: the stack of layers with its long skips, then the three layers.

        Raises:
            ValueError: These are not choices of the space.

        Example:
            >>> chain = AutoSegNet.named({})["sep3 chain, all skips"]
            >>> [drawing["title"] for drawing in AutoSegNet.cells(chain, {})]
            ['Network (6 layers)', 'Down layer', 'Bridge layer', 'Up layer']
        """
        return draw_network(from_choices(choices, kwargs), Shape.of(kwargs))


def _skip_labels(count: int, grammar: Grammar) -> list[str]:
    """Labels of the long skips, coarsest first; among given choices, those of the transfer rule."""
    given = current_model()
    if given is None:
        return [f"skip{i}" for i in range(count)]
    options = {"encoding": grammar.encoding, "cells": grammar.cells, "use_hdc": grammar.use_hdc, "extra": grammar.extra}
    found = from_choices({"".join(label): value for label, value in given.items()}, options)
    return transfer([f"skip{i}" for i in range(len(found.skips))], count)
