"""The two soft Dice losses, which differ in the denominator."""

from __future__ import annotations

from torch import Tensor

from autoseg.losses.region import RegionLoss


class Dice(RegionLoss):
    """Soft Dice loss over the whole batch, the mean over the classes that occur in it.

    Per class ``1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth)`` (TEM paper, eq. 6), where ``p`` is
    the softmax probability and ``y`` is 1 on the class and 0 elsewhere. Options, and what happens to classes
    that do not occur: :class:`autoseg.losses.region.RegionLoss`.

    Example:
        >>> import torch
        >>> logits = torch.tensor([20.0, -20.0]).reshape(1, 2, 1, 1)
        >>> [round(Dice()(logits, torch.tensor([[[true]]])).item(), 4) for true in (0, 1, 255)]
        [0.0, 1.0, 0.0]
    """

    def score(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """The soft Dice coefficient."""
        return (2 * overlap + self.smooth) / (predicted + true + self.smooth)


class DiceSquared(Dice):
    """Soft Dice loss with squared probabilities in the denominator.

    Per class ``1 - (2 sum(p y) + smooth) / (sum(p^2) + sum(y^2) + smooth)`` (SEARCH-Net, eq. 3; first in V-Net,
    Milletari 2016). Where the network is sure (p is 0 or 1) it equals :class:`Dice`; where it is not, it is
    smaller. segmentation-models-pytorch does not have it.

    Example:
        >>> import torch
        >>> unsure = torch.zeros(1, 2, 1, 2)  # p = 0.5 everywhere: 1 - 2 * 0.5 / (2 * 0.25 + 1)
        >>> round(DiceSquared()(unsure, torch.tensor([[[0, 1]]])).item(), 4)
        0.3333
    """

    power = 2
