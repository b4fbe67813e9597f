"""Bootstrap intervals over test images."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.train.score_intervals import score_intervals
from autoseg.train.verdict import ModelResult, interval


def test_equal_images_leave_no_doubt() -> None:
    found = score_intervals(np.array([[[8, 2], [0, 10]]] * 6))
    assert found["accuracy"] == [0.9, 0.9]
    assert found["iou_per_class"] == [[pytest.approx(0.8)] * 2, [pytest.approx(10 / 12)] * 2]
    assert found["dice_per_class"][0] == [pytest.approx(16 / 18)] * 2
    assert found["miou"] == [pytest.approx((0.8 + 10 / 12) / 2)] * 2
    assert found["dice"] == [pytest.approx((16 / 18 + 20 / 22) / 2)] * 2


def test_two_images_give_the_ends_that_are_drawn_most_often() -> None:
    # Drawn: both good (1/4), both bad (1/4), one of each (1/2); accuracies 1, 0.5, 0.75.
    found = score_intervals(np.array([[[5, 0], [0, 5]], [[5, 0], [5, 0]]]))
    assert found["accuracy"] == [0.5, 1.0]
    assert found["iou_per_class"] == [[0.5, 1.0], [0.0, 1.0]]
    assert found["miou"] == [0.25, 1.0]


def test_the_interval_of_the_miou_is_that_of_the_comparison() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, (9, 2, 2))
    assert score_intervals(counts)["miou"] == list(interval(ModelResult("finalist", counts[None], (7,))))


def test_more_images_make_it_narrower() -> None:
    rng = np.random.default_rng(0)

    def width(count: int) -> float:
        right = rng.integers(50, 100, count)
        low, high = score_intervals([[[int(n), 100 - int(n)], [0, 0]] for n in right])["accuracy"]
        return float(high - low)

    assert width(400) < width(16) / 3


def test_a_class_that_is_absent_has_no_interval_and_a_rare_one_has() -> None:
    found = score_intervals(np.array([[[4, 0, 0], [0, 4, 0], [0, 0, 0]], [[8, 0, 0], [0, 0, 0], [0, 0, 0]]]))
    assert found["iou_per_class"] == [[1.0, 1.0], [1.0, 1.0], [None, None]]
    assert found["dice_per_class"][2] == [None, None] and found["dice"] == [1.0, 1.0]


def test_nothing_that_counts() -> None:
    found = score_intervals(np.zeros((2, 2, 2), np.int64))
    assert found["miou"] == found["dice"] == found["accuracy"] == [None, None]
