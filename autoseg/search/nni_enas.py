"""NNI's ENAS engine with its defects cured.

As shipped, NNI 3.0's ENAS never exports what it learned. What is wrong, and what is done here:

1. Lightning >= 2.1 no longer tags batches with their loader: :class:`autoseg.search.batches.TaggedBatches` does.
2. ``list_models()`` sets the model again and thereby replaces the trained controller by a new one:
   :meth:`EnasModule.set_model` builds it once.
3. ``export()`` draws one random sample: :meth:`EnasModule.export` takes the most probable choice.
4. After an epoch that ends on a multiple of ``batches_per_update`` the controller is updated again on
   every weight step, on stale data: :meth:`EnasModule.training_step` updates on rewards only.
5. The default policy hands the optimiser an unordered set of parameters, so that its state cannot be
   stored: :func:`ppo` orders them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.sampling import EnasLightningModule
from nni.nas.strategy import ENAS
from nni.nas.strategy._rl_impl import Actor, Critic, Preprocessor, TuningTrajectoryGenerator
from tianshou.policy import PPOPolicy

from autoseg.search.batches import TaggedBatches
from autoseg.search.health import Distribution
from autoseg.spaces.base import Choices, plain
from autoseg.train.distributed import agreed, confirm


class FullPrecisionPpo(PPOPolicy):
    """PPO outside of mixed precision: its advantages go through numpy, which has no bfloat16."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The policy's answer in full precision."""
        with torch.autocast(self._device_type, enabled=False):
            return super().forward(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """An update in full precision."""
        with torch.autocast(self._device_type, enabled=False):
            return super().update(*args, **kwargs)

    @property
    def _device_type(self) -> str:
        return next(self.parameters()).device.type


def ppo(env: Any, lr: float, entropy: float, hidden: int = 64) -> PPOPolicy:
    """NNI's recurrent actor and critic under PPO, with ordered parameters.

    Args:
        env: NNI's tuning environment.
        lr: Learning rate of Adam.
        entropy: Weight of the entropy bonus.
        hidden: Width of the recurrent network.

    Returns:
        A policy for :class:`CuredEnas`; ``lr`` and ``entropy`` are bound with ``functools.partial``.

    Example:
        >>> from nni.nas.strategy._rl_impl import TuningEnvironment
        >>> ppo(TuningEnvironment([5, 2]), lr=0.0035, entropy=0.01).optim.param_groups[0]["lr"]
        0.0035
    """
    network = Preprocessor(env.observation_space, hidden)
    actor, critic = Actor(env.action_space, network), Critic(network)
    parameters = list(dict.fromkeys([*actor.parameters(), *critic.parameters()]))
    return FullPrecisionPpo(
        actor,
        critic,
        torch.optim.Adam(parameters, lr=lr),
        torch.distributions.Categorical,
        discount_factor=1.0,
        ent_coef=entropy,
        action_space=env.action_space,
    )


class EnasModule(EnasLightningModule):
    """NNI's ENAS module with the cures listed above.

    The arguments are those of NNI's ``EnasLightningModule``.

    Attributes:
        admits: Whether a path is within the limits; the reward of others is 0 and they are not scored.
        rewards: Rewards of the sampled architectures, 0..1, in order; the caller empties it for each epoch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rewards: list[float] = []
        self.admits: Callable[[Choices], bool] = lambda choices: True
        self._trajectory_counter = 0

    def set_model(self, model: ModelSpace) -> None:
        """Set the supernet; the controller is made the first time and kept."""
        if self._generator is None:
            super().set_model(model)
        else:
            self.training_module.set_model(model)

    def training_step(self, packed: tuple[Any, str], batch_idx: int) -> Any:
        """A weight step on a training batch, or a reward on a validation batch.

        Args:
            packed: A batch and ``"train"`` or ``"val"``, from :class:`TaggedBatches`.
            batch_idx: Number of the batch in the epoch.

        Returns:
            The loss, the reward, or None for a validation batch in the warm-up.
        """
        if packed[1] == "val":
            return self._reward(packed[0], batch_idx)
        # A counter of zero keeps the parent from updating the controller here.
        counter, self._trajectory_counter = self._trajectory_counter, 0
        try:
            return super().training_step(packed, batch_idx)
        finally:
            self._trajectory_counter = counter

    def resample(self) -> Any:
        """A path of the controller; all ranks draw the same, as their controllers and generators are the same."""
        sample = super().resample()
        confirm(self.training_module.compute, "the path", sorted(plain(sample).items()))
        return sample

    def _reward(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        """Score a path of the controller; update the controller when enough have been scored."""
        if self.trainer.current_epoch < self.warmup_epochs:
            return None
        self.policy.train()
        choices = plain(self.resample())
        value = 0.0
        if agreed(self.training_module.compute, lambda: self.admits(choices)):
            value = float(self.training_module.validation_step(batch, batch_idx))
        self._replay_buffer.update(self.generator.send_reward(value))
        self._trajectory_counter += 1
        if self.complete:
            self.policy.update(0, self._replay_buffer, **self.update_kwargs)
        self.rewards.append(value)
        return torch.tensor(value)

    def draw(self, greedy: bool = False) -> Choices:
        """One architecture from the controller: a random one, or at every decision the most probable.

        Random numbers come from torch's generator. No architecture is selected in the supernet.
        """
        return draw_from(self.generator, greedy)

    def export(self) -> Choices:
        """The most probable architecture."""
        return self.draw(greedy=True)

    def distribution(self) -> Distribution:
        """Probabilities of every decision along the most probable path: ``{label: {value: probability}}``."""
        return distribution_of(self.generator)

    @property
    def complete(self) -> bool:
        """Whether all rewards so far have been used: then :meth:`search_state` is complete."""
        return self._trajectory_counter % self.batches_per_update == 0

    def search_state(self) -> dict[str, Any]:
        """Controller, its optimiser and its counter; between updates the replay buffer matters too.

        Call it when all rewards have been used for an update, as at the end of an epoch in which the
        number of rewards is a multiple of ``batches_per_update``: the buffer is then overwritten whole
        before it is read again, and need not be stored.

        Returns:
            A tree of tensors and plain values for :func:`autoseg.statefile.save_tree`.

        Raises:
            RuntimeError: Rewards are waiting for an update.
        """
        if not self.complete:
            raise RuntimeError("rewards are waiting for an update; the state is complete only after it")
        return {
            "policy": dict(self.policy.state_dict()),
            "optimiser": self.policy.optim.state_dict(),
            "counter": self._trajectory_counter,
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`search_state` returned."""
        self.policy.load_state_dict(state["policy"])
        self.policy.optim.load_state_dict(state["optimiser"])
        self._trajectory_counter = state["counter"]


class Greedy(torch.distributions.Categorical):
    """A categorical distribution whose sample is its most probable value."""

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        """The most probable value."""
        mode: torch.Tensor = self.probs.argmax(-1)
        return mode


@torch.no_grad()
def draw_from(generator: TuningTrajectoryGenerator, greedy: bool = False) -> Choices:
    """One architecture from NNI's controller: a random one, or at every decision the most probable."""
    policy = generator.policy
    policy.eval()
    original = policy.dist_fn
    if greedy:
        policy.dist_fn = Greedy
    try:
        return plain(generator.next_sample())
    finally:
        policy.dist_fn = original


def distribution_of(generator: TuningTrajectoryGenerator) -> Distribution:
    """Probabilities of every decision along the most probable path: ``{label: {value: probability}}``."""
    draw_from(generator, greedy=True)
    found: dict[str, dict[Any, float]] = {}
    for label, shares in (generator.sample_logits or {}).items():
        total = sum(shares)
        values = [v[0] if isinstance(v, list | tuple) else v for v in generator.simplified_space[label].values]
        found["".join(label)] = {v: p / total for v, p in zip(values, shares, strict=True)}
    return found


class CuredEnas(ENAS):
    """NNI's ENAS strategy that uses :class:`EnasModule` and tagged batches.

    Args:
        policy: From NNI's tuning environment to a policy.
        rewards_per_update: Architectures scored before each update of the controller.
        warmup_epochs: Epochs in which only weights are trained.
        update: Arguments of the PPO update.
        admits: Whether a path is within the limits.
    """

    def __init__(
        self,
        policy: Callable[[Any], Any],
        rewards_per_update: int,
        warmup_epochs: int,
        update: dict[str, Any],
        admits: Callable[[Choices], bool] = lambda choices: True,
    ) -> None:
        super().__init__(
            batches_per_update=rewards_per_update,
            reward_metric_name="miou",
            policy_fn=policy,
            warmup_epochs=warmup_epochs,
            update_kwargs=update,
        )
        self._admits = admits

    def configure_oneshot_module(self, training_module: Any) -> EnasModule:
        """The cured module in place of NNI's."""
        module = EnasModule(
            training_module,
            batches_per_update=self.batches_per_update,
            log_prob_every_n_step=1 << 30,  # probabilities are reported once per epoch by our callback
            reward_metric_name=self.reward_metric_name,
            policy_fn=self.policy_fn,
            update_kwargs=self.update_kwargs,
            warmup_epochs=self.warmup_epochs,
        )
        module.admits = self._admits
        return module

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        """Both loaders one after the other, tagged."""
        return TaggedBatches(train_dataloader_fn(), val_dataloader_fn())
