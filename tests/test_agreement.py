from __future__ import annotations

import math

import pytest

from autoseg.agreement import rank_agreement


def test_tau_and_regret_of_a_ranking_by_hand() -> None:
    # Pairs of (0.1, 0.2, 0.3, 0.4, 0.5) against these: 8 of 10 agree, (0, 1) and (3, 4) do not; tau = (8 - 2) / 10.
    found = rank_agreement([0.1, 0.2, 0.3, 0.4, 0.5], [0.35, 0.3, 0.5, 0.9, 0.7])
    assert found.tau == pytest.approx(0.6)
    assert found.p_value == pytest.approx(2 * 14 / math.factorial(5))  # 1 + 4 + 9 of 120 orders have 2 or fewer such
    assert (found.favourite, found.best) == (4, 3)
    assert found.regret == pytest.approx(0.2)
    assert found.random_regret == pytest.approx(0.9 - 2.75 / 5)
    low, high = found.interval or (1.0, -1.0)
    assert -1 <= low < 0.6 < high <= 1


def test_ties_are_taken_out_of_both_sides() -> None:
    # Pairs: (0, 1) tied on the left, (1, 2) on the right, (0, 2) agrees: tau-b = 1 / sqrt(2 * 2).
    assert rank_agreement([1, 1, 2], [1, 2, 2]).tau == pytest.approx(0.5)


@pytest.mark.parametrize(("sign", "text"), [(1, "better than chance"), (-1, "worse than chance")])
def test_a_perfect_and_a_reversed_ranking(sign: int, text: str) -> None:
    alone = [0.1 * i for i in range(8)]
    found = rank_agreement([sign * value for value in alone], alone)
    assert found.tau == pytest.approx(sign) and found.interval == pytest.approx((sign, sign))
    assert found.p_value == pytest.approx(2 / math.factorial(8))
    assert found.regret == pytest.approx(0.0 if sign > 0 else 0.7)
    assert text in found.text


def test_a_ranking_without_relation_is_called_so() -> None:
    found = rank_agreement([1, 2, 3, 4, 5, 6], [2, 5, 1, 6, 3, 4])
    assert "cannot be told from chance" in found.text


def test_a_favourite_among_the_best_has_no_regret() -> None:
    found = rank_agreement([0.2, 0.9, 0.1], [0.7, 0.7, 0.3])
    assert (found.favourite, found.best, found.regret) == (1, 1, 0.0)


def test_scores_that_are_all_equal_have_no_tau() -> None:
    found = rank_agreement([0.1, 0.2], [0.4, 0.4])
    assert (found.tau, found.p_value, found.interval) == (None, None, None)
    assert "cannot be compared" in found.text


@pytest.mark.parametrize(("supernet", "alone"), [([0.1], [0.1]), ([0.1, 0.2], [0.1])])
def test_too_few_scores(supernet: list[float], alone: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        rank_agreement(supernet, alone)


def test_three_architectures_in_the_right_order_may_be_chance() -> None:
    found = rank_agreement([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert found.tau == 1 and found.p_value == pytest.approx(1 / 3)
    assert found.text == "The supernet's ranking cannot be told from chance with so many architectures."
