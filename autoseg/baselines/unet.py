"""U-Net: an encoder and a decoder of equal depth joined by copies of the feature maps.

Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
MICCAI 2015, figure 1, with padded convolutions so that the output is as large as the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.baselines.layers import conv_layers, encode, he_initialise, size_problems
from autoseg.errors import raise_if
from autoseg.nn.padding import crop_to, pad_to_multiple


class UNet(nn.Module):
    """U-Net with two 3x3 convolutions per level, 2x2 max pooling and 2x2 transposed convolutions.

    Level ``i`` (0 is full resolution) has ``width * 2**i`` channels. The decoder halves the channels
    while it doubles the size, appends the encoder's map of that level and convolves twice; a 1x1
    convolution gives the logits. Images of any size are padded and the logits cropped inside.

    With ``width=64``, 3 channels and 2 classes it has 31,031,810 parameters. ``batch_norm=False`` is the network
    as published in 2015. Normalisation makes training from scratch on small sets much faster and safer, so it is
    the default; its shift takes the place of the bias and it has no scale (the next convolution can do what a scale
    would), so the number of parameters stays. For trainings of minutes a ``width`` of 8 to 16 is better than
    64: the network then sees many more batches in the same time.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels at full resolution.
        depth: Number of poolings; sides are padded to multiples of ``2**depth``.
        batch_norm: Normalise after each 3x3 convolution.

    Attributes:
        size_divisor: ``2**depth``, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1.

    Example:
        >>> net = UNet(1, 3, width=4, depth=2)
        >>> tuple(net(torch.rand(2, 1, 13, 10)).shape)
        (2, 3, 13, 10)
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, width: int = 64, depth: int = 4, batch_norm: bool = True
    ) -> None:
        super().__init__()
        raise_if(size_problems("unet", in_channels=in_channels, num_classes=num_classes, width=width, depth=depth))
        self.size_divisor = 2**depth
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            conv_layers([before, after, after], batch_norm, scale=False)
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        upwards = channels[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in upwards)
        self.decoder = nn.ModuleList(conv_layers([2 * c, c, c], batch_norm, scale=False) for c in upwards)
        self.head = nn.Conv2d(width, num_classes, 1)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        x, skips = encode(self.encoder, x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        return crop_to(self.head(x), size)
