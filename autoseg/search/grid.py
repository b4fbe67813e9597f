"""Strategy ``grid``: the architectures of a small space one after the other, each trained from scratch."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import GridSearch
from nni.nas.strategy.base import Strategy

from autoseg.search.multitrial import MultiTrial
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices, decisions

_LARGEST = 100_000


class Grid(MultiTrial):
    """Exhaustive search (NNI GridSearch), in a fixed order, for spaces of at most 100,000 architectures.

    The order is that of the decisions, the last one changing fastest. The named points of the space are
    trained first.

    Args:
        trials: Candidates to train; give at least the size of the space for the whole grid.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> Grid.supports(EdNas(1, 2)).partition("architectures ")[2]
        'is never finished; use random, evolution, tpe or rl'
    """

    name: ClassVar[str] = "grid"
    patience: ClassVar[int] = _LARGEST

    def __init__(self, *, trials: int = 16, epochs: int = 4) -> None:
        super().__init__(trials=trials, epochs=epochs)
        self._size = 0

    @classmethod
    def supports(cls, space: ModelSpace) -> str | None:
        """None, or why not: the space is too large, or has decisions of another kind."""
        reason = super().supports(space)
        if reason is None:
            size = math.prod(len(values) for values in decisions(space).values())
            if size > _LARGEST:
                reason = f"a grid of {size:.3g} architectures is never finished; use random, evolution, tpe or rl"
        return reason

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's grid search."""
        self._size = math.prod(len(options) for options in values.values())
        return GridSearch(shuffle=False)

    def notes(self, rows: list[dict[str, Any]]) -> list[str]:
        """Say so when the grid was not finished."""
        if len(rows) >= self._size:
            return []
        return [f"The grid was not finished: {len(rows)} of its {self._size} architectures were looked at."]
