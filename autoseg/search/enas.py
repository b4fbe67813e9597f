"""Strategy ``enas``: a controller learns by reinforcement which paths of a shared supernet score well.

One-shot search on NNI's ENAS engine (:mod:`autoseg.search.nni_enas`). Each epoch trains the shared
weights on one sampled path per batch, then scores a number of sampled architectures on validation
patches; their mIoU is the reward of the controller.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy

from autoseg.search.batches import RewardBatches
from autoseg.search.nni_enas import CuredEnas, ppo
from autoseg.search.objective import CostMeter
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchTask


class Enas(OneShot):
    """Reinforcement learning over a weight-sharing supernet (NNI ENAS, defects cured).

    Args:
        epochs: Passes over the training patches; ignored when the task has a budget in seconds.
        warmup: Share of the search in which only weights are trained, 0..1.
        rewards: Architectures scored per epoch; a multiple of ``rewards_per_update``.
        rewards_per_update: Architectures per update of the controller.
        reward_patches: Validation patches on which an architecture is scored; None takes twice the batch.
        controller_lr: Learning rate of the controller (ED-NAS: 0.0035).
        entropy: Weight of the controller's entropy bonus.
        candidates: Samples of the controller to score on the validation images in the end.
        weights: How the shared weights are trained, see :class:`autoseg.search.shared_weights.SharedWeights`.

    Source: ENAS; ED-NAS, sections 2.2 and 3.2, for the controller's learning rate and the reward.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Enas(epochs=10, warmup=0.3, rewards=16).training_steps(steps_per_epoch=100) > 1000
        True
    """

    name = "enas"

    def __init__(
        self,
        *,
        epochs: int = 12,
        warmup: float = 0.3,
        rewards: int = 16,
        rewards_per_update: int = 8,
        reward_patches: int | None = None,
        controller_lr: float = 0.0035,
        entropy: float = 0.01,
        candidates: int = 12,
        **weights: Any,
    ) -> None:
        self.rewards, self.rewards_per_update, self.reward_patches = rewards, rewards_per_update, reward_patches
        self.controller_lr, self.entropy = controller_lr, entropy
        super().__init__(epochs=epochs, warmup=warmup, candidates=candidates, **weights)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether the options of the controller are in range."""
        divides = self.rewards_per_update >= 1 and self.rewards % max(self.rewards_per_update, 1) == 0
        return [
            (self.rewards >= 1, "rewards", "must be 1 or more"),
            (divides, "rewards_per_update", f"must divide rewards ({self.rewards})"),
            (self.reward_patches is None or self.reward_patches >= 1, "reward_patches", "must be 1 or more"),
            (self.controller_lr > 0, "controller_lr", "must be positive"),
            (self.entropy >= 0, "entropy", "must not be negative"),
        ]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's ENAS with the defects cured."""
        return CuredEnas(
            policy=partial(ppo, lr=self.controller_lr, entropy=self.entropy),
            rewards_per_update=self.rewards_per_update,
            warmup_epochs=warmup_epochs,
            update={"batch_size": 64, "repeat": 2, "update_times": 1},
            admits=CostMeter(task).admits,
        )

    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> RewardBatches:
        """The patches on which sampled architectures are scored."""
        return RewardBatches(task, patch, self.rewards, self.reward_patches)

    def training_steps(self, steps_per_epoch: int, batch: int = 1) -> float:
        """Length of the search in training steps of one path, to predict its time.

        A forward pass counts as a third of a step, one of more patches for as many times as much.

        Args:
            steps_per_epoch: Training batches in an epoch.
            batch: Patches in a training batch.

        Example:
            >>> short = Enas(epochs=1, warmup=0, rewards=8, candidates=0)
            >>> round(short.training_steps(100, batch=4), 1)  # rewards on twice the batch
            105.3
        """
        batches = 2 if self.reward_patches is None else self.reward_patches / batch
        scored = (1 - self.warmup) * self.rewards * batches / 3
        return super().training_steps(steps_per_epoch) + self.epochs * scored
