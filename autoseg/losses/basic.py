"""The three everyday losses: cross-entropy, soft Dice, and their sum.

All take logits ``(N, C, H, W)`` and int64 class indices ``(N, H, W)`` and return a scalar. Pixels whose
target is the ignore index add nothing, neither to the value nor to the gradient; when every pixel is
ignored the loss is 0 with a gradient of 0, so that one empty batch cannot spoil a training.

Half-precision logits are raised to float32 first, because sums over all pixels of a batch overflow float16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.errors import Problem, UserError, raise_if


class CrossEntropy(nn.Module):
    """Pixel-wise cross-entropy, the mean over all counted pixels of the batch.

    With weights, each pixel's term is multiplied by the weight of its true class and the sum is still
    divided by the number of pixels (TEM paper, eqs. 3 and 4, as a mean): weights of 0.5 halve the loss.
    torch's own weighted mean divides by the sum of the weights instead.

    Args:
        weight: One weight (0 or more) per class, or None for equal weights of 1.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: When a weight is negative or not finite, or, at the first call, when there are not as
            many weights as classes.

    Example:
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> round(CrossEntropy()(logits, torch.tensor([[[1, 255]]])).item(), 4)
        0.6931
    """

    weight: Tensor | None

    def __init__(self, weight: Sequence[float] | None = None, *, ignore_index: int = 255) -> None:
        super().__init__()
        raise_if(_weight_problems(weight))
        values = None if weight is None else torch.tensor([float(w) for w in weight])
        self.register_buffer("weight", values, persistent=False)
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy, a scalar of 0 or more."""
        if self.weight is not None and len(self.weight) != logits.shape[1]:
            raise UserError(
                Problem(
                    f"{len(self.weight)} class weights for {logits.shape[1]} classes",
                    "loss option 'weight'",
                    "give one weight per class, background included",
                )
            )
        logits = _at_least_float32(logits)
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        total = functional.cross_entropy(logits, target, weight=weight, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)


class Dice(nn.Module):
    """Soft Dice loss over the whole batch, the mean over the classes that occur in it.

    Per class ``1 - (2 sum(p y) + smooth) / (sum(p) + sum(y) + smooth)`` (TEM paper, eq. 6), where ``p`` is
    the softmax probability, ``y`` is 1 on the class and 0 elsewhere, and the sums run over all counted
    pixels of all images of the batch. The mean is over classes, background included.

    A class without a true pixel in the batch is left out of the mean, as a class without pixels is left
    out of the mIoU. Its term would be stuck near 1 whatever the network does (softmax never gives exactly 0),
    so it would only add noise from batch to batch. Mass wrongly given to that class is not free: it is
    missing from the classes that are there. segmentation-models-pytorch's DiceLoss sets the term of such a
    class to 0 but still divides by all classes, which shrinks the loss of batches with few classes.

    Args:
        smooth: Small number that keeps the ratio defined.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: When ``smooth`` is not above 0.

    Example:
        >>> logits = torch.tensor([20.0, -20.0]).reshape(1, 2, 1, 1)
        >>> [round(Dice()(logits, torch.tensor([[[true]]])).item(), 4) for true in (0, 1, 255)]
        [0.0, 1.0, 0.0]
    """

    def __init__(self, smooth: float = 1e-6, *, ignore_index: int = 255) -> None:
        super().__init__()
        raise_if(_smooth_problems(smooth))
        self.smooth = smooth
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean soft Dice loss, a scalar in 0..1."""
        counted = (target != self.ignore_index).unsqueeze(1)
        probability = _at_least_float32(logits).softmax(dim=1) * counted
        truth = torch.zeros_like(probability)
        truth.scatter_(1, target.unsqueeze(1).where(counted, 0), counted.to(truth.dtype))
        pixels = (0, 2, 3)
        overlap, true_area = (probability * truth).sum(pixels), truth.sum(pixels)
        loss = 1 - (2 * overlap + self.smooth) / (probability.sum(pixels) + true_area + self.smooth)
        present = true_area > 0
        return (loss * present).sum() / present.sum().clamp(min=1)


class CrossEntropyDice(nn.Module):
    """Cross-entropy plus soft Dice: steady gradients from the first, insensitivity to rare classes from the second.

    Args:
        weight: Class weights of the cross-entropy, see :class:`CrossEntropy`.
        smooth: See :class:`Dice`.
        dice_weight: Factor of the Dice term; the cross-entropy has factor 1.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: Naming every option that is out of range.

    Example:
        >>> logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
        >>> round(CrossEntropyDice()(logits, target).item(), 4)  # ln 2 + 0.5
        1.1931
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        smooth: float = 1e-6,
        dice_weight: float = 1.0,
        *,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        problems = _weight_problems(weight) + _smooth_problems(smooth)
        if not (math.isfinite(dice_weight) and dice_weight >= 0):
            where, fix = "loss option 'dice_weight'", "give a number of 0 or more"
            problems.append(Problem(f"{dice_weight} is no factor", where, fix))
        raise_if(problems)
        self.cross_entropy = CrossEntropy(weight, ignore_index=ignore_index)
        self.dice = Dice(smooth, ignore_index=ignore_index)
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum of both terms, a scalar of 0 or more."""
        total: Tensor = self.cross_entropy(logits, target) + self.dice_weight * self.dice(logits, target)
        return total


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _weight_problems(weight: Sequence[float] | None) -> list[Problem]:
    if weight is None:
        return []
    where, fix = "loss option 'weight'", "give one number of 0 or more per class"
    problems = [Problem(f"{w} is no class weight", where, fix) for w in weight if not (math.isfinite(w) and w >= 0)]
    if not any(weight):
        problems.append(Problem("no class has a weight above 0", where, fix))
    return problems


def _smooth_problems(smooth: float) -> list[Problem]:
    if math.isfinite(smooth) and smooth > 0:
        return []
    return [Problem(f"{smooth} cannot smooth a ratio", "loss option 'smooth'", "give a number above 0, such as 1e-6")]
