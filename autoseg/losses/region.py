"""The base of the losses over sets of pixels: overlap and areas per class, and the mean over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from autoseg.errors import raise_if
from autoseg.losses.common import ClassLoss, at_least_float32, number_problems, weight_problems


class RegionLoss(ClassLoss):
    """``1 - score`` per class, where the score compares the predicted with the true set of pixels.

    A loss of this kind says in :meth:`score` how it is compared. The sums run over all counted pixels of the
    batch, or of each image, and the mean over the classes that occur in them, background included.

    A class without a true pixel is left out of the mean, as a class without pixels is left out of the mIoU. Its
    term would be stuck near 1 whatever the network does (softmax never gives exactly 0), so it would only add
    noise from batch to batch. Mass wrongly given to that class is not free: it is missing from the classes
    that are there. The losses of segmentation-models-pytorch set the term of such a class to 0 but still divide
    by all classes, which shrinks the loss of batches with few classes; with all classes present they are equal.

    Args:
        smooth: Small number above 0 that keeps the ratio defined.
        weight: One weight (0 or more) per class for the mean over classes, or None for equal weights.
        per_image: Sum over each image, then take the mean over images; otherwise the batch is one large image.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: An option is out of range.
    """

    power: ClassVar[int] = 1
    """Of the probabilities in the predicted area."""

    def __init__(
        self,
        smooth: float = 1e-6,
        weight: Sequence[float] | None = None,
        *,
        per_image: bool = False,
        ignore_index: int = 255,
    ) -> None:
        raise_if(number_problems("smooth", smooth, above_zero=True) + weight_problems(weight))
        super().__init__(weight, ignore_index=ignore_index)
        self.smooth = smooth
        self.per_image = per_image

    def score(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """How well the sets agree, 1 at best: ``(C,)``, or ``(N, C)`` per image.

        Args:
            overlap: Sum of ``p y``, for probability ``p`` and truth ``y`` in {0, 1}.
            predicted: Sum of ``p`` to the power of :attr:`power`.
            true: Sum of ``y``.
        """
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss over classes, a scalar in 0..1."""
        probability, truth = probability_and_truth(logits, target, self.ignore_index)
        pixels = (2, 3) if self.per_image else (0, 2, 3)
        overlap, true = (probability * truth).sum(pixels), truth.sum(pixels)
        predicted = (probability if self.power == 1 else probability**self.power).sum(pixels)
        loss = 1 - self.score(overlap, predicted, true)
        return mean_over_present(loss, true > 0, self.weight_like(probability))


def probability_and_truth(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Softmax probabilities, and the target as one channel of 0 and 1 per class; both 0 where pixels do not count.

    Returns:
        Two tensors ``(N, C, H, W)``, float32 or double.
    """
    counted = (target != ignore_index).unsqueeze(1)
    probability = at_least_float32(logits).softmax(dim=1) * counted
    truth = torch.zeros_like(probability)
    truth.scatter_(1, target.unsqueeze(1).where(counted, 0), counted.to(truth.dtype))
    return probability, truth


def mean_over_present(loss: Tensor, present: Tensor, weight: Tensor | None) -> Tensor:
    """The (weighted) mean over the classes that are there, then over the images that have any; 0 if none has.

    Args:
        loss: ``(C,)``, or ``(N, C)`` for a loss per image.
        present: Of the same shape: which classes have true pixels.
        weight: ``(C,)``, or None for equal weights.

    Example:
        >>> mean_over_present(torch.tensor([0.2, 0.9, 0.4]), torch.tensor([True, False, True]), None)
        tensor(0.3000)
    """
    share = present.to(loss.dtype) if weight is None else present * weight
    total = share.sum(-1)
    some = total > 0
    mean = (loss * share).sum(-1) / total.where(some, 1)
    return mean.sum() / some.sum().clamp(min=1)
