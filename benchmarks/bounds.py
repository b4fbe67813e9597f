"""What the benchmarks promise: a measured figure and the most it may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Bound:
    """A measured figure and the most it may be."""

    what: str
    value: float
    most: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether it is within the bound."""
        return self.value <= self.most

    def __str__(self) -> str:
        verdict = "ok  " if self.kept else "OVER"
        return f"{verdict} {self.what}: {self.value:.3f}{self.unit} (at most {self.most:g}{self.unit})"
