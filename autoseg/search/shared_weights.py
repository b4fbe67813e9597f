"""How a one-shot search trains its shared weights, where that is not how the final networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoseg.errors import UserError
from autoseg.train.module import OPTIMISERS, Optimisation
from autoseg.train.recipe import Recipe
from autoseg.train.schedules import make_schedule, named_schedule

Optimiser = Literal["adamw", "adam", "sgd"]


@dataclass(frozen=True, kw_only=True)
class SharedWeights:
    """Options of the training of shared weights; what is None is taken from the recipe of the final networks.

    Attributes:
        lr: Highest learning rate.
        optimiser: ``"adamw"``, ``"adam"`` or ``"sgd"`` (with Nesterov momentum).
        momentum: Of SGD.
        weight_decay: Weight decay.
        clip: Largest gradient norm; 0 turns clipping off.
        schedule: Schedule of the learning rate, as ``train.schedule`` has it: a name, or name and options.

    Example:
        >>> own = SharedWeights(lr=0.05, optimiser="sgd", schedule={"name": "exponential", "options": {"gamma": 0.98}})
        >>> found = own.applied_to(Recipe(epochs=3, lr=4e-5, clip=5.0))
        >>> found.lr, found.optimiser, found.clip, found.schedule
        (0.05, 'sgd', 5.0, Exponential(gamma=0.98))
    """

    lr: float | None = None
    optimiser: Optimiser | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    schedule: str | Mapping[str, Any] | None = None

    def checks(self) -> list[tuple[bool, str, str]]:
        """``(is it right?, option, what is wrong otherwise)`` for every option; a schedule may have several faults."""
        known = f"must be one of {', '.join(OPTIMISERS)}"
        faults = []
        try:
            if self.schedule is not None:
                make_schedule(*named_schedule(self.schedule))
        except UserError as error:
            faults = [(False, "schedule", problem.what) for problem in error.problems]
        return [
            (self.lr is None or self.lr > 0, "lr", "must be positive"),
            (self.optimiser in (None, *OPTIMISERS), "optimiser", known),
            (self.momentum is None or 0 <= self.momentum < 1, "momentum", "must be in 0..1, below 1"),
            (self.weight_decay is None or self.weight_decay >= 0, "weight_decay", "must not be negative"),
            (self.clip is None or self.clip >= 0, "clip", "must not be negative"),
            *faults,
        ]

    def applied_to(self, recipe: Recipe) -> Optimisation:
        """The recipe's optimisation with these options in it."""
        plain = {name: getattr(self, name) for name in ("lr", "optimiser", "momentum", "weight_decay", "clip")}
        given: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
        if self.schedule is not None:
            given["schedule"] = make_schedule(*named_schedule(self.schedule))
        return replace(recipe.optimisation(), **given)
