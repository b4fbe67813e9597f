"""Training one network from scratch: best validation weights kept, exact resume after a kill."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoseg.data.augment import Augment
from autoseg.data.base import DatasetInfo, Split
from autoseg.data.batches import Normalisation, PatchLoader
from autoseg.errors import Problem, UserError
from autoseg.progress import Progress
from autoseg.statefile import load_tree
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.distributed import agreed, check_batch, evaluate_together
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.instep import make_clock
from autoseg.train.keeper import HISTORY, Keeper, Trained
from autoseg.train.module import SegmentationModule, TrainingDiverged
from autoseg.train.recipe import Recipe

__all__ = ["HISTORY", "Trained", "train_loader", "train_network"]

log = logging.getLogger(__name__)

_STEPS_IN_TIME = 100  # per epoch under a budget in seconds: validation happens at the ends of epochs


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

    Where several ranks train together, all of them call this with the same arguments; rank 0 writes the state.

    Args:
        network: Freshly initialised (the caller seeds the initialisation).
        train: Training images.
        val: Validation images: they choose the kept weights, nothing else.
        info: Classes.
        normalisation: From the training split.
        recipe: The protocol.
        seed: Order, crops and augmentation are a function of it and the epoch.
        compute: Device and precision, and the ranks.
        state_file: Where to keep the state; when it exists, the training continues from it.
        progress: Shows the progress.
        label: What the progress calls this training.
        save_every: Seconds between states on disk, at epoch ends.

    Returns:
        History and best epoch. With a budget in epochs the result does not depend on interruptions.

    Raises:
        TrainingDiverged: Before any validation succeeded.
        UserError: The state file is damaged, no pixel of the validation masks counts, or the batch is too small
            for the ranks.

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
    check_batch(compute, recipe.batch)
    state = agreed(compute, lambda: load_tree(state_file) if state_file.exists() else None)
    clock = make_clock(compute, epochs=recipe.epochs, seconds=recipe.seconds, spent=state["spent"] if state else 0.0)
    divisor = int(getattr(network, "size_divisor", 1))
    most = None if recipe.seconds is None else _STEPS_IN_TIME
    loader = train_loader(train, info, normalisation, recipe, seed, divisor, most)
    clock.pass_share = loader.pass_share
    module = SegmentationModule(recipe.build_loss(), info.num_classes, recipe.optimisation(), clock, compute)
    module.set_model(network.to(compute.device, memory_format=torch.channels_last))  # type: ignore[call-overload]

    def validate() -> tuple[float | None, float]:
        result = evaluate_together(network, val, info, normalisation, compute, loss=module.loss)
        miou = result.scores.miou
        if math.isnan(miou):
            fix = "check the validation masks: all their pixels have the ignore index"
            raise UserError(Problem("no pixel of the validation images is labelled", "data", fix))
        clock.agree()
        return result.loss if result.loss is not None and math.isfinite(result.loss) else None, miou

    make_keeper = Keeper if compute.rank == 0 else _SilentKeeper
    keeper = make_keeper(clock, validate, recipe.validation_interval(), state_file, save_every, state, progress, label)
    start = int(state["epoch"]) + 1 if state else 0
    seed_everything(seed, start)
    progress.begin(label, clock.total, clock.unit)
    try:
        if state and state["finished"]:  # only the ending was missing
            keeper.restore(module, None)
        else:
            trainer = make_trainer(compute, [EpochSeed(seed, loader), keeper], recipe.epochs, start, synchronise=True)
            with quiet_lightning():
                trainer.fit(module, train_dataloaders=loader)
            network.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # Lightning leaves it on the CPU
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


class _SilentKeeper(Keeper):
    """That of the other ranks: it decides as rank 0's does, and writes nothing."""

    def _save(self, trainer: Any, module: Any, epoch: int, finished: bool) -> None:
        """Rank 0 does."""
