"""Lightning trainers the way this project uses them, and the callback that makes runs repeatable."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nni.nas.evaluator.pytorch import Trainer
from pytorch_lightning.callbacks import Callback

from autoseg.train.compute import Compute, seed_everything
from autoseg.train.instep import InStep, lightning_strategy

_ENDLESS = 1_000_000_000


def make_trainer(
    compute: Compute, callbacks: list[Callback], epochs: int | None, start_epoch: int = 0, synchronise: bool = False
) -> Any:
    """A quiet Lightning trainer on one device, or on one of the ranks that train together.

    Args:
        compute: Device, precision and threads.
        callbacks: What to do at epochs and steps.
        epochs: Number of epochs, or None to train until a callback sets ``trainer.should_stop``.
        start_epoch: First epoch (a resumed training); states are restored by the callbacks.
        synchronise: Whether several ranks with GPUs normalise over the whole batch; not for supernets, whose
            layers may be of another kind.

    Example:
        >>> trainer = make_trainer(Compute(), [], epochs=5, start_epoch=2)
        >>> trainer.max_epochs, trainer.current_epoch
        (5, 2)

    Returns:
        NNI's traced ``pytorch_lightning.Trainer``, which one-shot strategies need.
    """
    compute.prepare()
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=epochs if epochs is not None else _ENDLESS,
            accelerator=compute.accelerator,
            devices=compute.lightning_devices,
            precision=compute.lightning_precision,
            callbacks=callbacks if compute.ranks == 1 else [InStep(compute), *callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **lightning_strategy(compute, synchronise),
        )
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = start_epoch
    return trainer


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out the messages of Lightning that say nothing about this project's use of it.

    Also lets Ctrl-C arrive as KeyboardInterrupt, which Lightning would turn into an exit of the interpreter.
    """
    with warnings.catch_warnings():
        for message in (
            r".*isinstance\(treespec, LeafSpec\).* is deprecated",  # torch and lightning among themselves
            r".*You defined a `validation_step` but have no `val_dataloader`",  # validation is ours
            r".*does not have many workers",  # decoded images are in memory
            r".*available but not used",  # the user chose another device
            r".*`broadcast_buffers` is deprecated",  # what takes its place is not in older torch
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        except SystemExit as ending:
            if isinstance(ending.__context__, KeyboardInterrupt):
                raise ending.__context__ from None
            raise


class EpochSeed(Callback):
    """Makes all randomness of an epoch a function of (seed, epoch), for exact resume.

    Args:
        seed: Seed of the training.
        loaders: Objects with ``set_epoch``; their batches must depend on (seed, epoch, step) alone.
    """

    def __init__(self, seed: int, *loaders: Any) -> None:
        self.seed = seed
        self.loaders = loaders

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Seed every generator, before the first batch of the epoch is drawn."""
        seed_everything(self.seed, trainer.current_epoch)
        for loader in self.loaders:
            loader.set_epoch(trainer.current_epoch)
