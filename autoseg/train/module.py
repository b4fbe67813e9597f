"""The one LightningModule: it trains finalists and baselines, and NNI's engines train supernets with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch import Tensor, nn

from autoseg.errors import Problem, UserError
from autoseg.train import metrics
from autoseg.train.clock import Clock
from autoseg.train.compute import Compute
from autoseg.train.distributed import forward
from autoseg.train.schedules import Cosine, Schedule

log = logging.getLogger(__name__)

OPTIMISERS = ("adamw", "adam", "sgd")


class TrainingDiverged(UserError):
    """Loss or gradients stayed infinite or not-a-number for many steps in a row; a lower ``train.lr`` helps."""


@dataclass(frozen=True)
class Optimisation:
    """The optimiser, AdamW by default, and its learning rate, with warm-up and cosine by default.

    Attributes:
        lr: Highest learning rate.
        weight_decay: Weight decay (decoupled for AdamW).
        clip: Largest gradient norm; 0 turns clipping off.
        patience: Steps in a row that are left out as not finite before giving up.
        optimiser: ``"adamw"``, ``"adam"`` or ``"sgd"`` (with Nesterov momentum).
        momentum: Of SGD.
        schedule: The learning rate at any moment, see :mod:`autoseg.train.schedules`.

    Raises:
        ValueError: The optimiser is unknown.
    """

    lr: float = 3e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    patience: int = 20
    optimiser: str = "adamw"
    momentum: float = 0.9
    schedule: Schedule = field(default_factory=Cosine)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, not {self.optimiser!r}")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of these parameter groups."""
        if self.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.momentum > 0)
        return (torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW)(groups, lr=self.lr)


class SegmentationModule(LightningModule):
    """Loss, optimiser, learning rate and guard against NaN for any network or supernet.

    A step whose loss or gradients are not finite changes nothing: its gradients are dropped before the
    optimiser sees them, the running statistics of normalisation layers are put back, and after ``patience``
    such steps in a row :class:`TrainingDiverged` is raised.

    Args:
        loss: From logits ``(N, C, H, W)`` and targets ``(N, H, W)`` to a scalar.
        num_classes: C.
        optimisation: Learning rate and the like.
        clock: Length of the training.
        compute: Says whether several ranks share the batches.

    Attributes:
        skipped: Steps that were left out so far.
        skipped_in_a_row: Those since the last good step.
    """

    def __init__(
        self,
        loss: nn.Module,
        num_classes: int,
        optimisation: Optimisation,
        clock: Clock,
        compute: Compute | None = None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.num_classes = num_classes
        self.optimisation = optimisation
        self.clock = clock
        self.compute = compute or Compute()
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._loss = torch.zeros(())
        self._before: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the network being trained."""
        logits: Tensor = self.model(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch, after setting the learning rate for this moment."""
        trainer = self.trainer
        moment = (trainer.current_epoch, batch_idx, int(trainer.num_training_batches))
        done, passes = self.clock.fraction(*moment), self.clock.passes(*moment)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.optimisation.schedule(self.optimisation.lr, done, passes)
        x, target = batch
        self._before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        logits = forward(self.compute, self, x.to(memory_format=torch.channels_last))
        loss: Tensor = self.loss(logits, target)
        self._loss = loss.detach()
        return loss

    @torch.no_grad()
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """MIoU of one batch, logged as ``miou``: the reward of a sampled architecture."""
        x, target = batch
        prediction = forward(self.compute, self, x.to(memory_format=torch.channels_last)).argmax(1)
        score = float(metrics.miou(metrics.confusion(prediction, target, self.num_classes)))
        miou = torch.tensor(0.0 if score != score else score)
        self.log("miou", miou, on_step=True, on_epoch=False)
        return miou

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of the recipe; no weight decay on biases and normalisation."""
        parameters = [p for part in (self.loss, self.model) for p in part.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": self.optimisation.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return self.optimisation.build([g for g in groups if g["params"]])

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradients; leave the step out when they or the loss are not finite.

        Raises:
            TrainingDiverged: This was one too many.
        """
        parameters = [p for p in self.parameters() if p.grad is not None]
        limit = self.optimisation.clip or float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        if bool(torch.isfinite(norm) & torch.isfinite(self._loss)):
            self.skipped_in_a_row = 0
            return
        for parameter in parameters:
            parameter.grad = None
        with torch.no_grad():
            for buffer, before in self._before:
                buffer.copy_(before)
        self.skipped += 1
        self.skipped_in_a_row += 1
        log.warning("a step with a non-finite loss or gradient was left out (%d in a row)", self.skipped_in_a_row)
        if self.skipped_in_a_row >= self.optimisation.patience:
            raise TrainingDiverged(
                Problem(
                    f"loss or gradients were not finite for {self.skipped_in_a_row} steps in a row",
                    "training",
                    f"lower train.lr (it is {self.optimisation.lr:g}) or check the images for extreme values",
                )
            )
