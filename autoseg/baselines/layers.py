"""What the hand-written baselines share: convolution layers, He initialisation, argument checks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from autoseg.errors import Problem
from autoseg.nn.batchnorm import BatchNorm2d


def conv_layers(channels: Sequence[int], batch_norm: bool) -> nn.Sequential:
    """3x3 convolutions (padding 1), each followed by batch normalisation if wanted and a ReLU.

    Args:
        channels: Channels before the first, between and after the last convolution; ``k + 1`` numbers
            make ``k`` convolutions.
        batch_norm: Normalise; the convolutions then have no bias, which normalisation would cancel.

    Returns:
        Layers that keep height and width.

    Example:
        >>> [type(m).__name__ for m in conv_layers([3, 8, 8], batch_norm=False)]
        ['Conv2d', 'ReLU', 'Conv2d', 'ReLU']
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(nn.Conv2d(before, after, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            layers.append(BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def he_initialise(network: nn.Module) -> None:
    """Draw the weights so that activations keep their variance from layer to layer.

    Convolutions get a normal distribution of variance ``2 / fan_in`` (He et al., 2015, eq. 10);
    2x2 transposed convolutions of stride 2, in which one input pixel reaches each output pixel and no
    ReLU follows, get ``1 / in_channels``. Biases become 0. Normalisation layers keep torch's 1 and 0.

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
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


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
