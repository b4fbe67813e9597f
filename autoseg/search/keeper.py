"""What happens around the training of a supernet: journal, state on disk, progress, the end in time."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from autoseg.progress import Progress
from autoseg.runfolder import Journal
from autoseg.search import health
from autoseg.statefile import save_tree
from autoseg.train.clock import Clock, Stopwatch


class SearchKeeper(Callback):
    """Writes journal and state at epoch ends, restores them, ends the warm-up and the search in time.

    Args:
        phase: What the journal and the progress call this training.
        clock: Its length.
        warmup: Share of it in which the architecture learns nothing, 0..1.
        journal: One row per epoch goes there.
        state_file: The state goes there.
        state: The state to continue from, as loaded from that file, or None.
        watch: Time of the whole search.
        progress: Shows the progress.
    """

    def __init__(
        self,
        phase: str,
        clock: Clock,
        warmup: float,
        journal: Journal,
        state_file: Path,
        state: dict[str, Any] | None,
        watch: Stopwatch,
        progress: Progress,
    ) -> None:
        self.phase, self.clock, self.warmup = phase, clock, warmup
        self.journal, self.state_file, self.state = journal, state_file, state
        self.watch, self.progress = watch, progress
        self._losses: list[torch.Tensor] = []
        self._before: dict[str, Any] | None = dict(state["most_probable"]) if state else None

    def restore(self, trainer: Any, engine: Any) -> None:
        """Continue from the loaded state, if there is one; without a trainer the optimisers are left out."""
        if self.state is None:
            return
        engine.training_module.model.load_state_dict(self.state["weights"])
        if trainer is not None:
            trainer.optimizers[0].load_state_dict(self.state["optimiser"])
        engine.load_search_state(self.state["engine"])
        self.state = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the state once the optimisers exist."""
        self.restore(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last epoch."""
        self._losses = []
        pl_module.rewards = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Under a budget in seconds, decide whether the warm-up is over."""
        if self.clock.seconds is not None:
            warm = self.clock.spent < self.warmup * self.clock.seconds
            pl_module.warmup_epochs = trainer.current_epoch + 1 if warm else 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss and show the progress; stop when the seconds are used up and no reward waits for use."""
        rewarded = isinstance(batch, list | tuple) and batch[1] == "val"
        if not rewarded:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            self._losses.append(loss.detach())
        done = self.clock.done(trainer.current_epoch, batch_idx + 1, int(trainer.num_training_batches))
        reward = f", reward {sum(pl_module.rewards) / len(pl_module.rewards):.3f}" if pl_module.rewards else ""
        self.progress.update(self.phase, done, f"epoch {trainer.current_epoch + 1}{reward}")
        if self.clock.over and pl_module.complete:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the journal row, then the state.

        When rewards wait for an update of the controller, its state is not complete; then the state of the
        epoch before stays, and a resumed search does this epoch again.
        """
        epoch = int(trainer.current_epoch)
        distribution = pl_module.distribution()
        finite = [float(x) for x in self._losses if bool(torch.isfinite(x))]
        rewards = pl_module.rewards
        row = {
            "kind": "epoch",
            "epoch": epoch,
            "phase": "warmup" if epoch < pl_module.warmup_epochs else self.phase,
            "seconds": round(self.watch.wall, 3),
            "cpu_seconds": round(self.watch.cpu, 3),
            "loss": sum(finite) / len(finite) if finite else None,
            "reward": sum(rewards) / len(rewards) if rewards else None,
            "best": max(rewards, default=None),
            "median": statistics.median(rewards) if rewards else None,
            **health.row(distribution, self._before, pl_module.training_module.model),
        }
        self.journal.append(row)
        self.progress.figures(self.phase, _figures(row, distribution))
        self._before = health.most_probable(distribution)
        if not pl_module.complete:
            return
        save_tree(
            self.state_file,
            {
                "phase": self.phase,
                "first_epoch": self.clock.first_epoch,
                "epoch": epoch,
                "spent": self.clock.spent,
                "wall": self.watch.wall,
                "cpu": self.watch.cpu,
                "weights": dict(pl_module.training_module.model.state_dict()),
                "optimiser": trainer.optimizers[0].state_dict(),
                "engine": pl_module.search_state(),
                "most_probable": self._before,
            },
        )


def _figures(row: dict[str, Any], distribution: health.Distribution) -> dict[str, float]:
    """A journal row as figures: the reward, loss and health, and how probable the most probable values are.

    The names are the same in every epoch: NNI's page offers those of the first.
    """
    told = {"default": row["reward"] or 0.0, **{name: row[name] for name in ("loss", "entropy")}}
    told["stability"] = row["stability"] or 0.0  # nothing to compare the first epoch with
    for label, value in health.most_probable(distribution).items():
        told[f"p({label})"] = distribution[label][value]
    return {name: float(value) for name, value in told.items() if value is not None and math.isfinite(value)}
