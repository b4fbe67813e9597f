"""The one evaluation: confusion matrices and the scores read from them.

Search, early stopping, finalists, baselines and the report all score with this file, so that every
number in the project means the same thing. A confusion matrix counts pixels, ``confusion[i, j]`` =
pixels of true class ``i`` predicted as class ``j``. Matrices add up: the score of a test set is the
score of the sum of its images' matrices (counts are pooled, scores are not averaged over images).

For class ``c``: ``IoU = TP / (TP + FP + FN)`` and ``Dice = 2 TP / (2 TP + FP + FN)``; ``mIoU`` is the
mean over classes, background included. A class that is absent from both the prediction and the truth
has no score (NaN) and is left out of the mean; it never counts as perfect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Counts = npt.NDArray[np.int64]
"""``(C, C)`` pixel counts; rows are the truth, columns the prediction."""
Floats = npt.NDArray[np.float64]

_PIXELS_PER_STEP = 1 << 18  # on a CPU, pieces that stay in the cache are four times faster and need no memory


@dataclass(frozen=True)
class Scores:
    """The scores of one confusion matrix, all 0..1; NaN where there is nothing to score.

    Attributes:
        miou: Mean IoU over the classes that have one.
        dice: Mean Dice over the classes that have one.
        accuracy: Share of counted pixels that are right.
        iou_per_class: One value per class; NaN for a class absent from prediction and truth.
        dice_per_class: Likewise.
    """

    miou: float
    dice: float
    accuracy: float
    iou_per_class: tuple[float, ...]
    dice_per_class: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The scores as plain JSON values, with None in place of NaN.

        Example:
            >>> scores(np.array([[3, 1], [0, 0]])).to_json()["iou_per_class"]
            [0.75, 0.0]
            >>> scores(np.array([[4, 0], [0, 0]])).to_json()["iou_per_class"]
            [1.0, None]
        """
        return {
            "miou": _or_none(self.miou),
            "dice": _or_none(self.dice),
            "accuracy": _or_none(self.accuracy),
            "iou_per_class": [_or_none(value) for value in self.iou_per_class],
            "dice_per_class": [_or_none(value) for value in self.dice_per_class],
        }


