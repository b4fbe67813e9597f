from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from oneshot_tools import Recorded
from torch import nn
from toy import Planted, PlantedWide, planted_task
from trial_tools import outcome, stable, toy_spaces, wide_task
from virtual_time import VirtualTime

from autoseg.errors import Interrupted, UserError
from autoseg.progress import Progress
from autoseg.runfolder import Journal, read_json
from autoseg.search import trials
from autoseg.search.evolution import Evolution
from autoseg.search.multitrial import MultiTrial
from autoseg.search.objective import Objective
from autoseg.search.random_search import RandomSearch
from autoseg.search.rl import PolicyRl
from autoseg.search.task import SearchTask
from autoseg.search.tpe import Tpe
from autoseg.search.trials import TrialResult, state_file
from autoseg.train.module import TrainingDiverged
from autoseg.train.trainer import train_network

STRATEGIES: list[type[MultiTrial]] = [RandomSearch, Evolution, Tpe, PolicyRl]
SHORT: dict[str, Any] = {"trials": 4, "epochs": 2}


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_spaces():
        yield


class Killed(Progress):
    """Ends the process, so to speak, at a call of ``update``."""

    def __init__(self, call: int) -> None:
        self.call = call

    def update(self, label: str, done: float, text: str = "") -> None:
        self.call -= 1
        if self.call == 0:
            raise Interrupted


def fake(monkeypatch: pytest.MonkeyPatch, score: Any = PlantedWide.quality) -> list[dict[str, Any]]:
    """Replace trainings by a formula; returns the list of what was asked for."""
    asked: list[dict[str, Any]] = []

    def train(task: SearchTask, number: int, choices: dict[str, Any], **lengths: Any) -> TrialResult:
        asked.append(choices)
        np.random.rand(3), torch.rand(5)  # a training draws from the global generators
        return TrialResult(miou=score(choices), seconds=0.0, cpu_seconds=0.0, note="")

    monkeypatch.setattr(trials, "train_candidate", train)
    return asked


# Trials


def test_a_trial_is_a_function_of_task_and_choices(tmp_path: Path) -> None:
    choices = {"op": "conv3", "op2": "identity"}
    results = []
    for number in (0, 7):  # the number names a file and nothing else
        torch.rand(number + 1)
        results.append(trials.train_candidate(planted_task(tmp_path, 0), number, choices, epochs=2))
    assert json.loads(json.dumps(results[0])) == results[0]
    assert results[0]["miou"] == results[1]["miou"] > 0.9 and results[0]["note"] == ""
    worse = trials.train_candidate(planted_task(tmp_path, 0), 2, {"op": "noise", "op2": "identity"}, epochs=2)
    assert worse["miou"] < 0.5


def test_a_trial_continues_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "train_network", partial(train_network, save_every=0.0))
    choices = {"op": "conv3", "op2": "identity"}
    whole = trials.train_candidate(planted_task(tmp_path / "whole", 0), 0, choices, epochs=3)
    task = planted_task(tmp_path / "cut", 0)
    with pytest.raises(Interrupted):  # in the third epoch of eight steps each
        trials.train_candidate(task, 0, choices, epochs=3, progress=Killed(20))
    assert state_file(task, 0).exists()
    steps = Recorded()
    again = trials.train_candidate(task, 0, choices, epochs=3, progress=steps)
    assert again["miou"] == whole["miou"]
    assert sum(call[0] == "update" for call in steps.calls) == 8


def test_generators_are_kept() -> None:
    torch.manual_seed(1), np.random.seed(1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1), np.random.seed(1)
    with pytest.raises(ZeroDivisionError), trials.generators_kept():
        torch.rand(4), np.random.rand(4)
        raise ZeroDivisionError
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


# The result


