"""Ranks, the Friedman test and the critical difference against published and hand-computed numbers."""

from __future__ import annotations

import math

import pytest

from autoseg.ranks import critical_difference, rank


@pytest.mark.parametrize(
    ("models", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (10, 3.164)]
)
def test_critical_values_are_those_of_table_5_of_demsar(models: int, q: float) -> None:
    datasets = 14
    found = critical_difference(models, datasets) / math.sqrt(models * (models + 1) / (6 * datasets))
    assert found == pytest.approx(q, abs=1e-3)


def test_the_worked_example_of_demsar_has_its_critical_differences() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, alpha=0.10) == pytest.approx(1.12, abs=0.005)


def test_friedman_by_hand() -> None:
    # Ranks: a 1 1 1 2, b 2 3 2 1, c 3 2 3 3; sums 5, 8, 11; 12 / (4 * 3 * 4) * (25 + 64 + 121) - 3 * 4 * 4 = 4.5
    scores = {"c": [0.1, 0.2, 0.1, 0.1], "a": [0.9, 0.9, 0.9, 0.8], "b": [0.5, 0.1, 0.5, 0.9]}
    found = rank(scores)
    assert found.models == ("a", "b", "c")
    assert found.ranks.tolist() == [[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3]]
    assert found.mean_ranks == (1.25, 2.0, 2.75)
    assert found.chi2 == pytest.approx(4.5)
    assert found.p_value == pytest.approx(math.exp(-4.5 / 2))  # chi-squared with 2 degrees of freedom
    assert found.f_value == pytest.approx(3 * 4.5 / (4 * 2 - 4.5))
    assert not found.differs
    assert found.critical_difference == pytest.approx(2.3437 * math.sqrt(12 / 24), abs=1e-3)
    assert found.groups == (("a", "b", "c"),)


def test_equal_scores_share_their_ranks_and_noise_is_no_difference() -> None:
    found = rank({"a": [0.5, 0.5, 0.7], "b": [0.5 + 1e-12, 0.4, 0.7], "c": [0.5, 0.4, 0.8]})
    assert found.ranks[:, found.models.index("a")].tolist() == [2.0, 1.0, 2.5]
    assert found.ranks[:, found.models.index("b")].tolist() == [2.0, 2.5, 2.5]
    assert found.ranks[:, found.models.index("c")].tolist() == [2.0, 2.5, 1.0]


def test_groups_are_the_largest_that_cannot_be_told_apart() -> None:
    names = "abcdef"
    scores = {name: [1 - 0.1 * place] * 12 for place, name in enumerate(names)}
    found = rank(scores)
    assert found.mean_ranks == (1, 2, 3, 4, 5, 6)
    assert found.critical_difference == pytest.approx(2.1767, abs=1e-3)
    assert found.groups == (("a", "b", "c"), ("b", "c", "d"), ("c", "d", "e"), ("d", "e", "f"))
    assert found.differs and found.p_value is not None and found.p_value < 1e-6
    assert found.f_value is None and found.f_p_value == 0  # all data sets agree


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({"a": [0.5], "b": [0.4], "c": [0.3]}, "there is 1 data set."),
        ({"a": [0.5] * 4, "b": [0.4] * 4}, "there are 2 models scored on all of them."),
        ({"a": [0.5] * 2}, "there are 2 data sets and 1 model scored on all of them."),
        ({"a": [0.5] * 3, "b": [0.5] * 3, "c": [0.5] * 3}, "on every data set all models score the same."),
        ({}, "There is no model with a score everywhere."),
    ],
)
def test_where_there_is_no_test_it_is_said_why(scores: dict[str, list[float]], why: str) -> None:
    found = rank(scores)
    assert found.why_not.endswith(why)
    assert (found.chi2, found.p_value, found.critical_difference, found.groups) == (None, None, None, ())
    assert not found.differs and len(found.models) == len(scores)


@pytest.mark.parametrize("scores", [{"a": [0.5, 0.4], "b": [0.5]}, {"a": [0.5, math.nan], "b": [0.5, 0.4]}])
def test_scores_must_be_complete(scores: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="every"):
        rank(scores)
