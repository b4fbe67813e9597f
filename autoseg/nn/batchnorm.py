"""Batch normalisation that survives a batch of one.

Normalising over a batch needs at least two values per channel. A pooled 1x1 map (the image-level
branch of DeepLabv3, the deepest level of a U-Net on a small crop) offers one value when the last
batch of an epoch holds a single image; torch then raises an error in the middle of a training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` that normalises a lone value with the running statistics.

    With two or more values per channel, and in evaluation mode, it is the ordinary layer with the
    same parameters and state. With one value per channel in training mode, the running mean and
    variance are used (as in evaluation) and are left as they are: one value has no variance to learn.
    A layer whose statistics were taken away, as a supernet's, uses those of a new layer: mean 0, variance 1.

    Example:
        >>> import torch
        >>> tuple(BatchNorm2d(4).train()(torch.rand(1, 4, 1, 1)).shape)
        (1, 4, 1, 1)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``; the shape stays."""
        mean, variance = self.running_mean, self.running_var
        if (self.training or mean is None) and input.numel() == self.num_features:
            if mean is None:
                mean, variance = input.new_zeros(self.num_features), input.new_ones(self.num_features)
            return F.batch_norm(input, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(input)


class ShiftedBatchNorm2d(BatchNorm2d):
    """Batch normalisation that learns a shift and no scale: one number per channel, as a bias is.

    Between two convolutions with a ReLU nothing is lost: what a positive scale does, the weights of the next
    convolution do as well. The scale is a buffer of ones under its usual name.

    Example:
        >>> [name for name, _ in ShiftedBatchNorm2d(4).named_parameters()]
        ['bias']
    """

    weight: Tensor  # type: ignore[assignment]

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        del self.weight
        self.register_buffer("weight", torch.ones(num_features))

    def reset_parameters(self) -> None:
        """Forget the statistics; the shift becomes 0."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)


def tolerate_single_values(network: nn.Module) -> nn.Module:
    """Replace every plain ``nn.BatchNorm2d`` inside ``network`` by :class:`BatchNorm2d`, in place.

    Parameters, buffers and their names stay the same. Subclasses (for example timm's normalisation
    with a built-in activation) are left alone, because what they add would be lost.

    Args:
        network: Any network whose normalisation layers keep running statistics.

    Returns:
        ``network``.

    Example:
        >>> import torch
        >>> net = tolerate_single_values(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3)))
        >>> bool(net(torch.rand(1, 3, 8, 8)).isfinite().all())
        True
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d and module.track_running_stats:
            module.__class__ = BatchNorm2d
    return network
