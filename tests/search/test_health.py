"""Is a search healthy? Every number by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autoseg.search.health import diagnosis, entropy, histogram, most_probable, row, stability


def test_entropy_is_the_mean_over_decisions_each_of_its_largest() -> None:
    assert entropy({"a": {"x": 0.25, "y": 0.25, "z": 0.25, "w": 0.25}}) == pytest.approx(1)
    assert entropy({"a": {"x": 1.0, "y": 0.0}}) == 0
    # 3/4 and 1/4: 0.811278 bits of 1. Halves and quarters of four: 1.5 bits (1/2, 1/4, 1/8, 1/8: 1.75) of 2.
    assert entropy({"a": {"x": 0.75, "y": 0.25}}) == pytest.approx(0.811278, abs=1e-6)
    assert entropy({"a": {0: 0.5, 1: 0.25, 2: 0.125, 3: 0.125}}) == pytest.approx(1.75 / 2)
    both = {"a": {"x": 0.75, "y": 0.25}, "b": {0: 0.5, 1: 0.25, 2: 0.125, 3: 0.125}}
    assert entropy(both) == pytest.approx((0.811278 + 0.875) / 2, abs=1e-6)


def test_entropy_where_nothing_is_decided() -> None:
    assert entropy({}) is None
    assert entropy({"only": {"x": 1.0}}) is None
    assert entropy({"only": {"x": 1.0}, "a": {"x": 0.5, "y": 0.5}}) == pytest.approx(1)  # it does not count


def test_most_probable() -> None:
    assert most_probable({"a": {"x": 0.2, "y": 0.8}, "in": {0: 0.7, 1: 0.3}}) == {"a": "y", "in": 0}
    assert most_probable({}) == {}


def test_stability_is_the_share_of_decisions_that_stayed() -> None:
    before = {"a": "x", "b": "y", "c": 0, "d": 1}
    assert stability(before, before) == 1
    assert stability(before, {**before, "a": "z"}) == 0.75
    assert stability(before, {"a": "z", "b": "z", "c": 1, "d": 0}) == 0
    assert stability(None, before) is stability(before, {}) is stability({}, before) is None


class Space:
    """Its decisions called in... choose inputs, by name."""

    pass_through = frozenset({"skip", "identity"})

    @staticmethod
    def is_operation(label: str) -> bool:
        return not label.startswith("in")


class Busy:
    """No operation of it passes its input on, and every name is one of an operation."""


def test_histogram() -> None:
    paths = [{"op1": "conv", "op2": "pool"}, {"op1": "conv", "op2": "skip"}, {"op1": "conv", "op2": "pool"}]
    found = histogram(paths)
    assert list(found.items()) == [("conv", 0.5), ("pool", 0.333333), ("skip", 0.166667)]  # most frequent first
    assert list(histogram([{"a": "y", "b": "x"}])) == ["x", "y"]  # then by name
    assert histogram([]) == histogram([{}]) == {}


def test_row_of_the_journal() -> None:
    distribution = {"a": {"x": 0.75, "y": 0.25}, "b": {"x": 0.1, "y": 0.9}, "in": {"u": 0.5, "v": 0.5}}
    tenth = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9))
    assert row(distribution, {"a": "y", "b": "y", "in": "u"}, Space) == {
        "entropy": round((0.8112781244591328 + tenth + 1) / 3, 6),
        "stability": round(2 / 3, 6),
        "histogram": {"x": 0.5, "y": 0.5},
    }
    assert row(distribution, None, Busy)["histogram"] == {"u": 0.333333, "x": 0.333333, "y": 0.333333}
    assert row({}, None, Space) == {"entropy": None, "stability": None, "histogram": {}}


def epochs(entropies: list[float | None], stabilities: list[float | None] | None = None) -> list[dict[str, Any]]:
    steady = stabilities or [1.0] * len(entropies)
    return [{"kind": "epoch", "entropy": e, "stability": s} for e, s in zip(entropies, steady, strict=True)]


CONV = {"op1": "conv", "op2": "conv", "in": [0]}


@pytest.mark.parametrize(
    ("rows", "noted"),
    [
        ([], []),
        (epochs([None, None], [None, None]), []),  # a strategy that learns nothing
        (epochs([0.99, 0.5, 0.2]), []),
        (epochs([0.5, 0.8]), []),
        (epochs([0.2, 0.81]), ["undecided (entropy 0.81 of 1)"]),
        (epochs([0.97], [None]), ["undecided (entropy 0.97 of 1)"]),
        # Of eight epochs the last two count: on average 85 % stay; then 90 % do.
        (epochs([0.3] * 8, [0.0] * 6 + [0.8, 0.9]), ["in its last quarter 15 % of the decisions still changed"]),
        (epochs([0.3] * 8, [0.0] * 6 + [0.875, 0.9375]), []),
        (epochs([0.9] * 4, [1.0, 1.0, 1.0, 0.5]), ["undecided (entropy 0.90 of 1) and in its last quarter 50 %"]),
        # Tuning has no entropy; what went before it counts.
        (epochs([0.9, 0.3, None], [1.0, 1.0, None]), []),
        (epochs([0.3, 0.9, None], [1.0, 1.0, None]), ["undecided (entropy 0.90 of 1)"]),
        ([{"kind": "candidate", "entropy": 0.99, "stability": 0.0}], []),
    ],
)
def test_not_converged(rows: list[dict[str, Any]], noted: list[str]) -> None:
    notes = diagnosis(rows, CONV, Space)
    assert len(notes) == len(noted)
    for note, part in zip(notes, noted, strict=True):
        assert note.startswith("The search has not converged: ") and part in note
        assert "search longer" in note


@pytest.mark.parametrize(
    ("skips", "operations", "share"), [(7, 10, "70 %"), (2, 3, None), (3, 3, "100 %"), (0, 3, None), (0, 0, None)]
)
def test_collapsed(skips: int, operations: int, share: str | None) -> None:
    chosen: dict[str, Any] = {f"op{i}": "skip" if i < skips else "conv" for i in range(operations)}
    chosen |= {"in1": [0], "in2": "skip"}  # inputs do not count
    notes = diagnosis([], chosen, Space)
    expected = f"The search has collapsed: {share} of the chosen operations only pass their input on."
    assert notes == ([expected] if share else [])


def test_operations_that_pass_on_are_counted_together() -> None:
    chosen = {"a": "skip", "b": "identity", "c": "skip", "d": "conv"}
    assert "collapsed: 75 %" in diagnosis([], chosen, Space)[0]
    assert diagnosis([], chosen, Busy) == []


def test_both_at_once() -> None:
    notes = diagnosis(epochs([0.99]), {"a": "skip"}, Space)
    assert ["converged" in notes[0], "collapsed" in notes[1]] == [True, True]
