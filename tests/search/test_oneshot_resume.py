"""Killed, repeated, cut by time: what a one-shot search leaves is the same; see test_enas.py for ``enas``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oneshot_tools import assert_same_result, assert_same_state, kill, rows
from toy import planted_task
from trial_tools import PlantedWide, toy_spaces, wide_task
from virtual_time import VirtualTime

from autoseg.search.batches import WATCHED
from autoseg.search.darts import Darts, GumbelDarts, Proxyless
from autoseg.search.oneshot import OneShot
from autoseg.search.oneshot_evolution import OneShotEvolution
from autoseg.search.random_oneshot import RandomOneShotSearch
from autoseg.search.task import SearchResult, SearchTask
from autoseg.statefile import load_tree

LEARN = {"darts": Darts, "gumbel-darts": GumbelDarts, "proxyless": Proxyless}
ALL = {**LEARN, "random-oneshot": RandomOneShotSearch, "oneshot-evolution": OneShotEvolution}
STEPS = 8  # training batches per epoch


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


# Repeating and resuming

SHORT: dict[str, dict[str, Any]] = {
    **{name: {"epochs": 4, "warmup": 0.3, "tuning": 0.25, "candidates": 3} for name in LEARN},
    "random-oneshot": {"epochs": 2, "candidates": 4},
    "oneshot-evolution": {"epochs": 2, "evaluations": 4, "population": 2, "tournament": 2},
}
"""One epoch of warm-up, two of search and one of tuning; or two of search."""
SEARCHED = {name: 3 if name in LEARN else 2 for name in ALL}


def short(name: str) -> OneShot:
    strategy: OneShot = ALL[name](**SHORT[name])
    return strategy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[SearchTask, SearchResult]]:
    """Short searches that nothing interrupted."""
    tasks = {name: wide_task(tmp_path_factory.mktemp(name), 3) for name in ALL}
    return {name: (task, short(name).search(task)) for name, task in tasks.items()}


def pareto(task: SearchTask) -> Any:
    """pareto.json without what was measured in time."""
    content = json.loads((task.folder / "pareto.json").read_text())
    return [{k: v for k, v in row.items() if k not in ("latency_ms", "pareto")} for row in content["candidates"]]


def assert_same(name: str, task: SearchTask, result: SearchResult, whole: Any) -> None:
    assert_same_result(result, whole[name][1])
    assert rows(task) == rows(whole[name][0])
    assert pareto(task) == pareto(whole[name][0])
    # 10 weights; the optimiser has two moments of each; a gradient strategy ends with the tuning.
    assert_same_state(task, whole[name][0], 30)


@pytest.mark.parametrize("name", ALL)
def test_same_seed_twice_and_another(name: str, whole: Any, tmp_path: Path) -> None:
    task = wide_task(tmp_path / "same", 3)
    assert_same(name, task, short(name).search(task), whole)
    other = short(name).search(wide_task(tmp_path / "other", 4))
    losses = [[row["loss"] for row in result.history] for result in (other, whole[name][1])]
    assert not set(losses[0]) & set(losses[1])
    assert not {c.miou for c in other.candidates} & {c.miou for c in whole[name][1].candidates}


@pytest.mark.parametrize("name", ALL)
def test_killed_everywhere(name: str, whole: Any, tmp_path: Path) -> None:
    """Again and again, each time by a new object: the result is the same to the last bit."""
    searched = SEARCHED[name] * STEPS
    places = [("search", 1), ("search", STEPS), ("search", STEPS + 3), ("search", searched - STEPS)]
    if name in LEARN:  # after two of three epochs
        places += [("pool", 0), ("tuning", 1), ("tuning", 5), ("tuning", STEPS)]
    else:
        places += [("pool", 0)]
    places += [("candidates", 1), ("candidates", 3)]
    finished = []
    for place in places:
        task = wide_task(tmp_path, 3)
        kill(short(name), task, place)
        finished.append(len(rows(task)))
    assert finished == sorted(finished) and finished[-1] == len(rows(whole[name][0], "epoch")) + 3
    task = wide_task(tmp_path, 3)
    assert_same(name, task, short(name).search(task), whole)


@pytest.mark.parametrize(
    ("name", "place", "left"),
    [
        ("darts", ("search", 3 * STEPS), ["warmup", "search"]),  # at the last step of the search
        ("gumbel-darts", ("search", 2 * STEPS + 4), ["warmup", "search"]),
        ("proxyless", ("search", 2 * STEPS + 4), ["warmup", "search"]),
        ("darts", ("pool", 0), ["warmup", "search", "search"]),
        ("proxyless", ("tuning", 1), ["warmup", "search", "search"]),
        ("gumbel-darts", ("tuning", STEPS), ["warmup", "search", "search"]),
        ("darts", ("candidates", 2), ["warmup", "search", "search", "tuning"]),
        ("random-oneshot", ("search", STEPS + WATCHED + 4), ["search"]),
        ("oneshot-evolution", ("candidates", 2), ["search", "search"]),
    ],
)
def test_killed_once(name: str, place: tuple[str, int], left: list[str], whole: Any, tmp_path: Path) -> None:
    task = wide_task(tmp_path, 3)
    kill(short(name), task, place)
    assert [row["phase"] for row in rows(task, "epoch")] == left
    task = wide_task(tmp_path, 3)
    assert_same(name, task, short(name).search(task), whole)


@pytest.mark.parametrize("name", ALL)
def test_a_search_that_is_done_is_not_done_again(name: str, whole: Any) -> None:
    task, result = whole[name]
    before = {path: path.read_bytes() for path in task.folder.iterdir() if path.name != "pareto.json"}
    assert len(before) == 3  # journal, state, pool
    assert_same_result(short(name).search(wide_task(task.folder, 3)), result)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", LEARN)
def test_the_state_holds_what_the_gradients_have_learned(name: str, tmp_path: Path) -> None:
    """The numbers of the architecture, which moved, and the moments of their optimiser, each once."""
    kill(short(name), wide_task(tmp_path, 3), ("tuning", 1))
    state = load_tree(tmp_path / "state.safetensors")
    alphas = {key: value for key, value in state["weights"].items() if "_arch_alpha" in key}
    assert sorted(len(value) for value in alphas.values()) == [2, 3, 4, 4]
    assert all(value.abs().max() > 0.05 for value in alphas.values())  # they start at about 0.001
    moments = state["engine"]["state"]
    assert [int(m["step"]) for m in moments.values()] == [2 * STEPS] * 4  # two epochs after the warm-up


# A budget in seconds


@pytest.mark.parametrize("name", ["darts", "oneshot-evolution"])
def test_budget_in_seconds_is_kept(name: str, tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = replace(wide_task(tmp_path, 0), seconds=6.0)
    step, score = 0.02, 0.05  # virtual seconds of a batch, and of scoring a candidate
    with virtual_time.passes(PlantedWide, step, score / len(task.val)):
        result = ALL[name](epochs=2).search(task)  # the budget decides, not the epochs
    assert 5.4 < virtual_time.now < 6 + score
    assert result.seconds == pytest.approx(virtual_time.now)
    assert len(result.candidates) >= 5
    ends = {row["phase"]: row["seconds"] for row in result.history}  # of the last epoch of each phase
    epoch = 3 * STEPS * step  # a step of DARTS takes up to three passes
    if name == "darts":  # of 90 % of the time, 80 % search and 20 % tuning; of the search, 20 % warm-up
        assert ends["warmup"] == pytest.approx(0.2 * 0.8 * 5.4, abs=epoch)
        assert ends["search"] == pytest.approx(0.8 * 5.4, abs=3 * step)
        assert ends["tuning"] == pytest.approx(5.4, abs=3 * step)
        # The end of a warm-up whose length is counted in seconds is noticed: something is learned.
        entropies = [row["entropy"] for row in result.history if row["entropy"] is not None]
        assert entropies[0] > 0.999 and entropies[-1] < 0.97
    else:
        assert ends["search"] == pytest.approx(0.7 * 6, abs=2 * step)


def test_no_time_at_all_still_gives_an_architecture(tmp_path: Path) -> None:
    """One step, one candidate."""
    result = RandomOneShotSearch().search(replace(planted_task(tmp_path, 0), seconds=1e-3))
    assert len(result.candidates) == len(result.history) == 1
    assert result.architecture.choices == result.candidates[0].choices
