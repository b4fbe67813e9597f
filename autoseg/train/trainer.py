"""Training one network from scratch: best validation weights kept, exact resume after a kill."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from autoseg.data.augment import Augment
from autoseg.data.base import DatasetInfo, Split
from autoseg.data.batches import Normalisation, PatchLoader
from autoseg.errors import Problem, UserError
from autoseg.progress import Progress
from autoseg.runfolder import write_text
from autoseg.statefile import load_tree, save_tree
from autoseg.train.clock import Clock
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.evaluate import evaluate
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.module import SegmentationModule, TrainingDiverged
from autoseg.train.recipe import Recipe

log = logging.getLogger(__name__)

HISTORY = ("epoch", "seconds", "lr", "loss", "val_loss", "val_miou")
_STEPS_IN_TIME = 100  # per epoch under a budget in seconds: validation happens at the ends of epochs
_VALIDATIONS = 20  # over a training in seconds, but
_TRAINING_PER_VALIDATION = 4  # no more often than every fourth part of the time goes there


@dataclass
class Trained:
    """The outcome of a training; the network itself holds the best weights.

    Attributes:
        history: One row per epoch, keys as in :data:`HISTORY`, None where there was no validation.
        best_epoch: Epoch of the kept weights, counted from 0.
        best_miou: Its validation mIoU, 0..1.
        seconds: Wall-clock seconds, validation included, interruptions left out.
        notes: What the user should know (skipped steps, early end).
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_miou: float = -1.0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def write_history(self, path: Path) -> None:
        """Write ``history.csv``: a header, then one line per epoch, empty cells for None.

        Example:
            >>> import tempfile
            >>> path = Path(tempfile.mkdtemp()) / "history.csv"
            >>> Trained([dict(zip(HISTORY, (0, 1.5, 0.003, 0.7, None, None)))]).write_history(path)
            >>> path.read_text().splitlines()
            ['epoch,seconds,lr,loss,val_loss,val_miou', '0,1.5,0.003,0.7,,']
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
        writer.writeheader()
        for row in self.history:
            writer.writerow({k: "" if row[k] is None else row[k] for k in HISTORY})
        write_text(path, text.getvalue())


def train_loader(
    split: Split,
    info: DatasetInfo,
    normalisation: Normalisation,
    recipe: Recipe,
    seed: int,
    divisor: int = 1,
    most_steps: int | None = None,
) -> PatchLoader:
    """Augmented patches of a split under a recipe.

    Args:
        split: Images and masks.
        info: Channels and ignore index.
        normalisation: From the training split.
        recipe: Patch, batch and augmentation.
        seed: Order, crops and augmentation are a function of it, the epoch and the step.
        divisor: The patch is rounded up to a multiple of it.
        most_steps: Cut epochs that are longer; the order of the images runs on in the next one.
    """
    if isinstance(recipe.augment, dict):
        augment = Augment(**recipe.augment)
    else:
        augment = Augment() if recipe.augment else Augment.none()
    make = partial(
        PatchLoader,
        split,
        channels=info.channels,
        patch=recipe.patch_side(divisor),
        batch_size=recipe.batch,
        normalisation=normalisation,
        augment=augment,
        seed=seed,
        ignore_index=info.ignore_index,
    )
    loader = make()
    return loader if most_steps is None or len(loader) <= most_steps else make(steps=most_steps)


def train_network(
    network: nn.Module,
    *,
    train: Split,
    val: Split,
    info: DatasetInfo,
    normalisation: Normalisation,
    recipe: Recipe,
    seed: int,
    compute: Compute,
    state_file: Path,
    progress: Progress | None = None,
    label: str = "training",
    save_every: float = 10.0,
) -> Trained:
    """Train a network and leave its best validation weights in it.

    Args:
        network: Freshly initialised (the caller seeds the initialisation).
        train: Training images.
        val: Validation images: they choose the kept weights, nothing else.
        info: Classes.
        normalisation: From the training split.
        recipe: The protocol.
        seed: Order, crops and augmentation are a function of it and the epoch.
        compute: Device and precision.
        state_file: Where to keep the state; when it exists, the training continues from it.
        progress: Shows the progress.
        label: What the progress calls this training.
        save_every: Seconds between states on disk, at epoch ends.

    Returns:
        History and best epoch. With a budget in epochs the result does not depend on interruptions.

    Raises:
        TrainingDiverged: Before any validation succeeded.
        UserError: The state file is damaged, or no pixel of the validation masks counts.

    Example:
        >>> import tempfile
        >>> from autoseg.baselines.unet import UNet
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> data = synthetic_ceramic(count=12, size=32)
        >>> trained = train_network(
        ...     UNet(1, 3, width=2, depth=2), train=data.train, val=data.val, info=data.info,
        ...     normalisation=Normalisation.from_split(data.train, 1), recipe=Recipe(epochs=2, batch=2, patch=32),
        ...     seed=0, compute=Compute(), state_file=Path(tempfile.mkdtemp()) / "state.safetensors")
        >>> [row["epoch"] for row in trained.history], 0 <= trained.best_miou <= 1
        ([0, 1], True)
    """
    progress = progress or Progress()
    state = load_tree(state_file) if state_file.exists() else None
    clock = Clock(epochs=recipe.epochs, seconds=recipe.seconds, spent=state["spent"] if state else 0.0)
    divisor = int(getattr(network, "size_divisor", 1))
    most = None if recipe.seconds is None else _STEPS_IN_TIME
    loader = train_loader(train, info, normalisation, recipe, seed, divisor, most)
    module = SegmentationModule(recipe.build_loss(), info.num_classes, recipe.optimisation(), clock)
    module.set_model(network.to(compute.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    def validate() -> tuple[float | None, float]:
        result = evaluate(network, val, info, normalisation, compute, loss=module.loss)
        miou = result.scores.miou
        if math.isnan(miou):
            fix = "check the validation masks: all their pixels have the ignore index"
            raise UserError(Problem("no pixel of the validation images is labelled", "data", fix))
        return result.loss if result.loss is not None and math.isfinite(result.loss) else None, miou

    keeper = _Keeper(clock, validate, recipe.validation_interval(), state_file, save_every, state, progress, label)
    start = int(state["epoch"]) + 1 if state else 0
    seed_everything(seed, start)
    progress.begin(label, clock.total, clock.unit)
    try:
        if state and state["finished"]:  # only the ending was missing
            keeper.restore(module, None)
        else:
            trainer = make_trainer(compute, [EpochSeed(seed, loader), keeper], recipe.epochs, start)
            with quiet_lightning():
                trainer.fit(module, train_dataloaders=loader)
    except TrainingDiverged as error:
        if keeper.best is None:
            raise
        keeper.result.notes.append(f"stopped early, the best weights were kept: {error}")
        log.warning("%s: %s", label, keeper.result.notes[-1])
    if keeper.best is not None:
        network.load_state_dict(keeper.best)
    if module.skipped:
        keeper.result.notes.append(f"steps left out because loss or gradients were not finite: {module.skipped}")
    keeper.result.seconds = clock.spent
    progress.end(label, f"best validation mIoU {keeper.result.best_miou:.3f} in epoch {keeper.result.best_epoch + 1}")
    return keeper.result


class _Keeper(Callback):
    """Validates, keeps history and best weights, writes and restores the state, shows progress."""

    def __init__(
        self,
        clock: Clock,
        validate: Any,
        interval: int,
        state_file: Path,
        save_every: float,
        state: dict[str, Any] | None,
        progress: Progress,
        label: str,
    ) -> None:
        self.clock, self.validate, self.interval = clock, validate, interval
        self.state_file, self.save_every, self.state = state_file, save_every, state
        self.progress, self.label = progress, label
        self.result = Trained()
        self.best: dict[str, torch.Tensor] | None = None
        self._losses: list[torch.Tensor] = []
        self._validated_at = 0.0
        self._saved_at = time.monotonic()

    def restore(self, module: Any, trainer: Any) -> None:
        """Continue from the loaded state, if there is one."""
        if self.state is None:
            return
        saved = self.state["result"]
        self.result = Trained(
            saved["history"], saved["best_epoch"], saved["best_miou"], saved["seconds"], saved["notes"]
        )
        self.best = self.state["best"]
        self.clock.reserve, self._validated_at = self.state["reserve"], self.state["validated_at"]
        module.skipped, module.skipped_in_a_row = self.state["skipped"]
        module.model.load_state_dict(self.state["weights"])
        if trainer is not None:
            trainer.optimizers[0].load_state_dict(self.state["optimiser"])
        self.state = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the state once the optimiser exists."""
        self.restore(pl_module, trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last epoch's losses."""
        self._losses = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss; stop when the seconds are used up."""
        self._losses.append(outputs["loss"].detach())
        steps = int(trainer.num_training_batches)
        best = f", best mIoU {self.result.best_miou:.3f}" if self.best else ""
        self.progress.update(
            self.label,
            self.clock.done(trainer.current_epoch, batch_idx + 1, steps),
            f"epoch {trainer.current_epoch + 1}{best}",
        )
        if self.clock.over:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Validate when due, keep the best weights, save the state."""
        epoch = int(trainer.current_epoch)
        last = self.clock.over or (self.clock.epochs is not None and epoch + 1 >= self.clock.epochs)
        val_loss = val_miou = None
        if last or self._validation_due(epoch):
            began = self.clock.spent
            val_loss, val_miou = self.validate()
            self._validated_at = self.clock.spent
            self.clock.reserve = self._validated_at - began
            if self.clock.over:  # there is no time left for another
                last = trainer.should_stop = True
            if val_miou > self.result.best_miou or self.best is None:
                self.result.best_miou, self.result.best_epoch = val_miou, epoch
                self.best = {k: v.detach().to("cpu", copy=True) for k, v in pl_module.model.state_dict().items()}
        finite = [float(x) for x in self._losses if bool(torch.isfinite(x))]
        row = {
            "epoch": epoch,
            "seconds": round(self.clock.spent, 3),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "loss": sum(finite) / len(finite) if finite else None,
            "val_loss": val_loss,
            "val_miou": val_miou,
        }
        self.result.history.append(row)
        if last or time.monotonic() - self._saved_at >= self.save_every:
            self._save(trainer, pl_module, epoch, finished=last)

    def _validation_due(self, epoch: int) -> bool:
        if self.clock.seconds is None:
            return (epoch + 1) % self.interval == 0
        spent, reserve = self.clock.spent, self.clock.reserve
        pause = max(self.clock.seconds / _VALIDATIONS, _TRAINING_PER_VALIDATION * reserve)
        left = self.clock.seconds - spent - 2 * reserve  # for training, after this validation and before the last
        return spent - self._validated_at >= pause and left >= pause / 2

    def _save(self, trainer: Any, module: Any, epoch: int, finished: bool) -> None:
        result = self.result
        tree = {
            "epoch": epoch,
            "finished": finished,
            "spent": self.clock.spent,
            "reserve": self.clock.reserve,
            "validated_at": self._validated_at,
            "skipped": [module.skipped, module.skipped_in_a_row],
            "weights": dict(module.model.state_dict()),
            "optimiser": trainer.optimizers[0].state_dict(),
            "best": self.best,
            "result": {
                "history": result.history,
                "best_epoch": result.best_epoch,
                "best_miou": result.best_miou,
                "seconds": self.clock.spent,
                "notes": result.notes,
            },
        }
        save_tree(self.state_file, tree)
        self._saved_at = time.monotonic()
