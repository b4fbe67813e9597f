"""One-shot searches on two ranks (two processes on the CPU) do the same on both, and find what one process finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rank_searches
from toy import BEST

from autoseg.search.task import SearchResult
from autoseg.train.compute import Compute
from autoseg.train.ranks import several_ranks

SHORT = {"epochs": 3, "warmup": 0.3, "tuning": 0.3, "candidates": 1}
JOBS: dict[str, dict[str, Any]] = {
    "darts": {"name": "darts", "epochs": 5, "warmup": 0.2, "tuning": 0.2, "candidates": 1},
    "gumbel-darts": {"name": "gumbel-darts", **SHORT},
    "proxyless": {"name": "proxyless", **SHORT},
    "enas": {"name": "enas", "epochs": 5, "candidates": 2, "controller_lr": 0.01},
    "random-oneshot": {"name": "random-oneshot", "epochs": 5, "candidates": 4},
    "oneshot-evolution": {"name": "oneshot-evolution", "epochs": 1, "evaluations": 4, "population": 2, "tournament": 2},
    "autosegnet": {"name": "autosegnet", "epochs": 1, "warmup": 0.0, "rewards": 8, "candidates": 2},
    "in time": {"name": "darts", "seconds": 2.0, "candidates": 1},
}


TUNED = ("darts", "gumbel-darts", "proxyless", "in time")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, SearchResult]]:
    """All searches by the same two ranks, and where they left what they learned."""
    folder = tmp_path_factory.mktemp("ranks")
    arguments = {"folder": str(folder), "jobs": JOBS}
    with several_ranks(Compute(devices=2), "rank_searches:searches", arguments) as own:
        return folder, rank_searches.searches(own, **arguments)


def learned(found: tuple[Path, Any], job: str) -> tuple[list[Any], list[Any]]:
    first, second = (json.loads((found[0] / job / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    return first, second


@pytest.mark.parametrize("job", JOBS)
def test_both_ranks_have_the_same_weights_and_learned_the_same(job: str, found: Any) -> None:
    first, second = learned(found, job)
    assert [phase["phase"] for phase in first] == (
        ["search", "tuning"] if "darts" in JOBS[job]["name"] or job == "proxyless" else ["search"]
    )
    assert first == second
    assert len(first[0]["weights"]) >= 10


@pytest.mark.parametrize("job", ["darts", "gumbel-darts", "proxyless", "enas", "autosegnet"])
def test_both_ranks_learned_something(job: str, found: Any) -> None:
    (phase, *_), _ = learned(found, job)
    assert set(phase["greedy"]) == {"op", "op2"}
    assert all(max(row) - min(row) > 1e-4 for row in phase["distribution"].values())


@pytest.mark.parametrize("job", ["darts", "enas", "random-oneshot"])
def test_the_best_architecture_is_found(job: str, found: Any) -> None:
    result = found[1][job]
    assert result.architecture.choices == BEST
    assert result.candidates[0].miou > 0.7


def test_the_warm_up_is_about_that_of_one_process(found: Any, tmp_path: Path) -> None:
    """Only noise and the statistics of normalisation differ."""
    (tmp_path / "search").mkdir()
    alone = rank_searches.search(Compute(), str(tmp_path), **JOBS["darts"]).history
    together = found[1]["darts"].history
    assert [row["phase"] for row in together] == [row["phase"] for row in alone]
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], abs=0.02)
    assert together[0]["reward"] == pytest.approx(alone[0]["reward"], abs=0.05)


def test_only_rank_0_writes(found: Any) -> None:
    folder, results = found
    for job, result in results.items():
        rows = [json.loads(line) for line in (folder / job / "search" / "journal.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [row["epoch"] for row in result.history]
        assert sum(row["kind"] == "candidate" for row in rows) == len(result.candidates)
        assert (folder / job / "search" / "costs.jsonl").stat().st_size > 0  # rank 1 fails when it measures


def test_a_budget_in_seconds_ends_both(found: Any) -> None:
    result = found[1]["in time"]
    assert 1.0 < result.seconds < 8.0
    assert {row["phase"] for row in result.history} >= {"search", "tuning"}
