"""What happens around an ENAS search: reward batches, journal, state on disk, progress, the end in time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from autoseg.data.augment import Augment
from autoseg.data.batches import PatchLoader
from autoseg.runfolder import Journal
from autoseg.search.nni_enas import CuredEnas, EnasModule
from autoseg.search.task import SearchTask
from autoseg.statefile import save_tree
from autoseg.train.clock import Clock


class RewardBatches:
    """The same validation patches for every architecture of an epoch, so that rewards compare."""

    def __init__(self, task: SearchTask, patch: int, count: int) -> None:
        self.count = count
        self.loader = PatchLoader(
            task.val,
            channels=task.info.channels,
            patch=patch,
            batch_size=2 * task.recipe.batch,
            normalisation=task.normalisation,
            augment=Augment.none(),
            seed=task.seed + 1,
            ignore_index=task.info.ignore_index,
            steps=1,
        )

    def set_epoch(self, epoch: int) -> None:
        """Draw the patches of this epoch from now on."""
        self.loader.set_epoch(epoch)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        batch = next(iter(self.loader))
        for _ in range(self.count):
            yield batch


class SearchKeeper(Callback):
    """Writes journal and state at epoch ends, restores them, ends the warm-up and the search in time."""

    def __init__(
        self,
        strategy: CuredEnas,
        clock: Clock,
        warmup: float,
        journal: Journal,
        state_file: Any,
        state: dict[str, Any] | None,
        task: SearchTask,
    ) -> None:
        self.strategy, self.clock, self.warmup = strategy, clock, warmup
        self.journal, self.state_file, self.state, self.task = journal, state_file, state, task
        self.entropy: float | None = None
        self._losses: list[torch.Tensor] = []

    def restore(self, trainer: Any, engine: EnasModule) -> None:
        """Continue from the loaded state, if there is one."""
        if self.state is None:
            return
        engine.training_module.model.load_state_dict(self.state["weights"])
        engine.load_controller_state(self.state["controller"])
        self.entropy = self.state["entropy"]
        if trainer is not None:
            trainer.optimizers[0].load_state_dict(self.state["optimiser"])
        self.state = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the state once the optimiser exists."""
        self.restore(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last epoch; under a budget in seconds, decide whether the warm-up is over."""
        self._losses = []
        pl_module.rewards = []
        if self.clock.seconds is not None:
            warm = self.clock.spent < self.warmup * self.clock.seconds
            pl_module.warmup_epochs = trainer.current_epoch + 1 if warm else 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the loss and show the progress; stop when the seconds are used up."""
        if batch[1] == "train":
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            self._losses.append(loss.detach())
        done = self.clock.done(trainer.current_epoch, batch_idx + 1, int(trainer.num_training_batches))
        reward = f", reward {sum(pl_module.rewards) / len(pl_module.rewards):.3f}" if pl_module.rewards else ""
        self.task.progress.update("search", done, f"epoch {trainer.current_epoch + 1}{reward}")
        if self.clock.over:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the journal row, then the state.

        The last epoch of a budget in seconds may end between two updates of the controller, where its state
        is not complete; then the state of the epoch before stays, and a resumed search does this epoch again.
        """
        epoch = int(trainer.current_epoch)
        warm = epoch < pl_module.warmup_epochs
        self.entropy = pl_module.entropy()
        finite = [float(x) for x in self._losses if bool(torch.isfinite(x))]
        self.journal.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "seconds": round(self.clock.spent, 3),
                "loss": sum(finite) / len(finite) if finite else None,
                "reward": sum(pl_module.rewards) / len(pl_module.rewards) if pl_module.rewards else None,
                "entropy": self.entropy,
                "phase": "warmup" if warm else "search",
            }
        )
        if not pl_module.between_updates:
            return
        save_tree(
            self.state_file,
            {
                "epoch": epoch,
                "spent": self.clock.spent,
                "weights": dict(pl_module.training_module.model.state_dict()),
                "optimiser": trainer.optimizers[0].state_dict(),
                "controller": pl_module.controller_state(),
                "entropy": self.entropy,
            },
        )
