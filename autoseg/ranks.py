"""Comparing several models over several data sets by their ranks.

After J. Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, Journal of Machine Learning Research
7 (2006), 1-30: on every data set the best model has rank 1, equal ones share the mean of their ranks. The Friedman
test asks whether the mean ranks can all be equal; where they cannot, two models differ when their mean ranks are
at least the critical difference of Nemenyi apart (section 3.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

LEAST = 3
"""Models, and data sets, that a test of ranks needs."""

_DIGITS = 9  # scores that differ less are floating-point noise


@dataclass(frozen=True)
class Ranking:
    """Ranks of models over data sets, and what can be concluded from them.

    Attributes:
        models: Names, best mean rank first.
        ranks: ``(data sets, models)``; 1 is the best.
        mean_ranks: One per model.
        chi2: Friedman's statistic with ``k - 1`` degrees of freedom, corrected for ties; None where not computed.
        p_value: Of that statistic, by the chi-squared distribution.
        f_value: The less conservative statistic of Iman and Davenport; None where all data sets agree, for it is
            infinite then.
        f_p_value: Of that, by the F distribution with ``k - 1`` and ``(k - 1)(N - 1)`` degrees of freedom.
        critical_difference: Of two mean ranks (Nemenyi), at ``alpha``.
        groups: Largest sets of models, of two or more, whose mean ranks are less than that apart.
        alpha: Level of the test.
        why_not: Why there is no test; empty where there is one.
    """

    models: tuple[str, ...]
    ranks: npt.NDArray[np.float64]
    mean_ranks: tuple[float, ...]
    chi2: float | None = None
    p_value: float | None = None
    f_value: float | None = None
    f_p_value: float | None = None
    critical_difference: float | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    alpha: float = 0.05
    why_not: str = ""

    @property
    def differs(self) -> bool:
        """Whether the Friedman test finds a difference at all, without which no pair may be told apart."""
        return self.p_value is not None and self.p_value < self.alpha

    def to_json(self) -> dict[str, Any]:
        """Plain values; ranks by model, in the order of the data sets."""
        return {
            "models": list(self.models),
            "ranks": {name: self.ranks[:, i].tolist() for i, name in enumerate(self.models)},
            "mean_ranks": dict(zip(self.models, self.mean_ranks, strict=True)),
            "friedman": {"chi2": self.chi2, "p_value": self.p_value, "f": self.f_value, "f_p_value": self.f_p_value},
            "differs": self.differs,
            "critical_difference": self.critical_difference,
            "groups": [list(group) for group in self.groups],
            "alpha": self.alpha,
            "why_not": self.why_not,
        }


def critical_difference(models: int, datasets: int, alpha: float = 0.05) -> float:
    """Least difference of two mean ranks that is significant (Nemenyi).

    Args:
        models: Number of models, 2 or more.
        datasets: Number of data sets, 1 or more.
        alpha: Level.

    Returns:
        ``q sqrt(k (k + 1) / (6 N))``, q being the studentised range for infinitely many degrees of freedom over
        the square root of 2 (Demsar 2006, table 5).

    Example:
        >>> round(critical_difference(4, 14), 2)  # Demsar's own example has 1.25
        1.25
    """
    q = float(stats.studentized_range.ppf(1 - alpha, models, np.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * datasets))


def rank(scores: Mapping[str, Sequence[float]], alpha: float = 0.05) -> Ranking:
    """Rank models over data sets and test their mean ranks.

    Args:
        scores: For each model its score on each data set, in the same order; more is better.
        alpha: Level of the tests.

    Returns:
        The ranking; with fewer than three models or data sets, or with no difference between any two scores, there
        are ranks and no test.

    Raises:
        ValueError: The models have different numbers of scores, or a score is no number.

    Example:
        >>> found = rank({"a": [0.9, 0.8, 0.7], "b": [0.5, 0.8, 0.6], "c": [0.4, 0.3, 0.2]})
        >>> found.models, [round(r, 2) for r in found.mean_ranks], found.groups
        (('a', 'b', 'c'), [1.17, 1.83, 3.0], (('a', 'b', 'c'),))
    """
    names = list(scores)
    lengths = {len(values) for values in scores.values()}
    if len(lengths) > 1:
        raise ValueError(f"every model needs a score on every data set, not {sorted(lengths)} scores")
    table = np.round(np.array([scores[name] for name in names], np.float64).T, _DIGITS)  # (data sets, models)
    if not names or not table.size:
        return Ranking((), np.zeros((0, 0)), (), alpha=alpha, why_not="There is no model with a score everywhere.")
    if not np.isfinite(table).all():
        raise ValueError("every score must be a number")
    ranks = stats.rankdata(-table, axis=1)
    order = np.argsort(ranks.mean(axis=0), kind="stable")
    models, ranks = tuple(names[i] for i in order), ranks[:, order]
    means = ranks.mean(axis=0)
    why_not = _why_not(models, table)
    mean_ranks = tuple(float(value) for value in means)
    if why_not:
        return Ranking(models, ranks, mean_ranks, alpha=alpha, why_not=why_not)
    datasets, count = ranks.shape
    chi2, p_value = (float(value) for value in stats.friedmanchisquare(*table.T))
    rest = datasets * (count - 1) - chi2
    f_value = None if rest < 1e-9 else (datasets - 1) * chi2 / rest
    freedom = (count - 1, (count - 1) * (datasets - 1))
    distance = critical_difference(count, datasets, alpha)
    return Ranking(
        models,
        ranks,
        mean_ranks,
        chi2=chi2,
        p_value=p_value,
        f_value=f_value,
        f_p_value=0.0 if f_value is None else float(stats.f.sf(f_value, *freedom)),
        critical_difference=distance,
        groups=_groups(models, means, distance),
        alpha=alpha,
    )


def _why_not(models: Sequence[str], table: npt.NDArray[np.float64]) -> str:
    """Why the tests cannot be computed."""
    lacking = []
    if table.shape[0] < LEAST:
        lacking.append(f"{table.shape[0]} data set{'s' if table.shape[0] != 1 else ''}")
    if len(models) < LEAST:
        lacking.append(f"{len(models)} model{'s' if len(models) != 1 else ''} scored on all of them")
    if lacking:
        have = " and ".join(lacking)
        return (
            f"No Friedman test and no critical difference: they need at least {LEAST} data sets and {LEAST} models "
            f"that were scored on all of them, and there {'are' if not have.startswith('1 ') else 'is'} {have}."
        )
    if (np.ptp(table, axis=1) == 0).all():
        return "No Friedman test and no critical difference: on every data set all models score the same."
    return ""


def _groups(models: Sequence[str], means: npt.NDArray[np.float64], distance: float) -> tuple[tuple[str, ...], ...]:
    """Runs of neighbours in the order of the mean ranks that are less than ``distance`` wide, none within another."""
    found: list[tuple[int, int]] = []
    for first in range(len(models)):
        last = int(np.flatnonzero(means - means[first] < distance)[-1])
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(tuple(models[first : last + 1]) for first, last in found)
