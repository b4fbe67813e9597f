"""The protocol under which a network is trained: the same for finalists, baselines and control."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from autoseg import registry
from autoseg.train.module import Optimisation
from autoseg.train.schedules import make_schedule


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, except the network, the data and the seed.

    Attributes:
        epochs: Length in epochs, or None when ``seconds`` decides.
        seconds: Length in seconds, validation included.
        batch: Patches per step.
        patch: Side of the square training patches, pixels.
        lr: Highest learning rate.
        weight_decay: Weight decay (decoupled for AdamW).
        clip: Largest gradient norm, 0 for none.
        loss: Name of a registered loss.
        loss_options: Its options.
        augment: Options of :class:`autoseg.data.augment.Augment`, or False for none.
        validate_every: Epochs between validations; None spreads about 20 over the training.
        optimiser: ``"adamw"``, ``"adam"`` or ``"sgd"`` (with Nesterov momentum).
        momentum: Of SGD.
        schedule: Name of a schedule of the learning rate, see :mod:`autoseg.train.schedules`.
        schedule_options: Its options.

    Example:
        >>> Recipe(epochs=40).validation_interval()
        2
    """

    epochs: int | None = None
    seconds: float | None = None
    batch: int = 8
    patch: int = 128
    lr: float = 3e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    loss: str = "ce+dice"
    loss_options: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] | bool = True
    validate_every: int | None = None
    optimiser: str = "adamw"
    momentum: float = 0.9
    schedule: str = "cosine"
    schedule_options: dict[str, Any] = field(default_factory=dict)

    def optimisation(self) -> Optimisation:
        """The optimiser's part."""
        return Optimisation(
            self.lr,
            self.weight_decay,
            self.clip,
            optimiser=self.optimiser,
            momentum=self.momentum,
            schedule=make_schedule(self.schedule, self.schedule_options),
        )

    def build_loss(self) -> nn.Module:
        """The loss module."""
        loss: nn.Module = registry.load("loss", self.loss)(**self.loss_options)
        return loss

    def validation_interval(self) -> int:
        """Epochs between validations of a training in epochs."""
        return self.validate_every or max(1, round((self.epochs or 20) / 20))

    def patch_side(self, divisor: int) -> int:
        """The patch, rounded up to a multiple of what the network needs.

        Example:
            >>> Recipe(epochs=1, patch=100).patch_side(32)
            128
        """
        return -(-self.patch // divisor) * divisor

    def to_json(self) -> dict[str, Any]:
        """Plain values for plan.json and model.json."""
        return asdict(self)
