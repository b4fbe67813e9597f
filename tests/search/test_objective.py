"""Limits on the final network: they are measured on it, kept by every pool, and explained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import PlantedWide, planted_task
from trial_tools import toy_spaces, wide_task

from autoseg.errors import UserError
from autoseg.search import objective as module
from autoseg.search.candidates import Pool
from autoseg.search.darts import Darts
from autoseg.search.objective import CostMeter, Objective, pareto_front, pareto_json
from autoseg.search.oneshot_evolution import OneShotEvolution
from autoseg.search.random_oneshot import RandomOneShotSearch
from autoseg.search.task import Candidate, SearchTask
from autoseg.train.clock import Stopwatch
from autoseg.train.cost import Cost, measure

PATHS = {op: {"op": op, "op2": "identity"} for op in ("noise", "conv1", "conv3")}
PARAMS = {"noise": 34, "conv1": 34 + 64 + 16, "conv3": 34 + 576 + 16}
"""Stem and head have 16 and 18; the convolutions 8 x 8 and 8 x 8 x 9 weights and 16 of the normalisation."""
WIDE = {"noise": 66, "conv1": 66 + 256 + 32, "conv3": 66 + 2304 + 32}
"""The same of width 16."""


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


@pytest.fixture
def task(tmp_path: Path) -> SearchTask:
    return planted_task(tmp_path, 0)


# The objective


def test_a_limit_is_inclusive_and_every_broken_one_is_named() -> None:
    limits = Objective(max_params=100, max_flops=2_000_000, max_latency_ms=2.5)
    assert limits.admits(Cost(100, 2_000_000, 2.5)) and limits.problem(Cost(100, 2_000_000, 2.5)) == ""
    assert limits.problem(Cost(101, 2_000_000, 2.5)) == "101 parameters are more than max_params = 100"
    assert limits.problem(Cost(1000, 3_000_000, 12.34)) == (
        "1,000 parameters are more than max_params = 100; "
        "3,000,000 FLOPs are more than max_flops = 2,000,000; "
        "12.3 ms per image are more than max_latency_ms = 2.5"
    )


def test_what_cannot_be_counted_breaks_its_limit_only() -> None:
    limits = Objective(max_flops=10)
    assert limits.problem(Cost(1)) == "its FLOPs cannot be counted, and max_flops is set"
    assert Objective(max_params=10).admits(Cost(1)) and Objective().admits(Cost(10**12))
    assert (Objective().limited, limits.limited) == (False, True)


@pytest.mark.parametrize("wrong", [0, -5, float("nan")])
def test_limits_are_positive(wrong: float) -> None:
    with pytest.raises(ValueError, match="max_params, max_latency_ms must be positive"):
        Objective(max_params=wrong, max_flops=1, max_latency_ms=wrong)  # type: ignore[arg-type]


# Measuring


def test_the_final_network_is_measured(task: SearchTask) -> None:
    assert {op: CostMeter(task).of(path).params for op, path in PATHS.items()} == PARAMS
    wider = replace(task, final_kwargs={"width": 16}, objective=Objective(max_params=200))
    assert {op: CostMeter(wider).of(path).params for op, path in PATHS.items()} == WIDE
    narrow = replace(task, objective=Objective(max_params=200))
    assert [CostMeter(narrow).admits(PATHS[op]) for op in PATHS] == [True, True, False]
    assert [CostMeter(wider).admits(PATHS[op]) for op in PATHS] == [True, False, False]


def test_only_what_is_asked_for_is_measured(task: SearchTask) -> None:
    assert CostMeter(task).of(PATHS["conv1"]) == Cost(PARAMS["conv1"])
    counted = CostMeter(replace(task, objective=Objective(max_flops=10**9))).of(PATHS["conv1"])
    # On 16 x 16 pixels two operations for each weight of stem (8), conv1 (64) and head (16).
    assert counted.latency_ms is None and counted.flops == 2 * 16 * 16 * (8 + 64 + 16)
    full = CostMeter(task).of(PATHS["conv1"], full=True)
    assert full.flops == counted.flops and full.latency_ms is not None and full.latency_ms > 0


def test_sides_are_rounded_up_to_what_the_network_takes() -> None:
    network = torch.nn.Conv2d(1, 1, 1, bias=False)
    network.size_divisor = 8  # type: ignore[assignment]
    assert measure(network, (1, 9, 16), "cpu", latency=False).flops == 2 * 16 * 16


def test_each_network_is_measured_once(task: SearchTask, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(module, "measure", lambda *args, **asked: built.append(asked) or Cost(1, 2, 3.0 + len(built)))
    meter = CostMeter(task)
    for choices in (PATHS["conv1"], dict(reversed(PATHS["conv1"].items())), PATHS["conv3"]):
        meter.of(choices)
        meter.of(choices)
    assert len(built) == 2
    assert [meter.of(PATHS["conv1"], full=True) for _ in range(3)] == [Cost(1, 2, 4.0)] * 3
    asked = {"flops": False, "latency": False, "runs": 3}
    assert built == [asked, asked, {"flops": True, "latency": True, "runs": 3}]


def test_a_measured_latency_stays(task: SearchTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another measurement of a network that was admitted could be above the limit; its FLOPs are added."""
    times = iter([1.0, 9.0])
    monkeypatch.setattr(
        module,
        "measure",
        lambda *args, flops, latency, runs: Cost(5, 7 if flops else None, next(times) if latency else None),
    )
    meter = CostMeter(replace(task, objective=Objective(max_latency_ms=2.0)))
    assert meter.of(PATHS["conv1"]) == Cost(5, None, 1.0)
    assert meter.of(PATHS["conv1"], full=True) == meter.of(PATHS["conv1"]) == Cost(5, 7, 1.0)


