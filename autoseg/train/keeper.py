"""What happens around the steps of a training: validation, history, best weights, state on disk, progress."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from autoseg.progress import Progress
from autoseg.runfolder import write_text
from autoseg.statefile import save_tree
from autoseg.train.clock import Clock

HISTORY = ("epoch", "seconds", "lr", "loss", "val_loss", "val_miou")
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

    @property
    def curve(self) -> list[dict[str, float]]:
        """Figures per epoch for :meth:`autoseg.progress.Progress.figures`.

        ``default`` is the latest validation mIoU, 0 before the first; beside it the losses, where there are any.

        Example:
            >>> rows = [(0, 1.5, 0.003, 0.7, None, None), (1, 3.0, 0.002, None, 0.6, 0.5)]
            >>> Trained([dict(zip(HISTORY, row)) for row in rows]).curve
            [{'default': 0.0, 'loss': 0.7}, {'default': 0.5, 'val_loss': 0.6}]
        """
        return [self.figures(epoch) for epoch in range(len(self.history))]

    def figures(self, epoch: int) -> dict[str, float]:
        """One point of :attr:`curve`; ``epoch`` is an index of the history."""
        scores = (row["val_miou"] for row in reversed(self.history[: epoch + 1]) if row["val_miou"] is not None)
        losses = {name: self.history[epoch][name] for name in ("loss", "val_loss")}
        return {"default": next(scores, 0.0), **{name: loss for name, loss in losses.items() if loss is not None}}

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


class Keeper(Callback):
    """Validates, keeps history and best weights, writes and restores the state, shows progress.

    Args:
        clock: Length of the training.
        validate: Gives loss (None when it is not finite) and mIoU on the validation images.
        interval: Epochs between validations of a training in epochs.
        state_file: Where the state goes.
        save_every: Seconds between states, at epoch ends.
        state: What to continue from, or None.
        progress: Shows the progress.
        label: What the progress calls this training.

    Attributes:
        result: The outcome so far.
        best: The weights of the best epoch so far, on the CPU.
    """

    def __init__(
        self,
        clock: Clock,
        validate: Callable[[], tuple[float | None, float]],
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
        self.progress.figures(self.label, self.result.figures(len(self.result.history) - 1))
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
