from __future__ import annotations

import itertools
import statistics
from pathlib import Path

from toy import PlantedWide
from trial_tools import found, found_by_training, searches

from autoseg.search.tpe import Tpe, _CuredTpe
from autoseg.spaces.base import decisions


def test_finds_the_planted_architecture(tmp_path: Path) -> None:
    """With 40 of 96 architectures, where chance finds it in two of five."""
    assert found(searches(Tpe, tmp_path, trials=40)) >= 4


def test_finds_it_by_training(tmp_path: Path) -> None:
    assert found_by_training(Tpe, tmp_path, trials=6, epochs=2) >= 4


def test_learns_from_the_named_points(tmp_path: Path) -> None:
    """They are in the tuner's history: one that scores as well as nothing else draws the search to itself."""
    values = {"a": ["x", "y", "z"], "in": [[0], [1]]}
    strategy = _CuredTpe([{"a": "y", "in": [1]}], values, seed=0, tpe_args={"n_startup_jobs": 1})
    strategy.tuner.update_search_space({k: {"_type": "choice", "_value": v} for k, v in values.items()})
    strategy.tuner.import_data([{"parameter": {"a": "y", "in": [1]}, "value": 0.9}])
    histories = {key: records for key, records in strategy.tuner._history.items()}
    assert histories == {("a",): [(1, -0.9)], ("in",): [(1, -0.9)]}  # indices; losses are minimised


def test_it_maximises(tmp_path: Path) -> None:
    """After the start its candidates are better than the average architecture."""
    values = decisions(PlantedWide(1, 2))
    average = statistics.mean(
        PlantedWide.quality(dict(zip(values, point, strict=True))) for point in itertools.product(*values.values())
    )
    for result in searches(Tpe, tmp_path, trials=26):
        assert statistics.mean(row["miou"] for row in result.history[6:]) > average + 0.03
