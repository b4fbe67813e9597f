"""ERFNet: a fast encoder-decoder of residual blocks whose 3x3 convolutions are split into 3x1 and 1x3.

Romera, Alvarez, Bergasa and Arroyo, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
Segmentation", IEEE T-ITS 19(1), 2018, figure 2c, table I and section III.
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

CONTEXT = (2, 4, 8, 16, 2, 4, 8, 16)
"""Dilations of the blocks at an eighth of the resolution (layers 9 to 16 of table I)."""


class NonBottleneck1D(nn.Module):
    """Residual block of two pairs of a 3x1 and a 1x3 convolution; only the second pair is dilated.

    A ReLU follows each convolution, batch normalisation each pair; after the second pair the input is added
    before the ReLU.

    Args:
        channels: Channels of input and output.
        dilation: Distance between the pixels that the second pair sees.
        dropout: Probability that a map is set to zero in training, before the input is added.

    Example:
        >>> import torch
        >>> tuple(NonBottleneck1D(4, dilation=2, dropout=0.3)(torch.rand(1, 4, 5, 6)).shape)
        (1, 4, 5, 6)
    """

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for d in (1, dilation):
            layers += [
                nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d), bias=False),
                BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers[:-1], nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        return F.relu(x + self.layers(x))


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 transposed convolution that doubles the size, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False),
        BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class ERFNet(nn.Module):
    """ERFNet: three halvings with 5 and 8 factorised residual blocks between, a decoder of 2 and 2.

    With ``width=16`` the maps have 16, 64 and 128 channels at a half, a quarter and an eighth of the
    resolution. Nothing is handed from encoder to decoder but the deepest map; a 2x2 transposed convolution
    gives the logits. Convolutions that are normalised have no bias. Images of any size are padded and the
    logits cropped inside.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels of the first block; scales all stages.
        dropout: Spatial dropout in the blocks at an eighth of the resolution; a tenth of it in those at a
            quarter, none in the decoder.

    Attributes:
        size_divisor: 8, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1, or ``dropout`` is not at least 0 and below 1.

    Example:
        >>> import torch
        >>> net = ERFNet(3, 2, width=2).eval()
        >>> tuple(net(torch.rand(2, 3, 13, 10)).shape)
        (2, 2, 13, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 16, dropout: float = 0.3) -> None:
        super().__init__()
        problems = size_problems("erfnet", in_channels=in_channels, num_classes=num_classes, width=width)
        raise_if([*problems, *fraction_problems("erfnet", dropout=dropout)])
        self.size_divisor = 8
        half, quarter, eighth = width, 4 * width, 8 * width
        self.encoder = nn.Sequential(
            DownsamplingBlock(in_channels, half, nn.ReLU(inplace=True)),
            DownsamplingBlock(half, quarter, nn.ReLU(inplace=True)),
            *(NonBottleneck1D(quarter, 1, dropout / 10) for _ in range(5)),
            DownsamplingBlock(quarter, eighth, nn.ReLU(inplace=True)),
            *(NonBottleneck1D(eighth, dilation, dropout) for dilation in CONTEXT),
        )
        self.decoder = nn.Sequential(
            _double(eighth, quarter),
            *(NonBottleneck1D(quarter, 1, 0.0) for _ in range(2)),
            _double(quarter, half),
            *(NonBottleneck1D(half, 1, 0.0) for _ in range(2)),
        )
        self.head = nn.ConvTranspose2d(half, num_classes, 2, stride=2)
        he_initialise(self)
        blocks = [m for m in self.modules() if isinstance(m, NonBottleneck1D)]
        linear_initialise((block.layers[-3] for block in blocks), branches=len(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        return crop_to(self.head(self.decoder(self.encoder(x))), size)
