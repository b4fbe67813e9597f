"""Benches for the tests of searches that have several candidates in flight."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from toy import PlantedWide
from trial_tools import wide_task

from autoseg.errors import Interrupted
from autoseg.runfolder import write_json
from autoseg.search.evolution import Evolution
from autoseg.search.grid import Grid
from autoseg.search.multitrial import MultiTrial
from autoseg.search.random_search import RandomSearch
from autoseg.search.rl import PolicyRl
from autoseg.search.task import SearchResult
from autoseg.search.tpe import Tpe
from autoseg.search.trials import TrialResult, read_result, result_file
from autoseg.spaces.base import Choices


class Bench:
    """Scores by a formula; a candidate is ready when it is asked for, or before that.

    Args:
        folder: The folder of the search, where results are kept as trainings keep them.
        concurrency: Candidates at a time.
        quality: The formula.
        scramble: Seed of the order in which those in flight become ready; None for that of their numbers.
        ends: The process ends, so to speak, after so many candidates have become ready.

    Attributes:
        trained: Numbers of the candidates that were begun and not answered from a file, in order.
        ready: Numbers in the order in which they became ready.
        most: Most candidates in flight.
    """

    def __init__(
        self,
        folder: Path,
        concurrency: int,
        quality: Callable[[Choices], float],
        scramble: int | None = None,
        ends: int | None = None,
    ) -> None:
        self.folder, self.concurrency, self.quality, self.ends = folder, concurrency, quality, ends
        self.trained: list[int] = []
        self.ready: list[int] = []
        self.lengths: list[tuple[int | None, float | None]] = []
        self.most = 0
        self._random = None if scramble is None else random.Random(scramble)
        self._flying: dict[int, Choices] = {}

    def begin(
        self, number: int, choices: Choices, *, code: str, epochs: int | None, seconds: float | None
    ) -> Callable[[], TrialResult]:
        assert code
        self.lengths.append((epochs, seconds))
        known = read_result(self.folder, number, choices)
        if known is not None:
            return lambda: known
        self.trained.append(number)
        self._flying[number] = choices
        self.most = max(self.most, len(self._flying))
        assert self.most <= self.concurrency

        def wait() -> TrialResult:
            while number in self._flying:
                others = list(self._flying)
                self.finish(min(others) if self._random is None else self._random.choice(others))
            result = read_result(self.folder, number, choices)
            assert result is not None
            return result

        return wait

    def finish(self, number: int) -> None:
        """A candidate becomes ready."""
        if self.ends is not None and len(self.ready) == self.ends:
            raise Interrupted
        self.ready.append(number)
        choices = self._flying.pop(number)
        told: dict[str, Any] = {"number": number, "choices": choices, "curve": []}
        result = TrialResult(miou=self.quality(choices), seconds=0.0, cpu_seconds=2.0, note="")
        write_json(result_file(self.folder, number), {**told, **result})


class QuickRl(PolicyRl):
    """Learns in one pass."""

    def __init__(self, trials: int) -> None:
        super().__init__(trials=trials, per_update=6, passes=1)


STRATEGIES: list[type[MultiTrial]] = [RandomSearch, Grid, Evolution, Tpe, QuickRl]


def bench_for(folder: Path, concurrency: int, **options: Any) -> Bench:
    """A bench that scores what is proposed as the planted toy does."""
    return Bench(folder, concurrency, PlantedWide.quality, **options)


def search(strategy: MultiTrial, folder: Path, bench: Any, seed: int = 0, **changes: Any) -> SearchResult:
    """Search the wide toy with a bench."""
    torch.manual_seed(99)
    return strategy.search(wide_task(folder, seed, bench=bench, **changes))
