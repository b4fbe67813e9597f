"""The options of the controller as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoseg_autosegnet.controller import Controller
from autoseg_autosegnet.learner import Learner


@dataclass(frozen=True)
class ControllerOptions:
    """Options of the controller, checked before a search begins.

    Attributes:
        order: Order of the decisions, see :func:`~autoseg_autosegnet.order.ordered`.
        hidden: Width of the LSTM.
        layers: Layers of the LSTM.
        controller_lr: Learning rate of the controller.
        entropy: Weight of the entropy bonus.
        baseline_decay: Decay of the baseline per reward.
        tanh_constant: Bound of the logits, or None.
        temperature: Divides the logits.
        rewards_per_update: Architectures per update of the controller.

    Example:
        >>> learner = ControllerOptions(hidden=8).learner({"op": ["conv3", "conv5"]}, seed=1)
        >>> learner.controller.labels, learner.rewards_per_update
        (['op'], 4)
    """

    order: Sequence[str] | None = None
    hidden: int = 100
    layers: int = 2
    controller_lr: float = 5e-4
    entropy: float = 1e-4
    baseline_decay: float = 0.99
    tanh_constant: float | None = 2.5
    temperature: float = 1.0
    rewards_per_update: int = 4

    def checks(self) -> list[tuple[bool, str, str]]:
        """``(is it right?, option, what is wrong otherwise)``; the order can only be checked with a space."""
        return [
            (self.order is None or len(self.order) > 0, "order", "must name decisions, or be left out"),
            (self.hidden >= 1, "hidden", "must be 1 or more"),
            (self.layers >= 1, "layers", "must be 1 or more"),
            (self.controller_lr > 0, "controller_lr", "must be positive"),
            (self.entropy >= 0, "entropy", "must not be negative"),
            (0 <= self.baseline_decay < 1, "baseline_decay", "must be in 0..1, below 1"),
            (self.tanh_constant is None or self.tanh_constant > 0, "tanh_constant", "must be positive"),
            (self.temperature > 0, "temperature", "must be positive"),
            (self.rewards_per_update >= 1, "rewards_per_update", "must be 1 or more"),
        ]

    def learner(self, decisions: Mapping[str, Sequence[Any]], seed: int) -> Learner:
        """A new controller for a space, ready to learn.

        Args:
            decisions: As :func:`autoseg.spaces.base.decisions` lists them.
            seed: Seed of its weights and draws.

        Raises:
            UserError: ``order`` does not name every decision once.
        """
        options = asdict(self)
        per_update, lr = options.pop("rewards_per_update"), options.pop("controller_lr")
        return Learner(Controller(decisions, seed=seed, lr=lr, **options), per_update)
