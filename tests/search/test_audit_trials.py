"""An audit on toy spaces where it is known which architectures are good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from toy import Mixed, PlantedWide, block, planted_task

from autoseg import registry
from autoseg.agreement import rank_agreement
from autoseg.errors import Interrupted, UserError
from autoseg.progress import Progress
from autoseg.search.audit_trials import draw, measure
from autoseg.search.objective import Objective
from autoseg.search.random_oneshot import RandomOneShotSearch
from autoseg.search.task import SearchTask
from autoseg.statefile import load_tree


class Ladder(ModelSpace):
    """Six amounts of noise in front of the network that solves the task: the more, the worse, with any weights."""

    size_divisor = 1

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.noise = LayerChoice({f"{n}": Mixed(n / 5) for n in range(6)}, label="noise")
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 1), block(8, 3), nn.Conv2d(8, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.noise(x))


@pytest.fixture
def ladder(tmp_path: Path) -> Iterator[SearchTask]:
    load = registry.load

    def load_or_toy(kind: str, name: str) -> Any:
        return {"ladder": Ladder, "wide": PlantedWide}.get(name) or load(kind, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", load_or_toy)
        yield replace(planted_task(tmp_path / "audit", 0), space="ladder", space_class=Ladder)


def supernet(task: SearchTask, epochs: int) -> dict[str, Tensor]:
    searched = replace(task, folder=task.folder.parent / "search")
    RandomOneShotSearch(epochs=epochs, candidates=1).search(searched)
    weights: dict[str, Tensor] = load_tree(searched.folder / "state.safetensors")["weights"]
    return weights


def test_a_supernet_that_ranks_rightly_is_found_to(ladder: SearchTask) -> None:
    paths = draw(ladder, 6)
    assert sorted(path["noise"] for path in paths) == list("012345")
    rows = measure(ladder, supernet(ladder, 4), paths, epochs=2)
    assert [row["choices"] for row in rows] == paths
    found = rank_agreement([row["supernet"] for row in rows], [row["alone"] for row in rows])
    assert found.tau is not None and found.tau >= 0.8
    assert rows[found.favourite]["choices"] == rows[found.best]["choices"] == {"noise": "0"}
    assert found.regret == 0 and found.random_regret > 0.1
    assert found.text == "The supernet ranks architectures better than chance."


def test_a_longer_list_begins_with_the_shorter_one_and_repeats_nothing(ladder: SearchTask) -> None:
    wide = replace(ladder, space="wide", space_class=PlantedWide)
    short, long = draw(wide, 5), draw(wide, 40)
    assert long[:5] == short
    assert len({json.dumps(path, sort_keys=True) for path in long}) == len(long) == 40
    assert draw(replace(wide, seed=1), 5) != short
    assert len(draw(ladder, 20)) == 6  # all there are


def test_architectures_over_a_limit_are_not_drawn(ladder: SearchTask) -> None:
    # conv3 has 8 * 8 * 9 = 576 weights, conv1 64 and noise none, in a network of at least 16 + 18 others
    wide = replace(ladder, space="wide", space_class=PlantedWide, objective=Objective(max_params=400))
    assert {path["op"] for path in draw(wide, 20)} == {"noise", "conv1"}
    with pytest.raises(UserError, match="gave 0 architectures within the limits"):
        draw(replace(wide, objective=Objective(max_params=10)), 3)


class Cut(Progress):
    """Ends the audit within the training of the third architecture."""

    def update(self, label: str, done: float, text: str = "") -> None:
        if done > 2:
            raise Interrupted


def test_an_audit_that_was_cut_goes_on_and_ends_the_same(ladder: SearchTask, tmp_path: Path) -> None:
    weights, paths = supernet(ladder, 1), draw(ladder, 4)

    def scores(task: SearchTask) -> list[Any]:
        rows = measure(task, weights, paths, epochs=2)
        return [(row["number"], row["supernet"], row["alone"], row["note"]) for row in rows]

    whole = scores(ladder)
    other = replace(ladder, folder=tmp_path / "other", progress=Cut())
    with pytest.raises(Interrupted):
        scores(other)
    journal = other.folder / "journal.jsonl"
    before = journal.read_text()
    assert len(before.splitlines()) == 2
    assert scores(replace(other, progress=Progress())) == whole
    assert journal.read_text().startswith(before) and len(journal.read_text().splitlines()) == 4
    names = {path.name for path in other.folder.iterdir()}
    assert names == {"journal.jsonl", "trials"}  # states of trainings are gone


def test_a_training_that_was_cut_is_continued(ladder: SearchTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a budget in seconds: what is spent on a training before the cut is not spent again."""
    from autoseg.search import trials

    train = trials.train_network
    monkeypatch.setattr(trials, "train_network", lambda *args, **kwargs: train(*args, **kwargs, save_every=0.0))
    weights, paths = supernet(ladder, 1), draw(ladder, 3)
    with pytest.raises(Interrupted):
        measure(replace(ladder, progress=CutLate()), weights, paths, seconds=2.0)
    state = load_tree(ladder.folder / "trial-2.safetensors")
    assert 0 < state["spent"] < 2.0 and not state["finished"]
    row = measure(ladder, weights, paths, seconds=2.0)[2]
    assert row["train_seconds"] == pytest.approx(2.0, abs=0.7)


class CutLate(Progress):
    """Ends the audit in the middle of the third training."""

    def update(self, label: str, done: float, text: str = "") -> None:
        if done > 2.5:
            raise Interrupted


def test_a_journal_of_other_architectures_is_refused(ladder: SearchTask) -> None:
    weights, paths = supernet(ladder, 1), draw(ladder, 3)
    measure(ladder, weights, paths[:2], epochs=1)
    with pytest.raises(UserError, match="other architectures than the journal holds"):
        measure(ladder, weights, paths[::-1], epochs=1)


def test_weights_of_another_space_are_refused(ladder: SearchTask) -> None:
    with pytest.raises(UserError, match="do not fit the space"):
        measure(ladder, {"head.weight": torch.zeros(1)}, draw(ladder, 2), epochs=1)
