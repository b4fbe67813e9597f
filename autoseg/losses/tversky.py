"""The Tversky loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from autoseg.errors import Problem, raise_if
from autoseg.losses.common import number_problems, weight_problems
from autoseg.losses.region import RegionLoss


class Tversky(RegionLoss):
    """Tversky loss: false and missed pixels have a price each.

    Per class ``1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth)``, with the soft counts ``TP = sum(p y)``,
    ``FP = sum(p (1 - y))`` and ``FN = sum((1 - p) y)`` (Salehi 2017). ``alpha = beta = 0.5`` is the Dice
    loss, ``alpha = beta = 1`` the IoU loss; the defaults are those the paper found best for small lesions.

    With softmax a pixel missed in one class is false in another, so the prices pull each class towards larger
    (``beta > alpha``) or smaller areas; the foreground alone is favoured with ``weight: [0, 1]``.

    Args:
        alpha: Price of false pixels, 0 or more.
        beta: Price of missed pixels, 0 or more.
        smooth: See :class:`autoseg.losses.region.RegionLoss`, as all options that follow.
        weight: One weight (0 or more) per class for the mean over classes.
        per_image: Sum over each image, then take the mean over images.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: An option is out of range, or both prices are 0.

    Example:
        >>> import torch
        >>> unsure = torch.zeros(1, 2, 1, 2)  # TP = FP = FN = 0.5
        >>> round(Tversky(alpha=0.2, beta=0.6)(unsure, torch.tensor([[[0, 1]]])).item(), 4)  # 1 - 1 / 1.8
        0.4444
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 1e-6,
        weight: Sequence[float] | None = None,
        *,
        per_image: bool = False,
        ignore_index: int = 255,
    ) -> None:
        problems = number_problems("alpha", alpha) + number_problems("beta", beta)
        if alpha == beta == 0:
            problems.append(Problem("mistakes cost nothing", "loss options 'alpha' and 'beta'", "give one above 0"))
        raise_if(problems + number_problems("smooth", smooth, above_zero=True) + weight_problems(weight))
        super().__init__(smooth, weight, per_image=per_image, ignore_index=ignore_index)
        self.alpha = alpha
        self.beta = beta

    def score(self, overlap: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
        """The Tversky index."""
        false, missed = predicted - overlap, true - overlap
        return (overlap + self.smooth) / (overlap + self.alpha * false + self.beta * missed + self.smooth)
