"""The operations from which searched cells are made.

All keep the height, the width and the number of channels, so that any of them fits on any edge of a
cell. Convolutions are bias-free and followed by batch normalisation; ``order`` says where the ReLU
stands: ``"relu-conv-bn"`` (ENAS, NASNet; the default) or ``"conv-bn-relu"``. Operations that are a
block of their own (pooling, MBConv, attention) have their own order and ignore it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

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


def _squeezed(channels: int) -> int:
    """Channels inside an attention block: a quarter, and not so few that a ReLU may close them all."""
    return max(8, channels // 4)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation: ``x + project(gate(depthwise(expand(x))))``.

    A 1x1 convolution widens to ``expand * C`` channels (left out when ``expand`` is 1), a depthwise one
    looks around, the squeeze-and-excitation gate weighs the channels, and a 1x1 convolution without ReLU
    returns to C.

    Args:
        channels: C, of input and output.
        kernel: Side of the depthwise kernel, odd; height and width stay.
        expand: How many times wider the block is inside.

    Source: Tan et al., "MnasNet", CVPR 2019, figure 7, with a squeeze of C / 4 channels (at least 8) as there.
    SEARCH-Net says no more of its MBConv than that it is a separable convolution with such a gate.

    Example:
        >>> sum(p.numel() for n, p in MBConv(8, 3, expand=1).named_parameters() if p.dim() == 4)  # 72 + 2 * 64 + 64
        264
    """

    def __init__(self, channels: int, kernel: int, expand: int = 4) -> None:
        super().__init__()
        inside = channels * expand
        widen = [Conv2dNormActivation(channels, inside, 1)] if expand > 1 else []
        self.layers = nn.Sequential(
            *widen,
            Conv2dNormActivation(inside, inside, kernel, groups=inside),
            SqueezeExcitation(inside, _squeezed(channels)),
            Conv2dNormActivation(inside, channels, 1, activation_layer=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        return x + self.layers(x)


def squeeze_excitation(channels: int) -> nn.Module:
    """Channel attention: each channel is scaled by 0..1, as the mean of all channels tells.

    Args:
        channels: C; the squeeze has C / 4, but at least 8.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, figure 1.

    Example:
        >>> sum(p.numel() for p in squeeze_excitation(8).parameters())  # 64 + 8 and 64 + 8
        144
    """
    return SqueezeExcitation(channels, _squeezed(channels))


def global_context(channels: int) -> nn.Module:
    """Context of the whole image: one attention-pooled feature vector, transformed and added to every pixel.

    Args:
        channels: C; the transform has C / 4 channels inside, but at least 8.

    Source: Cao et al., "GCNet", ICCV 2019 workshops, figure 4d.

    Example:
        >>> sum(p.numel() for p in global_context(16).parameters())  # 16 + 1, 128 + 8, 8 + 8, 128 + 16
        313
    """
    from timm.layers import GlobalContext  # half a second that few searches need

    context: nn.Module = GlobalContext(channels, fuse_add=True, fuse_scale=False, rd_channels=_squeezed(channels))
    return context


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

EXTRA_OPERATIONS: dict[str, Operation] = {
    "se": lambda c, order: squeeze_excitation(c),
    "context": lambda c, order: global_context(c),
}
"""What the option ``extra`` of the cell spaces adds to every choice of an operation (:mod:`autoseg.spaces.extras`)."""


def search_net_operations(expand: int = 4) -> dict[str, Operation]:
    """The seven operations of SEARCH-Net in the paper's order, by name.

    Args:
        expand: Widening inside the two MBConv blocks.

    Example:
        >>> list(search_net_operations())
        ['conv3', 'conv5', 'dil3', 'dil5', 'mb3', 'mb5', 'identity']
    """
    return {
        "conv3": lambda c, order: conv(c, 3, order=order),
        "conv5": lambda c, order: conv(c, 5, order=order),
        "dil3": lambda c, order: conv(c, 3, dilation=2, order=order),
        "dil5": lambda c, order: conv(c, 5, dilation=2, order=order),
        "mb3": lambda c, order: MBConv(c, 3, expand),
        "mb5": lambda c, order: MBConv(c, 5, expand),
        "identity": lambda c, order: nn.Identity(),
    }
