"""The Lovasz-softmax loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.losses.common import ClassLoss
from autoseg.losses.region import mean_over_present, probability_and_truth


class Lovasz(ClassLoss):
    """Lovasz-softmax loss: a convex stand-in for 1 - IoU, which it equals for hard predictions.

    Per class, the errors ``|y - p|`` of all pixels are sorted, largest first, and each is weighed by how much the
    IoU falls when its pixel turns wrong after those before it (Berman 2018, algorithm 1). The
    mean is over the classes that occur, the classes "present" of the paper.

    Equal to ``smp.losses.LovaszLoss``, which has no class weights and gives no scalar where every pixel of a batch
    or image is ignored. Pixels are counted in whole numbers here, because float32 loses count after 16.8 million.

    Args:
        weight: One weight (0 or more) per class for the mean over classes, or None for equal weights.
        per_image: The loss of each image, then the mean over images; otherwise the batch is one large image.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: A weight is out of range, or, at the first call, there are not as many weights as classes.

    Example:
        >>> logits = 40.0 * torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).reshape(1, 2, 1, 3)
        >>> round(Lovasz()(logits, torch.tensor([[[0, 1, 1]]])).item(), 4)  # both IoUs are 1/2
        0.5
    """

    def __init__(
        self, weight: Sequence[float] | None = None, *, per_image: bool = False, ignore_index: int = 255
    ) -> None:
        super().__init__(weight, ignore_index=ignore_index)
        self.per_image = per_image

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss over classes, a scalar in 0..1."""
        probability, truth = (
            x.flatten(2) if self.per_image else x.movedim(1, 0).flatten(1).unsqueeze(0)
            for x in probability_and_truth(logits, target, self.ignore_index)
        )
        # A pixel that is ignored has an error of 0: it comes last, and whatever its weight, it adds nothing.
        errors, order = (truth - probability).abs().sort(dim=-1, descending=True, stable=True)
        right = truth.gather(-1, order).long()
        area = right.sum(-1, keepdim=True)
        overlap, union = area - right.cumsum(-1), area + (1 - right).cumsum(-1)
        lost = 1 - overlap.to(errors.dtype) / union.to(errors.dtype)
        steps = torch.diff(lost, dim=-1, prepend=torch.zeros_like(lost[..., :1]))
        return mean_over_present((errors * steps).sum(-1), area.squeeze(-1) > 0, self.weight_like(probability))