def test_result_and_journal(tmp_path: Path) -> None:
    task = wide_task(tmp_path, 1)
    task.progress = shown = Recorded()
    result = RandomSearch(trials=3, epochs=1).search(task)
    assert [row["number"] for row in result.history] == [0, 1, 2]
    assert [row["rank_source"] for row in result.history] == ["named", "sampled", "sampled"]
    assert result.history[0]["choices"] == PlantedWide.named({})["plain"]
    scores = [row["miou"] for row in result.history]
    assert [row["best"] for row in result.history] == [max(scores[: k + 1]) for k in range(3)]
    assert result.history[2]["median"] == sorted(scores)[1]
    assert result.history[0]["histogram"] == {"conv1": 0.333333, "light": 0.333333, "strong": 0.333333}
    assert sum(result.history[2]["histogram"].values()) == pytest.approx(1, abs=1e-5)
    for column in ("seconds", "cpu_seconds"):
        values = [row[column] for row in result.history]
        assert values == sorted(values) and values[0] > 0
    assert Journal(tmp_path / "journal.jsonl").rows == result.history
    assert [c.miou for c in result.candidates] == sorted(scores, reverse=True)
    assert result.architecture.choices == result.candidates[0].choices
    best = result.candidates[0]
    assert best.params == sum(p.numel() for p in result.architecture.build(1, 2).parameters())
    assert best.flops is not None and best.latency_ms is not None and best.latency_ms > 0
    pareto = read_json(tmp_path / "pareto.json")
    assert [c["miou"] for c in pareto["candidates"]] == [c.miou for c in result.candidates]
    assert pareto["candidates"][0]["pareto"] is True
    assert not list(tmp_path.glob("*.safetensors"))
    done = [call[2] for call in shown.calls if call[0] == "update"]
    assert shown.calls[0] == ("begin", "search", 3, "trials")
    assert done == sorted(done) and done[-1] == 3 and 0.125 in done  # one of eight steps of the first trial
    assert shown.calls[-1] == ("end", "search", f"3 trials, best mIoU {best.miou:.3f}")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_named_points_are_the_first_candidates(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake(monkeypatch)
    result = strategy(trials=8).search(wide_task(tmp_path, 0))
    assert asked[0] == PlantedWide.named({})["plain"]
    assert [row["rank_source"] for row in result.history] == ["named"] + ["sampled"] * 7
    assert len({json.dumps(choices, sort_keys=True) for choices in asked}) == len(asked) == 8


def test_equal_scores_prefer_fewer_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda choices: 0.5)
    result = RandomSearch(trials=10).search(wide_task(tmp_path, 0))
    params = [candidate.params for candidate in result.candidates]
    assert params == sorted(params) and params[0] < params[-1]


def test_an_exhausted_space_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake(monkeypatch, lambda choices: 0.9 if choices["op"] == "conv3" else 0.2)
    for strategy in STRATEGIES:
        asked.clear()
        result = strategy(trials=20).search(planted_task(tmp_path / strategy.name, 0))
        unique = {json.dumps(choices, sort_keys=True) for choices in asked}
        assert len(unique) == len(asked) == len(result.candidates) <= 6
        assert result.notes[0] == (
            f"The search ended after {len(asked)} of 20 trials: the strategy proposed no other architecture."
        )
        assert len(asked) == 6 or strategy in (PolicyRl, Evolution)


def test_a_collapsed_result_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda choices: [choices["n1"], choices["n2"]].count("clear") / 2)
    healthy = Tpe(trials=40).search(wide_task(tmp_path, 0))
    chosen = healthy.architecture.choices
    assert (chosen["n1"], chosen["n2"]) == ("clear", "clear")
    assert healthy.notes == []  # two of three operations pass their input on
    monkeypatch.setattr(PlantedWide, "pass_through", {"clear", chosen["op"]})
    (note,) = Tpe(trials=40).search(wide_task(tmp_path, 0)).notes
    assert note.startswith("The search has collapsed: 100 %")


