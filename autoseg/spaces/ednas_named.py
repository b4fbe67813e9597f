"""The published ED-NAS cells as ready networks, to train and compare without a search."""

from __future__ import annotations

from torch import nn

from autoseg.spaces.ednas_code import ED_NAS_N3, ED_NAS_N4, Genotype, to_choices


def _network(genotype: Genotype, in_channels: int, num_classes: int, layers: int, width: int) -> nn.Module:
    from autoseg.search.architecture import Architecture  # a floor above this one

    kwargs = {"blocks": genotype.blocks, "layers": layers, "width": width}
    return Architecture("ednas", kwargs, to_choices(genotype)).build(in_channels, num_classes)


def ed_nas_n3(in_channels: int, num_classes: int, *, layers: int = 4, width: int = 32) -> nn.Module:
    """ED-NAS, Figure 7a: the paper's best cells with N = 3 (operations as printed, wiring assumed).

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        layers: L, encoder cells and as many decoder cells.
        width: Channels at full resolution, doubled at every level up to 512.

    Returns:
        A network from ``(N, in_channels, H, W)`` to ``(N, num_classes, H, W)``; images of any size.

    Example:
        >>> ed_nas_n3(1, 3, width=4).size_divisor
        16
    """
    return _network(ED_NAS_N3, in_channels, num_classes, layers, width)


def ed_nas_n4(in_channels: int, num_classes: int, *, layers: int = 5, width: int = 32) -> nn.Module:
    """ED-NAS, Figure 7b: the paper's best cells with N = 4, L = 5 (operations as printed, wiring assumed).

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        layers: L, encoder cells and as many decoder cells.
        width: Channels at full resolution, doubled at every level up to 512.

    Returns:
        A network from ``(N, in_channels, H, W)`` to ``(N, num_classes, H, W)``; images of any size.

    Example:
        >>> ed_nas_n4(1, 3, width=4).size_divisor
        32
    """
    return _network(ED_NAS_N4, in_channels, num_classes, layers, width)
