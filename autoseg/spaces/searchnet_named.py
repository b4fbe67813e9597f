"""The hand-made points of the SEARCH-Net space: the U-Net and its nearest relatives."""

from __future__ import annotations

from typing import Any

from autoseg.spaces.searchnet_code import UNITS, Genotype, to_choices

UNET_OPTIONS: dict[str, Any] = {"nodes": 1, "calibration": 3, "up": "transposed", "c4c5_skip": False}
"""Options with which the U-Net is a point of the space; the width is free."""


def named_points(nodes: int, is_unet: bool) -> dict[str, dict[str, str]]:
    """Choices by name.

    Args:
        nodes: B, nodes per unit.
        is_unet: Whether the other options are those of :data:`UNET_OPTIONS`.

    Returns:
        ``"unet"``, or ``"unet-like"`` where the options do not allow the U-Net itself: 3x3 convolutions from node
        to node and identity beside them; in C5, which U-Net has not, identity alone. ``"all-conv3"``: a 3x3
        convolution on every edge that is kept.

    Example:
        >>> points = named_points(1, is_unet=True)
        >>> points["unet"]["c4_0_1"], points["unet"]["c5_0_1"], points["all-conv3"]["c5_0_1"]
        ('conv3', 'identity', 'conv3')
    """
    unet = tuple(
        _unit(nodes, "identity", "identity") if unit == "c5" else _unit(nodes, "conv3", "identity") for unit in UNITS
    )
    return {
        "unet" if is_unet else "unet-like": to_choices(Genotype(unet)),
        "all-conv3": to_choices(Genotype((_unit(nodes, "conv3", "conv3"),) * len(UNITS))),
    }


def _unit(nodes: int, chain: str, beside: str) -> tuple[tuple[int, int, str], ...]:
    """A unit whose nodes read the node before them and the input."""
    return tuple(
        (node, source, chain if source == node - 1 else beside)
        for node in range(1, nodes + 1)
        for source in sorted({0, node - 1})
    )