# Repeating and resuming


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_twice_and_another(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    results = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # whatever was drawn before
        results.append(strategy(trials=20).search(wide_task(tmp_path / str(number), seed)))
    assert outcome(results[0]) == outcome(results[1])
    assert [row["choices"] for row in results[0].history] != [row["choices"] for row in results[2].history]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resume_with_real_trainings_is_exact(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between trials and in the middle of trainings; 2 x 8 steps and one more update per trial."""
    monkeypatch.setattr(trials, "train_network", partial(train_network, save_every=0.0))
    whole = strategy(**SHORT).search(wide_task(tmp_path / "whole", 3))
    for call in (5, 12, 23):  # in the first epoch; in the second; in the second epoch of the next training
        task = wide_task(tmp_path / "cut", 3)
        task.progress = Killed(call)
        with pytest.raises(Interrupted):
            strategy(**SHORT).search(task)
        torch.manual_seed(99), np.random.seed(99)
    assert len(list((tmp_path / "cut").glob("trial-*.safetensors"))) == 1
    again = strategy(**SHORT).search(wide_task(tmp_path / "cut", 3))
    assert outcome(again) == outcome(whole)
    assert not list((tmp_path / "cut").glob("trial-*.safetensors"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resume_after_many_kills_trains_nothing_twice(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake(monkeypatch)
    whole = strategy(trials=24).search(wide_task(tmp_path / "whole", 2))
    asked.clear()
    for call in (1, 6, 15, 20, 24):  # there is one update per candidate
        task = wide_task(tmp_path / "cut", 2)
        task.progress = Killed(call)
        with pytest.raises(Interrupted):
            strategy(trials=24).search(task)
    again = strategy(trials=24).search(wide_task(tmp_path / "cut", 2))
    assert outcome(again) == outcome(whole)
    assert len(asked) == 24
    asked.clear()
    assert outcome(strategy(trials=24).search(wide_task(tmp_path / "cut", 2))) == outcome(whole)
    assert asked == []


def test_a_journal_of_another_search_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    RandomSearch(trials=4).search(wide_task(tmp_path, 0))
    with pytest.raises(UserError, match="would now propose another candidate 1 than the journal holds"):
        RandomSearch(trials=4).search(wide_task(tmp_path, 1))


# Limits


def params_of(task: SearchTask, choices: dict[str, Any]) -> int:
    return sum(p.numel() for p in task.architecture(choices).build(1, 2).parameters())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_refused_candidates_are_not_trained(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake(monkeypatch)
    task = wide_task(tmp_path, 0, objective=Objective(max_params=300))  # conv3 alone has 576
    result = strategy(trials=8).search(task)
    assert len(result.candidates) == len(asked) == 8
    assert max(candidate.params for candidate in result.candidates) <= 300
    assert all(choices["op"] != "conv3" for choices in asked if choices["in"] == [1])
    refused = [row for row in result.history if row["miou"] is None]
    assert len(refused) == len(result.history) - 8
    assert all("are more than max_params = 300" in row["refused"] for row in refused)
    assert all(row["params"] == params_of(task, row["choices"]) > 300 for row in refused)
    again = strategy(trials=8).search(replace(task, progress=Progress()))
    assert outcome(again) == outcome(result)


def test_refusals_are_counted_in_the_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    task = wide_task(tmp_path, 0, objective=Objective(max_params=300))
    result = RandomSearch(trials=30).search(task)
    refused = sum(row["miou"] is None for row in result.history)
    assert refused > 3
    assert f"{refused} proposed architectures broke a limit and were not trained." in result.notes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_that_nothing_keeps(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fake(monkeypatch)
    monkeypatch.setattr(strategy, "patience", 12)
    with pytest.raises(UserError) as caught:
        strategy().search(wide_task(tmp_path, 0, objective=Objective(max_params=20, max_flops=10**9)))
    (problem,) = caught.value.problems
    assert problem.where == "objective"
    assert "max_params is 20 and the smallest of these has 34" in problem.what  # stem 16, head 18
    assert "max_flops" not in problem.what
    assert asked == []


# What goes wrong


def test_diverged_training_scores_zero_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(network: nn.Module, **arguments: Any) -> Any:
        if arguments["label"] == "candidate 2":
            raise TrainingDiverged("the loss is not finite")
        return train_network(network, **arguments)

    monkeypatch.setattr(trials, "train_network", diverge)
    result = RandomSearch(trials=3, epochs=1).search(wide_task(tmp_path, 0))
    assert [row["miou"] == 0 for row in result.history] == [False, True, False]
    assert result.history[1]["note"] == "the training diverged: the loss is not finite"
    assert result.notes == ["1 of 3 trainings diverged and scored 0: lower train.lr."]
    assert result.candidates[-1].miou == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_other_errors_end_the_search(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(choices: dict[str, Any]) -> float:
        raise UserError("no image could be read")

    fake(monkeypatch, fail)
    with pytest.raises(UserError, match="no image could be read"):
        strategy(trials=3).search(wide_task(tmp_path, 0))
    assert caplog.records == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_printed(
    strategy: type[MultiTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, lambda choices: 0.5)
    strategy(trials=8).search(planted_task(tmp_path, 0))
    assert capfd.readouterr() == ("", "")


# Time


def test_budget_in_seconds_is_shared_and_kept(tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = wide_task(tmp_path, 0, seconds=4.0)
    validation = 0.04
    with virtual_time.passes(PlantedWide, 0.02, validation / len(task.val)):
        result = RandomSearch(trials=4, epochs=1000).search(task)
    assert 4.0 - 4 * validation < virtual_time.now < 4.0 + 4 * validation
    assert result.seconds == pytest.approx(virtual_time.now)
    ends = [0.0, *(row["seconds"] for row in result.history)]
    assert np.diff(ends) == pytest.approx([1.0] * 4, abs=2 * validation)


def test_no_trial_is_begun_without_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, virtual_time: VirtualTime
) -> None:
    shares = []

    def train(task: SearchTask, number: int, choices: dict[str, Any], **lengths: Any) -> TrialResult:
        shares.append(lengths["seconds"])
        virtual_time.now += 12.0  # longer than it should be
        return TrialResult(miou=0.5, seconds=0.0, cpu_seconds=0.0, note="")

    monkeypatch.setattr(trials, "train_candidate", train)
    result = RandomSearch(trials=4).search(wide_task(tmp_path, 0, seconds=40.0))
    assert shares == [10.0, pytest.approx(28 / 3), 8.0]
    assert len(result.candidates) == 3  # 4 s are less than half the share of the fourth
    assert result.notes == ["The search ended after 3 of 4 trials: the time was over."]
    virtual_time.now += 1000.0  # interruptions do not count
    again = RandomSearch(trials=4).search(wide_task(tmp_path, 0, seconds=40.0))
    assert outcome(again) == outcome(result)
    assert again.seconds == 36.0


def test_time_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, virtual_time: VirtualTime) -> None:
    def train(task: SearchTask, number: int, choices: dict[str, Any], **lengths: Any) -> TrialResult:
        virtual_time.now += 3.0
        return TrialResult(miou=0.5, seconds=10.0, cpu_seconds=0.0, note="")

    monkeypatch.setattr(trials, "train_candidate", train)
    result = RandomSearch(trials=2).search(wide_task(tmp_path, 0))
    assert [row["seconds"] for row in result.history] == [10.0, 20.0]


def test_overhead_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    RandomSearch(trials=4).search(wide_task(tmp_path / "warm", 0))
    start = time.process_time()
    RandomSearch(trials=20).search(wide_task(tmp_path / "timed", 0))
    assert (time.process_time() - start) / 20 < 0.1


# Options and spaces


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (RandomSearch, {"trials": 0, "epochs": 0}),
        (Evolution, {"population": 0, "tournament": 0, "mutation": 0.0}),
        (Evolution, {"tournament": 9, "population": 8}),
        (Tpe, {"startup": 0, "samples": 0, "gamma": 0.0}),
        (PolicyRl, {"per_update": 1, "passes": 0, "lr": 0.0, "entropy": -1.0}),
    ],
)
def test_all_wrong_options_at_once(strategy: type[MultiTrial], options: dict[str, Any]) -> None:
    wrong = set(options) - ({"population"} if options.get("population") == 8 else set())
    with pytest.raises(UserError) as caught:
        strategy(**options)
    places = {problem.where for problem in caught.value.problems}
    assert places == {f"strategy {strategy.name}, option {name}" for name in wrong}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_supported_spaces(strategy: type[MultiTrial]) -> None:
    class Two(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice({"a": nn.Identity(), "b": nn.Identity()}, label="op")
            self.source = InputChoice(3, 2, label="two")

    assert strategy.supports(PlantedWide(1, 2)) is None
    assert strategy.supports(Planted(1, 2)) is None
    assert "only one-of-many choices are supported" in (strategy.supports(Two()) or "")
    assert not strategy.one_shot


def test_stable_leaves_out_times_only() -> None:
    assert stable([{"miou": 1, "seconds": 2, "cpu_seconds": 3, "latency_ms": 4}]) == [{"miou": 1}]
