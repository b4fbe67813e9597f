"""Strategy ``random``: architectures drawn uniformly, each trained from scratch."""

from __future__ import annotations

from typing import Any, ClassVar

from nni.nas.strategy import Random
from nni.nas.strategy.base import Strategy

from autoseg.search.multitrial import MultiTrial
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices


class RandomSearch(MultiTrial):
    """Random search (NNI Random): the honest yardstick of every other strategy.

    The named points of the space are trained first; no architecture is trained twice.

    Args:
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> RandomSearch(trials=8, epochs=3).training_steps(steps_per_epoch=10)
        240.0
    """

    name: ClassVar[str] = "random"

    def __init__(self, *, trials: int = 16, epochs: int = 4) -> None:
        super().__init__(trials=trials, epochs=epochs)

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's random search."""
        return Random(seed=task.seed)
