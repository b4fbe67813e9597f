"""Attention U-Net: a U-Net whose decoder weighs every pixel of the copied feature maps.

Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018, figures 1 and 2 and
equations 1 and 2, in the two-dimensional layout that is common today: the gate reads the map of the decoder
after it has been brought to the size of the copied map, not before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.baselines.layers import conv_layers, encode, he_initialise, size_problems
from autoseg.errors import raise_if
from autoseg.nn.batchnorm import BatchNorm2d
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.nn.pool import upsample_like


class AttentionGate(nn.Module):
    """Scales each pixel of ``x`` by 0..1, as ``g`` and ``x`` together tell.

    ``x * sigmoid(psi(relu(W_g g + W_x x)))``: W_g and W_x are 1x1 convolutions to half the channels, psi is
    one to a single map. All three have a bias and are normalised, as in the layout with 34,878,573 parameters.

    Args:
        channels: Channels of ``g`` and of ``x``.

    Example:
        >>> gate = AttentionGate(8)
        >>> x = torch.ones(1, 8, 2, 2)
        >>> kept = gate(torch.rand(1, 8, 2, 2), x)
        >>> tuple(kept.shape), bool((kept < x).all())
        ((1, 8, 2, 2), True)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // 2)
        self.gating = nn.Sequential(nn.Conv2d(channels, inside, 1), BatchNorm2d(inside))
        self.feature = nn.Sequential(nn.Conv2d(channels, inside, 1), BatchNorm2d(inside))
        self.psi = nn.Sequential(nn.Conv2d(inside, 1, 1), BatchNorm2d(1), nn.Sigmoid())

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """``x`` weighed, ``(N, C, H, W)``; ``g`` is the gating map of the same shape."""
        weight: Tensor = self.psi(F.relu(self.gating(g) + self.feature(x)))
        return x * weight


class AttentionUNet(nn.Module):
    """U-Net with an attention gate on every skip connection.

    Level ``i`` (0 is full resolution) has ``width * 2**i`` channels and two 3x3 convolutions with batch
    normalisation and ReLU. The decoder doubles the size by copying pixels, halves the channels with one such
    convolution, lets the result gate the encoder's map of that level, appends the two and convolves twice; a
    1x1 convolution gives the logits. Images of any size are padded and the logits cropped inside.

    With 3 channels and 1 class there are 34,878,573 parameters, and 34,894,197 numbers with the running
    statistics of the normalisation. The "U-Net" of 34,894,178 in the paper of :mod:`autoseg.baselines.ds_unet`,
    to which no plain U-Net comes near, may have been this network.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels at full resolution.
        depth: Number of poolings; sides are padded to multiples of ``2**depth``.

    Attributes:
        size_divisor: ``2**depth``, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1.

    Example:
        >>> net = AttentionUNet(1, 3, width=4, depth=2)
        >>> tuple(net(torch.rand(2, 1, 13, 10)).shape)
        (2, 3, 13, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        raise_if(
            size_problems("attention-unet", in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        )
        self.size_divisor = 2**depth
        channels = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            conv_layers([before, after, after], batch_norm=True, bias=True)
            for before, after in zip([in_channels, *channels[:-1]], channels, strict=True)
        )
        upwards = channels[-2::-1]
        self.up = nn.ModuleList(conv_layers([2 * c, c], batch_norm=True, bias=True) for c in upwards)
        self.gates = nn.ModuleList(AttentionGate(c) for c in upwards)
        self.decoder = nn.ModuleList(conv_layers([2 * c, c, c], batch_norm=True, bias=True) for c in upwards)
        self.head = nn.Conv2d(width, num_classes, 1)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        x, skips = encode(self.encoder, x)
        for up, gate, block in zip(self.up, self.gates, self.decoder, strict=True):
            skip = skips.pop()
            height, width = skip.shape[-2:]
            x = up(upsample_like(x, (height, width)))
            x = block(torch.cat([gate(x, skip), x], dim=1))
        return crop_to(self.head(x), size)
