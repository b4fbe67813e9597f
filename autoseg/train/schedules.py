"""Schedules of the learning rate, each a function of how far a training is.

A schedule takes the highest learning rate, the share of the training that is done (0..1) and the passes over
the training patches that are done (fractions included), and gives the learning rate of the next step. None
keeps anything in mind, so a training that is resumed goes on with the rates it would have had.

Schedules that follow the share fit any length, in epochs or in seconds. ``exponential`` and ``cosine-restarts``
follow the passes instead, as the papers give their numbers per epoch: under a budget in seconds the rate falls
as far as the passes that were made go, whose number depends on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoseg.errors import Problem, UserError, did_you_mean, raise_if
from autoseg.plugin_options import check_against, options_of

Schedule = Callable[[float, float, float], float]
"""From (highest learning rate, share done 0..1, passes done) to the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up, then a cosine down to a share of the highest rate.

    Attributes:
        warmup: Share of the training spent on warming up, which begins at a tenth of the highest rate.
        final: Last learning rate as a share of the highest.

    Source: SGDR (Loshchilov and Hutter), eq. 5 without restarts; the warm-up is ours.

    Raises:
        UserError: An option is out of range; all of them are reported.

    Example:
        >>> [round(Cosine()(1.0, done, 0.0), 3) for done in (0.0, 0.05, 0.525, 1.0)]
        [0.1, 1.0, 0.51, 0.02]
    """

    warmup: float = 0.05
    final: float = 0.02

    def __post_init__(self) -> None:
        _check(
            (0 <= self.warmup < 1, "warmup", "must be in 0..1, below 1"),
            (0 <= self.final <= 1, "final", "must be in 0..1"),
        )

    def __call__(self, peak: float, done: float, passes: float) -> float:
        """The learning rate."""
        if done < self.warmup:
            return peak * max(0.1, done / self.warmup)
        return _falling(peak, (done - self.warmup) / (1 - self.warmup), self.final)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The same learning rate from the first step to the last.

    Example:
        >>> Constant()(0.1, 0.9, 40.0)
        0.1
    """

    def __call__(self, peak: float, done: float, passes: float) -> float:
        """The learning rate."""
        return peak


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """The learning rate times ``gamma`` for every pass over the training patches, falling smoothly in between.

    Attributes:
        gamma: Factor per pass, above 0 and at most 1.

    Source: ED-NAS, section on the search (its factor is not given; 0.98 is assumed).

    Raises:
        UserError: ``gamma`` is out of range.

    Example:
        >>> Exponential(gamma=0.5)(0.8, 0.1, 3.0)
        0.1
    """

    gamma: float = 0.98

    def __post_init__(self) -> None:
        _check((0 < self.gamma <= 1, "gamma", "must be above 0 and at most 1"))

    def __call__(self, peak: float, done: float, passes: float) -> float:
        """The learning rate."""
        return peak * self.gamma**passes


@dataclass(frozen=True, kw_only=True)
class CosineAnnealing:
    """A cosine from the highest learning rate to zero, without a warm-up.

    Source: SGDR (Loshchilov and Hutter), eq. 5 without restarts; SEARCH-Net trains its networks so.

    Example:
        >>> [round(CosineAnnealing()(1.0, done, 0.0), 3) for done in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """

    def __call__(self, peak: float, done: float, passes: float) -> float:
        """The learning rate."""
        return _falling(peak, done, 0.0)


