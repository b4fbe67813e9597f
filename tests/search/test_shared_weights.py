"""How the shared weights of a one-shot search are trained, and the options of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from toy import planted_task
from trial_tools import toy_spaces

from autoseg.config import TrainConfig
from autoseg.errors import UserError
from autoseg.plugin_options import accepts_anything, options_of
from autoseg.search.batches import RewardBatches
from autoseg.search.darts import Darts, GumbelDarts, Proxyless
from autoseg.search.enas import Enas
from autoseg.search.nni_gradients import GradientModule
from autoseg.search.shared_weights import Optimiser, SharedWeights
from autoseg.statefile import load_tree
from autoseg.train.module import OPTIMISERS
from autoseg.train.recipe import Recipe
from autoseg.train.schedules import Constant, Cosine, Exponential

WEIGHTS = {"lr", "optimiser", "momentum", "weight_decay", "clip", "schedule"}
EXPONENTIAL = {"name": "exponential", "options": {"gamma": 0.5}}
SHORT_ENAS = {"epochs": 2, "warmup": 0.0, "rewards": 2, "rewards_per_update": 2, "candidates": 0}
SHORT_DARTS = {"epochs": 2, "warmup": 0.0, "tuning": 0.0, "candidates": 0}


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


def test_the_optimisers_are_the_same_everywhere() -> None:
    assert get_args(Optimiser) == OPTIMISERS == get_args(TrainConfig.model_fields["optimiser"].annotation)


@pytest.mark.parametrize("strategy", [Enas, Darts, GumbelDarts, Proxyless])
def test_an_experiment_file_can_set_them(strategy: Any) -> None:
    known = options_of(strategy)
    assert known.keys() >= WEIGHTS and not accepts_anything(known)
    assert all(known[name].default is None for name in WEIGHTS)


def test_what_is_not_given_is_the_recipes() -> None:
    recipe = Recipe(epochs=1, lr=0.1, weight_decay=0.2, clip=0.3, optimiser="sgd", momentum=0.4, schedule="constant")
    assert SharedWeights().applied_to(recipe) == recipe.optimisation()
    own = SharedWeights(lr=1.0, weight_decay=0.0, clip=0.0, optimiser="adam", momentum=0.0, schedule=EXPONENTIAL)
    found = own.applied_to(recipe)
    assert (found.lr, found.weight_decay, found.clip, found.optimiser, found.momentum) == (1.0, 0.0, 0.0, "adam", 0.0)
    assert found.schedule == Exponential(gamma=0.5)
    assert SharedWeights(schedule="cosine").applied_to(recipe).schedule == Cosine()
    assert SharedWeights(lr=1.0).applied_to(recipe).schedule == Constant()


def test_wrong_options_all_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Enas(
            lr=0.0, optimiser="adamm", momentum=1.0, weight_decay=-1.0, clip=-1.0,  # type: ignore[arg-type]
            schedule={"name": "exponential", "options": {"gamma": 3, "gama": 3}}, reward_patches=0,
        )  # fmt: skip
    assert [p.where.removeprefix("strategy enas, option ") for p in caught.value.problems] == [
        "lr", "optimiser", "momentum", "weight_decay", "clip", "schedule", "reward_patches",
    ]  # fmt: skip
    with pytest.raises(UserError, match="there is no schedule called 'cosin'"):
        Darts(schedule="cosin")
    with pytest.raises(UserError, match="architecture_weight_decay"):
        Darts(architecture_weight_decay=-1.0)


def test_shared_weights_learn_by_sgd_at_the_rate_of_the_schedule(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 0)
    Enas(**SHORT_ENAS, optimiser="sgd", momentum=0.8, lr=0.04, weight_decay=0.0, schedule=EXPONENTIAL).search(task)
    state = load_tree(task.folder / "state.safetensors")["optimiser"]
    group = state["param_groups"][0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.8, True, 0.0)
    assert 0.04 * 0.5**2 < group["lr"] < 0.04 * 0.5  # in the second epoch


@pytest.mark.parametrize(("given", "expected"), [({}, 1e-3), ({"architecture_weight_decay": 0.0}, 0.0)])
def test_weight_decay_of_the_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, float], expected: float
) -> None:
    made: list[torch.optim.Optimizer] = []
    original = GradientModule.configure_architecture_optimizers

    def remember(self: GradientModule) -> torch.optim.Optimizer:
        made.append(original(self))
        return made[-1]

    monkeypatch.setattr(GradientModule, "configure_architecture_optimizers", remember)
    Darts(**SHORT_DARTS, architecture_lr=3e-4, optimiser="adam", **given).search(planted_task(tmp_path, 0))
    (group,) = made[0].param_groups
    assert (type(made[0]), group["lr"], group["betas"]) == (torch.optim.Adam, 3e-4, (0.5, 0.999))
    assert group["weight_decay"] == expected


def test_patches_of_a_reward(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 0)
    batch = task.recipe.batch
    sizes = {size: len(next(iter(RewardBatches(task, 16, 1, size)))[0]) for size in (None, 1, 7)}
    assert sizes == {None: 2 * batch, 1: 1, 7: 7}
    strategy = Enas(**SHORT_ENAS, reward_patches=5)
    small = replace(task, recipe=replace(task.recipe, batch=1))
    (reward, again) = list(strategy.learning_batches(small, 16, None))
    assert len(reward[0]) == 5 and torch.equal(reward[0], again[0])
