"""The plan: what is inferred, how long it will take, and how a budget is shared out."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoseg import gpus, processes
from autoseg import plan as module
from autoseg import probe as probes
from autoseg.config import DataConfig, ExperimentConfig, TrainConfig, load_config
from autoseg.config_compute import MachineConfig
from autoseg.data.base import DatasetInfo, SegmentationData
from autoseg.errors import UserError
from autoseg.places import worker_count
from autoseg.plan import (
    Plan,
    infer_recipe,
    make_plan,
    resumed,
    smallest_side,
    steps_per_epoch,
)
from autoseg.prepare import Prepared, prepare
from autoseg.probe import probe, probe_step
from autoseg.search.enas import Enas
from autoseg.search.random_search import RandomSearch
from autoseg.train.compute import Compute
from autoseg.train.modelspec import ModelSpec
from autoseg.train.recipe import Recipe

INFO = DatasetInfo("blank", 1, ("a", "b"), ((0, 0, 0), (1, 1, 1)))
UNET = ModelSpec("unet", "baseline", model="unet", options={"width": 2, "depth": 2})
EXPERIMENT: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"blocks": 2, "layers": 2, "width": 4}},
    "strategy": {"name": "enas", "options": {"epochs": 2, "rewards": 4, "rewards_per_update": 2, "candidates": 1}},
    "train": {"epochs": 3, "batch": 4, "patch": 32, "validate_every": 1},
    "baselines": [{"name": "unet", "options": {"width": 4, "depth": 2}}, "random"],
    "repeats": 2,
    "compute": {"device": "cpu", "workers": 1},
    "ui": {"enabled": False},
}


STEPS = {"searched": 0.3, "unet": 0.3, "random": 0.3}


class Blank:
    """Empty images of given sizes."""

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self.sizes, self.names = sizes, [str(i) for i in range(len(sizes))]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.sizes[index], np.uint8), np.zeros(self.sizes[index], np.uint8)


def blank(*sizes: tuple[int, int]) -> SegmentationData:
    split = Blank(*sizes)
    return SegmentationData(INFO, split, split, split, notes=["about the data"])  # type: ignore[arg-type]


def config(**train: Any) -> ExperimentConfig:
    return ExperimentConfig(data=DataConfig(dataset="synthetic-ceramic"), train=TrainConfig(**train))


@pytest.mark.parametrize(
    ("sizes", "patch", "reason"),
    [
        ([(128, 300)], 128, "128 is enough context"),
        ([(1000, 1000), (130, 200)], 128, "128 is enough context"),
        ([(100, 400)], 112, "images are 100 px"),
        ([(96, 96), (300, 65)], 80, "images are 65 px"),
        ([(20, 20)], 32, "images are 20 px"),
    ],
)
def test_the_patch_follows_the_smallest_side(sizes: list[tuple[int, int]], patch: int, reason: str) -> None:
    data = blank(*sizes)
    assert smallest_side(data.train) == min(map(min, sizes))
    recipe, notes = infer_recipe(config(epochs=3), data)
    assert recipe.patch == patch and recipe.batch == 8 and recipe.epochs == 3
    assert notes[0] == "about the data"
    assert notes[1].startswith(f"patch {patch}: ") and reason in notes[1]
    assert notes[2].startswith("batch 8: ") and len(notes) == 3


def test_what_the_user_gives_is_taken() -> None:
    given = {
        "epochs": 7, "batch": 3, "patch": 40, "lr": 0.5, "weight_decay": 0.25, "clip": 2.0, "validate_every": 4,
        "augment": {"noise": 0.5}, "loss": {"name": "dice", "options": {"smooth": 2.0}}, "optimiser": "sgd",
        "momentum": 0.5, "schedule": {"name": "exponential", "options": {"gamma": 0.9}},
    }  # fmt: skip
    recipe, notes = infer_recipe(config(**given), blank((64, 64)))
    assert recipe == Recipe(
        epochs=7, batch=3, patch=40, lr=0.5, weight_decay=0.25, clip=2.0, loss="dice", loss_options={"smooth": 2.0},
        augment={"noise": 0.5}, validate_every=4, optimiser="sgd", momentum=0.5, schedule="exponential",
        schedule_options={"gamma": 0.9},
    )  # fmt: skip
    assert notes == ["about the data"]


@pytest.mark.parametrize(
    ("count", "side", "steps", "epochs"),
    [
        (80, 128, 10, 150),  # 80 patches, 10 steps, 1500 steps in all
        (1, 64, 1, 300),  # no more than 300 epochs
        (2000, 128, 250, 10),  # no fewer than 10
        (10, 512, 20, 75),  # 16 patches an image
    ],
)
def test_the_length_follows_the_amount_of_data(count: int, side: int, steps: int, epochs: int) -> None:
    data = blank(*[(side, side)] * count)
    recipe, notes = infer_recipe(config(), data)
    assert steps_per_epoch(data.train, recipe) == steps
    assert recipe.epochs == epochs and recipe.seconds is None
    assert notes[-1] == f"{epochs} epochs: about {epochs * steps} steps of 8 patches"


def test_seconds_are_a_length_too() -> None:
    recipe, notes = infer_recipe(config(seconds=90.0), blank((64, 64)))
    assert (recipe.epochs, recipe.seconds) == (None, 90.0)
    assert not any("epochs" in note for note in notes)


def test_steps_count_images_by_their_area() -> None:
    split = blank((64, 64), (10, 10), (64, 128), (48, 64)).train  # 4, 1, 8 and 3 patches
    assert steps_per_epoch(split, Recipe(epochs=1, patch=32, batch=4)) == 4
    assert steps_per_epoch(split, Recipe(epochs=1, patch=32, batch=5)) == 4
    assert steps_per_epoch(split, Recipe(epochs=1, patch=32, batch=100)) == 1


def test_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worker_count(3, "cpu", jobs=10) == 3 and worker_count(3, "cpu", jobs=2) == 2
    assert worker_count(0, "cpu", jobs=10) == worker_count(1, "cuda:1", jobs=10) == 1
    for cores, expected in ((None, 1), (1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert worker_count("auto", "cpu", jobs=10) == expected
        assert worker_count("auto", "cuda:1", jobs=10) == 1


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch would tell of a machine with four GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def test_groups_of_gpus(four_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus.gpu_groups("cuda") == ["0", "1", "2", "3"]
    assert gpus.gpu_groups("cuda", 2) == ["0,1", "2,3"]
    assert gpus.gpu_groups("cuda", 3) == ["0,1,2"]
    assert gpus.gpu_groups("cuda", 5) == gpus.gpu_groups("cuda:1") == gpus.gpu_groups("cpu", 2) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 5,GPU-1f,2")
    assert gpus.gpu_groups("cuda") == ["7", "5", "GPU-1f", "2"]
    assert gpus.gpu_groups("cuda", 2) == ["7,5", "GPU-1f,2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,-1,0")  # CUDA sees two
    assert gpus.gpu_groups("cuda") == ["3", "1"]


def test_never_more_jobs_than_groups_of_gpus(four_gpus: None) -> None:
    assert [worker_count("auto", "cuda", jobs=10, ranks=ranks) for ranks in (1, 2, 3, 4)] == [4, 2, 1, 1]
    assert [worker_count(8, "cuda", jobs=10, ranks=ranks) for ranks in (1, 2, 3, 4)] == [4, 2, 1, 1]
    assert worker_count("auto", "cuda", jobs=3) == 3 and worker_count(2, "cuda", jobs=10) == 2
    assert worker_count(8, "cuda:1", jobs=10) == 8 and worker_count("auto", "cuda:1", jobs=10, ranks=2) == 1


def test_the_plan_names_the_gpus_of_each_job(
    prepared: Prepared, fixed_step: None, four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes.processes, "call", lambda target, arguments: probes.Probed(STEPS, 0.3, 1000))

    def on_gpus(**changes: Any) -> Prepared:
        compute = prepared.config.compute.model_copy(update=changes)
        there = replace(prepared.compute, device=changes.get("device", "cuda"), devices=compute.devices)
        return replace(with_config(prepared, compute=compute), compute=there)

    plan = make_plan(on_gpus(workers="auto"))
    assert (plan.workers, plan.gpus, plan.memory_bytes) == (4, ["0", "1", "2", "3"], 4000)
    plan = make_plan(on_gpus(workers="auto", devices=2))
    assert (plan.workers, plan.gpus) == (2, ["0,1", "2,3"])
    assert not [note for note in plan.notes if "side by side" in note]
    plan = make_plan(on_gpus(workers=6, devices=2))
    assert (plan.workers, plan.gpus) == (2, ["0,1", "2,3"])
    assert "2 side by side: no two jobs share a GPU, unless the device names it, as cuda:0" in plan.notes
    assert make_plan(on_gpus(workers=1)).gpus == []
    plan = make_plan(on_gpus(workers=3, device="cuda:2"))
    assert (plan.workers, plan.gpus) == (3, [])

    before = make_plan(on_gpus(workers=3))
    assert before.gpus == ["0", "1", "2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    again = resumed(before, on_gpus(workers=3))
    assert (again.workers, again.gpus) == (2, ["6", "7"])
    assert replace(again, workers=3, gpus=before.gpus) == before
    assert resumed(before, prepared).gpus == []


def test_a_gpu_is_probed_by_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def call(target: Any, arguments: Any) -> Any:
        called.append((target, arguments[-1].device))
        return "found"

    monkeypatch.setattr(probes.processes, "call", call)
    recipe = Recipe(batch=2, patch=16, epochs=1)
    assert probe([UNET], recipe, (UNET, recipe), INFO, Compute(device="cuda")) == "found"  # type: ignore[comparison-overlap]
    assert called == [(probes._probe, "cuda")]
    here = probe([UNET], recipe, (UNET, recipe), INFO, Compute())
    assert len(called) == 1 and list(here.step) == ["unet"] and 0 < here.step["unet"] < 5 and here.memory > 1e8


def test_another_process_can_do_the_probe() -> None:
    recipe = Recipe(batch=2, patch=16, epochs=1)
    found = processes.call(probes._probe, ([UNET], recipe, (UNET, recipe), INFO, Compute()))
    assert list(found.step) == ["unet"] and 0 < found.step["unet"] < 5 and 0 < found.searching < 5
    assert found.memory > 1e8
    wrong = ModelSpec("wrong", "baseline", model="unet", options={"width": "wide"})
    with pytest.raises(UserError) as caught:
        processes.call(probes._probe, ([wrong], recipe, (UNET, recipe), INFO, Compute()))
    assert caught.value.problems[0].where == "unet, width"


def test_a_step_is_measured() -> None:
    small = probe_step(UNET, Recipe(batch=2, patch=16, epochs=1), INFO, Compute())
    wide = ModelSpec("wide", "baseline", model="unet", options={"width": 16, "depth": 2})
    large = probe_step(wide, Recipe(batch=8, patch=64, epochs=1), INFO, Compute())
    assert 0 < 5 * small < large < 5


def test_a_step_that_does_not_fit_into_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("autoseg.baselines.unet.UNet.forward", refuse)
    with pytest.raises(UserError, match="does not fit into memory") as caught:
        probe_step(UNET, Recipe(batch=2, patch=16, epochs=1), INFO, Compute())
    assert "train.batch" in caught.value.problems[0].fix and "'unet'" in caught.value.problems[0].where


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare(load_config(EXPERIMENT)).with_threads(1)


@pytest.fixture
def fixed_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes 0.3 s, a patch pixel of a forward pass a third of its share."""
    monkeypatch.setattr(probes, "probe_step", lambda *arguments: 0.3)


