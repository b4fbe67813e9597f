"""The clock of a training."""

from __future__ import annotations

import pytest

from autoseg.train import clock as module
from autoseg.train.clock import Clock, Stopwatch


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A time that stands still until the test moves it."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: moment[0])
    return moment


@pytest.mark.parametrize("lengths", [{}, {"epochs": 3, "seconds": 4.0}])
def test_exactly_one_length(lengths: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either epochs or seconds"):
        Clock(**lengths)  # type: ignore[arg-type]


def test_epochs(now: list[float]) -> None:
    clock = Clock(epochs=4)
    assert (clock.total, clock.unit) == (4, "epochs")
    assert clock.done(2, 3, 12) == 2.25
    assert clock.fraction(2, 3, 12) == 0.5625
    assert clock.fraction(0, 0, 12) == 0.0 and clock.fraction(4, 0, 12) == clock.fraction(9, 0, 12) == 1.0
    now[0] += 1e6
    assert not clock.over and clock.spent == 1e6
    assert clock.done(1, 0, 0) == 1  # an epoch without steps


def test_seconds(now: list[float]) -> None:
    clock = Clock(seconds=50)
    assert (clock.total, clock.unit) == (50.0, "s")
    now[0] += 20
    assert clock.spent == clock.done(7, 3, 4) == 20
    assert clock.fraction(7, 3, 4) == 0.4 and not clock.over
    now[0] += 29.9
    assert not clock.over
    now[0] += 0.1
    assert clock.over and clock.fraction(0, 0, 1) == 1.0
    now[0] += 100
    assert clock.fraction(0, 0, 1) == 1.0


def test_time_before_an_interruption_counts(now: list[float]) -> None:
    clock = Clock(seconds=50, spent=45)
    assert clock.spent == 45 and clock.fraction(0, 0, 1) == 0.9
    now[0] += 5
    assert clock.over


def test_a_reserve_ends_the_steps_earlier(now: list[float]) -> None:
    clock = Clock(seconds=50)
    clock.reserve = 10.0
    now[0] += 20
    assert clock.fraction(0, 0, 1) == 0.5 and clock.total == 50
    now[0] += 20
    assert clock.over and clock.fraction(0, 0, 1) == 1.0


def test_no_time_at_all_is_over_at_once(now: list[float]) -> None:
    assert Clock(seconds=0.0).over and Clock(seconds=0.0).fraction(0, 0, 1) == 0.0
    clock = Clock(seconds=1.0)
    clock.reserve = 2.0
    now[0] += 0.5
    assert clock.over and clock.fraction(0, 0, 1) == 1.0


def test_a_training_that_goes_on_from_another_one(now: list[float]) -> None:
    """Epochs are numbered on; the share that is done begins at nothing."""
    clock = Clock(epochs=4, first_epoch=10)
    assert clock.fraction(10, 0, 8) == 0.0 and clock.fraction(12, 4, 8) == 0.625
    assert clock.done(10, 4, 8) == 0.5 and clock.fraction(14, 0, 8) == 1.0
    timed = Clock(seconds=50, first_epoch=10)
    now[0] += 20
    assert timed.fraction(10, 0, 8) == 0.4


def test_passes_over_the_training_patches(now: list[float]) -> None:
    """They are counted whatever the length is in; epochs that are cut are parts of a pass."""
    clock = Clock(epochs=4, first_epoch=10)
    assert (clock.passes(10, 0, 8), clock.passes(12, 4, 8)) == (0.0, 2.5)
    timed = Clock(seconds=50)
    timed.pass_share = 0.25
    now[0] += 20
    assert timed.passes(6, 2, 4) == 1.625


def test_stopwatch(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wall-clock and CPU seconds run apart, and on from what was used before."""
    cpu = [7.0]
    monkeypatch.setattr(module.time, "process_time", lambda: cpu[0])
    watch = Stopwatch(wall=30.0, cpu=55.0)
    now[0] += 12
    cpu[0] += 20
    assert (watch.wall, watch.cpu) == (42.0, 75.0)
    assert (Stopwatch().wall, Stopwatch().cpu) == (0.0, 0.0)
