from __future__ import annotations

from pathlib import Path

from trial_tools import found, found_by_training, searches

from autoseg.search.random_search import RandomSearch


def test_finds_the_planted_architecture(tmp_path: Path) -> None:
    """All 96 architectures, each once, in another order for each seed."""
    results = searches(RandomSearch, tmp_path, trials=96)
    assert found(results) == 5
    orders = [str([row["choices"] for row in result.history]) for result in results]
    assert len(set(orders)) == 5
    assert all(len(set(map(str, (c.choices for c in result.candidates)))) == 96 for result in results)


def test_finds_it_by_training(tmp_path: Path) -> None:
    assert found_by_training(RandomSearch, tmp_path, trials=6, epochs=2) >= 4