def with_config(prepared: Prepared, **changes: Any) -> Prepared:
    return replace(prepared, config=prepared.config.model_copy(update=changes))


def test_seconds_by_hand(prepared: Prepared, fixed_step: None) -> None:
    """9 training images and 1 for validation, 2 for the test: one patch each; 3 steps of 4 patches."""
    plan = make_plan(prepared)
    assert [len(prepared.data.split(name)) for name in ("train", "val", "test")] == [9, 1, 2]
    assert plan.models == ["searched", "unet", "random"] and plan.seeds == [0, 1] and plan.workers == 1
    assert plan.search_seconds is None
    step, forward = 0.3, 0.3 / 4 / 3  # of a batch; of one image
    training = 3 * (3 * step + 1 * forward)
    around = 1.0 + 2 * forward
    seconds = {stage["name"]: stage["seconds"] for stage in plan.stages}
    assert list(seconds) == ["search", "train searched", "train unet", "train random", "report"]
    assert seconds["train unet"] == pytest.approx(2 * (training + around))
    searching = module._SEARCH_SETUP_SECONDS + prepared.strategy.training_steps(3) * step
    assert seconds["search"] == pytest.approx(searching)
    assert plan.seconds == pytest.approx(searching + 6 * (training + around) + seconds["report"])
    assert plan.seconds == pytest.approx(sum(seconds.values()))
    assert plan.memory_bytes > 1e8
    assert plan.stages[2]["what"] == "2 seeds of 3 epochs" and plan.stages[0]["what"] == "enas over ednas"


