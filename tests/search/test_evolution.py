from __future__ import annotations

import itertools
from pathlib import Path

from toy import PlantedWide
from trial_tools import found, found_by_training, searches, wide_task

from autoseg.search.evolution import Evolution


def test_finds_the_planted_architecture(tmp_path: Path) -> None:
    """With 40 of 96 architectures, where chance finds it in two of five."""
    assert found(searches(Evolution, tmp_path, trials=40)) >= 4


def test_finds_it_by_training(tmp_path: Path) -> None:
    assert found_by_training(Evolution, tmp_path, trials=6, epochs=2) >= 4


def test_named_points_are_parents_and_children_resemble_their_parents(tmp_path: Path) -> None:
    """With one individual alive, each child descends from the one before it."""
    for result in searches(Evolution, tmp_path, trials=20, population=1, tournament=1, mutation=0.1):
        lineage = [row["choices"] for row in result.history]
        assert lineage[0] == PlantedWide.named({})["plain"]
        changed = [sum(a[k] != b[k] for k in a) for a, b in itertools.pairwise(lineage)]
        assert min(changed) >= 1
        assert sum(changed) / len(changed) < 2  # of four; strangers differ in 2.7


def test_population_has_room_for_all_named_points(tmp_path: Path) -> None:
    points = [{"in": [i], "n1": "clear", "n2": "clear", "op": op} for i in (0, 1) for op in ("noise", "conv1")]
    strategy = Evolution(population=2, tournament=1).strategy(wide_task(tmp_path, 0), points, {"op": []})
    assert strategy.population_size == 4
