"""DS-U-Net: a U-Net of depthwise separable convolutions with a sixth of the parameters.

Liu, Yao, Zhang and Zeng, "Detection and particle size statistics of the TEM nanomaterial images based on deep
learning", Electronic Measurement Technology, 2021, doi:10.19651/j.cnki.emt.2106310, which gives 5,982,210
parameters for one grey channel and two classes. Its text leaves details open; the layout here is the one that
this number singles out. A separable convolution is a depthwise 3x3 and a pointwise 1x1 without anything in
between, as in Chollet, "Xception", CVPR 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.baselines.layers import conv_layers, encode, he_initialise, linear_initialise, size_problems
from autoseg.errors import Problem, raise_if
from autoseg.nn.batchnorm import BatchNorm2d
from autoseg.nn.ops import pointwise
from autoseg.nn.padding import crop_to, pad_to_multiple

DEPTH = 4
"""Number of poolings."""


def separable_layers(before: int, after: int) -> nn.Sequential:
    """Depthwise 3x3 convolution, pointwise 1x1 convolution, batch normalisation, ReLU; no bias.

    Args:
        before: Channels before.
        after: Channels after; ``9 * before + before * after`` weights.

    Returns:
        Layers that keep height and width.

    Example:
        >>> sum(p.numel() for p in separable_layers(64, 128).parameters() if p.dim() == 4)
        8768
    """
    return nn.Sequential(
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
        BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class DSUNet(nn.Module):
    """U-Net whose 3x3 convolutions are depthwise separable, except at the input.

    Level ``i`` (0 is full resolution, 4 the deepest) has ``width * 2**i`` channels. The encoder has two
    convolutions per level and 2x2 max pooling. The decoder doubles the size with a 2x2 transposed convolution,
    appends the encoder's map of that level, fuses both with a 1x1 convolution and has one separable convolution.
    Every convolution but the transposed ones is normalised and has no bias; a 1x1 convolution gives the logits.
    Images of any size are padded and the logits cropped inside.

    With 1 channel and 2 classes there are 5,970,434 parameters and 11,776 running statistics: 5,982,210
    numbers in all, which is how Keras counts and what the paper gives.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels at full resolution.
        stem_plain: How many of the two convolutions at full resolution of the encoder are ordinary ones. With
            1 the count is the paper's; 2 is what the paper's text says and has 32,192 parameters more.

    Attributes:
        size_divisor: 16, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1, or ``stem_plain`` is neither 1 nor 2.

    Example:
        >>> net = DSUNet(1, 2, width=4)
        >>> tuple(net(torch.rand(2, 1, 13, 10)).shape)
        (2, 2, 13, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64, stem_plain: int = 1) -> None:
        super().__init__()
        problems = size_problems("ds-unet", in_channels=in_channels, num_classes=num_classes, width=width)
        if stem_plain not in (1, 2):
            problems.append(
                Problem(f"must be 1 or 2, is {stem_plain!r}", "ds-unet, stem_plain", "leave it out for the default 1")
            )
        raise_if(problems)
        self.size_divisor = 2**DEPTH
        channels = [width * 2**level for level in range(DEPTH + 1)]
        second = conv_layers([width, width], batch_norm=True) if stem_plain == 2 else separable_layers(width, width)
        stem = nn.Sequential(conv_layers([in_channels, width], batch_norm=True), second)
        self.encoder = nn.ModuleList([stem])
        for c in channels[1:]:
            self.encoder.append(nn.Sequential(separable_layers(c // 2, c), separable_layers(c, c)))
        upwards = channels[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2, bias=False) for c in upwards)
        self.fuse = nn.ModuleList(pointwise(2 * c, c) for c in upwards)
        self.decoder = nn.ModuleList(separable_layers(c, c) for c in upwards)
        self.head = nn.Conv2d(width, num_classes, 1)
        he_initialise(self)
        linear_initialise(m for m in self.modules() if isinstance(m, nn.Conv2d) and m.groups > 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        x, skips = encode(self.encoder, x)
        for up, fuse, block in zip(self.up, self.fuse, self.decoder, strict=True):
            x = block(fuse(torch.cat([skips.pop(), up(x)], dim=1)))
        return crop_to(self.head(x), size)
