"""ENet: a small and fast encoder-decoder of bottlenecks that works at an eighth of the resolution.

Paszke, Chaurasia, Kim and Culurciello, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", arXiv:1606.02147, 2016, figure 2, table 1 and sections 3 and 4.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.baselines.layers import (
    DownsamplingBlock,
    fraction_problems,
    he_initialise,
    linear_initialise,
    size_problems,
)
from autoseg.errors import raise_if
from autoseg.nn.batchnorm import BatchNorm2d
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.nn.pool import pool_with_indices, unpool

CONTEXT: tuple[int | None, ...] = (1, 2, None, 4, 1, 8, None, 16)
"""Dilations of bottlenecks 2.1 to 2.8, and of section 3 again; None is a pair of 5x1 and 1x5 convolutions."""


def _inside(channels: int) -> int:
    """Channels inside a bottleneck: a quarter of those it gives out."""
    return max(1, channels // 4)


def _extension(
    narrow: nn.Module, middle: list[nn.Module], inside: int, out_channels: int, dropout: float
) -> nn.Sequential:
    """The branch of convolutions: narrow, look around, widen, each normalised; PReLU between, dropout last."""
    return nn.Sequential(
        narrow,
        BatchNorm2d(inside),
        nn.PReLU(inside),
        *middle,
        BatchNorm2d(inside),
        nn.PReLU(inside),
        nn.Conv2d(inside, out_channels, 1, bias=False),
        BatchNorm2d(out_channels),
        nn.Dropout2d(dropout),
    )


class Bottleneck(nn.Module):
    """Residual block: ``prelu(x + extension(x))``, with a regular, dilated or asymmetric convolution inside.

    Args:
        channels: Channels of input and output.
        dilation: Of the 3x3 convolution; None for a 5x1 followed by a 1x5 convolution instead.
        dropout: Probability that a map of the extension is set to zero in training.

    Example:
        >>> import torch
        >>> tuple(Bottleneck(8, dilation=None, dropout=0.1)(torch.rand(1, 8, 5, 6)).shape)
        (1, 8, 5, 6)
    """

    def __init__(self, channels: int, dilation: int | None, dropout: float) -> None:
        super().__init__()
        inside = _inside(channels)
        if dilation is None:
            middle: list[nn.Module] = [
                nn.Conv2d(inside, inside, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(inside, inside, (1, 5), padding=(0, 2), bias=False),
            ]
        else:
            middle = [nn.Conv2d(inside, inside, 3, padding=dilation, dilation=dilation, bias=False)]
        narrow = nn.Conv2d(channels, inside, 1, bias=False)
        self.extension = _extension(narrow, middle, inside, channels, dropout)
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        y: Tensor = self.activation(x + self.extension(x))
        return y


class DownBottleneck(nn.Module):
    """Bottleneck that halves the size: max pooling in the main branch, a strided 2x2 convolution in the other.

    Args:
        in_channels: Channels before.
        out_channels: Channels after, not fewer; the main branch is filled up with zeros.
        dropout: Probability that a map of the extension is set to zero in training.

    Example:
        >>> import torch
        >>> y, where = DownBottleneck(4, 16, 0.0)(torch.rand(1, 4, 8, 6))
        >>> tuple(y.shape), tuple(where.shape)
        ((1, 16, 4, 3), (1, 4, 4, 3))
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inside = _inside(out_channels)
        self.missing = out_channels - in_channels
        narrow = nn.Conv2d(in_channels, inside, 2, stride=2, bias=False)
        middle: list[nn.Module] = [nn.Conv2d(inside, inside, 3, padding=1, bias=False)]
        self.extension = _extension(narrow, middle, inside, out_channels, dropout)
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, out_channels, H/2, W/2)`` and the positions of the maxima, ``(N, in_channels, H/2, W/2)``."""
        pooled, indices = pool_with_indices(x)
        pooled = F.pad(pooled, (0, 0, 0, 0, 0, self.missing))
        return self.activation(pooled + self.extension(x)), indices


class UpBottleneck(nn.Module):
    """Bottleneck that doubles the size: max unpooling in the main branch, a transposed convolution in the other.

    Args:
        in_channels: Channels before.
        out_channels: Channels after.
        dropout: Probability that a map of the extension is set to zero in training.

    Example:
        >>> import torch
        >>> _, where = pool_with_indices(torch.rand(1, 4, 8, 6))
        >>> tuple(UpBottleneck(16, 4, 0.0)(torch.rand(1, 16, 4, 3), where).shape)
        (1, 4, 8, 6)
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        inside = _inside(out_channels)
        self.main = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), BatchNorm2d(out_channels))
        narrow = nn.Conv2d(in_channels, inside, 1, bias=False)
        middle: list[nn.Module] = [
            nn.ConvTranspose2d(inside, inside, 3, stride=2, padding=1, output_padding=1, bias=False)
        ]
        self.extension = _extension(narrow, middle, inside, out_channels, dropout)
        self.activation = nn.PReLU(out_channels)

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        """``(N, in_channels, H, W)`` and positions ``(N, out_channels, H, W)`` to ``(N, out_channels, 2H, 2W)``."""
        height, width = x.shape[-2:]
        main = unpool(self.main(x), indices, (2 * height, 2 * width))
        y: Tensor = self.activation(main + self.extension(x))
        return y