def test_measuring_draws_no_random_numbers(task: SearchTask) -> None:
    """A resumed search measures again what the first process knew; it must not draw other paths for that."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    CostMeter(task).of(PATHS["conv3"], full=True)
    assert torch.equal(torch.rand(3), expected)


def test_without_limits_nothing_is_built(task: SearchTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "measure", lambda *args, **asked: pytest.fail("measured"))
    assert CostMeter(task).admits(PATHS["conv3"])


# Pools


def test_a_pool_has_each_architecture_within_the_limits_once(task: SearchTask) -> None:
    limited = replace(task, objective=Objective(max_params=200))
    drawn = iter([PATHS["conv1"], PATHS["conv3"], PATHS["noise"], PATHS["noise"], PATHS["conv1"], PATHS["conv3"]] * 20)
    asked: list[bool] = []
    pool = Pool.drawn(
        limited, CostMeter(limited), lambda greedy: asked.append(greedy) or next(drawn), samples=3, watch=Stopwatch()
    )
    assert pool.paths == [PATHS["conv1"], PATHS["noise"]]
    assert pool.sources == ["greedy", "sampled"] and pool.notes == []
    assert asked == [True] + [False] * 60  # 20 draws for each sample, then it gives up


def test_a_greedy_architecture_over_the_limit_is_noted(task: SearchTask) -> None:
    limited = replace(task, objective=Objective(max_params=200))
    drawn = iter([PATHS["conv3"], PATHS["conv1"]])
    pool = Pool.drawn(limited, CostMeter(limited), lambda greedy: next(drawn), samples=1, watch=Stopwatch())
    assert (pool.paths, pool.sources) == ([PATHS["conv1"]], ["sampled"])
    (note,) = pool.notes
    assert note == (
        "The most probable architecture is not within the limits (626 parameters are more than max_params = 200)."
    )


def test_nothing_within_the_limits_names_the_smallest(task: SearchTask) -> None:
    limited = replace(task, objective=Objective(max_params=100))
    drawn = iter([PATHS["conv3"]] + [PATHS["conv1"], PATHS["conv3"]] * 20)
    with pytest.raises(UserError) as caught:
        Pool.drawn(limited, CostMeter(limited), lambda greedy: next(drawn), samples=1, watch=Stopwatch())
    (problem,) = caught.value.problems
    assert problem.where == "objective" and problem.fix.startswith("raise the limit")
    assert problem.what.endswith("of the smallest, 114 parameters are more than max_params = 100")


def test_named_points_are_there_as_far_as_they_are_within_the_limits(tmp_path: Path) -> None:
    named = PlantedWide.named({})["plain"]  # conv1: 114 parameters
    for limit, expected in ((114, [named]), (113, [])):
        task = wide_task(tmp_path, 0, objective=Objective(max_params=limit))
        paths = iter([{**PlantedWide.best, "op": "noise"}])
        pool = Pool.drawn(task, CostMeter(task), lambda greedy, paths=paths: next(paths), samples=0, watch=Stopwatch())
        assert pool.paths[1:] == expected and pool.sources[1:] == ["named"] * len(expected)


def test_a_pool_survives_its_file(tmp_path: Path) -> None:
    assert Pool.read(tmp_path) is None
    pool = Pool([PlantedWide.best, PATHS["conv1"]], ["greedy", "sampled"], ["a note"])
    pool.write(tmp_path)
    assert Pool.read(tmp_path) == pool


# Whole searches


@pytest.mark.parametrize(
    "strategy",
    [
        Darts(epochs=10, candidates=8),
        RandomOneShotSearch(epochs=3, candidates=12),
        OneShotEvolution(epochs=3, evaluations=6, population=3, tournament=1),
    ],
    ids=lambda strategy: strategy.name,
)
def test_a_search_keeps_the_limit_of_the_final_network(strategy: Any, tmp_path: Path) -> None:
    """conv3 is best by far, and of width 8 within the limit; but the final network is wider."""
    task = replace(planted_task(tmp_path, 0), objective=Objective(max_params=1000), final_kwargs={"width": 16})
    result = strategy.search(task)
    assert result.candidates and result.architecture.choices["op"] != "conv3"
    for candidate in result.candidates:
        assert candidate.params == WIDE[candidate.choices["op"]] <= 1000
        assert candidate.flops is not None and candidate.latency_ms is not None
    content = json.loads((tmp_path / "pareto.json").read_text())
    assert content["objective"] == {"max_params": 1000, "max_flops": None, "max_latency_ms": None}
    assert [row["choices"] for row in content["candidates"]] == [c.choices for c in result.candidates]
    refused = [note for note in result.notes if "not within the limits (2,402 parameters" in note]
    assert len(refused) == (strategy.name == "darts")  # its most probable one


@pytest.mark.parametrize(
    "strategy",
    [Darts(epochs=2), RandomOneShotSearch(epochs=1), OneShotEvolution(epochs=1)],
    ids=lambda strategy: strategy.name,
)
def test_a_search_without_any_architecture_within_the_limits(strategy: Any, tmp_path: Path) -> None:
    task = replace(planted_task(tmp_path, 0), objective=Objective(max_params=33))
    with pytest.raises(UserError, match="of the smallest, 34 parameters are more than max_params = 33") as caught:
        strategy.search(task)
    assert caught.value.exit_code == 2


# The front


def candidate(miou: float, params: int, latency: float | None = None) -> Candidate:
    return Candidate({"op": "conv1", "op2": "identity"}, miou, "sampled", params, None, latency)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(0.9, 500, 5.0)], [True]),
        # Better in one and worse in another: both stay. The third is worse than the first in all.
        ([(0.9, 500, 5.0), (0.8, 400, 6.0), (0.7, 600, 7.0)], [True, True, False]),
        # As good and as large, but slower.
        ([(0.9, 500, 5.0), (0.9, 500, 6.0)], [True, False]),
        # Equal in all: neither beats the other.
        ([(0.9, 500, 5.0), (0.9, 500, 5.0)], [True, True]),
        # The fastest stays although it is the worst and largest.
        ([(0.9, 500, 5.0), (0.1, 900, 4.0)], [True, True]),
        # One latency is not known: it decides nothing.
        ([(0.8, 100, 5.0), (0.7, 200, None)], [True, False]),
        ([(0.8, 100, None), (0.7, 200, 5.0), (0.7, 90, 9.0)], [True, False, True]),
        # Without latencies, mIoU and parameters decide.
        ([(0.9, 500, None), (0.8, 500, None), (0.8, 400, None), (0.7, 450, None)], [True, False, True, False]),
    ],
)
def test_front(points: list[tuple[float, int, float | None]], front: list[bool]) -> None:
    assert pareto_front([candidate(*point) for point in points]) == front


def test_pareto_json(task: SearchTask) -> None:
    limited = replace(task, objective=Objective(max_params=700, max_latency_ms=3.0))
    best = Candidate(PATHS["conv3"], 0.9, "greedy", 626, 1000, 1.5)
    worse = Candidate(PATHS["conv1"], 0.4, "sampled", 700, None, None)
    content = pareto_json(limited, [best, worse])
    assert content["objective"] == {"max_params": 700, "max_flops": None, "max_latency_ms": 3.0}
    assert content["candidates"][0] == {
        "code": '{"op": "conv3", "op2": "identity"}',
        "choices": {"op": "conv3", "op2": "identity"},
        "source": "greedy",
        "miou": 0.9,
        "params": 626,
        "flops": 1000,
        "latency_ms": 1.5,
        "pareto": True,
    }
    assert [row["miou"] for row in content["candidates"]] == [0.9, 0.4]
    assert json.loads(json.dumps(content)) == content


def test_a_resumed_search_judges_by_the_same_latency(task: SearchTask, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(task, objective=Objective(max_latency_ms=10.0))
    monkeypatch.setattr(module, "measure", lambda *args, **asked: Cost(1, None, 3.0))
    assert CostMeter(limited).of(PATHS["conv1"]).latency_ms == 3.0
    monkeypatch.setattr(module, "measure", lambda *args, **asked: pytest.fail("measured again"))
    assert CostMeter(limited).admits(PATHS["conv1"])
    assert CostMeter(limited).of(PATHS["conv1"]).latency_ms == 3.0
