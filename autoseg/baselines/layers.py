"""What the hand-written baselines share: convolution layers, a halving block, initialisation, argument checks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import Problem
from autoseg.nn.batchnorm import BatchNorm2d, ShiftedBatchNorm2d

VGG16_STAGES: tuple[tuple[int, int], ...] = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""Convolutions and channels (in units of the width, 64 as published) of each stage: the 13 convolutions of VGG16."""


def conv_layers(
    channels: Sequence[int], batch_norm: bool, *, bias: bool | None = None, scale: bool = True
) -> nn.Sequential:
    """3x3 convolutions (padding 1), each followed by batch normalisation if wanted and a ReLU.

    Args:
        channels: Channels before the first, between and after the last convolution; ``k + 1`` numbers
            make ``k`` convolutions.
        batch_norm: Normalise.
        bias: Whether the convolutions have a bias; by default only without normalisation, which cancels it.
        scale: Whether the normalisation learns a scale beside the shift.

    Returns:
        Layers that keep height and width.

    Example:
        >>> [type(m).__name__ for m in conv_layers([3, 8, 8], batch_norm=False)]
        ['Conv2d', 'ReLU', 'Conv2d', 'ReLU']
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm if bias is None else bias))
        if batch_norm:
            layers.append(BatchNorm2d(after) if scale else ShiftedBatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def encode(stages: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The encoder of a U-Net: stages one after the other, with a 2x2 max pooling between two.

    Args:
        stages: Each keeps height and width.
        x: ``(N, C, H, W)`` with sides that halve as often as there are poolings.

    Returns:
        The map of the last stage, and those of the stages before it, the finest first, which the decoder takes
        from the end.

    Example:
        >>> deepest, skips = encode([nn.Identity()] * 3, torch.rand(1, 2, 8, 4))
        >>> tuple(deepest.shape), [tuple(skip.shape[-2:]) for skip in skips]
        ((1, 2, 2, 1), [(8, 4), (4, 2)])
    """
    maps: list[Tensor] = []
    for stage in stages:
        x = stage(F.max_pool2d(x, 2) if maps else x)
        maps.append(x)
    return x, maps[:-1]


class DownsamplingBlock(nn.Module):
    """Half the size, more channels: a strided 3x3 convolution beside a 2x2 max pooling, normalised together.

    The pooled input is appended to the maps of the convolution, so that what was there is kept and the
    convolution has only the rest to make. ENet begins with this block, ERFNet has it three times. Where more
    channels come in than go out, there is no room for the copy and the convolution makes all of them.

    Args:
        in_channels: Channels before.
        out_channels: Channels after.
        activation: Applied after the normalisation.

    Source: Paszke et al., "ENet", 2016, figure 2a; Romera et al., "ERFNet", T-ITS 2018, section III-B.

    Example:
        >>> block = DownsamplingBlock(3, 16, nn.ReLU())
        >>> tuple(block(torch.rand(1, 3, 8, 6)).shape), block.conv.out_channels
        ((1, 16, 4, 3), 13)
    """

    def __init__(self, in_channels: int, out_channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.pools = out_channels > in_channels
        made = out_channels - in_channels if self.pools else out_channels
        self.conv = nn.Conv2d(in_channels, made, 3, stride=2, padding=1, bias=False)
        self.norm = BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, H, W)``, H and W even, to ``(N, out_channels, H / 2, W / 2)``."""
        y = self.conv(x)
        if self.pools:
            y = torch.cat([y, F.max_pool2d(x, 2)], dim=1)
        result: Tensor = self.activation(self.norm(y))
        return result


def he_initialise(network: nn.Module) -> None:
    """Draw the weights so that activations keep their variance from layer to layer.

    Convolutions get a normal distribution of variance ``2 / fan_in`` (He et al., 2015, eq. 10);
    transposed convolutions get ``1 / (in_channels * r)``, where ``r`` input pixels reach each output pixel on
    average (1 with a 2x2 kernel and stride 2, 9/4 with a 3x3 kernel). Biases become 0. Normalisation layers
    keep torch's 1 and 0.

    Args:
        network: Changed in place; the draws come from torch's global generator.

    Example:
        >>> conv = nn.Conv2d(64, 64, 3)
        >>> he_initialise(conv)
        >>> abs(conv.weight.var().item() * 64 * 9 - 2) < 0.1, conv.bias.abs().max().item()
        (True, 0.0)
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.ConvTranspose2d):
            reached = math.prod(module.kernel_size) / math.prod(module.stride)
            nn.init.normal_(module.weight, std=(module.in_channels * reached) ** -0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def linear_initialise(convolutions: Iterable[nn.Module], branches: int = 1) -> None:
    """Draw the weights of convolutions that no ReLU follows: variance ``1 / (fan_in * branches)``.

    The factor 2 of :func:`he_initialise` makes up for what a ReLU cuts off. Without one, a chain of such layers
    lets the activations grow as long as the normalisation has not yet learned its statistics. The same holds
    where branches are added to a main path: with ``branches`` of them in a row, each adds its share only
    (Hanin and Rolnick, "How to Start Training", NeurIPS 2018).

    Args:
        convolutions: Changed in place; their biases stay.
        branches: Residual branches that the network has, where these convolutions end one each.

    Example:
        >>> conv = nn.Conv2d(64, 64, 3)
        >>> linear_initialise([conv], branches=4)
        >>> abs(conv.weight.var().item() * 64 * 9 - 1 / 4) < 0.02
        True
    """
    for convolution in convolutions:
        weight = convolution.get_parameter("weight")
        nn.init.normal_(weight, std=(weight[0].numel() * branches) ** -0.5)


def size_problems(where: str, **values: Any) -> list[Problem]:
    """One problem for every value that is not a whole number of at least 1.

    Args:
        where: The network, for the message.
        values: The arguments to check, by name.

    Example:
        >>> print(*size_problems("unet", width=0, depth=4))
        unet, width: must be a whole number of at least 1, is 0
          -> give a number such as 1 or 2
    """
    return [
        Problem(
            f"must be a whole number of at least 1, is {value!r}", f"{where}, {name}", "give a number such as 1 or 2"
        )
        for name, value in values.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]


def fraction_problems(where: str, **values: Any) -> list[Problem]:
    """One problem for every value that is not a number of at least 0 and below 1.

    Args:
        where: The network, for the message.
        values: The arguments to check, by name.

    Example:
        >>> print(*fraction_problems("enet", dropout=1.5))
        enet, dropout: must be at least 0 and below 1, is 1.5
          -> give a number such as 0.1; 0 is none
    """
    return [
        Problem(
            f"must be at least 0 and below 1, is {value!r}", f"{where}, {name}", "give a number such as 0.1; 0 is none"
        )
        for name, value in values.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1
    ]
