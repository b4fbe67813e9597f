"""SEARCH-Net: eight independent search units in the shape of a U-Net.

Units C1 to C4 go down (2x2 max pooling between them), C5 works at the scale of C4, C6 to C8 go up and read
the unit of their scale on the way down beside what comes from below. Every unit has decisions of its own.
The plain U-Net is a point of the space: :meth:`SearchNet.unet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import current_model
from nni.nas.strategy import DARTS
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.baselines.layers import he_initialise
from autoseg.nn.batchnorm import tolerate_single_values
from autoseg.nn.ops import EXTRA_OPERATIONS, search_net_operations
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.spaces import searchnet_code
from autoseg.spaces.base import CellDrawing, Choices
from autoseg.spaces.extras import check_extra
from autoseg.spaces.searchnet_code import from_choices, nodes_and_extra, space_size, values
from autoseg.spaces.searchnet_draw import LABELS, draw_cells
from autoseg.spaces.searchnet_named import UNET_OPTIONS, named_points
from autoseg.spaces.searchnet_unit import AllEdges, SearchUnit

if TYPE_CHECKING:
    from autoseg.search.architecture import Architecture

CALIBRATIONS = (1, 3)
UPSAMPLINGS = ("bilinear", "transposed")
_POOLINGS = 3


class SearchNet(ModelSpace):
    """SEARCH-Net: a U-Net of eight searched units (DARTS search, pets and street scenes).

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels at full resolution, doubled at each of three poolings (paper: 64, so 64 to 512).
        nodes: B, nodes per unit. The paper does not give it.
        expand: Widening inside the MBConv operations.
        calibration: Side of the kernel, 1 or 3, of the convolution that brings a unit's input to its width.
        up: ``"bilinear"``, or ``"transposed"`` for a 2x2 transposed convolution as in U-Net.
        c4c5_skip: C5 reads the calibrated input of C4 beside its output; the paper draws a skip there, which
            cannot be one of U-Net since both units have one scale. False: C5 reads the output of C4 as it is.
        extra: Operations to choose from besides the paper's seven: ``"se"`` (squeeze-and-excitation) and
            ``"context"`` (global context block).

    The kwargs ``width``, ``expand``, ``calibration``, ``up`` and ``c4c5_skip`` may differ between search and final
    network; the labels of the decisions do not depend on them.

    A decision ``c1_0_2`` is the operation on the edge from node 0, the unit's input, to node 2 of unit C1. From the
    third node on, a decision ``c1_3_in`` says which two edges are kept. Gradient strategies train all edges and
    keep the two whose best operation is the most probable (:meth:`derive`).

    Source: "SEARCH-Net", sections on the search space and on the search unit; what the text leaves open is said at
    each option.

    Raises:
        ValueError: An option is out of range, or the choices (inside NNI's ``model_context``) have decisions
            that a space with these options has not.

    Example:
        >>> SearchNet(3, 2, width=4, nodes=1).size()
        5764801
    """

    pass_through: frozenset[str] = frozenset({"identity"})
    operation_labels: ClassVar[dict[str, str]] = LABELS
    size_divisor = 2**_POOLINGS

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 16,
        nodes: int = 2,
        expand: int = 4,
        calibration: int = 1,
        up: str = "bilinear",
        c4c5_skip: bool = False,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if width < 1 or nodes < 1 or expand < 1:
            raise ValueError(f"need width, nodes, expand >= 1, got {width=} {nodes=} {expand=}")
        if calibration not in CALIBRATIONS:
            raise ValueError(f"calibration must be one of {CALIBRATIONS}, got {calibration!r}")
        if up not in UPSAMPLINGS:
            raise ValueError(f"up must be one of {UPSAMPLINGS}, got {up!r}")
        self.nodes, self.extra, self.c4c5_skip = nodes, check_extra(extra), c4c5_skip
        foreign = sorted((current_model() or {}).keys() - values(nodes, self.extra).keys())
        if foreign:  # NNI ignores them, and a unit would silently lose its nodes
            raise ValueError(
                f"a space with {nodes=} has no decisions {', '.join(foreign)}; nodes must be that of the search"
            )
        operations = search_net_operations(expand) | {name: EXTRA_OPERATIONS[name] for name in self.extra}

        def unit(name: str, before: int, after: int, kernel: int = calibration) -> SearchUnit:
            return SearchUnit(name, before, after, nodes=nodes, operations=operations, calibration=kernel)

        channels = [width * 2**scale for scale in range(_POOLINGS + 1)]
        deepest = channels[-1]
        self.encoder = nn.ModuleList(
            unit(f"c{i}", before, after)
            for i, (before, after) in enumerate(zip([in_channels, *channels[:-1]], channels, strict=True), 1)
        )
        self.bottom = unit("c5", 2 * deepest, deepest) if c4c5_skip else unit("c5", deepest, deepest, 0)
        transposed = up == "transposed"
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * c, c, 2, stride=2)
            if transposed
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            for c in channels[-2::-1]
        )
        self.decoder = nn.ModuleList(
            unit(f"c{i}", 2 * c if transposed else 3 * c, c) for i, c in enumerate(channels[-2::-1], 6)
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        he_initialise(self)  # as the baselines, so that the U-Net of the space is theirs to the last bit
        tolerate_single_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``.

        Args:
            x: Normalised images of any size; they are padded and the logits cropped inside.
        """
        x, size = pad_to_multiple(x, self.size_divisor)
        mirrors: list[Tensor] = []
        for i, unit in enumerate(_units(self.encoder)):
            entering = unit.calibrate(F.max_pool2d(x, 2) if i else x)
            x = unit(entering)
            mirrors.append(x)
        mirrors.pop()  # the deepest map goes on directly
        x = self.bottom(self.bottom.calibrate(torch.cat([entering, x], 1) if self.c4c5_skip else x))
        for up, unit in zip(self.up, _units(self.decoder), strict=True):
            x = unit(unit.calibrate(torch.cat([mirrors.pop(), up(x)], 1)))
        return crop_to(self.head(x), size)

    def size(self) -> int:
        """Number of different networks in the space, exactly (choices also name operations on edges not kept)."""
        return space_size(self.nodes, self.extra)

    def extra_oneshot_hooks(self, strategy: Any) -> list[Any]:
        """What NNI is to do differently in a supernet: gradient strategies train all edges of a node.

        Args:
            strategy: NNI's one-shot strategy.
        """
        return [AllEdges.mutate] if isinstance(strategy, DARTS) else []

    @staticmethod
    def derive(choices: Choices, probabilities: dict[str, dict[Any, float]], kwargs: dict[str, Any]) -> Choices:
        """The derivation rule of gradient strategies: two edges per node, by their most probable operation.

        Args:
            choices: The most probable operation of every edge.
            probabilities: ``{label: {operation: probability}}`` of every edge.
            kwargs: Options of the space.

        Returns:
            Complete choices.

        Raises:
            ValueError: An edge has no probabilities, or these are not choices of the space.

        Example:
            >>> operations = dict.fromkeys(values(2), "mb3")
            >>> SearchNet.derive(operations, {}, {"nodes": 2}) == operations  # nothing to drop
            True
        """
        return searchnet_code.derive(choices, probabilities, *nodes_and_extra(kwargs))

    @staticmethod
    def is_operation(label: str) -> bool:
        """Whether a decision is an operation, not a pair of edges."""
        return not label.endswith("_in")

    @staticmethod
    def named(kwargs: dict[str, Any]) -> dict[str, Choices]:
        """Hand-made points of the space with these options, as choices.

        Args:
            kwargs: Options of the space; those left out have their defaults.

        Returns:
            ``{name: {label: value}}``: ``"unet"`` (``"unet-like"`` where the options do not allow the U-Net
            itself) and ``"all-conv3"``; see :func:`autoseg.spaces.searchnet_named.named_points`.

        Example:
            >>> list(SearchNet.named({})), list(SearchNet.unet().kwargs)
            (['unet-like', 'all-conv3'], ['width', 'nodes', 'calibration', 'up', 'c4c5_skip'])
        """
        defaults = {"nodes": 2, "calibration": 1, "up": "bilinear", "c4c5_skip": False}
        given = {**defaults, **kwargs}
        is_unet = all(given[option] == value for option, value in UNET_OPTIONS.items())
        return named_points(given["nodes"], is_unet)

    @staticmethod
    def unet(width: int = 16) -> Architecture:
        """The U-Net as a point of the space: the network of the baseline ``unet`` with three poolings.

        Args:
            width: Channels at full resolution.

        Example:
            >>> SearchNet.unet(8).code[:30]
            'C1[in>1 conv3] C2[in>1 conv3] '
        """
        from autoseg.search.architecture import Architecture  # a floor above this one

        kwargs = {"width": width, **UNET_OPTIONS}
        return Architecture("searchnet", kwargs, SearchNet.named(kwargs)["unet"])

    @staticmethod
    def code(choices: Choices, kwargs: dict[str, Any]) -> str:
        """The kept edges of every unit as ``C1[in>1 conv3; in>2 mb5; 1>2 identity] C2[...``; our notation.

        Raises:
            ValueError: These are not choices of the space.
        """
        return str(from_choices(choices, *nodes_and_extra(kwargs)))

    @staticmethod
    def cells(choices: Choices, kwargs: dict[str, Any]) -> list[CellDrawing]:
        """The U shape and the eight units as graphs for the report, in the order of data flow.

        Raises:
            ValueError: These are not choices of the space.

        Example:
            >>> point = SearchNet.unet()
            >>> [cell["title"] for cell in SearchNet.cells(point.choices, point.kwargs)][:2]
            ['Network', 'C1 (full size)']
        """
        return draw_cells(from_choices(choices, *nodes_and_extra(kwargs)), kwargs.get("c4c5_skip", False))


def _units(modules: nn.ModuleList) -> list[SearchUnit]:
    """The modules of a list by their type, which torch does not know."""
    return cast("list[SearchUnit]", list(modules))