def test_rewards_on_many_patches_take_their_time(prepared: Prepared, fixed_step: None) -> None:
    """12 patches are three batches of 4; another strategy counts without the batch, one that does not count has 20."""
    strategy = Enas(epochs=2, warmup=0, rewards=8, reward_patches=12, candidates=5)
    search = make_plan(replace(prepared, strategy=strategy)).stages[0]["seconds"]
    steps = 2 * (3 + 8 * 3 / 3) + 5  # epochs of 3 steps, and 8 forward passes of three batches
    assert search == pytest.approx(module._SEARCH_SETUP_SECONDS + steps * 0.3)
    for strategy, steps in ((RandomSearch(trials=4, epochs=3), 4 * 3 * 3), (object(), 20 * 3)):
        search = make_plan(replace(prepared, strategy=strategy)).stages[0]["seconds"]
        assert search == pytest.approx(module._SEARCH_SETUP_SECONDS + steps * 0.3)


def test_workers_share_the_time(prepared: Prepared, fixed_step: None) -> None:
    compute = prepared.config.compute.model_copy(update={"workers": 2})
    one, two = make_plan(prepared), make_plan(with_config(prepared, compute=compute))
    assert two.workers == 2 and two.memory_bytes >= 1.9 * one.memory_bytes
    assert [stage["seconds"] for stage in two.stages] == [stage["seconds"] for stage in one.stages]
    assert 0.45 * one.seconds < two.seconds < 0.85 * one.seconds + 5


