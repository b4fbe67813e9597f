"""Padding a batch to the side lengths a network needs, and cropping the answer back.

A network that halves the resolution ``n`` times needs sides that are multiples of ``2 ** n``
(its ``size_divisor``). Rows are added at the bottom and columns at the right only, so that pixel
``(y, x)`` of the input is pixel ``(y, x)`` of the padded map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(x: Tensor, divisor: int) -> tuple[Tensor, tuple[int, int]]:
    """Grow the height and the width to the next multiple of ``divisor``.

    The image is mirrored at its edge (the edge row itself is not repeated). Where fewer pixels are
    there than a mirror needs, the edge row or column is repeated instead; height and width decide
    this separately.

    Args:
        x: ``(N, C, H, W)``, floating point, H and W at least 1.
        divisor: A positive number of pixels.

    Returns:
        The padded batch (``x`` itself when nothing is missing) and the size ``(H, W)`` to give to
        :func:`crop_to`.

    Example:
        >>> import torch
        >>> padded, size = pad_to_multiple(torch.arange(6.0).view(1, 1, 2, 3), 2)
        >>> padded[0, 0].tolist(), size
        ([[0.0, 1.0, 2.0, 1.0], [3.0, 4.0, 5.0, 4.0]], (2, 3))
    """
    height, width = x.shape[-2:]
    x = _pad_side(x, -1, divisor)
    return _pad_side(x, -2, divisor), (height, width)


def _pad_side(x: Tensor, dim: int, divisor: int) -> Tensor:
    """Grow one side: dimension -1 on the right, -2 at the bottom."""
    length = x.shape[dim]
    if isinstance(length, torch.SymInt):  # a graph for images of any size is being recorded: no branches in it
        return x.index_select(dim, _source_pixels(length, divisor, x.device))
    missing = -length % divisor
    if not missing:
        return x
    mode = "reflect" if missing < length else "replicate"
    return F.pad(x, (0, missing, 0, 0) if dim == -1 else (0, 0, 0, missing), mode)


def _source_pixels(length: int, divisor: int, device: torch.device) -> Tensor:
    """Which pixel of a side each pixel of the padded side is a copy of; ``length`` may be symbolic."""
    padded = (length + divisor - 1) // divisor * divisor
    last = torch.full((), length - 1, device=device)
    position = torch.arange(padded, device=device)
    mirrored = last - (position - last).abs()
    # The first pixel that is missing in a mirror would be number -1: then the edge is repeated.
    return torch.where(mirrored.min() < 0, torch.minimum(position, last), mirrored)


def crop_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the top left ``size`` out of ``x``: undoes :func:`pad_to_multiple`.

    Args:
        x: ``(N, C, H, W)``.
        size: ``(height, width)``, not larger than ``(H, W)``.

    Returns:
        ``(N, C, height, width)``, a view of ``x`` (``x`` itself when the sizes agree).

    Example:
        >>> import torch
        >>> x = torch.rand(1, 3, 5, 7)
        >>> padded, size = pad_to_multiple(x, 8)
        >>> tuple(padded.shape), torch.equal(crop_to(padded, size), x)
        ((1, 3, 8, 8), True)
    """
    height, width = size
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return x[..., :height, :width]
