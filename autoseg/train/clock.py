"""How far a training is: budgets in epochs or in seconds."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds of a training, interruptions left out, and says which share is done.

    Args:
        epochs: Length in epochs, or None when ``seconds`` decides.
        seconds: Length in seconds of wall-clock time.
        spent: Seconds already used before this process (a resumed training).
        first_epoch: Number of the first epoch, where the training goes on from another one.

    Attributes:
        reserve: Seconds of a budget to keep for what comes after the last step, such as the last
            validation: steps end, and the learning rate has come down, that much earlier.
        pass_share: Share of a pass over the training patches that an epoch makes; another one than 1 where
            epochs are cut.

    Raises:
        ValueError: Both lengths are given, or none.

    Example:
        >>> clock = Clock(epochs=10)
        >>> clock.fraction(epoch=5, step=0, steps=4), clock.total, clock.unit
        (0.5, 10, 'epochs')
    """

    def __init__(
        self, *, epochs: int | None = None, seconds: float | None = None, spent: float = 0.0, first_epoch: int = 0
    ) -> None:
        if (epochs is None) == (seconds is None):
            raise ValueError("give either epochs or seconds")
        self.epochs, self.seconds, self.first_epoch = epochs, seconds, first_epoch
        self.reserve = 0.0
        self.pass_share = 1.0
        self._before = spent
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return self._before + time.monotonic() - self._start

    def agree(self) -> None:
        """Take the time by which decisions are made; only clocks of several ranks need to be told when."""

    @property
    def total(self) -> float:
        """The length, in ``unit``."""
        return self.epochs if self.epochs is not None else float(self.seconds or 0.0)

    @property
    def unit(self) -> str:
        """``"epochs"`` or ``"s"``."""
        return "epochs" if self.epochs is not None else "s"

    def done(self, epoch: int, step: int, steps: int) -> float:
        """How much of ``total`` is done, in ``unit``."""
        return epoch - self.first_epoch + step / max(steps, 1) if self.epochs is not None else self.spent

    def fraction(self, epoch: int, step: int, steps: int) -> float:
        """Share of the training that is done, 0..1; ``step`` of ``steps`` in ``epoch``, both from 0."""
        total = self.total if self.seconds is None else self.seconds - self.reserve
        return min(1.0, self.done(epoch, step, steps) / max(total, 1e-9))

    def passes(self, epoch: int, step: int, steps: int) -> float:
        """Passes over the training patches that are done, after ``step`` of ``steps`` in ``epoch``."""
        return (epoch - self.first_epoch + step / max(steps, 1)) * self.pass_share

    @property
    def over(self) -> bool:
        """Whether a budget in seconds is used up, but for the reserve (one in epochs ends by counting)."""
        return self.seconds is not None and self.spent + self.reserve >= self.seconds


class Stopwatch:
    """Counts the wall-clock and the CPU seconds of work that may be interrupted.

    Args:
        wall: Wall-clock seconds used before this process.
        cpu: CPU seconds of all threads used before this process.

    Example:
        >>> Stopwatch(wall=100.0).wall >= 100.0
        True
    """

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self._wall, self._cpu = wall - time.monotonic(), cpu - time.process_time()

    @property
    def wall(self) -> float:
        """Wall-clock seconds so far."""
        return self._wall + time.monotonic()

    @property
    def cpu(self) -> float:
        """CPU seconds of all threads so far."""
        return self._cpu + time.process_time()