class ENet(nn.Module):
    """ENet: initial block, three encoder stages of 5, 9 and 8 bottlenecks, a decoder of 5.

    With ``width=16`` the maps have 16, 64 and 128 channels at a half, a quarter and an eighth of the
    resolution. The decoder puts values back at the places of the maxima of the encoder's two poolings; a 2x2
    transposed convolution gives the logits. PReLU has one slope per channel. Convolutions that are normalised
    have no bias. Images of any size are padded and the logits cropped inside.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels of the initial block; scales all stages.
        dropout: Spatial dropout at the end of each bottleneck; a tenth of it in the first stage.

    Attributes:
        size_divisor: 8, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1, or ``dropout`` is not at least 0 and below 1.

    Example:
        >>> import torch
        >>> net = ENet(3, 2, width=4).eval()
        >>> tuple(net(torch.rand(2, 3, 13, 10)).shape)
        (2, 2, 13, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        problems = size_problems("enet", in_channels=in_channels, num_classes=num_classes, width=width)
        raise_if([*problems, *fraction_problems("enet", dropout=dropout)])
        self.size_divisor = 8
        half, quarter, eighth = width, 4 * width, 8 * width
        self.initial = DownsamplingBlock(in_channels, half, nn.PReLU(half))
        self.down1 = DownBottleneck(half, quarter, dropout / 10)
        self.stage1 = nn.Sequential(*(Bottleneck(quarter, 1, dropout / 10) for _ in range(4)))
        self.down2 = DownBottleneck(quarter, eighth, dropout)
        self.stage2 = nn.Sequential(*(Bottleneck(eighth, dilation, dropout) for dilation in CONTEXT))
        self.stage3 = nn.Sequential(*(Bottleneck(eighth, dilation, dropout) for dilation in CONTEXT))
        self.up4 = UpBottleneck(eighth, quarter, dropout)
        self.stage4 = nn.Sequential(*(Bottleneck(quarter, 1, dropout) for _ in range(2)))
        self.up5 = UpBottleneck(quarter, half, dropout)
        self.stage5 = Bottleneck(half, 1, dropout)
        self.head = nn.ConvTranspose2d(half, num_classes, 2, stride=2)
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation, but not for the convolutions that no PReLU follows."""
        he_initialise(self)
        blocks = [m for m in self.modules() if isinstance(m, Bottleneck | DownBottleneck | UpBottleneck)]
        linear_initialise((block.extension[-3] for block in blocks), branches=len(blocks))
        linear_initialise(block.main[0] for block in blocks if isinstance(block, UpBottleneck))
        linear_initialise(m for m in self.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (5, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        x, maxima1 = self.down1(self.initial(x))
        x, maxima2 = self.down2(self.stage1(x))
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, maxima2))
        x = self.stage5(self.up5(x, maxima1))
        return crop_to(self.head(x), size)
