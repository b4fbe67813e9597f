"""The focal loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.errors import raise_if
from autoseg.losses.common import ClassLoss, at_least_float32, number_problems, weight_problems


class Focal(ClassLoss):
    """Focal loss: cross-entropy in which pixels that are right already count less.

    Per pixel ``-(1 - p)^gamma log p``, where ``p`` is the softmax probability of the true class (Lin 2017, eq. 4),
    the mean over all counted pixels; ``gamma = 0`` is the cross-entropy. The paper's ``alpha`` is ``weight``.

    ``smp.losses.FocalLoss`` takes several classes for as many independent yes-or-no questions under a sigmoid and
    can ignore pixels; its inner function with the softmax cannot. This one equals the latter where no pixel is
    ignored.

    Args:
        gamma: How strongly the easy pixels are turned down, 0 or more.
        weight: One weight (0 or more) per class, or None for equal weights of 1.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: An option is out of range, or, at the first call, there are not as many weights as classes.

    Example:
        >>> unsure = torch.zeros(1, 2, 1, 2)  # p = 0.5: 0.25 ln 2
        >>> round(Focal(gamma=2)(unsure, torch.tensor([[[0, 1]]])).item(), 4)
        0.1733
    """

    def __init__(self, gamma: float = 2.0, weight: Sequence[float] | None = None, *, ignore_index: int = 255) -> None:
        raise_if(number_problems("gamma", gamma) + weight_problems(weight))
        super().__init__(weight, ignore_index=ignore_index)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean focal loss, a scalar of 0 or more."""
        logits = at_least_float32(logits)
        weight = self.weight_like(logits)
        surprise = functional.cross_entropy(logits, target, ignore_index=self.ignore_index, reduction="none")
        doubt = -torch.expm1(-surprise)  # 1 - p
        # The slope of x^gamma at 0 is infinite for gamma < 1; below the clamp it is 0, as that of the whole term.
        loss = doubt.clamp(min=1e-12) ** self.gamma * surprise
        counted = target != self.ignore_index
        if weight is not None:
            loss = loss * weight[target.where(counted, 0)]
        return loss.sum() / counted.sum().clamp(min=1)
