"""The strategy ``autosegnet`` in both modes: what it finds, that it repeats itself, what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from autoseg_autosegnet import multitrial as plugin_multitrial
from autoseg_autosegnet.controller import Controller
from autoseg_autosegnet.learner import Learner
from autoseg_autosegnet.oneshot import paper_schedule
from autoseg_autosegnet.strategy import AutoSegNetSearch
from bench_tools import Bench
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.strategy import RandomOneShot
from oneshot_tools import Killed, assert_same_result, assert_same_state, kill, rows
from torch import Tensor, nn
from toy import BEST, PlantedWide, planted_task
from trial_tools import outcome, scored_by_formula, stable, toy_spaces, wide_task
from virtual_time import VirtualTime

from autoseg import registry
from autoseg.config import load_config
from autoseg.errors import Interrupted, UserError
from autoseg.prepare import prepare
from autoseg.search import trials
from autoseg.search.objective import Cost, CostMeter, Objective
from autoseg.search.task import SearchResult, SearchTask
from autoseg.search.trials import TrialResult
from autoseg.spaces.autosegnet import AutoSegNet
from autoseg.spaces.base import decisions
from autoseg.statefile import load_tree
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import train_network

LONG = {"epochs": 24, "warmup": 0.2, "candidates": 2}
SHORT: dict[str, Any] = {"epochs": 3, "warmup": 0.3, "rewards": 6, "candidates": 3}  # 6 is no multiple of 4
STEPS, REWARDS = 8, 6  # calls of the progress per epoch of SHORT


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


class Large(ModelSpace):
    """4096 architectures, of which one is the best; a score of each is known without training."""

    size_divisor = 1
    best: ClassVar = {f"d{i}": "abcd"[(i * i + 1) % 4] for i in range(6)}

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            LayerChoice({name: nn.Identity() for name in "abcd"}, label=f"d{i}") for i in range(6)
        )
        self.head = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return self.head(x)

    @classmethod
    def quality(cls, choices: dict[str, Any]) -> float:
        return 0.3 + 0.1 * sum(choices[label] == value for label, value in cls.best.items())


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load

    def score(task: SearchTask, number: int, choices: dict[str, Any], **lengths: Any) -> TrialResult:
        return TrialResult(miou=Large.quality(choices), seconds=0.0, cpu_seconds=0.0, note="")

    monkeypatch.setattr(registry, "load", lambda kind, name: Large if name == "large" else load(kind, name))
    monkeypatch.setattr(trials, "train_candidate", score)
    monkeypatch.setattr(CostMeter, "of", lambda meter, choices, full=False: Cost(1))


def large_task(folder: Path, seed: int) -> SearchTask:
    return replace(planted_task(folder, seed), space="large", space_class=Large)


# What is found


def test_one_shot_finds_the_planted_architecture(tmp_path: Path) -> None:
    """With the paper's learning rates; the controller prefers it, not only the best of some candidates."""
    tasks = [planted_task(tmp_path / str(seed), seed) for seed in range(5)]
    results = [AutoSegNetSearch(**LONG).search(task) for task in tasks]
    assert sum(result.architecture.choices == BEST for result in results) >= 4
    greedy = [next(c.choices for c in result.candidates if c.source == "greedy") for result in results]
    assert sum(choices == BEST for choices in greedy) >= 4
    for task in tasks:
        epochs = rows(task, "epoch")
        assert [row["phase"] for row in epochs] == ["warmup"] * 5 + ["search"] * 19
        assert epochs[0]["entropy"] == epochs[4]["entropy"] > 0.95  # nothing is learned in the warm-up
        assert epochs[-1]["entropy"] < 0.3
        assert all(0 <= row["best"] <= 1 and row["median"] <= row["best"] for row in epochs[5:])
        assert sum(row["reward"] for row in epochs[-3:]) > sum(row["reward"] for row in epochs[5:8])


