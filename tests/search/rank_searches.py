"""What the ranks of the tests do; it is started in other processes, so each is a function of an importable module."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from toy import planted_task
from trial_tools import toy_spaces

from autoseg import registry
from autoseg.search.objective import CostMeter, Objective
from autoseg.search.oneshot import OneShot
from autoseg.search.supernet_training import train_supernet
from autoseg.train.compute import Compute


def search(compute: Compute, folder: str, name: str, seconds: float | None = None, **options: Any) -> Any:
    """Search, as rank 0 or with it; each rank leaves in the folder what its engine has learned in each phase."""
    strategy: Any = registry.load("strategy", name)(**options)
    one_shot: OneShot = getattr(strategy, "_search", strategy)  # the AutoSegNet plugin has two modes
    learned: list[Any] = []

    def noted(*arguments: Any) -> Any:
        engine = train_supernet(*arguments)
        weights = engine.training_module.model.state_dict()
        learned.append(
            {
                "phase": arguments[1],
                "weights": {key: value.tolist() for key, value in weights.items()},
                "distribution": {key: list(row.values()) for key, row in engine.distribution().items()},
                "greedy": engine.draw(True) if one_shot.learns else None,
            }
        )
        return engine

    limits = Objective(max_latency_ms=1000.0)  # each rank would measure other latencies
    task = replace(planted_task(Path(folder) / "search", 0), compute=compute, seconds=seconds, objective=limits)
    if compute.rank:
        CostMeter.of = _not_here  # type: ignore[method-assign]
    with toy_spaces(), mock.patch("autoseg.search.oneshot.train_supernet", noted):
        found = one_shot.search(task) if compute.rank == 0 else one_shot.take_part(task)
    (Path(folder) / f"rank-{compute.rank}.json").write_text(json.dumps(learned))
    return found


def _not_here(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("only rank 0 measures")


def searches(compute: Compute, folder: str, jobs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Several searches one after the other."""
    found = {}
    for label, options in jobs.items():
        place = Path(folder) / label
        if compute.rank == 0:
            (place / "search").mkdir(parents=True)
        found[label] = search(compute, str(place), **options)
    return found
