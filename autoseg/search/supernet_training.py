"""Training the supernet of a one-shot search in one of its phases, from the state on disk where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from autoseg.runfolder import Journal
from autoseg.search.candidates import Pool
from autoseg.search.keeper import SearchKeeper
from autoseg.search.nni_paths import FromPool, PathStrategy
from autoseg.search.silent import SilentKeeper
from autoseg.search.supernet import use_batch_statistics
from autoseg.search.task import SearchTask
from autoseg.statefile import load_tree
from autoseg.train.clock import Stopwatch
from autoseg.train.compute import seed_everything
from autoseg.train.distributed import agreed
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.instep import make_clock
from autoseg.train.module import SegmentationModule
from autoseg.train.trainer import train_loader

if TYPE_CHECKING:
    from autoseg.search.oneshot import OneShot


def train_supernet(
    search: OneShot,
    phase: str,
    task: SearchTask,
    state_file: Path,
    journal: Journal,
    watch: Stopwatch,
    pool: Pool | None = None,
) -> Any:
    """Train the supernet in one phase, or what is left of it.

    Args:
        search: The strategy: its engine, its options, and how it changes the supernet.
        phase: ``"search"`` or ``"tuning"``.
        task: The search.
        state_file: Weights and state after each epoch; the state of the phase before gives the weights to begin with.
        journal: One row per epoch goes there.
        watch: Time of the whole search.
        pool: The paths to train, in the tuning; in the search the engine draws them.

    Returns:
        NNI's module, trained.

    Raises:
        TrainingDiverged: The gradients stayed infinite or not-a-number.
        UserError: The state is damaged, or a batch of the data does not fit.
    """
    saved = agreed(task.compute, lambda: load_tree(state_file) if state_file.exists() else None)
    state = saved if saved and saved["phase"] == phase else None
    inherited = saved if saved and saved["phase"] != phase else None
    if state:
        first = state["first_epoch"]
    else:
        first = int(inherited["epoch"]) + 1 if inherited else 0
    epochs, seconds = search.length(phase, task)
    spent = state["spent"] if state else 0.0
    clock = make_clock(task.compute, epochs=epochs, seconds=seconds, spent=spent, first_epoch=first)
    start = int(state["epoch"]) + 1 if state else first
    end = None if epochs is None else first + epochs

    seed_everything(task.seed, first)
    network: Any = use_batch_statistics(task.build_space())
    divisor = int(getattr(network, "size_divisor", 1))
    most = None if task.seconds is None else search.steps_in_time
    train = train_loader(task.train, task.info, task.normalisation, task.recipe, task.seed, divisor, most)
    clock.pass_share = train.pass_share
    if pool is None:
        warm = min(round(search.warmup * epochs), epochs - 1) if epochs is not None else 1 << 30
        strategy, warmup = search.engine(task, epochs, warm), search.warmup
        learning = search.learning_batches(task, task.recipe.patch_side(divisor), train)
    else:
        strategy, warmup, learning = PathStrategy(lambda space: FromPool(pool.paths)), 0.0, []
    compute = task.compute.without_scaling()
    module = SegmentationModule(
        task.recipe.build_loss(), task.info.num_classes, search.optimisation(task.recipe), clock, compute
    )
    make_keeper = SearchKeeper if compute.rank == 0 else SilentKeeper
    keeper = make_keeper(phase, clock, warmup, journal, state_file, state, watch, task.progress)
    loaders = [loader for loader in (train, learning) if hasattr(loader, "set_epoch")]
    trainer = make_trainer(compute, [EpochSeed(task.seed, *loaders), keeper], end, start)
    evaluator = Lightning(module, trainer, train_dataloaders=train, val_dataloaders=learning)
    strategy.initialize(RawFormatModelSpace(network, evaluator), SequentialExecutionEngine())
    search.prepare(network)
    network.to(task.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if inherited:
        wanted = network.state_dict().keys()
        network.load_state_dict({k: v for k, v in inherited["weights"].items() if k in wanted})
    if start == end or (state is not None and clock.over):  # only what comes after it was missing
        strategy.oneshot_module.set_model(strategy.supernet)
        keeper.restore(None, strategy.oneshot_module)
    else:
        task.progress.begin(phase, clock.total, clock.unit)
        with quiet_lightning():
            strategy.run()
        task.progress.end(phase, f"{sum(row['kind'] == 'epoch' for row in journal.rows) - first} epochs")
    engine = strategy.oneshot_module
    engine.to(task.compute.device)
    return engine
