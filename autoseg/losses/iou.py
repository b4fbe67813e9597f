"""The soft IoU loss."""

from __future__ import annotations

from torch import Tensor

from autoseg.losses.region import RegionLoss


class Iou(RegionLoss):
    """Soft IoU (Jaccard) loss, the mean over the classes that occur in the batch.

    Per class ``1 - (sum(p y) + smooth) / (sum(p) + sum(y) - sum(p y) + smooth)`` (TEM paper, eq. 5). It is
    never below the Dice loss of the same class: with ``D`` the Dice coefficient, the IoU is ``D / (2 - D)``.
    Options, and what happens to classes that do not occur: :class:`autoseg.losses.region.RegionLoss`.

    Example:
        >>> import torch
        >>> unsure = torch.zeros(1, 2, 1, 2)  # p = 0.5 everywhere: 1 - 0.5 / (1 + 1 - 0.5)
        >>> round(Iou()(unsure, torch.tensor([[[0, 1]]])).item(), 4)
        0.6667
    """

    def score(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """The soft intersection over union."""
        return (overlap + self.smooth) / (predicted + true - overlap + self.smooth)
