"""What a claim is, and how figures of several seeds become a verdict.

A claim is measured once per seed; all figures of one seed come from the same data, lengths and seed, so that
differences are paired. A criterion bounds one figure. Its one-sided 90 % interval (Student's t over the seeds)
decides: wholly within the bound is *reproduced*, wholly outside *not reproduced*, anything else *inconclusive*.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy import stats

if TYPE_CHECKING:
    from claimed.lab import Lab

REPRODUCED, NOT, OPEN = "reproduced", "not reproduced", "inconclusive"
CONFIDENCE = 0.9
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Criterion:
    """A bound on one figure of a claim.

    Attributes:
        figure: Its name.
        least: The least it may be, or None.
        most: The most it may be, or None.
        exact: Whether it does not depend on seeds, as a number of parameters.
    """

    figure: str
    least: float | None = None
    most: float | None = None
    exact: bool = False

    def margin(self, value: float) -> float:
        """How far a value is within the bound; negative outside."""
        ends = [value - self.least] if self.least is not None else []
        ends += [self.most - value] if self.most is not None else []
        return min(ends)

    def verdict(self, values: Sequence[float]) -> str:
        """From the values of all seeds.

        Example:
            >>> Criterion("gain", least=0.0).verdict([0.02, 0.03, 0.02])
            'reproduced'
            >>> Criterion("gain", least=0.0).verdict([0.02, -0.03, 0.02])
            'inconclusive'
        """
        margins = [self.margin(value) for value in values]
        mean = statistics.fmean(margins)
        if self.exact:
            return REPRODUCED if mean >= 0 else NOT
        if len(margins) < 2:
            return OPEN
        half = stats.t.ppf(CONFIDENCE, len(margins) - 1) * statistics.stdev(margins) / math.sqrt(len(margins))
        return REPRODUCED if mean - half >= 0 else NOT if mean + half < 0 else OPEN

    def __str__(self) -> str:
        ends = [f"{self.figure} >= {self.least:g}"] if self.least is not None else []
        ends += [f"{self.figure} <= {self.most:g}"] if self.most is not None else []
        return " and ".join(ends)


@dataclass(frozen=True)
class Claim:
    """A claim of a paper and how it is tested here.

    Attributes:
        name: As ``E1``.
        source: Where in which paper.
        says: The claim.
        paper: The paper's figures.
        test: What is trained and compared here.
        measure: Gives the figures of one seed.
        criteria: All of them must hold.
    """

    name: str
    source: str
    says: str
    paper: str
    test: str
    measure: Callable[[Lab, int], Figures]
    criteria: tuple[Criterion, ...]

    def verdict(self, figures: Sequence[Figures]) -> str:
        """From the figures of all seeds."""
        found = [criterion.verdict([row[criterion.figure] for row in figures]) for criterion in self.criteria]
        return NOT if NOT in found else OPEN if OPEN in found else REPRODUCED


def summary(figures: Sequence[Figures]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the seeds, by name.

    Example:
        >>> summary([{"gain": 1.0}, {"gain": 3.0}])
        {'gain': (2.0, 1.4142135623730951)}
    """
    names = list(dict.fromkeys(name for row in figures for name in row))
    columns = {name: [row[name] for row in figures if name in row] for name in names}
    return {
        name: (statistics.fmean(column), statistics.stdev(column) if len(column) > 1 else 0.0)
        for name, column in columns.items()
    }
