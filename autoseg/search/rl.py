"""Strategy ``rl``: a recurrent policy learns by reinforcement which architectures score well."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from nni.nas.strategy import PolicyBasedRL
from nni.nas.strategy._rl_impl import TuningTrajectoryGenerator
from nni.nas.strategy.base import Strategy

from autoseg.search import health
from autoseg.search.health import Distribution
from autoseg.search.multitrial import MultiTrial
from autoseg.search.nni_enas import distribution_of, ppo
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices


class PolicyRl(MultiTrial):
    """Policy-based reinforcement learning (NNI PolicyBasedRL with PPO), every candidate trained from scratch.

    The policy makes one decision after the other; the validation mIoU of the trained candidate is its
    reward. Proposals that are known already cost no training, but the policy learns from them again; after 50
    of them in a row the policy has settled and the search ends.

    Args:
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.
        per_update: Proposals per update of the policy (NNI: 20). They do not depend on each other, so that up
            to so many are trained side by side; how many are makes no difference to the search.
        passes: Passes over these proposals in an update (NNI: 25).
        lr: Learning rate of the policy (ED-NAS: 0.0035).
        entropy: Weight of the policy's entropy bonus.

    Source: Zoph and Le, Neural Architecture Search with Reinforcement Learning; PPO instead of REINFORCE.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> PolicyRl(trials=40, epochs=2).training_steps(steps_per_epoch=5)
        400.0
    """

    name: ClassVar[str] = "rl"
    patience: ClassVar[int] = 50

    def __init__(
        self,
        *,
        trials: int = 16,
        epochs: int = 4,
        per_update: int = 8,
        passes: int = 10,
        lr: float = 0.002,
        entropy: float = 0.1,
    ) -> None:
        checks = [
            (per_update >= 2, "per_update", "must be 2 or more"),
            (passes >= 1, "passes", "must be 1 or more"),
            (lr > 0, "lr", "must be positive"),
            (entropy >= 0, "entropy", "must not be negative"),
        ]
        super().__init__(trials=trials, epochs=epochs, checks=checks)
        self.per_update, self.passes, self.lr, self.entropy = per_update, passes, lr, entropy

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's policy-based reinforcement learning; it draws from the global generators."""
        return _ReadablePolicy(
            samples_per_update=self.per_update,
            policy_fn=partial(ppo, lr=self.lr, entropy=self.entropy),
            update_kwargs={"batch_size": 64, "repeat": self.passes, "update_times": 1},
        )

    def notes(self, rows: list[dict[str, Any]]) -> list[str]:
        """Say so when the policy has hardly learned."""
        return health.still_undecided(rows, "the policy")


class _ReadablePolicy(PolicyBasedRL):
    """NNI's strategy that can say what it has learned, and learns from its own proposals only.

    All proposals between two updates come from the same policy: the last is answered before the next is made.
    """

    def _harvest_running_models(self) -> bool:
        if (self._trajectory_count + len(self._running_models)) % self.samples_per_update == 0:
            self.engine.wait_models(*[model for model, _ in self._running_models])
        return bool(super()._harvest_running_models())

    def distribution(self) -> Distribution:
        """Probabilities of all values of every decision, along the most probable path."""
        assert self._policy is not None
        return distribution_of(TuningTrajectoryGenerator(self.model_space, self._policy))
