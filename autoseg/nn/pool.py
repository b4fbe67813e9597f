"""Pooling that remembers where the maxima were, and unpooling that puts them back (SegNet).

ED-NAS and SegNet hand the positions of the maxima from encoder to decoder instead of whole feature
maps, which costs no weights and keeps boundaries sharp.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pool_with_indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 max pooling, stride 2.

    Args:
        x: ``(N, C, H, W)``, H and W even.

    Returns:
        The pooled map ``(N, C, H/2, W/2)`` and the int64 positions ``row * W + column`` of the maxima in
        each ``H x W`` plane, of the same shape.

    Example:
        >>> import torch
        >>> y, where = pool_with_indices(torch.tensor([[[[1.0, 5.0], [3.0, 4.0]]]]))
        >>> y.item(), where.item()
        (5.0, 1)
    """
    # The kernel that returns indices has no channels_last form on every backend.
    return F.max_pool2d(x.contiguous(), 2, 2, return_indices=True)


def unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Put each value of ``x`` at the position its index names; zeros elsewhere.

    Args:
        x: ``(N, C, H/2, W/2)``.
        indices: From :func:`pool_with_indices` on a map of the same number of channels.
        size: ``(H, W)`` of the result.

    Returns:
        ``(N, C, H, W)`` in which one position in four may differ from zero.

    Example:
        >>> import torch
        >>> x = torch.rand(1, 2, 4, 4) + 1
        >>> y, where = pool_with_indices(x)
        >>> int((unpool(y, where, (4, 4)) > 0).sum())
        8
    """
    n, c, _, _ = x.shape
    height, width = size
    flat = x.new_zeros(n, c, height * width)
    # scatter instead of max_unpool2d: the same result, deterministic on CUDA (no index occurs twice),
    # and it exports to ONNX.
    flat = flat.scatter(2, indices.flatten(2), x.flatten(2))
    return flat.view(n, c, height, width)


def upsample_like(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour upsampling to ``size``, for inputs that have no pooling indices.

    Args:
        x: ``(N, C, H, W)``.
        size: Height and width of the result, usually twice those of ``x``.

    Returns:
        ``(N, C, *size)``.

    Example:
        >>> import torch
        >>> upsample_like(torch.tensor([[[[1.0, 2.0]]]]), (2, 4)).tolist()
        [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    return F.interpolate(x, size=size, mode="nearest")
