"""Networks of other libraries made to fit: tried once on a small image, trimmed, padded for any size.

What a foreign encoder can do is best found out by running it. One pass over a small image shows which image
sizes the network takes, whether its logits are as large as the image, and which layers have no part in them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from autoseg.nn.batchnorm import BatchNorm2d, tolerate_single_values
from autoseg.nn.padding import crop_to, pad_to_multiple

_LARGEST_DIVISOR = 64


class FittedNetwork(nn.Module):
    """A network of another library that takes images of any size and training batches of one.

    Layers that have no part in the logits, such as the classifier of an encoder or stages behind the last
    one that is used, are replaced by ``nn.Identity``, so that they are neither counted nor stored.

    Args:
        network: From ``(N, C, H, W)`` to logits ``(N, num_classes, H, W)`` where H and W are large multiples.
        in_channels: Image channels C.
        divisor: The least number of pixels of which H and W may have to be multiples; 2 and 4 times as much are
            tried too.
        least: The least side in units of ``divisor``.

    Attributes:
        network: The network given.
        size_divisor: The side multiple at which nothing needs padding, once sides are at least ``smallest``.
        smallest: Shorter sides are padded to this many pixels.

    Raises:
        ValueError: The network does not work at any of the sizes tried; the message says why.

    Example:
        >>> net = FittedNetwork(nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Upsample(scale_factor=4)), 3, 1)
        >>> net.size_divisor, tuple(net(torch.rand(1, 3, 5, 9)).shape)
        (4, (1, 2, 5, 9))
    """

    def __init__(self, network: nn.Module, in_channels: int, divisor: int, least: int = 1) -> None:
        super().__init__()
        self.network = tolerate_single_values(network)
        # Two positions in the deepest map, where a normalisation that wants more than one value cannot be mended.
        units = max(least, 2) if any(map(_wants_several_values, network.modules())) else least
        self.size_divisor, self.smallest = _sizes_that_work(network, in_channels, divisor, units)
        _trim(network, in_channels, self.size_divisor, self.smallest)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        for side in (-2, -1):
            x = _grow(x, side, self.smallest)
        return crop_to(self.network(x), size)


def _wants_several_values(module: nn.Module) -> bool:
    """Whether a normalisation refuses a batch of one image whose map is a single pixel."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups == module.num_channels
    return isinstance(module, _BatchNorm | _InstanceNorm) and not isinstance(module, BatchNorm2d)


def _grow(x: Tensor, side: int, least: int) -> Tensor:
    """Repeat the last row (or column) until there are at least ``least``."""
    length = x.shape[side]
    symbolic = isinstance(length, torch.SymInt)  # a graph for images of any size is being recorded
    if not symbolic and length >= least:
        return x
    wanted = torch.sym_max(length, least)
    last = torch.full((), length - 1, device=x.device)
    return x.index_select(side, torch.minimum(torch.arange(wanted, device=x.device), last))


def _sizes_that_work(network: nn.Module, in_channels: int, divisor: int, units: int) -> tuple[int, int]:
    """The least divisor and side with which the network gives logits as large as the image."""
    reason: Exception = ValueError("no size was tried")
    multiple = divisor
    while multiple <= max(divisor, _LARGEST_DIVISOR) and multiple <= 8 * divisor:
        smallest = units * multiple
        try:
            with torch.no_grad():
                _logits(network, in_channels, multiple, smallest)
        except Exception as error:  # whatever a foreign network raises about a size it does not take
            # The largest size says best what is wrong with the network itself.
            reason = error
        else:
            return multiple, smallest
        multiple *= 2
    raise ValueError(str(reason).partition("\n")[0] or type(reason).__name__) from reason


def _logits(network: nn.Module, in_channels: int, divisor: int, smallest: int) -> Tensor:
    """Logits in evaluation mode of one image whose height is an odd multiple of ``divisor``, or its width."""
    mode = network.training
    height, width = smallest + divisor, smallest
    try:
        logits: Tensor = network.eval()(torch.zeros(1, in_channels, height, width))
    finally:
        network.train(mode)
    if logits.shape[-2:] != (height, width):
        raise ValueError(f"gives {tuple(logits.shape[-2:])} for an image of {(height, width)}")
    return logits


def _trim(network: nn.Module, in_channels: int, divisor: int, smallest: int) -> None:
    """Replace the modules none of whose parameters the logits depend on."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    total = _logits(network, in_channels, divisor, smallest).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    used = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    _trim_below(network, used)


def _trim_below(module: nn.Module, used: set[int]) -> None:
    for name, child in list(module.named_children()):
        own = list(child.parameters())
        if own and not _any_in(own, used):
            setattr(module, name, nn.Identity())
        else:
            _trim_below(child, used)


def _any_in(parameters: Iterable[nn.Parameter], used: set[int]) -> bool:
    return any(id(p) in used for p in parameters)
