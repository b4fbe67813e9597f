"""Runs NNI's one-shot engines, ours and as shipped, on the toy task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.callbacks import Callback
from trial_tools import wide_task

from autoseg.search.batches import validation_patches
from autoseg.search.supernet import use_batch_statistics
from autoseg.train.clock import Clock
from autoseg.train.compute import seed_everything
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.module import SegmentationModule
from autoseg.train.trainer import train_loader

AS_SHIPPED = partial(pytest.mark.xfail, strict=True, reason="NNI 3.0 as shipped")
STEPS = 8  # training batches per epoch


def search(
    strategy: OneShotStrategy,
    folder: Path,
    *,
    epochs: int = 1,
    learning: Any = None,
    callbacks: Sequence[Callback] = (),
    clock: Clock | None = None,
    seeded: bool = True,
) -> Any:
    """Run an engine on PlantedWide and return its module.

    ``learning`` replaces the validation batches; with a ``clock`` in seconds the trainer has no last epoch.
    """
    task = wide_task(folder, 0)
    seed_everything(0)
    network = use_batch_statistics(task.build_space())
    loader = train_loader(task.train, task.info, task.normalisation, task.recipe, 0)
    learning = validation_patches(task, 16, len(loader), task.recipe.batch) if learning is None else learning
    module = SegmentationModule(
        task.recipe.build_loss(), 2, task.recipe.optimisation(), clock or Clock(epochs=max(epochs, 1))
    )
    seeds = [EpochSeed(0, loader)] if seeded else []
    trainer = make_trainer(task.compute, [*seeds, *callbacks], None if clock and clock.seconds else epochs)
    evaluator = Lightning(module, trainer, train_dataloaders=loader, val_dataloaders=learning)
    strategy.initialize(RawFormatModelSpace(network, evaluator), SequentialExecutionEngine())
    with quiet_lightning():
        strategy.run()
    return strategy.oneshot_module
