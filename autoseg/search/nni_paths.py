"""Single-path supernets on NNI's random one-shot engine: every step trains one path, and a chooser says which.

As shipped, NNI's ``RandomOneShot`` draws paths from an unseeded generator and exports an arbitrary one.
Here a *chooser* draws them: uniformly (:class:`Uniform`), from a list (:class:`FromPool`), or by what it has
learned from rewards (a controller; see the AutoSegNet plugin).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.base_lightning import BaseOneShotLightningModule
from nni.nas.strategy import RandomOneShot

from autoseg.search.batches import TaggedBatches
from autoseg.search.health import Distribution
from autoseg.search.supernet import select
from autoseg.spaces.base import Choices, decisions
from autoseg.train.distributed import agreed, confirm


class Chooser(Protocol):
    """Says which path of a supernet is trained or scored next.

    Random numbers must come from torch's global generator or from one that is part of the state, so that a
    resumed search repeats itself.
    """

    @property
    def complete(self) -> bool:
        """Whether :meth:`state` holds everything; False while rewards wait for an update."""

    def draw(self, greedy: bool = False) -> Choices:
        """A path; with ``greedy`` the most probable one."""

    def reward(self, choices: Choices, value: float) -> None:
        """Learn that a path scored ``value`` (validation mIoU, 0..1)."""

    def distribution(self) -> Distribution:
        """What has been learned: ``{label: {value: probability}}``; empty when nothing is learned."""

    def state(self) -> Any:
        """A tree for :func:`autoseg.statefile.save_tree`."""

    def load_state(self, state: Any) -> None:
        """Restore what :meth:`state` returned."""


class Uniform:
    """Every value of every decision is equally likely; nothing is learned.

    Args:
        values: The decisions, as from :func:`autoseg.spaces.base.decisions`.

    Example:
        >>> sorted(Uniform({"op": ["conv"], "in": [[0]]}).draw().items())
        [('in', [0]), ('op', 'conv')]
    """

    complete = True

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self.values = dict(values)

    def draw(self, greedy: bool = False) -> Choices:
        """A uniformly random path (there is no most probable one)."""
        del greedy
        return {label: v[int(torch.randint(len(v), ()))] for label, v in sorted(self.values.items())}

    def reward(self, choices: Choices, value: float) -> None:
        """Nothing is learned."""

    def distribution(self) -> Distribution:
        """Nothing has been learned."""
        return {}

    def state(self) -> Any:
        """Nothing to store."""
        return None

    def load_state(self, state: Any) -> None:
        """Nothing to restore."""


class FromPool(Uniform):
    """Draws from a list of paths, each equally likely.

    Args:
        pool: The paths.

    Example:
        >>> FromPool([{"op": "conv"}]).draw()
        {'op': 'conv'}
    """

    def __init__(self, pool: Sequence[Choices]) -> None:
        super().__init__({})
        self.pool = list(pool)

    def draw(self, greedy: bool = False) -> Choices:
        """One of the pool."""
        del greedy
        return dict(self.pool[int(torch.randint(len(self.pool), ()))])


class PathModule(BaseOneShotLightningModule):
    """Trains one drawn path per training batch, and rewards the chooser for one per validation batch.

    Args:
        training_module: The LightningModule with loss and optimiser.
        make_chooser: Makes the chooser of a supernet.
        admits: Whether a path is within the limits; the reward of others is 0 and they are not scored.
        warmup_epochs: Epochs in which nothing is rewarded.

    Attributes:
        rewards: Rewards given, 0..1, in order; the caller empties it for each epoch.
    """

    def __init__(
        self,
        training_module: Any,
        make_chooser: Callable[[ModelSpace], Chooser],
        admits: Callable[[Choices], bool],
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__(training_module)
        self._make_chooser, self._admits = make_chooser, admits
        self._chooser: list[Chooser] = []  # in a list: a chooser that is a network is no part of the supernet
        self.warmup_epochs = warmup_epochs
        self.rewards: list[float] = []

    def set_model(self, model: ModelSpace) -> None:
        """Set the supernet; the chooser is made the first time and kept (NNI calls this again to export)."""
        super().set_model(model)
        if not self._chooser:
            self._chooser.append(self._make_chooser(model))

    @property
    def chooser(self) -> Chooser:
        """Draws the paths."""
        return self._chooser[0]

    def training_step(self, packed: tuple[Any, str], batch_idx: int) -> Any:
        """A weight step on a training batch, or a reward on a validation batch.

        Args:
            packed: A batch and ``"train"`` or ``"val"``, from :class:`TaggedBatches`.
            batch_idx: Number of the batch in the epoch.

        Returns:
            The loss, the reward, or None for a validation batch in the warm-up.
        """
        batch, purpose = packed
        if purpose == "train":
            select(self, self._drawn())
            loss = self.training_module.training_step(batch, batch_idx)
            self.advance_optimization(loss, batch_idx)
            return loss
        if self.trainer.current_epoch < self.warmup_epochs:
            return None
        choices = self._drawn()
        value = 0.0
        if agreed(self.training_module.compute, lambda: self._admits(choices)):
            select(self, choices)
            value = float(self.training_module.validation_step(batch, batch_idx))
        self.chooser.reward(choices, value)
        self.rewards.append(value)
        return torch.tensor(value)

    def _drawn(self) -> Choices:
        """A path that all ranks have drawn: their generators and what they have learned are the same."""
        choices = self.chooser.draw()
        confirm(self.training_module.compute, "the path", sorted(choices.items()))
        return choices

    def draw(self, greedy: bool = False) -> Choices:
        """A path of the chooser."""
        return self.chooser.draw(greedy)

    def export(self) -> Choices:
        """The most probable path."""
        return self.chooser.draw(greedy=True)

    def distribution(self) -> Distribution:
        """What the chooser has learned."""
        return self.chooser.distribution()

    @property
    def complete(self) -> bool:
        """Whether :meth:`search_state` holds everything."""
        return self.chooser.complete

    def search_state(self) -> Any:
        """The chooser's state."""
        return self.chooser.state()

    def load_search_state(self, state: Any) -> None:
        """Restore what :meth:`search_state` returned."""
        self.chooser.load_state(state)


class PathStrategy(RandomOneShot):
    """NNI's random one-shot strategy with a chooser in place of its unseeded draws.

    Args:
        make_chooser: Makes the chooser of a supernet; uniform by default.
        admits: Whether a path is within the limits.
        warmup_epochs: Epochs in which nothing is rewarded.
    """

    def __init__(
        self,
        make_chooser: Callable[[ModelSpace], Chooser] | None = None,
        admits: Callable[[Choices], bool] = lambda choices: True,
        warmup_epochs: int = 0,
    ) -> None:
        super().__init__()
        self._make_chooser = make_chooser or (lambda space: Uniform(decisions(space)))
        self._admits, self._warmup_epochs = admits, warmup_epochs

    def configure_oneshot_module(self, training_module: Any) -> PathModule:
        """Our module in place of NNI's."""
        return PathModule(training_module, self._make_chooser, self._admits, self._warmup_epochs)

    def train_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        """Both loaders one after the other, tagged."""
        return TaggedBatches(train_dataloader_fn(), val_dataloader_fn())

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> Any:
        """No validation by Lightning: the rewards are part of the epoch."""
        return None
