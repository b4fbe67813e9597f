"""The figures that trainings and one-shot searches report, from which curves are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy import planted_task
from trial_tools import toy_spaces

from autoseg.progress import Forwarded, Progress
from autoseg.search.enas import Enas
from autoseg.search.multitrial import MultiTrial
from autoseg.search.random_search import RandomSearch
from autoseg.search.trials import TrialProgress
from autoseg.train.keeper import HISTORY, Trained


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_spaces():
        yield


class Curves(Progress):
    """Remembers all figures by label."""

    def __init__(self) -> None:
        self.seen: dict[str, list[dict[str, float]]] = {}

    def figures(self, label: str, values: dict[str, float]) -> None:
        assert all(isinstance(value, float) and math.isfinite(value) for value in values.values())
        self.seen.setdefault(label, []).append(values)


def test_the_latest_score_is_kept_between_validations() -> None:
    rows = [(0, 1, 0.1, 0.9, None, None), (1, 2, 0.1, None, 0.8, 0.4), (2, 3, 0.1, 0.7, None, None)]
    trained = Trained([dict(zip(HISTORY, row, strict=True)) for row in rows])
    expected = [{"default": 0.0, "loss": 0.9}, {"default": 0.4, "val_loss": 0.8}, {"default": 0.4, "loss": 0.7}]
    assert trained.curve == expected == [trained.figures(epoch) for epoch in range(3)]


def test_candidates_report_every_epoch(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 0)
    task.progress = shown = Curves()
    search: MultiTrial = RandomSearch(trials=2, epochs=3)
    result = search.search(task)
    assert list(shown.seen) == ["candidate 1", "candidate 2"]
    for points, row in zip(shown.seen.values(), result.history, strict=True):
        assert [set(point) for point in points] == [{"default", "loss", "val_loss"}] * 3
        assert max(point["default"] for point in points) == row["miou"]


def test_a_one_shot_search_reports_every_epoch(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 0)
    task.progress = shown = Curves()
    result = Enas(epochs=3, warmup=0.3, candidates=1).search(task)
    points = shown.seen["search"]
    assert [point["default"] for point in points] == [row["reward"] or 0.0 for row in result.history]
    assert [point["loss"] for point in points] == [row["loss"] for row in result.history]
    assert [point["entropy"] for point in points] == [row["entropy"] for row in result.history]
    assert points[0]["stability"] == 0.0 and points[1]["stability"] == result.history[1]["stability"]
    assert all(point.keys() == points[0].keys() for point in points)  # NNI's page offers the keys of the first
    for point in points:
        chances = {name: value for name, value in point.items() if name.startswith("p(")}
        assert chances.keys() == {"p(op)", "p(op2)"}
        assert chances["p(op2)"] >= 0.5  # the larger of two


def test_figures_are_passed_on() -> None:
    calls = []
    forwarded = Forwarded(lambda method, arguments: calls.append((method, arguments)))
    TrialProgress(forwarded, 0, "").figures("candidate 1", {"default": 0.5})
    assert calls == [("figures", ("candidate 1", {"default": 0.5}))]
