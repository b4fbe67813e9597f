from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from toy import PlantedWide
from trial_tools import found, found_by_training, outcome, scored_by_formula, searches, wide_task

from autoseg.search.grid import Grid
from autoseg.spaces.base import decisions


def test_finds_the_planted_architecture(tmp_path: Path) -> None:
    results = searches(Grid, tmp_path, trials=96)
    assert found(results) == 5
    assert all(result.notes == [] and len(result.candidates) == 96 for result in results)


def test_finds_it_by_training(tmp_path: Path) -> None:
    assert found_by_training(Grid, tmp_path, trials=6, epochs=2) >= 4


def test_order_is_that_of_the_decisions_whatever_the_seed(tmp_path: Path) -> None:
    named = PlantedWide.named({})["plain"]
    values = decisions(PlantedWide(1, 2))
    grid = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    expected = [named, *(point for point in grid if point != named)]
    for result in searches(Grid, tmp_path, trials=20):
        assert [row["choices"] for row in result.history] == expected[:20]
        assert result.notes == ["The grid was not finished: 20 of its 96 architectures were looked at."]


def test_resume(tmp_path: Path) -> None:
    with scored_by_formula():
        whole = Grid(trials=30).search(wide_task(tmp_path / "whole", 0))
        Grid(trials=12).search(wide_task(tmp_path / "cut", 0))
        assert outcome(Grid(trials=30).search(wide_task(tmp_path / "cut", 0))) == outcome(whole)


class Many(ModelSpace):
    def __init__(self, count: int) -> None:
        super().__init__()
        for i in range(count):
            options = {str(k): nn.Identity() for k in range(10)}
            setattr(self, f"op{i}", LayerChoice(options, label=f"op{i}"))


@pytest.mark.parametrize(("count", "refused"), [(5, False), (6, True)])
def test_large_spaces_are_refused(count: int, refused: bool) -> None:
    reason = Grid.supports(Many(count))
    expected = "a grid of 1e+06 architectures is never finished; use random, evolution, tpe or rl"
    assert reason == (expected if refused else None)
