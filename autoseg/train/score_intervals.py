"""Bootstrap intervals of the scores of one training, over its test images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from autoseg.train import metrics
from autoseg.train.verdict import ModelResult, interval

_TAILS = (2.5, 97.5)  # percentiles of a 95 % interval


def score_intervals(confusions: npt.ArrayLike, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """95 % percentile intervals of the scores when the test images are drawn again with replacement.

    Args:
        confusions: ``(images, C, C)`` pixel counts; rows are the truth.
        draws: Bootstrap draws.
        seed: Of the draws.

    Returns:
        ``miou``, ``dice``, ``accuracy``: ``[low, high]``, 0..1, and ``iou_per_class``, ``dice_per_class``: one such
        pair per class. An end without a value, as for a class that is absent, is None. The interval of the mIoU is
        that of :func:`autoseg.train.verdict.interval`.

    Example:
        >>> one_image = np.array([[[9, 1], [0, 10]]])
        >>> found = score_intervals(one_image)
        >>> found["accuracy"], [round(low, 3) for low, _ in found["iou_per_class"]]
        ([0.95, 0.95], [0.9, 0.909])
    """
    counts = np.asarray(confusions, np.int64)
    images = len(counts)
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)
    pooled = np.tensordot(weights, counts, axes=1)  # (draws, C, C)
    iou, dice = metrics.iou(pooled), metrics.dice(pooled)
    present = ~np.isnan(dice)
    mean_dice = np.divide(
        np.where(present, dice, 0).sum(-1), present.sum(-1), out=np.full(draws, np.nan), where=present.any(-1)
    )
    return {
        "miou": _pair(*interval(ModelResult("baseline", counts[None]), draws, seed)),
        "dice": _ends(mean_dice),
        "accuracy": _ends(metrics.accuracy(pooled)),
        "iou_per_class": [_ends(column) for column in iou.T],
        "dice_per_class": [_ends(column) for column in dice.T],
    }


def _ends(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Draws without a value, as when a rare class was not drawn, are left out."""
    known = values[~np.isnan(values)]
    return _pair(*np.percentile(known, _TAILS)) if known.size else [None, None]


def _pair(low: float, high: float) -> list[float | None]:
    return [None if math.isnan(end) else float(end) for end in (low, high)]
