"""What the tests of the multi-trial strategies share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy import Planted, PlantedWide, planted_task

from autoseg import registry
from autoseg.search import trials
from autoseg.search.multitrial import MultiTrial
from autoseg.search.objective import Cost, CostMeter
from autoseg.search.task import SearchResult, SearchTask
from autoseg.search.trials import TrialResult

VOLATILE = ("seconds", "cpu_seconds", "latency_ms")


@contextmanager
def toy_spaces() -> Iterator[None]:
    """Make the registry know the spaces of toy.py."""
    load, toys = registry.load, {"planted": Planted, "planted-wide": PlantedWide}

    def load_or_toy(kind: str, name: str) -> Any:
        return toys[name] if kind == "space" and name in toys else load(kind, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", load_or_toy)
        yield


@contextmanager
def scored_by_formula() -> Iterator[None]:
    """Candidates of PlantedWide are neither trained nor measured: their quality is known."""

    def score(task: SearchTask, number: int, choices: dict[str, Any], **lengths: Any) -> TrialResult:
        return TrialResult(miou=PlantedWide.quality(choices), seconds=0.0, cpu_seconds=0.0, note="")

    with toy_spaces(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "train_candidate", score)
        patch.setattr(CostMeter, "of", lambda meter, choices, full=False: Cost(1))
        yield


def wide_task(folder: Path, seed: int, **changes: Any) -> SearchTask:
    task = planted_task(folder, seed)
    return replace(task, space="planted-wide", space_class=PlantedWide, **changes)


def stable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Journal rows without what no two runs share."""
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]


def outcome(result: SearchResult) -> list[Any]:
    """What has to be the same to the last bit."""
    candidates = [(c.choices, c.miou, c.source, c.params, c.flops) for c in result.candidates]
    return [result.architecture, candidates, stable(result.history), result.notes]


def searches(strategy: type[MultiTrial], folder: Path, **options: Any) -> list[SearchResult]:
    """Five seeds over PlantedWide, scored by formula."""
    with scored_by_formula():
        return [strategy(**options).search(wide_task(folder / str(seed), seed)) for seed in range(5)]


def found(results: list[SearchResult]) -> int:
    """In how many of the searches the planted architecture was found."""
    return sum(result.architecture.choices == PlantedWide.best for result in results)


def found_by_training(strategy: type[MultiTrial], folder: Path, **options: Any) -> int:
    """In how many of five searches over the small toy, with real trainings, the planted one was found."""
    with toy_spaces():
        results = [strategy(**options).search(planted_task(folder / str(seed), seed)) for seed in range(5)]
    return sum(result.architecture.choices == {"op": "conv3", "op2": "identity"} for result in results)