def test_multi_trial_finds_one_in_4096(large: None, tmp_path: Path) -> None:
    """100 trials, with which chance finds it in one of forty searches."""
    strategy = AutoSegNetSearch(mode="multi-trial", trials=100)
    results = [strategy.search(large_task(tmp_path / str(seed), seed)) for seed in range(5)]
    assert sum(result.architecture.choices == Large.best for result in results) >= 4
    for result in results:
        entropies = [row["entropy"] for row in result.history]
        assert entropies[0] > 0.97 and entropies[-1] < 0.8
        assert not any("not converged" in note for note in result.notes)


def test_with_the_papers_rate_100_trials_teach_hardly_anything(large: None, tmp_path: Path) -> None:
    """Why the learning rate of the controller differs between the modes."""
    strategy = AutoSegNetSearch(mode="multi-trial", trials=100, controller_lr=5e-4)
    result = strategy.search(large_task(tmp_path, 0))
    assert result.history[-1]["entropy"] > 0.9
    (note,) = (note for note in result.notes if "has not converged" in note)
    assert f"(entropy {result.history[-1]['entropy']:.2f} of 1)" in note


def test_multi_trial_finds_it_by_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six architectures five are trained; what counts is that the controller itself prefers the best."""
    made: list[Learner] = []
    original = plugin_multitrial.ControllerStrategy.__init__

    def remember(self: Any, learner: Learner) -> None:
        made.append(learner)
        original(self, learner)

    monkeypatch.setattr(plugin_multitrial.ControllerStrategy, "__init__", remember)
    strategy = AutoSegNetSearch(mode="multi-trial", trials=6, epochs=2)
    results = [strategy.search(planted_task(tmp_path / str(seed), seed)) for seed in range(5)]
    assert sum(result.architecture.choices == BEST for result in results) >= 4
    assert sum(learner.draw(greedy=True) == BEST for learner in made) >= 4


def test_a_known_proposal_is_not_trained_again_but_learned_from(tmp_path: Path) -> None:
    with scored_by_formula():
        strategy = AutoSegNetSearch(mode="multi-trial", trials=96, controller_lr=0.02)
        result = strategy.search(wide_task(tmp_path, 0))
    found = [str(candidate.choices) for candidate in result.candidates]
    assert len(found) == len(set(found)) < 96
    assert any(f"ended after {len(found)} of 96 trials" in note for note in result.notes)


def test_limits_hold_in_both_modes(tmp_path: Path) -> None:
    """Only conv3 has more than 200 parameters; a controller that is refused it must do without."""
    small = Objective(max_params=200)
    for mode, options in (("one-shot", SHORT), ("multi-trial", {"trials": 3, "epochs": 1})):
        task = replace(planted_task(tmp_path / mode, 0), objective=small)
        result = AutoSegNetSearch(mode=mode, **options).search(task)
        assert {c.choices["op"] for c in result.candidates} <= {"noise", "conv1"}
        assert all(c.params <= 200 for c in result.candidates)


# Repeating and resuming: one-shot


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchTask, SearchResult]:
    task = wide_task(tmp_path_factory.mktemp("whole"), 3)
    return task, AutoSegNetSearch(**SHORT).search(task)


def assert_same(task: SearchTask, result: SearchResult, whole: tuple[SearchTask, SearchResult]) -> None:
    assert_same_result(result, whole[1])
    assert rows(task) == rows(whole[0])
    assert_same_state(task, whole[0], 40)  # weights, momenta, the controller and its optimiser


def test_one_shot_same_seed_twice_and_another(whole: Any, tmp_path: Path) -> None:
    task = wide_task(tmp_path / "same", 3)
    assert_same(task, AutoSegNetSearch(**SHORT).search(task), whole)
    other = AutoSegNetSearch(**SHORT).search(wide_task(tmp_path / "other", 4))
    assert not {row["loss"] for row in other.history} & {row["loss"] for row in whole[1].history}


@pytest.mark.parametrize(
    "place",
    [
        ("search", 1),
        ("search", STEPS + REWARDS + 3),  # among the weight steps of the second epoch
        ("search", STEPS + REWARDS + STEPS + 2),  # while rewards wait for an update
        ("search", 2 * (STEPS + REWARDS) + 1),  # after an epoch that ended with two rewards waiting
        ("search", 3 * (STEPS + REWARDS)),
        ("pool", 0),
        ("candidates", 2),
    ],
)
def test_one_shot_resume_is_exact(place: tuple[str, int], whole: Any, tmp_path: Path) -> None:
    task = wide_task(tmp_path, 3)
    kill(AutoSegNetSearch(**SHORT), task, place)
    task = wide_task(tmp_path, 3)
    assert_same(task, AutoSegNetSearch(**SHORT).search(task), whole)


def test_one_shot_killed_many_times(whole: Any, tmp_path: Path) -> None:
    for place in [("search", 20), ("search", 9), ("search", 25), ("pool", 0), ("candidates", 1), ("candidates", 3)]:
        kill(AutoSegNetSearch(**SHORT), wide_task(tmp_path, 3), place)
    task = wide_task(tmp_path, 3)
    assert_same(task, AutoSegNetSearch(**SHORT).search(task), whole)


def test_waiting_rewards_are_in_the_state(whole: Any, tmp_path: Path) -> None:
    kill(AutoSegNetSearch(**SHORT), wide_task(tmp_path, 3), ("search", 2 * (STEPS + REWARDS) + 1))
    state = load_tree(tmp_path / "state.safetensors")
    assert (state["epoch"], len(state["engine"]["pending"])) == (1, 2)
    assert set(state["engine"]["pending"][0][0]) == {"in", "n1", "n2", "op"}


def test_one_shot_budget_in_seconds_is_kept(tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = replace(wide_task(tmp_path, 0), seconds=4.0)
    with virtual_time.passes(PlantedWide, 0.05, 0.04 / len(task.val)):
        result = AutoSegNetSearch(epochs=1, candidates=4).search(task)  # the budget decides, not the epochs
    assert 0.9 * 4 < virtual_time.now < 4.1
    assert result.seconds == pytest.approx(virtual_time.now)
    assert len(result.history) > 2


# Repeating and resuming: multi-trial


def test_multi_trial_same_seed_twice_and_another(large: None, tmp_path: Path) -> None:
    strategy = AutoSegNetSearch(mode="multi-trial", trials=20)
    first, again, other = (strategy.search(large_task(tmp_path / str(i), seed)) for i, seed in enumerate((1, 1, 2)))
    assert outcome(first) == outcome(again)
    assert [row["choices"] for row in first.history] != [row["choices"] for row in other.history]


def test_multi_trial_resume_after_many_kills(large: None, tmp_path: Path) -> None:
    strategy = AutoSegNetSearch(mode="multi-trial", trials=30)
    whole = strategy.search(large_task(tmp_path / "whole", 2))
    for call in (1, 7, 15, 16, 29):  # there is one update per candidate
        task = large_task(tmp_path / "cut", 2)
        task.progress = Killed("search", call)
        with pytest.raises(Interrupted):
            strategy.search(task)
        torch.manual_seed(99)
    again = strategy.search(large_task(tmp_path / "cut", 2))
    assert outcome(again) == outcome(whole)
    assert stable(again.history) == stable(whole.history)


def test_multi_trial_resume_with_real_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "train_network", partial(train_network, save_every=0.0))
    strategy = AutoSegNetSearch(mode="multi-trial", trials=4, epochs=2, rewards_per_update=2)
    whole = strategy.search(wide_task(tmp_path / "whole", 3))
    for call in (5, 12, 23):  # in trainings
        task = wide_task(tmp_path / "cut", 3)
        task.progress = Killed("search", call)
        with pytest.raises(Interrupted):
            strategy.search(task)
        torch.manual_seed(99)
    assert len(list((tmp_path / "cut").glob("trial-*.safetensors"))) == 1
    assert outcome(strategy.search(wide_task(tmp_path / "cut", 3))) == outcome(whole)


def test_multi_trial_side_by_side(large: None, tmp_path: Path) -> None:
    """How many are trained at a time, and which is ready first, makes no difference."""
    results = []
    for places, scramble in ((1, None), (2, None), (2, 5), (3, 6), (6, 7)):
        folder = tmp_path / f"{places} {scramble}"
        bench = Bench(folder, places, Large.quality, scramble)
        strategy = AutoSegNetSearch(mode="multi-trial", trials=30, rewards_per_update=4)
        results.append(strategy.search(replace(large_task(folder, 2), bench=bench)))
        assert bench.most == min(places, 4)
    assert all(outcome(result) == outcome(results[0]) for result in results)
    serial = AutoSegNetSearch(mode="multi-trial", trials=30).search(large_task(tmp_path / "serial", 2))
    assert outcome(serial) == outcome(results[0])


def test_multi_trial_side_by_side_resumes(large: None, tmp_path: Path) -> None:
    strategy = AutoSegNetSearch(mode="multi-trial", trials=14)
    bench = Bench(tmp_path / "whole", 3, Large.quality)
    whole = strategy.search(replace(large_task(tmp_path / "whole", 2), bench=bench))
    for cut in range(14):
        folder = tmp_path / str(cut)
        before = Bench(folder, 3, Large.quality, scramble=cut, ends=cut)
        with pytest.raises(Interrupted):
            strategy.search(replace(large_task(folder, 2), bench=before))
        after = Bench(folder, 3, Large.quality, scramble=cut)
        again = strategy.search(replace(large_task(folder, 2), bench=after))
        assert outcome(again) == outcome(whole)
        assert len(after.ready) == 14 - cut and not set(before.ready) & set(after.trained)


# Order, options, spaces


def test_both_modes_drive_the_same_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    original = Controller.__init__

    def remember(self: Controller, known: Any, **options: Any) -> None:
        made.append({"labels": list(known), **options})
        original(self, known, **options)

    monkeypatch.setattr(Controller, "__init__", remember)
    order = ["op", "in", "n"]
    with scored_by_formula():
        AutoSegNetSearch(mode="multi-trial", trials=2, order=order).search(wide_task(tmp_path / "a", 5))
        AutoSegNetSearch(epochs=1, rewards=1, candidates=1, order=order).search(wide_task(tmp_path / "b", 5))
    assert [options.pop("lr") for options in made] == [5e-3, 5e-4]
    assert made[0] == made[1]
    assert made[0]["seed"] == 5 and made[0]["order"] == order


@pytest.mark.parametrize("mode", ["one-shot", "multi-trial"])
def test_an_order_that_does_not_fit_is_told_before_the_run_starts(mode: str) -> None:
    data = {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}}
    config = {"data": data, "space": {"name": "ednas", "options": {"width": 4}}, "baselines": []}
    strategy = {"name": "autosegnet", "options": {"mode": mode, "order": ["dec"]}}
    with pytest.raises(UserError, match="these decisions are missing: enc0_in1"):
        prepare(load_config({**config, "strategy": strategy}))
    strategy["options"]["order"] = ["dec", "enc"]
    assert prepare(load_config({**config, "strategy": strategy})).strategy.one_shot == (mode == "one-shot")


@pytest.mark.parametrize("mode", ["one-shot", "multi-trial"])
def test_an_order_that_does_not_fit_ends_before_anything_is_trained(mode: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        AutoSegNetSearch(mode=mode, order=["op", "n", "down"]).search(wide_task(tmp_path, 0))
    text = str(caught.value)
    assert "these decisions are missing: in" in text
    assert "no decision of this space begins with 'down'" in text
    assert not (tmp_path / "journal.jsonl").exists() or not (tmp_path / "journal.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"epochs": 0, "rewards": 0, "hidden": 0, "controller_lr": 0.0, "baseline_decay": 1.0, "lr": -1.0},
            ["epochs", "lr", "rewards", "hidden", "controller_lr", "baseline_decay"],
        ),
        (
            {"mode": "multi-trial", "trials": 0, "layers": 0, "entropy": -1.0, "temperature": 0.0, "order": []},
            ["trials", "order", "layers", "entropy", "temperature"],
        ),
        (
            {"tanh_constant": 0.0, "rewards_per_update": 0, "warmup": 1.0},
            ["warmup", "tanh_constant", "rewards_per_update"],
        ),
        ({"mode": "both"}, ["mode"]),
    ],
)  # fmt: skip
def test_all_wrong_options_at_once(options: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        AutoSegNetSearch(**options)
    assert [p.where for p in caught.value.problems] == [f"strategy autosegnet, option {name}" for name in expected]


def test_modes() -> None:
    assert AutoSegNetSearch().one_shot and not AutoSegNetSearch(mode="multi-trial").one_shot
    assert AutoSegNetSearch(epochs=10, warmup=0.0, rewards=6, candidates=5).training_steps(100) == 1000 + 5 + 40
    assert AutoSegNetSearch(mode="multi-trial", trials=7, epochs=3, rewards=6).training_steps(10) == 210


def test_weights_are_trained_as_in_the_paper() -> None:
    optimisation = AutoSegNetSearch()._search.optimisation(Recipe(epochs=1))
    assert (optimisation.optimiser, optimisation.momentum, optimisation.lr) == ("sgd", 0.9, 0.5)
    assert (optimisation.clip, optimisation.weight_decay) == (0.5, 1e-4)
    # The search is a share of 200 epochs, whatever its length: restarts after 5, 15, 35 and 75 %.
    rates = [optimisation.schedule(0.5, share, 1.0) for share in (0.0, 0.025, 0.05, 0.15, 0.35)]
    assert rates == pytest.approx([0.5, 0.25, 0.5, 0.5, 0.5 * 0.98**20])
    assert paper_schedule(1.0, 0.75, 1.0) == pytest.approx(0.98**100)


def test_supported_spaces() -> None:
    from nni.nas.nn.pytorch import InputChoice

    class Two(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.source = InputChoice(3, 2, label="in")

    assert AutoSegNetSearch.supports(PlantedWide(1, 2)) is None
    assert "one-of-many" in (AutoSegNetSearch.supports(Two()) or "")


def test_the_order_of_the_papers_space_is_the_papers() -> None:
    space = AutoSegNet(1, 2, input_size=64, width=4)
    raw = decisions(space)
    groups = [label for label, _ in itertools.groupby(raw, lambda label: label.rstrip("0123456789").split("_")[0])]
    assert groups == ["down", "bridge", "up", "skip"]
    assert Controller(raw, hidden=4).labels == Controller(raw, hidden=4, order=groups).labels == list(raw)
    assert len(raw) == 36 + 2
    supernet = RandomOneShot().mutate_model(AutoSegNet(1, 2, input_size=64, width=4))
    assert decisions(supernet) == raw  # in both modes the controller sees the same space
    assert list(decisions(supernet)) == list(raw)


def test_it_searches_the_papers_space(tmp_path: Path) -> None:
    kwargs = {"input_size": 16, "min_size": 8, "width": 2}
    task = replace(planted_task(tmp_path, 0), space="autosegnet", space_class=AutoSegNet, kwargs=kwargs)
    options = {"epochs": 2, "warmup": 0.4, "rewards": 4, "candidates": 1}
    result = AutoSegNetSearch(order=["down", "bridge", "up", "skip"], **options).search(task)
    assert len(result.architecture.choices) == 36 + 1
    assert [row["phase"] for row in result.history] == ["warmup", "search"]
    assert all(0 < row["loss"] < 3 for row in result.history)
    assert any("has not converged" in note for note in result.notes)
