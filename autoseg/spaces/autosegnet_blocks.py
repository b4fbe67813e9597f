"""How the layers of AutoSegNet hand their outputs on: blocks of channels, and the 1x1 convolutions that read them.

A layer gives the concatenation of those of its cells that no other cell reads, so its number of channels
depends on the choices. In a derived network that is settled when the network is built, and every convolution
has just the inputs it needs. In a supernet it changes with each sample: the layer hands on which cells are in
its output (:class:`Blocks`), and a convolution that reads it uses the matching slices of one large weight.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Width(NamedTuple):
    """Size of an output: ``blocks`` blocks of ``channels`` each (in a supernet: at most), halved ``level`` times."""

    blocks: int
    channels: int
    level: int


class Blocks(NamedTuple):
    """An output and the blocks that are in it.

    Attributes:
        tensor: ``(N, k * C, H, W)``.
        taken: Numbers of the k blocks, rising; None = all of them.
    """

    tensor: Tensor
    taken: list[int] | None = None

    def filled(self, width: Width) -> Tensor:
        """``(N, blocks * C, H, W)`` with zeros for the blocks that are not there."""
        if self.taken is None or len(self.taken) == width.blocks:
            return self.tensor
        n, _, height, side = self.tensor.shape
        full = self.tensor.new_zeros(n, width.blocks, width.channels, height, side)
        full[:, self.taken] = self.tensor.unflatten(1, (len(self.taken), width.channels))
        return full.flatten(1, 2)


class Pointwise(nn.Module):
    """1x1 convolution of an output of blocks; it uses the slices of its weight that belong to them.

    Example:
        >>> import torch
        >>> tuple(Pointwise(Width(3, 4, 0), 8)(Blocks(torch.rand(1, 8, 2, 2), [0, 2])).shape)
        (1, 8, 2, 2)
    """

    def __init__(self, width: Width, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(width.blocks * width.channels, out_channels, 1, bias=bias)

    def forward(self, x: Blocks) -> Tensor:
        """``(N, k * C, H, W)`` to ``(N, out_channels, H, W)``."""
        if x.taken is None or len(x.taken) == self.width.blocks:
            result: Tensor = self.conv(x.tensor)
            return result
        weight = self.conv.weight.unflatten(1, (self.width.blocks, self.width.channels))[:, x.taken].flatten(1, 2)
        return F.conv2d(x.tensor, weight, self.conv.bias)


class Calibration(nn.Module):
    """Bring an output to the scale and the channels of a layer, by a 1x1 convolution.

    A larger map is pooled (maximum) first; a smaller one is enlarged (nearest neighbour) after the
    convolution, which gives the same at a fraction of the work. A long skip is added before normalisation:
    that is what a convolution of the two concatenated maps computes, its weight split in two.

    Args:
        width: Size of the output that is read.
        channels: C of the layer.
        level: How often the map of the layer is halved.
        order: Order of ReLU, convolution and normalisation.

    Example:
        >>> import torch
        >>> pooled = Calibration(Width(1, 2, level=0), 4, 1, "relu-conv-bn")
        >>> tuple(pooled(Blocks(torch.rand(2, 2, 8, 8))).shape)
        (2, 4, 4, 4)
    """

    def __init__(self, width: Width, channels: int, level: int, order: str) -> None:
        super().__init__()
        self.pool, self.enlarge = 2 ** max(0, level - width.level), 2 ** max(0, width.level - level)
        self.relu_first = order == "relu-conv-bn"
        self.conv = Pointwise(width, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Blocks, skip: Tensor | None = None) -> Tensor:
        """``(N, k * C', h, w)`` to ``(N, C, H, W)``.

        Args:
            x: Output of another layer.
            skip: ``(N, C, H, W)`` from :func:`autoseg.spaces.autosegnet_layers.long_skip`.
        """
        y = F.max_pool2d(x.tensor, self.pool) if self.pool > 1 else x.tensor
        y = self.conv(Blocks(F.relu(y) if self.relu_first else y, x.taken))
        if self.enlarge > 1:
            y = F.interpolate(y, scale_factor=float(self.enlarge), mode="nearest")
        y = self.norm(y if skip is None else y + skip)
        return y if self.relu_first else F.relu(y)