def test_the_page_and_repeated_searches_take_their_time(prepared: Prepared, fixed_step: None) -> None:
    base = make_plan(prepared)
    page = make_plan(with_config(prepared, ui=prepared.config.ui.model_copy(update={"enabled": True})))
    assert page.seconds == pytest.approx(base.seconds + module._PAGE_SECONDS)
    strategy = prepared.config.strategy.model_copy(update={"repeats": 3})
    three = make_plan(with_config(prepared, strategy=strategy))
    searching = base.stages[0]["seconds"]
    assert base.search_seeds == [0] and three.search_seeds == [0, 1, 2]
    assert three.seconds == pytest.approx(base.seconds + 2 * searching)
    assert three.stages[0]["what"] == "enas over ednas, 3 seeds"
    timed = make_plan(with_config(prepared, strategy=strategy, budget=200.0))
    assert timed.search_seconds == pytest.approx(0.3 * 194 / 3, abs=0.2)


def test_candidates_of_a_multi_trial_search_share_all_workers(fixed_step: None) -> None:
    candidates = {"name": "random", "options": {"trials": 8, "epochs": 2}}
    found = prepare(load_config({**EXPERIMENT, "strategy": candidates}))
    compute = found.config.compute.model_copy(update={"workers": 4})
    one, four = make_plan(found), make_plan(with_config(found, compute=compute))
    assert one.stages[0]["seconds"] == pytest.approx(4 * four.stages[0]["seconds"])
    assert four.seconds > module._WORKER_SECONDS + four.stages[0]["seconds"]


def test_places_on_other_machines(prepared: Prepared, fixed_step: None) -> None:
    machine = MachineConfig(host="127.0.0.1", user="me", key=Path("key"), python="/usr/bin/python3")
    other = machine.model_copy(update={"port": 2222})
    compute = prepared.config.compute.model_copy(update={"service": "remote", "machines": [machine, other]})
    assert make_plan(with_config(prepared, compute=compute)).workers == 2
    asked = compute.model_copy(update={"concurrency": 5})
    plan = make_plan(with_config(prepared, compute=asked))
    assert plan.workers == 5 and plan.gpus == []
    assert "the times are those of this machine" in " ".join(plan.notes)


def test_a_budget_decides_the_lengths(prepared: Prepared, fixed_step: None) -> None:
    plan = make_plan(with_config(prepared, budget=120.0), elapsed=10.0)
    assert plan.search_seconds == pytest.approx(0.3 * (110 - 6), abs=0.2)
    assert plan.recipe.epochs is None and plan.recipe.seconds is not None
    around = 1.0 + 2 * 0.3 / 4 / 3
    assert plan.recipe.seconds == pytest.approx((0.7 * 104 - 6 * around) / 6, abs=0.1)
    assert 109 < plan.seconds <= 110.001
    assert "the budget decides the lengths" in plan.notes[-1]
    assert plan.stages[1]["what"].startswith("2 seeds of 11 s")


@pytest.mark.parametrize("budget", [1.0, 15.0])
def test_a_budget_that_is_too_short(prepared: Prepared, fixed_step: None, budget: float) -> None:
    with pytest.raises(UserError, match=f"the budget of {budget:g} s is too short for 6 trainings") as caught:
        make_plan(with_config(prepared, budget=budget))
    (problem,) = caught.value.problems
    assert problem.where == "budget"
    assert problem.fix == "give more time, fewer repeats or fewer baselines"


def test_a_strategy_that_does_not_say_how_long_it_takes(prepared: Prepared, fixed_step: None) -> None:
    plan = make_plan(replace(prepared, strategy=object()))
    assert plan.stages[0]["seconds"] == pytest.approx(module._SEARCH_SETUP_SECONDS + 20 * 3 * 0.3)


def test_a_plan_goes_through_json(prepared: Prepared) -> None:
    for plan in (make_plan(prepared), make_plan(with_config(prepared, budget=300.0))):
        text = json.dumps(plan.to_json(), allow_nan=False)
        assert Plan.from_json(json.loads(text)) == plan
        assert isinstance(Plan.from_json(json.loads(text)).recipe, Recipe)
