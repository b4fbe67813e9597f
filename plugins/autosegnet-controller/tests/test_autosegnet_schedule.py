from __future__ import annotations

import math

import pytest
from autoseg_autosegnet.schedule import EPOCHS, learning_rate


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
def test_values_by_hand(epoch: float, expected: float) -> None:
    assert learning_rate(epoch) == pytest.approx(expected, rel=1e-12)


def test_just_before_a_restart_it_is_zero() -> None:
    for restart in (10, 30, 70, 150):
        assert learning_rate(restart - 1e-6) < 1e-9
        assert learning_rate(restart) > 0.03


def test_bounds_and_end() -> None:
    rates = [learning_rate(epoch / 10) for epoch in range(10 * EPOCHS + 1)]
    assert max(rates) == 0.5
    assert min(rates) >= 0
    assert rates[-1] == pytest.approx(0.0188, abs=5e-5)


def test_other_numbers() -> None:
    assert learning_rate(4, peak=1.0, period=4, growth=1.0, decay=0.5, decay_from=2) == pytest.approx(0.25)
    assert learning_rate(6, peak=1.0, period=4, growth=1.0, decay=1.0) == pytest.approx(0.5)


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        learning_rate(-1)
