from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from nni.nas.space import SimplifiedModelSpace
from toy import PlantedWide
from trial_tools import found, found_by_training, searches, wide_task

from autoseg.search import health
from autoseg.search.rl import PolicyRl
from autoseg.search.task import SearchResult
from autoseg.spaces.base import decisions

TRIALS = 64


class Kept(PolicyRl):
    """Keeps NNI's strategies."""

    made: ClassVar[list[Any]] = []

    def strategy(self, *arguments: Any) -> Any:
        self.made.append(super().strategy(*arguments))
        return self.made[-1]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> list[SearchResult]:
    return searches(Kept, tmp_path_factory.mktemp("five"), trials=TRIALS)


def test_finds_the_planted_architecture(five: list[SearchResult]) -> None:
    """With at most 64 of 96 architectures."""
    assert found(five) >= 4


def test_finds_it_by_training(tmp_path: Path) -> None:
    assert found_by_training(PolicyRl, tmp_path, trials=6, epochs=2) >= 4


def test_policy_learns(five: list[SearchResult]) -> None:
    """What the policy itself prefers in the end is good; of all architectures a tenth are as good."""
    preferred = [health.most_probable(strategy.distribution()) for strategy in Kept.made]
    qualities = [PlantedWide.quality({**choices, "in": [choices["in"]]}) for choices in preferred]
    assert sum(quality > 0.65 for quality in qualities) >= 4


def test_entropy_and_stability_are_reported(five: list[SearchResult]) -> None:
    for result in five:
        entropies = [row["entropy"] for row in result.history]
        assert entropies[0] > 0.97 and min(entropies) < entropies[0] - 0.03
        assert all(0 <= value <= 1 for value in entropies)
        stabilities = [row["stability"] for row in result.history]
        assert stabilities[0] is None
        assert set(stabilities[1:]) <= {0.0, 0.25, 0.5, 0.75, 1.0}  # of four decisions


def test_undecided_policy_is_noted(tmp_path: Path) -> None:
    for result in searches(PolicyRl, tmp_path, trials=3):
        (note,) = (note for note in result.notes if "undecided" in note)
        assert f"(entropy {result.history[-1]['entropy']:.2f} of 1)" in note


def test_distribution_draws_no_random_numbers(tmp_path: Path) -> None:
    space = PlantedWide(1, 2)
    strategy = PolicyRl().strategy(wide_task(tmp_path, 0), [], {})
    strategy.initialize(SimplifiedModelSpace.from_model(space, None), None)
    before = torch.get_rng_state()
    learned = strategy.distribution()
    assert torch.equal(before, torch.get_rng_state())
    assert {label: len(shares) for label, shares in learned.items()} == {
        label: len(values) for label, values in decisions(space).items()
    }
    assert all(sum(shares.values()) == pytest.approx(1) for shares in learned.values())
