"""Sharing jobs among processes: lengths by hand, bounds, and a budget that is used and kept."""

from __future__ import annotations

import random

import pytest

from autoseg.schedule import longest_training, makespan


@pytest.mark.parametrize(
    ("search", "trainings", "models", "workers", "expected"),
    [
        (5, [], 1, 1, 5),
        (5, [10], 1, 3, 15),  # the finalist waits for the search
        (5, [10, 1, 2], 3, 1, 18),
        (30, [10, 7, 8], 3, 2, 40),  # 7 and 8 fit beside the search
        (10, [10, 30, 1], 3, 2, 30),  # searched: 10 to 20, 1: 20 to 21; beside it 30
        (30, [10, 10, 10, 10], 2, 2, 40),  # both baselines beside the search, then the two finalists
        (30, [10, 10, 10, 10], 2, 4, 40),
        (30, [10, 10, 10, 10], 2, 3, 40),
        (0, [1, 1, 1, 1, 1], 1, 2, 3),
        (4, [3, 1, 3, 1, 3, 1], 2, 2, 10),  # 1 1 1 beside the search to 3, idle to 4, then 3 3 | 3 on two workers
    ],
)
def test_makespan_by_hand(search: float, trainings: list[float], models: int, workers: int, expected: float) -> None:
    assert makespan([search], trainings, models, workers) == expected


@pytest.mark.parametrize(
    ("searches", "workers", "expected"),
    [
        ([30, 30], 2, 40),  # two seeds side by side, then two finalists
        ([30, 30], 1, 80),
        ([30, 20, 10], 2, 40),  # 30 | 20 10, then both finalists
        ([15, 15], 2, 25),  # a multi-trial search whose candidates take both places
    ],
)
def test_several_searches(searches: list[float], workers: int, expected: float) -> None:
    assert makespan(searches, [10, 10], models=1, workers=workers) == expected


def test_makespan_within_its_bounds() -> None:
    rng = random.Random(0)
    for _ in range(300):
        models, seeds, workers = rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 6)
        search, trainings = rng.uniform(0, 50), [rng.uniform(0.1, 20) for _ in range(models * seeds)]
        found = makespan([search], trainings, models, workers)
        work = search + sum(trainings)
        chain = search + max(trainings[::models])
        assert found >= max(work / workers, max(trainings), chain) - 1e-9
        # No worker idles while something can start: Graham's bound, after the search at the latest.
        assert found <= search + sum(trainings) / workers + max(trainings) + 1e-9
        assert makespan([search], trainings, models, 1) == pytest.approx(work)
        assert makespan([search], trainings, models, 1 + len(trainings)) == pytest.approx(max(chain, *trainings))


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_a_budget_is_used_and_not_exceeded(workers: int) -> None:
    around = {"searched": 2.0, "unet": 1.0, "random": 3.0}
    each = longest_training(100.0, [30.0], around, seeds=2, workers=workers)
    lengths = [each + extra for extra in around.values()] * 2
    assert makespan([30.0], lengths, 3, workers) == pytest.approx(100.0, abs=1e-3)
    assert makespan([30.0], lengths, 3, workers) <= 100.0
    if workers == 1:
        assert each == pytest.approx((70 - 12) / 6)
    assert longest_training(30.0, [30.0], around, seeds=2, workers=workers) == 0.0
    assert longest_training(-5.0, [1.0], around, seeds=2, workers=workers) == 0.0