def confusion(
    prediction: npt.ArrayLike | torch.Tensor,
    target: npt.ArrayLike | torch.Tensor,
    num_classes: int,
    ignore_index: int = 255,
) -> Counts:
    """Count the pixels of each true class predicted as each class.

    Args:
        prediction: Class indices of any shape, 0 to ``num_classes - 1``; array or tensor on any device.
            Its values do not matter where the target is ignored.
        target: True class indices of the same shape; ``ignore_index`` marks pixels that do not count.
        num_classes: Number of classes ``C``, background included.
        ignore_index: Target value to leave out. May be a class index too, to leave out that class.

    Returns:
        ``(C, C)`` int64 array on the CPU; rows are the truth, columns the prediction.

    Raises:
        ValueError: When the shapes differ, when the values are not integers, or when a counted pixel
            holds a value that is no class; the message names the values.

    Example:
        >>> confusion([[0, 1], [1, 1]], [[0, 1], [0, 255]], num_classes=2)
        array([[1, 1],
               [0, 1]])
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be 1 or more, not {num_classes}")
    predicted, truth = _as_integers(prediction, "prediction"), _as_integers(target, "target")
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {tuple(predicted.shape)} and target {tuple(truth.shape)} differ in shape")
    predicted, truth = predicted.reshape(-1), truth.reshape(-1).to(predicted.device)
    step = _PIXELS_PER_STEP if predicted.device.type == "cpu" else max(1, predicted.numel())
    total = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=predicted.device)
    for piece, true_piece in zip(predicted.split(step), truth.split(step), strict=True):
        total += _count(piece.to(torch.int64), true_piece.to(torch.int64), num_classes, ignore_index)
    counts: Counts = total.reshape(num_classes, num_classes).cpu().numpy()
    return counts


def iou(confusions: npt.ArrayLike) -> Floats:
    """IoU per class of one or many confusion matrices.

    Args:
        confusions: ``(..., C, C)`` counts or weighted counts.

    Returns:
        ``(..., C)``, 0..1; NaN for a class absent from prediction and truth.

    Example:
        >>> iou([[3, 1], [0, 4]]).tolist()
        [0.75, 0.8]
    """
    hits, either = _hits_and_either(confusions)
    return _ratio(hits, either)


def dice(confusions: npt.ArrayLike) -> Floats:
    """Dice (F1) per class of one or many confusion matrices; shapes and NaN as in :func:`iou`.

    Example:
        >>> dice([[3, 1], [0, 3]]).round(4).tolist()
        [0.8571, 0.8571]
    """
    hits, either = _hits_and_either(confusions)
    return _ratio(2 * hits, either + hits)


def miou(confusions: npt.ArrayLike) -> Floats:
    """Mean IoU of one or many confusion matrices.

    Args:
        confusions: ``(..., C, C)`` counts or weighted counts.

    Returns:
        ``(...)``, 0..1; NaN where a matrix counts no pixel. A single matrix gives an array of shape ().

    Example:
        >>> miou([[[3, 1], [0, 4]], [[4, 0], [0, 0]]]).tolist()
        [0.775, 1.0]
    """
    return _mean_of_present(iou(confusions))


def accuracy(confusions: npt.ArrayLike) -> Floats:
    """Share of counted pixels that are right; ``(..., C, C)`` gives ``(...)``, NaN where there are none.

    Example:
        >>> float(accuracy([[3, 1], [0, 4]]))
        0.875
    """
    matrices = np.asarray(confusions)
    return _ratio(np.trace(matrices, axis1=-2, axis2=-1), matrices.sum(axis=(-2, -1)))


def scores(confusion: npt.ArrayLike) -> Scores:
    """All scores of one confusion matrix.

    Args:
        confusion: ``(C, C)`` counts. Add up the matrices of several images to score them together.

    Raises:
        ValueError: When it is not one square matrix or has negative counts.

    Example:
        >>> scores([[3, 1], [0, 4]]).miou
        0.775
    """
    matrix = np.asarray(confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"one square confusion matrix is needed, not an array of shape {matrix.shape}")
    if (matrix < 0).any():
        raise ValueError("a confusion matrix cannot hold negative counts")
    per_class_iou, per_class_dice = iou(matrix), dice(matrix)
    return Scores(
        miou=float(_mean_of_present(per_class_iou)),
        dice=float(_mean_of_present(per_class_dice)),
        accuracy=float(accuracy(matrix)),
        iou_per_class=tuple(per_class_iou.tolist()),
        dice_per_class=tuple(per_class_dice.tolist()),
    )


def _as_integers(values: npt.ArrayLike | torch.Tensor, name: str) -> torch.Tensor:
    """``values`` as a tensor, refused unless it holds integers (or booleans)."""
    if isinstance(values, torch.Tensor):
        if values.is_floating_point() or values.is_complex():
            raise ValueError(f"{name} must hold class indices (integers), not {values.dtype}")
        return values.detach()
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "bui":
        raise ValueError(f"{name} must hold class indices (integers), not {array.dtype}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _count(predicted: torch.Tensor, truth: torch.Tensor, num_classes: int, ignore_index: int) -> torch.Tensor:
    """``(C * C,)`` counts of flat int64 tensors on one device."""
    counted = truth != ignore_index
    if not bool(counted.all()):
        predicted, truth = predicted[counted], truth[counted]
    for name, values in (("prediction", predicted), ("target", truth)):
        if values.numel() and (int(values.min()) < 0 or int(values.max()) >= num_classes):
            wrong = values[(values < 0) | (values >= num_classes)].unique().tolist()
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            allowed = f"0 to {num_classes - 1}" + (f" or {ignore_index} (ignored)" if name == "target" else "")
            raise ValueError(f"{name} holds {listed}; the classes are {allowed}")
    return torch.bincount(truth * num_classes + predicted, minlength=num_classes * num_classes)


def _hits_and_either(confusions: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Per class the pixels that are right (TP), and those of the class in truth or prediction (TP + FP + FN)."""
    matrices = np.asarray(confusions)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    return hits, matrices.sum(axis=-1) + matrices.sum(axis=-2) - hits


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def _mean_of_present(values: Floats) -> Floats:
    """Mean over the last axis without the NaNs; NaN where there is nothing else."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
