"""Multi-trial mode: every architecture that the controller proposes is trained from scratch by itself."""

from __future__ import annotations

from typing import Any, ClassVar

from nni.nas.strategy.base import Strategy

from autoseg.search import health
from autoseg.search.multitrial import MultiTrial
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices
from autoseg_autosegnet.learner import Learner
from autoseg_autosegnet.options import ControllerOptions


class ControllerMultiTrial(MultiTrial):
    """The validation mIoU of a candidate trained from scratch is the controller's reward.

    Proposals that are known already cost no training; the controller learns from them again. Between two updates
    of the controller its proposals do not depend on each other: as many as ``rewards_per_update`` are trained side
    by side where the task has places for them, and how many are makes no difference to the search.

    Args:
        controller: Options of the controller.
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> ControllerMultiTrial(ControllerOptions(), trials=40, epochs=2).training_steps(steps_per_epoch=5)
        400.0
    """

    name: ClassVar[str] = "autosegnet"
    patience: ClassVar[int] = 200

    def __init__(self, controller: ControllerOptions, *, trials: int, epochs: int) -> None:
        super().__init__(trials=trials, epochs=epochs, checks=controller.checks())
        self.controller = controller

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """An NNI strategy around the controller."""
        return ControllerStrategy(self.controller.learner(values, task.seed))

    def notes(self, rows: list[dict[str, Any]]) -> list[str]:
        """Say so when the controller has hardly learned."""
        return health.still_undecided(rows, "the controller")


class ControllerStrategy(Strategy):
    """An NNI strategy that submits what a controller draws, and rewards it with the metrics as they come.

    The controller learns from its own proposals only: before an update all that it proposed are answered.

    Args:
        learner: The controller.
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner
        self._running: list[tuple[Choices, Any]] = []

    def distribution(self) -> Any:
        """What the controller has learned."""
        return self.learner.distribution()

    def _initialize(self, model_space: Any, engine: Any) -> Any:
        return model_space

    def _run(self) -> None:
        while self.wait_for_resource():
            choices = self.learner.draw()
            model = self.model_space.freeze(choices)
            self._running.append((choices, model))
            self.engine.submit_models(model)
            if len(self.learner.pending) + len(self._running) >= self.learner.rewards_per_update:
                self.engine.wait_models(*[model for _, model in self._running])
            self._harvest()
        self.engine.wait_models()
        self._harvest()

    def _harvest(self) -> None:
        """Reward the controller for what has been trained, in the order of its proposals."""
        while self._running and self._running[0][1].status.completed():
            choices, model = self._running.pop(0)
            self.learner.reward(choices, float(model.metric))

    def state_dict(self) -> dict[str, Any]:
        """The controller's state, for NNI's own checkpoints."""
        return self.learner.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.learner.load_state(state_dict)
