"""One-shot mode: the controller chooses the paths of a supernet whose weights all architectures share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy

from autoseg.search.batches import RewardBatches
from autoseg.search.nni_paths import PathStrategy
from autoseg.search.objective import CostMeter
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchTask
from autoseg.spaces.base import decisions
from autoseg.train.module import Optimisation
from autoseg.train.recipe import Recipe
from autoseg.train.schedules import CosineRestarts
from autoseg_autosegnet.options import ControllerOptions

EPOCHS = 200
"""Length of the paper's search in epochs."""
RATE = CosineRestarts(period=10, growth=2, decay=0.98, decay_from=50)
"""The paper's learning rate; it does not give the periods of its restarts."""


def paper_schedule(peak: float, done: float, passes: float) -> float:
    """The paper's learning rate when a share of a search of any length is done.

    Args:
        peak: Highest learning rate.
        done: Share done, 0..1.
        passes: Passes over the training patches; not looked at, as every search gets the whole schedule.

    Example:
        >>> paper_schedule(0.5, 0.0, 0.0), paper_schedule(0.5, 0.025, 3.0)
        (0.5, 0.25)
    """
    del passes
    return RATE(peak, done, done * EPOCHS)


class ControllerOneShot(OneShot):
    """Trains shared weights path by path and rewards the controller with the mIoU of sampled paths.

    Args:
        controller: Options of the controller.
        rewards: Architectures scored per epoch.
        epochs: Passes over the training patches; ignored when the task has a budget in seconds.
        warmup: Share of the search in which only weights are trained, 0..1, below 1.
        lr: Highest learning rate of the shared weights.
        candidates: Samples of the controller to score on the validation images in the end.

    Source: AutoSegNet, section on the search strategy: SGD, gradient norm clipped at 0.5, learning rate 0.5 with
    warm restarts and decay. Momentum 0.9 (Nesterov) and weight decay 1e-4 are assumed.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> search = ControllerOneShot(ControllerOptions(), rewards=6, epochs=10, warmup=0.0, lr=0.5, candidates=5)
        >>> search.training_steps(steps_per_epoch=100)
        1045.0
    """

    name = "autosegnet"

    def __init__(
        self, controller: ControllerOptions, *, rewards: int, epochs: int, warmup: float, lr: float, candidates: int
    ) -> None:
        self.controller, self.rewards = controller, rewards
        weights: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "clip": 0.5}
        super().__init__(epochs=epochs, warmup=warmup, candidates=candidates, lr=lr, **weights)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether the options of the controller are in range."""
        return [(self.rewards >= 1, "rewards", "must be 1 or more"), *self.controller.checks()]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's path-sampling engine with the controller in place of its uniform draws."""
        return PathStrategy(
            lambda supernet: self.controller.learner(decisions(supernet), task.seed),
            CostMeter(task).admits,
            warmup_epochs,
        )

    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> RewardBatches:
        """The patches on which sampled architectures are scored."""
        return RewardBatches(task, patch, self.rewards)

    def optimisation(self, recipe: Recipe) -> Optimisation:
        """SGD as in the paper, with its schedule."""
        return replace(super().optimisation(recipe), schedule=paper_schedule)

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one path, to predict its time.

        A forward pass counts as a third of a step; rewards are scored on twice the batch.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        scored = (1 - self.warmup) * self.rewards * 2 / 3
        return super().training_steps(steps_per_epoch) + self.epochs * scored
