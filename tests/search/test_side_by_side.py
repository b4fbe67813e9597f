"""Searches with several candidates in flight: the same result whatever comes first, also after interruptions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_tools import STRATEGIES, Bench, QuickRl, bench_for, search
from nni.nas.space import ModelStatus
from toy import PlantedWide
from trial_tools import outcome, toy_spaces, wide_task

from autoseg.errors import Interrupted, UserError
from autoseg.runfolder import Journal, read_json
from autoseg.search.engine import Answer, LedgerEngine
from autoseg.search.evolution import Evolution
from autoseg.search.grid import Grid
from autoseg.search.multitrial import MultiTrial
from autoseg.search.objective import Objective
from autoseg.search.random_search import RandomSearch
from autoseg.search.tpe import Tpe
from autoseg.search.trials import TrialResult, result_file, state_file, train_candidate


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_spaces():
        yield


# The same whatever comes first


@pytest.mark.parametrize("concurrency", [2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_in_which_candidates_become_ready_makes_no_difference(
    strategy: type[MultiTrial], concurrency: int, tmp_path: Path
) -> None:
    limits = Objective(max_params=620)  # refuses some
    calm = bench_for(tmp_path / "calm", concurrency)
    expected = search(strategy(trials=18), tmp_path / "calm", calm, objective=limits)
    assert [row["number"] for row in expected.history] == list(range(len(expected.history)))
    assert len(expected.candidates) == 18 and calm.most == concurrency
    assert calm.ready == calm.trained == [row["number"] for row in expected.history if row["miou"] is not None]
    for scramble in range(2):
        folder = tmp_path / str(scramble)
        bench = bench_for(folder, concurrency, scramble=scramble)
        assert outcome(search(strategy(trials=18), folder, bench, objective=limits)) == outcome(expected)
        assert bench.trained == calm.trained and sorted(bench.ready) == calm.ready != bench.ready


@pytest.mark.parametrize("strategy", [RandomSearch, Grid, QuickRl])
def test_strategies_that_ask_in_batches_find_the_same_as_one_by_one(strategy: type[MultiTrial], tmp_path: Path) -> None:
    results = [
        search(strategy(trials=30), tmp_path / str(n), bench_for(tmp_path / str(n), n, scramble=n)) for n in (1, 3, 6)
    ]
    assert outcome(results[0]) == outcome(results[1]) == outcome(results[2])


@pytest.mark.parametrize("strategy", [Evolution, Tpe])
def test_others_know_less_when_they_propose(strategy: type[MultiTrial], tmp_path: Path) -> None:
    one, three = (search(strategy(trials=30), tmp_path / str(n), bench_for(tmp_path / str(n), n)) for n in (1, 3))
    paths = [[row["choices"] for row in result.history] for result in (one, three)]
    assert paths[0][0] == paths[1][0] and paths[0] != paths[1]


def test_it_finds_the_planted_architecture_side_by_side(tmp_path: Path) -> None:
    """With 40 of 96 architectures, where chance finds it in two of five."""
    folders = [tmp_path / str(seed) for seed in range(5)]
    found = [search(Tpe(trials=40), folder, bench_for(folder, 3), seed) for seed, folder in enumerate(folders)]
    assert sum(result.architecture.choices == PlantedWide.best for result in found) >= 4


def test_a_population_smaller_than_the_places(tmp_path: Path) -> None:
    """There is no parent before the first is over: the strategy waits."""
    strategy = Evolution(trials=12, population=1, tournament=1, mutation=0.1)
    history = search(strategy, tmp_path, bench_for(tmp_path, 4, scramble=1)).history
    assert len(history) == 12 and history[0]["rank_source"] == "named"
    changed = sum(history[1]["choices"][k] != v for k, v in history[0]["choices"].items())
    assert 1 <= changed <= 3


def test_threads(tmp_path: Path) -> None:
    """Real threads of different speed; and they do work at the same time."""
    folder = tmp_path / "threads"
    calm = bench_for(folder, 3)
    together = threading.Barrier(3, timeout=20)

    class Threads:
        concurrency = 3

        def begin(self, number: int, choices: dict[str, Any], **_: Any) -> Callable[[], TrialResult]:
            results: list[TrialResult] = []

            def work() -> None:
                if number < 3:
                    together.wait()
                time.sleep(0.002 * (number * 7 % 5))
                result = TrialResult(miou=PlantedWide.quality(choices), seconds=0.0, cpu_seconds=0.0, note="")
                results.append(result)

            thread = threading.Thread(target=work)
            thread.start()
            return lambda: thread.join() or results[0]

    result = search(Evolution(trials=20), folder, Threads())
    assert outcome(result) == outcome(search(Evolution(trials=20), tmp_path / "calm", bench_for(tmp_path / "calm", 3)))
    assert calm.trained == []


# Interruptions


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_resume_after_any_number_of_results_trains_nothing_twice(strategy: type[MultiTrial], tmp_path: Path) -> None:
    """Cut at every moment: results may be written that the search has not been told of."""
    limits = Objective(max_params=620)
    expected = search(strategy(trials=10), tmp_path / "whole", bench_for(tmp_path / "whole", 2), objective=limits)
    for cut in range(10):
        folder = tmp_path / str(cut)
        before = bench_for(folder, 2, scramble=cut, ends=cut)
        with pytest.raises(Interrupted):
            search(strategy(trials=10), folder, before, objective=limits)
        undelivered = len(before.ready) - sum(
            row.get("miou") is not None for row in Journal(folder / "journal.jsonl").rows
        )
        assert 0 <= undelivered <= 1
        after = bench_for(folder, 2, scramble=cut + 1)
        assert outcome(search(strategy(trials=10), folder, after, objective=limits)) == outcome(expected)
        assert len(after.ready) == 10 - cut and not set(before.ready) & set(after.trained)


def test_some_cuts_leave_results_that_were_not_delivered(tmp_path: Path) -> None:
    """The candidate after a slow one is answered from its file."""
    bench = bench_for(tmp_path, 3, ends=2)
    bench.finish, order = (lambda number: Bench.finish(bench, order.pop(0))), [2, 1, 0]
    with pytest.raises(Interrupted):
        search(RandomSearch(trials=6), tmp_path, bench)
    assert Journal(tmp_path / "journal.jsonl").rows == [{"kind": "search", "concurrency": 3}]
    again = bench_for(tmp_path, 3)
    assert len(search(RandomSearch(trials=6), tmp_path, again).candidates) == 6
    assert again.trained == [0, 3, 4, 5]


@pytest.mark.parametrize(("before", "now"), [(2, 3), (2, 1), (1, 2), (2, None)])
def test_another_number_of_places_is_refused(before: int, now: int | None, tmp_path: Path) -> None:
    search(RandomSearch(trials=4), tmp_path, bench_for(tmp_path, before))
    rows = (tmp_path / "journal.jsonl").read_text()
    with pytest.raises(UserError, match=f"begun with {before} candidates at a time, .* not {now or 1}"):
        search(RandomSearch(trials=8), tmp_path, bench_for(tmp_path, now) if now else None)
    assert (tmp_path / "journal.jsonl").read_text() == rows


# Results


def test_a_trained_candidate_is_answered_from_its_file(tmp_path: Path) -> None:
    choices = PlantedWide.named({})["plain"]
    task = wide_task(tmp_path, 0)
    first = train_candidate(task, 4, choices, epochs=2)
    told = read_json(result_file(tmp_path, 4))
    assert (told["number"], told["choices"], told["miou"]) == (4, choices, first["miou"])
    assert told["code"] == task.architecture(choices).code
    assert [set(point) for point in told["curve"]] == [{"default", "loss", "val_loss"}] * 2
    assert max(point["default"] for point in told["curve"]) == first["miou"]
    assert json.loads(json.dumps(first)) == first
    steps: list[str] = []
    task.progress.begin = lambda label, total, unit="": steps.append(label)  # type: ignore[method-assign]
    assert train_candidate(task, 4, choices, epochs=2) == first and steps == []
    state_file(task, 4).unlink()
    other = train_candidate(task, 4, {**choices, "op": "noise"}, epochs=1)
    assert steps == ["candidate 5"] and other["miou"] != first["miou"]


def test_results_stay_when_the_search_is_over(tmp_path: Path) -> None:
    result = search(RandomSearch(trials=2, epochs=1), tmp_path, None)
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["0.json", "1.json"]
    assert [read_json(result_file(tmp_path, n))["miou"] for n in (0, 1)] == [row["miou"] for row in result.history]
    assert not list(tmp_path.glob("*.safetensors"))


# Time


def test_under_a_budget_each_round_has_its_share(tmp_path: Path) -> None:
    """Five trials on two places are three rounds, whose trainings here take no time at all."""
    bench = bench_for(tmp_path, 2)
    result = search(RandomSearch(trials=5), tmp_path, bench, seconds=30.0)
    shares = [seconds for _, seconds in bench.lengths]
    assert len(result.candidates) == 5 and shares == pytest.approx([10.0] * 5, abs=0.5)
    assert {epochs for epochs, _ in bench.lengths} == {None}


def test_one_trial_alone_has_the_whole_budget_and_no_more(tmp_path: Path) -> None:
    bench = bench_for(tmp_path, 4)
    search(RandomSearch(trials=1), tmp_path, bench, seconds=30.0)
    assert [seconds for _, seconds in bench.lengths] == [pytest.approx(30.0, abs=0.5)]


def test_time_before_a_cut_counts_once(tmp_path: Path) -> None:
    """Two trainings that ran side by side for a hundred seconds before the cut make the search a hundred older."""

    class Long(Bench):
        def begin(self, number: int, choices: dict[str, Any], **lengths: Any) -> Callable[[], TrialResult]:
            wait = super().begin(number, choices, **lengths)
            return lambda: {**wait(), "seconds": 100.0 if number < 2 else 0.0}

    result = search(RandomSearch(trials=3), tmp_path, Long(tmp_path, 2, PlantedWide.quality))
    assert [row["seconds"] for row in result.history] == pytest.approx([100.0] * 3, abs=1.0)
    cpu = [row["cpu_seconds"] for row in result.history]
    assert cpu == pytest.approx([2.0, 4.0, 6.0], abs=1.0)  # two seconds in each of the other processes


# The engine


class Book:
    """Answers with numbers; those below zero train nothing."""

    open = True

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.asked: list[float] = []

    def begin(self, sample: Any) -> Answer:
        value = sample["value"]

        def metric() -> float:
            self.asked.append(value)
            return float(value)

        return Answer(value >= 0, metric)


class Model:
    def __init__(self, value: float) -> None:
        from nni.nas.space.metrics import Metrics

        self.sample, self.status, self.metrics = {"value": value}, ModelStatus.Frozen, Metrics()


def test_what_takes_no_place_is_told_in_order_and_at_once() -> None:
    book = Book(2)
    engine = LedgerEngine(book)
    models = [Model(value) for value in (-1, 0, -2, -3, 1, -4, 2, 3)]
    told = []
    for model in models:
        engine.submit_models(model)
        told.append(len(book.asked))
    assert told == [1, 1, 1, 1, 4, 4, 6, 7]
    assert book.asked == [-1, 0, -2, -3, 1, -4, 2]
    assert list(engine.list_models(ModelStatus.Training)) == models[-1:]
    engine.wait_models(models[2])
    assert len(book.asked) == 7
    engine.wait_models()
    assert book.asked[-1] == 3 and [model.metrics.final for model in models] == book.asked


def test_a_strategy_does_not_run_far_ahead() -> None:
    book = Book(2)
    engine = LedgerEngine(book)
    engine.submit_models(Model(7))
    for number in range(20):
        engine.submit_models(Model(-1.0 - number))
    assert book.asked[0] == 7 and len(book.asked) == 21