@dataclass(frozen=True, kw_only=True)
class CosineRestarts:
    """A cosine from the highest learning rate to zero, again and again, with a decay on top.

    Attributes:
        period: Passes over the training patches until the first restart, 0.01 or more.
        growth: Each period is this many times as long as the one before, 1..1000.
        decay: Factor per pass after ``decay_from``; 1 for none.
        decay_from: Passes without decay.

    Source: SGDR (Loshchilov and Hutter) for the restarts. AutoSegNet, section on the search strategy, has a decay
    of 0.98 after epoch 50; it does not give the periods, for which 10, 20, 40, ... are assumed.

    Raises:
        UserError: An option is out of range; all of them are reported.

    Example:
        >>> schedule = CosineRestarts(decay=0.98, decay_from=50)
        >>> [round(schedule(0.5, 0.0, epoch), 4) for epoch in (0, 5, 9.999, 10, 20, 70)]
        [0.5, 0.25, 0.0, 0.5, 0.25, 0.3338]
    """

    period: float = 10.0
    growth: float = 2.0
    decay: float = 1.0
    decay_from: float = 0.0

    def __post_init__(self) -> None:
        _check(
            (self.period >= 0.01, "period", "must be 0.01 or more"),
            (1 <= self.growth <= 1000, "growth", "must be in 1..1000"),
            (0 < self.decay <= 1, "decay", "must be above 0 and at most 1"),
            (self.decay_from >= 0, "decay_from", "must not be negative"),
        )

    def __call__(self, peak: float, done: float, passes: float) -> float:
        """The learning rate."""
        number = self._restarts(passes)
        position = (passes - self._start(number)) / (self.period * self.growth**number)
        return _falling(peak, position, 0.0) * self.decay ** max(0.0, passes - self.decay_from)

    def _restarts(self, passes: float) -> int:
        """How many restarts there were: the largest n that has ``_start(n) <= passes``."""
        if self.growth == 1:
            return int(passes // self.period)
        number = int(math.log1p(passes / self.period * (self.growth - 1)) / math.log(self.growth))
        if self._start(number + 1) <= passes:  # the logarithms are rounded
            return number + 1
        return number - 1 if self._start(number) > passes else number

    def _start(self, number: int) -> float:
        """Passes before the restart of this number: a geometric series."""
        if self.growth == 1:
            return number * self.period
        return self.period * (self.growth**number - 1) / (self.growth - 1)


SCHEDULES: dict[str, type[Any]] = {
    "constant": Constant,
    "cosine": Cosine,
    "cosine-annealing": CosineAnnealing,
    "cosine-restarts": CosineRestarts,
    "exponential": Exponential,
}
"""The schedules by the names that experiment files use."""


def make_schedule(name: str, options: Mapping[str, Any], where: Callable[..., str] = "schedule.{}".format) -> Schedule:
    """A schedule by its name.

    Args:
        name: A key of :data:`SCHEDULES`.
        options: Its options.
        where: Gives the place of the name (called without an option's name) or of an option, for messages.

    Raises:
        UserError: There is no such schedule, or its options do not fit; all problems together.

    Example:
        >>> make_schedule("exponential", {"gamma": 0.9})
        Exponential(gamma=0.9)
    """
    if name not in SCHEDULES:
        raise UserError(Problem(f"there is no schedule called '{name}'", where("name"), did_you_mean(name, SCHEDULES)))
    found = SCHEDULES[name]
    raise_if(check_against(options_of(found), options, where))
    try:
        schedule: Schedule = found(**options)
    except UserError as error:
        raise UserError([Problem(p.what, where(p.where), p.fix) for p in error.problems]) from None
    return schedule


def named_schedule(value: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of ``"cosine"`` or ``{"name": "exponential", "options": {"gamma": 0.98}}``.

    Raises:
        UserError: There is no name, or something else beside name and options.

    Example:
        >>> named_schedule("cosine"), named_schedule({"name": "exponential", "options": {"gamma": 0.9}})
        (('cosine', {}), ('exponential', {'gamma': 0.9}))
    """
    if isinstance(value, str):
        return value, {}
    name, options = value.get("name"), value.get("options") or {}
    if not isinstance(name, str) or not isinstance(options, Mapping) or value.keys() - {"name", "options"}:
        fix = "write a name, or {name: exponential, options: {gamma: 0.98}}"
        raise UserError(Problem(f"{value!r} is not a schedule", "schedule", fix))
    return name, dict(options)


def _falling(peak: float, position: float, final: float) -> float:
    """Half a cosine from ``peak`` at position 0 to ``final * peak`` at 1."""
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * position)))


def _check(*checks: tuple[bool, str, str]) -> None:
    raise_if([Problem(f"'{name}' {why}", name, "change it") for right, name, why in checks if not right])
