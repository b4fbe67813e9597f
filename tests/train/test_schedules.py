"""The learning rate at any moment, against numbers worked out by hand."""

from __future__ import annotations

import itertools
import math
import pickle
import time

import pytest

from autoseg.errors import UserError
from autoseg.train.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    CosineAnnealing,
    CosineRestarts,
    Exponential,
    make_schedule,
    named_schedule,
)

PAPER = CosineRestarts(period=10, growth=2, decay=0.98, decay_from=50)
"""AutoSegNet's."""


def test_cosine_warms_up_and_comes_down() -> None:
    rate = Cosine()
    assert rate(2.0, 0.0, 7.0) == pytest.approx(0.2)
    assert rate(2.0, 0.025, 7.0) == pytest.approx(1.0)
    assert rate(2.0, 0.05, 7.0) == 2.0
    assert rate(2.0, 0.05 + 0.95 / 3, 7.0) == pytest.approx(2.0 * (0.02 + 0.98 * 0.75))  # cos(60 degrees) = 1/2
    assert rate(2.0, 1.0, 7.0) == pytest.approx(0.04)
    rates = [rate(1.0, i / 1000, 0.0) for i in range(1001)]
    assert rates[:51] == sorted(rates[:51]) and rates[50:] == sorted(rates[50:], reverse=True)
    assert max(abs(b - a) for a, b in itertools.pairwise(rates[50:])) < math.pi / 1000


def test_other_warm_up_and_end() -> None:
    assert Cosine(warmup=0.0)(1.0, 0.0, 0.0) == 1.0
    assert Cosine(warmup=0.0, final=0.0)(1.0, 0.5, 0.0) == pytest.approx(0.5)
    assert Cosine(warmup=0.5)(1.0, 0.25, 0.0) == 0.5


def test_cosine_annealing() -> None:
    rate = CosineAnnealing()
    shares = (0.0, 1 / 3, 0.5, 2 / 3, 1.0)
    assert [rate(0.4, share, 99.0) for share in shares] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])


def test_constant() -> None:
    assert {Constant()(0.3, share, passes) for share in (0.0, 0.7, 1.0) for passes in (0.0, 9.0)} == {0.3}


def test_exponential_follows_the_passes_alone() -> None:
    rate = Exponential(gamma=0.9)
    assert [rate(2.0, 0.5, passes) for passes in (0.0, 1.0, 2.0)] == pytest.approx([2.0, 1.8, 1.62])
    assert rate(2.0, 0.0, 0.5) == pytest.approx(2.0 * math.sqrt(0.9))
    assert Exponential()(0.05, 0.0, 300.0) == pytest.approx(0.05 * 0.98**300)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.5),
        (2.5, 0.25 * (1 + math.sqrt(0.5))),  # a quarter of the first period
        (5, 0.25),
        (7.5, 0.25 * (1 - math.sqrt(0.5))),
        (10, 0.5),  # periods of 10, 20, 40, 80, 160
        (20, 0.25),
        (30, 0.5),
        (40, 0.25 * (1 + math.sqrt(0.5))),
        (50, 0.25),  # the decay begins
        (51, 0.25 * (1 + math.cos(math.pi * 21 / 40)) * 0.98),
        (70, 0.5 * 0.98**20),
        (110, 0.25 * 0.98**60),
        (150, 0.5 * 0.98**100),
        (200, 0.25 * (1 + math.cos(math.pi * 50 / 160)) * 0.98**150),
    ],
)
def test_restarts_of_the_paper(epoch: float, expected: float) -> None:
    assert PAPER(0.5, 0.3, epoch) == pytest.approx(expected, rel=1e-12)


def test_just_before_a_restart_it_is_zero() -> None:
    for restart in (10, 30, 70, 150):
        assert PAPER(0.5, 0.0, restart - 1e-6) < 1e-9
        assert PAPER(0.5, 0.0, restart) > 0.03


def test_restarts_stay_in_their_bounds() -> None:
    rates = [PAPER(0.5, 0.0, epoch / 10) for epoch in range(2001)]
    assert max(rates) == 0.5 and min(rates) >= 0
    assert rates[-1] == pytest.approx(0.0188, abs=5e-5)


@pytest.mark.parametrize("growth", [1.0, 1.001, 1.5, 2.0, 3.0, 1000.0])
@pytest.mark.parametrize("period", [0.3, 1.0, 10.0])
def test_restarts_are_where_a_walk_finds_them(period: float, growth: float) -> None:
    """The closed form against adding up one period after the other, in and between the restarts."""
    schedule, start, length = CosineRestarts(period=period, growth=growth), 0.0, period
    for _ in range(20):
        middle = start + length / 2
        assert schedule(1.0, 0.0, middle) == pytest.approx(0.5, abs=1e-6)
        assert schedule(1.0, 0.0, start + 0.01 * length) > 0.99 and schedule(1.0, 0.0, start + 0.99 * length) < 0.01
        start, length = start + length, length * growth


def test_restarts_without_number_take_no_time() -> None:
    began = time.monotonic()
    for growth in (1.0, 1.0 + 1e-9, 1.01):
        assert 0 <= CosineRestarts(period=0.01, growth=growth)(1.0, 0.0, 1e9) <= 1
    assert time.monotonic() - began < 1  # one period after the other would be 1e11 of them
    for options in ({"period": 1e-300}, {"growth": float("inf")}):
        with pytest.raises(UserError):
            CosineRestarts(**options)


def test_other_restarts() -> None:
    assert CosineRestarts(period=4, growth=1, decay=0.5, decay_from=2)(1.0, 0.0, 4) == pytest.approx(0.25)
    assert CosineRestarts(period=4, growth=1)(1.0, 0.0, 6) == pytest.approx(0.5)


def test_names_make_schedules_that_can_be_sent_to_another_process() -> None:
    made = {name: make_schedule(name, {}) for name in SCHEDULES}
    assert made["cosine"] == Cosine() and made["cosine-restarts"] == CosineRestarts()
    for schedule in made.values():
        assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert make_schedule("cosine-restarts", {"period": 3, "growth": 1}) == CosineRestarts(period=3, growth=1)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cosin", {}, ["schedule.name: there is no schedule called 'cosin' -> did you mean 'cosine'?"]),
        ("exponential", {"gama": 1}, ["schedule.gama: unknown option 'gama' -> did you mean 'gamma'?"]),
        ("exponential", {"gamma": 1.5}, ["schedule.gamma: 'gamma' must be above 0 and at most 1 -> change it"]),
        ("constant", {"gamma": 1.5}, ["schedule.gamma: unknown option 'gamma' -> this plugin has no options"]),
        (
            "cosine-restarts",
            {"period": 0, "growth": 0.5},
            [
                "schedule.period: 'period' must be 0.01 or more -> change it",
                "schedule.growth: 'growth' must be in 1..1000 -> change it",
            ],
        ),
    ],
)
def test_wrong_schedules(name: str, options: dict[str, object], expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_schedule(name, options)
    assert [str(problem).replace("\n ", "") for problem in caught.value.problems] == expected


@pytest.mark.parametrize("value", [{}, {"name": 3}, {"name": "cosine", "gamma": 1}, {"name": "cosine", "options": 1}])
def test_what_is_no_schedule(value: dict[str, object]) -> None:
    with pytest.raises(UserError, match="is not a schedule"):
        named_schedule(value)
