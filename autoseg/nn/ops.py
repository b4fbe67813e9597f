"""The operations from which searched cells are made.

All keep the height, the width and the number of channels, so that any of them fits on any edge of a
cell. Convolutions are bias-free and followed by batch normalisation; ``order`` says where the ReLU
stands: ``"relu-conv-bn"`` (ENAS, NASNet; the default) or ``"conv-bn-relu"``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

ORDERS = ("relu-conv-bn", "conv-bn-relu")


def _ordered(convs: list[nn.Module], channels: int, order: str) -> nn.Sequential:
    """Put ReLU and batch normalisation around ``convs`` in the given order."""
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    norm = nn.BatchNorm2d(channels)
    if order == "relu-conv-bn":
        # Not in place: the input of an operation is also the input of others.
        return nn.Sequential(nn.ReLU(), *convs, norm)
    return nn.Sequential(*convs, norm, nn.ReLU(inplace=True))


def separable(channels: int, kernel: int, order: str = "relu-conv-bn") -> nn.Module:
    """Depthwise separable convolution: ``kernel * kernel * C + C * C`` weights.

    Args:
        channels: C, of input and output.
        kernel: Side of the depthwise kernel, odd; height and width stay.
        order: ``"relu-conv-bn"`` or ``"conv-bn-relu"``.

    Raises:
        ValueError: ``order`` is unknown.

    Example:
        >>> sum(p.numel() for n, p in separable(16, 3).named_parameters() if p.dim() == 4)
        400
    """
    depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
    return _ordered([depthwise, nn.Conv2d(channels, channels, 1, bias=False)], channels, order)


def conv(channels: int, kernel: int, dilation: int = 1, order: str = "relu-conv-bn") -> nn.Module:
    """Ordinary or dilated convolution: ``kernel * kernel * C * C`` weights.

    Args:
        channels: C, of input and output.
        kernel: Side of the kernel, odd; height and width stay.
        dilation: Distance between the pixels that the kernel sees.
        order: ``"relu-conv-bn"`` or ``"conv-bn-relu"``.

    Raises:
        ValueError: ``order`` is unknown.

    Example:
        >>> sum(p.numel() for n, p in conv(16, 3).named_parameters() if p.dim() == 4)
        2304
    """
    padding = dilation * (kernel // 2)
    return _ordered(
        [nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, bias=False)], channels, order
    )


def max_pool(channels: int, kernel: int = 3, order: str = "relu-conv-bn") -> nn.Module:
    """Max pooling with stride 1: no weights, no normalisation, whatever the ``order``; the shape stays.

    Example:
        >>> import torch
        >>> max_pool(1)(torch.tensor([[[[1.0, 5.0, 2.0, 0.0]]]])).tolist()
        [[[[5.0, 5.0, 5.0, 2.0]]]]
    """
    del channels, order
    return nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch normalisation, ReLU: the calibration that makes channel counts agree.

    Args:
        in_channels: Channels before.
        out_channels: Channels after; ``in_channels * out_channels`` weights and no bias.

    Example:
        >>> sum(p.numel() for p in pointwise(6, 4).parameters())  # 24 weights, 4 scales, 4 shifts
        32
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


Operation = Callable[[int, str], nn.Module]
"""Builds an operation for ``(channels, order)``: ``(N, C, H, W)`` to ``(N, C, H, W)``."""

ED_NAS_OPERATIONS: dict[str, Operation] = {
    "dw3": lambda c, order: separable(c, 3, order),
    "dw5": lambda c, order: separable(c, 5, order),
    "conv3": lambda c, order: conv(c, 3, order=order),
    "dil3": lambda c, order: conv(c, 3, dilation=2, order=order),
    "pool3": lambda c, order: max_pool(c, 3, order),
}
"""The five operations of ED-NAS, Table 1; the position is the paper's code 0..4."""
