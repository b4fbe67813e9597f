"""How well one ranking of architectures agrees with another: rank correlation, and what a wrong favourite costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

_RESAMPLES = 1000
_CHANCE = 0.05  # p value from which an agreement may be chance


@dataclass(frozen=True)
class Agreement:
    """The ranking by a supernet beside that of networks trained alone.

    Attributes:
        tau: Kendall's tau-b, -1..1; None where it is not defined because one side has a single value.
        p_value: Of the null hypothesis that the two rankings have nothing to do with each other.
        interval: 95 % bootstrap interval of ``tau`` over the architectures.
        favourite: Index of the architecture with the highest supernet score, the first where several have it.
        best: Index of the one that is best when trained alone; the favourite, if it is among the best.
        regret: mIoU that is lost by taking the favourite instead of the best, 0..1.
        random_regret: mIoU that is lost on average by taking any of them, 0..1.
    """

    tau: float | None
    p_value: float | None
    interval: tuple[float, float] | None
    favourite: int
    best: int
    regret: float
    random_regret: float

    @property
    def text(self) -> str:
        """One sentence: whether the supernet ranks better than chance.

        Example:
            >>> rank_agreement([0.5, 0.6, 0.7], [0.2, 0.2, 0.2]).text
            'The rankings cannot be compared, because all scores of one side are equal.'
        """
        if self.interval is None:
            return "The rankings cannot be compared, because all scores of one side are equal."
        low, high = self.interval
        if self.p_value is None or self.p_value >= _CHANCE:
            return "The supernet's ranking cannot be told from chance with so many architectures."
        if low > 0:
            return "The supernet ranks architectures better than chance."
        if high < 0:
            return "The supernet ranks architectures worse than chance."
        return "The supernet's ranking cannot be told from chance with so many architectures."


def rank_agreement(supernet: Sequence[float], alone: Sequence[float], seed: int = 0) -> Agreement:
    """Compare the scores of the same architectures with shared weights and trained alone.

    Args:
        supernet: mIoU of each architecture with shared weights, 0..1.
        alone: mIoU of each, trained on its own, 0..1.
        seed: Of the bootstrap.

    Raises:
        ValueError: The two do not have the same length, or there are fewer than two architectures.

    Example:
        >>> found = rank_agreement([0.3, 0.4, 0.5, 0.6], [0.50, 0.60, 0.70, 0.66])  # 5 pairs agree, 1 does not
        >>> round(found.tau, 4), found.favourite, found.best, round(found.regret, 3), round(found.random_regret, 3)
        (0.6667, 3, 2, 0.04, 0.085)
    """
    if len(supernet) != len(alone) or len(alone) < 2:
        raise ValueError(f"{len(supernet)} and {len(alone)} scores: give as many of both, and two or more")
    x, y = np.asarray(supernet, float), np.asarray(alone, float)
    tau, p_value = _tau(x, y)
    favourite = int(x.argmax())
    best = favourite if y[favourite] == y.max() else int(y.argmax())
    return Agreement(
        tau=tau,
        p_value=p_value,
        interval=None if tau is None else _interval(x, y, seed),
        favourite=favourite,
        best=best,
        regret=float(y.max() - y[favourite]),
        random_regret=float(y.max() - y.mean()),
    )


def _tau(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None]:
    """Kendall's tau-b and its p-value, both None where they are not defined."""
    found: Any = kendalltau(x, y)
    tau, p_value = float(found.statistic), float(found.pvalue)
    return (None, None) if np.isnan(tau) else (tau, None if np.isnan(p_value) else p_value)


def _interval(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile bootstrap: architectures are drawn with replacement, draws of a single value left out."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(x), len(x)) for _ in range(_RESAMPLES))
    taus = [tau for tau, _ in (_tau(x[draw], y[draw]) for draw in draws) if tau is not None]
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(low), float(high)
