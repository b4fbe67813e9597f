"""Cross-entropy, and the weighted form for a foreground of few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from autoseg.errors import Problem, UserError, raise_if
from autoseg.losses.common import ClassLoss, at_least_float32, weight_problems


class CrossEntropy(ClassLoss):
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
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 2)
        >>> round(CrossEntropy()(logits, torch.tensor([[[1, 255]]])).item(), 4)
        0.6931
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy, a scalar of 0 or more."""
        logits = at_least_float32(logits)
        weight = self.weight_like(logits)
        total = functional.cross_entropy(logits, target, weight=weight, ignore_index=self.ignore_index, reduction="sum")
        return total / (target != self.ignore_index).sum().clamp(min=1)


class WeightedCrossEntropy(CrossEntropy):
    """Cross-entropy in which the rarer a class is, the more its pixels count.

    With two classes, a foreground pixel has the weight ``beta`` and a background pixel ``1 - beta`` (TEM paper,
    eq. 4, as a mean over pixels; 0.5 gives half the cross-entropy). The paper does not say what its beta was; a
    run takes the fraction of background pixels in the training split, with which both classes have the same
    share in the loss of a network that knows nothing yet.

    With more classes the paper has no form. Read literally, eq. 4 gives a pixel the share of the pixels that
    are not of its class, and that is what a run takes here: ``1 - fraction`` for each class, which for two
    classes is eq. 4 again. It is mild where there are many classes; give ``beta`` as a list for more.

    Args:
        beta: Weight of the foreground, between 0 and 1, for two classes; or a list of one weight per class.
        weight: More weights, one per class, to multiply those of ``beta`` by.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: ``beta`` is missing (outside a run there is no training split to take it from) or an option
            is out of range.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])
        >>> loss = WeightedCrossEntropy(**WeightedCrossEntropy.from_training([0.75, 0.25]))
        >>> round(loss(logits, target).item(), 4)  # ln 2 (3 * 0.25 + 0.75) / 4
        0.2599
    """

    def __init__(
        self,
        beta: float | Sequence[float] | None = None,
        weight: Sequence[float] | None = None,
        *,
        ignore_index: int = 255,
    ) -> None:
        factors = [1 - beta, beta] if isinstance(beta, int | float) else beta
        problems = _beta_problems(beta) + weight_problems(weight)
        if factors is not None and weight is not None and len(factors) != len(weight):
            what = f"{len(weight)} class weights, but beta is for {len(factors)} classes"
            problems.append(Problem(what, "loss option 'weight'", "give both for the same classes"))
        raise_if(problems)
        assert factors is not None
        if weight is not None:
            factors = [factor * w for factor, w in zip(factors, weight, strict=True)]
        super().__init__(factors, ignore_index=ignore_index)

    @classmethod
    def from_training(cls, fractions: Sequence[float]) -> dict[str, Any]:
        """``beta`` from the share of each class in the training pixels.

        Args:
            fractions: One number per class, background first; their sum is 1.

        Returns:
            ``{"beta": b}`` for two classes, ``{"beta": [one weight per class]}`` for more.

        Raises:
            UserError: All pixels are of one class.

        Example:
            >>> WeightedCrossEntropy.from_training([0.5, 0.25, 0.25])
            {'beta': [0.5, 0.75, 0.75]}
        """
        if max(fractions) >= 1:
            what = "beta cannot be taken from training masks whose pixels are all of one class"
            raise UserError(Problem(what, "loss 'weighted-ce'", "check the masks, or give the option 'beta'"))
        return {"beta": fractions[0] if len(fractions) == 2 else [1 - fraction for fraction in fractions]}


def _beta_problems(beta: float | Sequence[float] | None) -> list[Problem]:
    where, fix = "loss option 'beta'", "give a number between 0 and 1, such as the fraction of background pixels"
    if beta is None:
        return [Problem("the weight of the foreground is missing", where, f"{fix}; a run measures it")]
    if isinstance(beta, int | float):
        return [] if 0 < beta < 1 else [Problem(f"{beta} is out of range", where, fix)]
    return weight_problems(beta, "beta")
