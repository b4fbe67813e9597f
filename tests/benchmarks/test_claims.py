"""How figures of several seeds become the verdict of a claim, and that every claim can be read."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

from claimed import verdicts  # noqa: E402
from claimed.verdicts import Claim, Criterion  # noqa: E402


def claim(*criteria: Criterion, **options: Any) -> Claim:
    return Claim("X1", "a paper", "It is better.", "1 against 0", "both", lambda lab, seed: {}, criteria, **options)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.02, 0.03, 0.02], "reproduced"),
        ([-0.02, -0.03, -0.02], "not reproduced"),
        ([0.02, -0.03, 0.02], "inconclusive"),
        ([0.0, 0.0, 0.0], "not reproduced"),  # equal is not better
        ([0.02], "inconclusive"),
        ([math.nan, 0.02, 0.03], "inconclusive"),
    ],
)
def test_better(values: list[float], verdict: str) -> None:
    assert Criterion("gain", above=0.0).verdict(values) == verdict


def test_the_interval_by_hand() -> None:
    """Mean 1, standard deviation 1, three seeds: half of the interval is 1.886 / sqrt(3) = 1.0887."""
    values = [0.0, 1.0, 2.0]
    assert Criterion("x", least=-0.0886).verdict(values) == "inconclusive"
    assert Criterion("x", least=-0.0888).verdict(values) == "reproduced"
    assert Criterion("x", most=2.0888).verdict(values) == "reproduced"
    assert Criterion("x", least=2.0886).verdict(values) == "inconclusive"
    assert Criterion("x", least=2.0888).verdict(values) == "not reproduced"


def test_what_does_not_depend_on_seeds_needs_no_interval() -> None:
    assert Criterion("ratio", least=0.1, most=0.2, exact=True).verdict([0.2, 0.2]) == "reproduced"
    assert Criterion("ratio", least=0.1, most=0.2, exact=True).verdict([0.3, 0.3]) == "not reproduced"


def test_halves_of_a_claim_have_verdicts_of_their_own() -> None:
    both = claim(Criterion("a", above=0.0), Criterion("b", above=0.0))
    rows = [{"a": 0.1, "b": -0.1}, {"a": 0.11, "b": -0.11}]
    assert both.verdicts(rows) == {"a above 0": "reproduced", "b above 0": "not reproduced"}
    assert both.verdict(rows) == "partly reproduced"
    assert both.verdict([{"a": 0.1, "b": 0.1}, {"a": 0.11, "b": 0.11}]) == "reproduced"
    assert both.verdict([{"a": -0.1, "b": -0.1}, {"a": -0.11, "b": 0.11}]) == "not reproduced"


def test_what_is_about_the_size_has_no_verdict_at_a_small_one() -> None:
    hours = claim(Criterion("hours", most=3.5), large=True)
    rows = [{"hours": 0.1}, {"hours": 0.1}]
    assert hours.verdict(rows) == "cannot be tested at this size"
    assert hours.verdict(rows, large=True) == "reproduced"


def test_mean_and_standard_deviation() -> None:
    assert verdicts.summary([{"a": 1.0}, {"a": 3.0}]) == {"a": (2.0, math.sqrt(2))}


def test_every_claim_of_the_specification_is_there_once() -> None:
    import claims

    names = [*(f"E{i}" for i in range(1, 7)), *(f"S{i}" for i in range(1, 5)), *(f"T{i}" for i in range(1, 6))]
    assert list(claims.claims()) == [*names, *(f"A{i}" for i in range(1, 7))]
    table = claims.table(
        {"cpu": {"A5": {"verdict": "v", "criteria": {"c": "v"}, "seeds": 3, "figures": {"f": [1, 2]}, "notes": []}}}
    )
    assert "| f | 1 | 2 |" in table and table.count("not run") == 20
