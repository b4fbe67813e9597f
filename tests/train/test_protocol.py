"""The training protocol: optimiser and schedule reach the steps, survive a kill, and fit any length."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import INFO, NORMALISATION, RECIPE, TRAIN, network, train
from virtual_time import VirtualTime

from autoseg.errors import Interrupted
from autoseg.plan import Plan
from autoseg.progress import Progress
from autoseg.statefile import load_tree
from autoseg.train.recipe import Recipe
from autoseg.train.schedules import Cosine, CosineRestarts, Exponential
from autoseg.train.trainer import Trained, train_loader

STEPS = 6  # per epoch of tiny.RECIPE
PROTOCOLS: dict[str, dict[str, Any]] = {
    "adam": {"optimiser": "adam", "schedule": "constant"},
    "exponential": {"optimiser": "sgd", "schedule": "exponential", "schedule_options": {"gamma": 0.5}},
    "restarts": {"optimiser": "sgd", "schedule": "cosine-restarts", "schedule_options": {"period": 2, "growth": 1}},
    "annealing": {"optimiser": "sgd", "momentum": 0.0, "schedule": "cosine-annealing"},
}


class Stop(Progress):
    """Interrupts at the n-th step of this process."""

    def __init__(self, step: int) -> None:
        self.left = step

    def update(self, label: str, done: float, text: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted


def rates(trained: Trained) -> list[float]:
    return [row["lr"] for row in trained.history]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path, protocol: str) -> None:
    recipe = replace(RECIPE, epochs=4, **PROTOCOLS[protocol])
    whole, net = network(), network()
    expected = train(whole, tmp_path / "whole", recipe)
    with pytest.raises(Interrupted):
        train(network(), tmp_path / "cut", recipe, progress=Stop(2 * STEPS + 3), save_every=0.0)
    found = train(net, tmp_path / "cut", recipe)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), net.state_dict().values(), strict=True))
    assert rates(found) == rates(expected)
    assert [row["loss"] for row in found.history] == [row["loss"] for row in expected.history]


def test_the_state_holds_the_momentum(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=3, **PROTOCOLS["exponential"])
    with pytest.raises(Interrupted):
        train(network(), tmp_path, recipe, progress=Stop(STEPS + 1), save_every=0.0)
    moments = load_tree(tmp_path / "state.safetensors")["optimiser"]["state"].values()
    assert moments and all(float(m["momentum_buffer"].abs().sum()) > 0 for m in moments)


def test_the_rates_are_those_of_the_schedule(tmp_path: Path) -> None:
    """The history has the rate of the last step of each epoch."""
    moments = [epoch + (STEPS - 1) / STEPS for epoch in range(4)]
    recipe = replace(RECIPE, epochs=4, **PROTOCOLS["exponential"])
    assert rates(train(network(), tmp_path / "a", recipe)) == pytest.approx([0.02 * 0.5**m for m in moments])
    recipe = replace(RECIPE, epochs=4, **PROTOCOLS["restarts"])
    expected = [CosineRestarts(period=2, growth=1)(0.02, 0.0, moment) for moment in moments]
    assert expected[:2] == pytest.approx(expected[2:]) and expected[1] < 0.1 * expected[0]
    assert rates(train(network(), tmp_path / "b", recipe)) == pytest.approx(expected)


def test_the_protocol_makes_a_difference_and_the_default_none(tmp_path: Path) -> None:
    losses = {}
    for name, changes in {"default": {}, "said": {"optimiser": "adamw", "schedule": "cosine"}, **PROTOCOLS}.items():
        trained = train(network(), tmp_path / name, replace(RECIPE, epochs=1, validate_every=1, **changes))
        losses[name] = trained.history[0]["loss"]
    assert losses["default"] == losses["said"]
    assert len(set(losses.values())) == len(losses) - 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_budget_in_seconds_works_with_every_schedule(
    tmp_path: Path, protocol: str, virtual_time: VirtualTime
) -> None:
    """30 steps of a second: five passes over the images, as nothing else takes time."""
    recipe = replace(RECIPE, epochs=None, seconds=30.0, **PROTOCOLS[protocol])
    net = network()
    with virtual_time.passes(type(net), 1.0, 0.0):
        found = rates(train(net, tmp_path, recipe))
    assert len(found) == 5
    if protocol == "exponential":
        assert [b / a for a, b in itertools.pairwise(found)] == pytest.approx([0.5] * 4)
    elif protocol == "restarts":
        assert found[0] == pytest.approx(found[2]) and found[1] < found[2] > found[3]
    elif protocol == "annealing":
        assert found == sorted(found, reverse=True) and 0 < found[-1] < 0.001
    else:
        assert found == [0.02] * 5


def test_cut_epochs_are_parts_of_a_pass() -> None:
    loader = train_loader(TRAIN, INFO, NORMALISATION, RECIPE, 0)
    cut = train_loader(TRAIN, INFO, NORMALISATION, RECIPE, 0, most_steps=3)
    assert (len(loader), loader.pass_share) == (STEPS, 1.0)
    assert (len(cut), cut.pass_share) == (3, 0.5)
    assert train_loader(TRAIN, INFO, NORMALISATION, RECIPE, 0, most_steps=9).pass_share == 1.0


def test_cut_epochs_slow_the_decay_down(
    tmp_path: Path, virtual_time: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoseg.train.trainer._STEPS_IN_TIME", 3)
    recipe = replace(RECIPE, epochs=None, seconds=12.0, **PROTOCOLS["exponential"])
    net = network()
    with virtual_time.passes(type(net), 1.0, 0.0):
        found = rates(train(net, tmp_path, recipe))
    assert found == pytest.approx([0.02 * 0.5 ** (step / STEPS) for step in (2, 5, 8, 11)])


def test_the_protocol_is_kept_in_the_plan() -> None:
    recipe = Recipe(epochs=3, **PROTOCOLS["exponential"])
    plan = Plan(recipe, None, ["searched"], [0], search_batch=1)
    written = plan.to_json()
    assert Plan.from_json(written) == plan
    assert (written["recipe"]["optimiser"], written["recipe"]["schedule_options"]) == ("sgd", {"gamma": 0.5})
    assert (plan.search_recipe.batch, plan.search_recipe.patch, plan.recipe.batch) == (1, 128, 8)
    for key in ("optimiser", "momentum", "schedule", "schedule_options"):  # a plan from before there was a choice
        del written["recipe"][key]
    del written["search_batch"]
    old = Plan.from_json(written)
    assert old.recipe == Recipe(epochs=3) and old.search_recipe == old.recipe


def test_the_optimisation_of_a_recipe() -> None:
    found = Recipe(
        epochs=1, lr=0.5, weight_decay=0.1, clip=0.0, momentum=0.8, **PROTOCOLS["exponential"]
    ).optimisation()
    assert (found.lr, found.weight_decay, found.clip, found.optimiser, found.momentum) == (0.5, 0.1, 0.0, "sgd", 0.8)
    assert found.schedule == Exponential(gamma=0.5)
    assert Recipe(epochs=1).optimisation().schedule == Cosine()
