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

REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"
OPEN, TOO_SMALL = "inconclusive", "cannot be tested at this size"
CONFIDENCE = 0.9
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Criterion:
    """A bound on one figure of a claim.

    Attributes:
        figure: Its name.
        above: What it must be above, as 0 for a gain; equal is not enough.
        least: The least it may be, as a small loss that is tolerated.
        most: The most it may be.
        exact: Whether it does not depend on seeds, as a number of parameters.
    """

    figure: str
    above: float | None = None
    least: float | None = None
    most: float | None = None
    exact: bool = False

    def verdict(self, values: Sequence[float]) -> str:
        """From the values of all seeds.

        Example:
            >>> gain = Criterion("gain", above=0.0)
            >>> [gain.verdict(x) for x in ([0.02, 0.03, 0.02], [0.02, -0.03, 0.02], [0.0, 0.0, 0.0])]
            ['reproduced', 'inconclusive', 'not reproduced']
        """
        if not all(math.isfinite(value) for value in values) or len(values) < 2:
            return OPEN
        mean, half = statistics.fmean(values), 0.0
        if not self.exact:
            half = stats.t.ppf(CONFIDENCE, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
        if self._holds(mean - half) and self._holds(mean + half):
            return REPRODUCED
        outside = (
            (self.above is not None and mean + half <= self.above)
            or (self.least is not None and mean + half < self.least)
            or (self.most is not None and mean - half > self.most)
        )
        return NOT if outside else OPEN

    def _holds(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        bounds = (("above", self.above), ("at least", self.least), ("at most", self.most))
        return f"{self.figure} " + " and ".join(f"{word} {value:g}" for word, value in bounds if value is not None)


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
        large: Whether it is about the size itself, so that a small run gives figures and no verdict.
    """

    name: str
    source: str
    says: str
    paper: str
    test: str
    measure: Callable[[Lab, int], Figures]
    criteria: tuple[Criterion, ...]
    large: bool = False

    def verdicts(self, figures: Sequence[Figures]) -> dict[str, str]:
        """The verdict of every criterion, by its words, from the figures of all seeds."""
        return {str(c): c.verdict([row[c.figure] for row in figures]) for c in self.criteria}

    def verdict(self, figures: Sequence[Figures], *, large: bool = False) -> str:
        """That of the claim.

        Args:
            figures: Of all seeds.
            large: Whether they were measured at the size of the paper.
        """
        if self.large and not large:
            return TOO_SMALL
        found = set(self.verdicts(figures).values())
        if len(found) == 1:
            return found.pop()
        return PARTLY if REPRODUCED in found else NOT if NOT in found else OPEN


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
