"""The batches of a one-shot search: training patches, and validation patches to learn the architecture from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoseg.data.augment import Augment
from autoseg.data.batches import PatchLoader
from autoseg.search.task import SearchTask

WATCHED = 4
"""Paths scored per epoch by searches that learn nothing from the scores."""


class TaggedBatches:
    """Training batches, then validation batches, each with its tag, as NNI's ENAS module wants them.

    Args:
        train: One epoch of training batches.
        rewards: As many batches as architectures are to be scored per epoch.

    Example:
        >>> list(TaggedBatches(["a", "b"], ["c"]))
        [('a', 'train'), ('b', 'train'), ('c', 'val')]
    """

    def __init__(self, train: Any, rewards: Any) -> None:
        self.train, self.rewards = train, rewards

    def __len__(self) -> int:
        return len(self.train) + len(self.rewards)

    def __iter__(self) -> Iterator[tuple[Any, str]]:
        for batch in self.train:
            yield batch, "train"
        for batch in self.rewards:
            yield batch, "val"


class RewardBatches:
    """The same validation patches for every architecture of an epoch, so that rewards compare.

    Args:
        task: The search; patches come from its validation images.
        patch: Side of the patches, pixels.
        count: How often the batch is given out per epoch.
        size: Patches in it; None takes twice the batch of the search.
    """

    def __init__(self, task: SearchTask, patch: int, count: int, size: int | None = None) -> None:
        self.count = count
        self.loader = validation_patches(task, patch, steps=1, batch=size or 2 * task.recipe.batch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the patches of this epoch from now on."""
        self.loader.set_epoch(epoch)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        if self.count:
            batch = next(iter(self.loader))
            for _ in range(self.count):
                yield batch


def validation_patches(task: SearchTask, patch: int, steps: int, batch: int) -> PatchLoader:
    """Random patches of the validation images, unaugmented, other ones in each epoch.

    Args:
        task: The search.
        patch: Side of the patches, pixels.
        steps: Batches per epoch.
        batch: Patches per batch.
    """
    return PatchLoader(
        task.val,
        channels=task.info.channels,
        patch=patch,
        batch_size=batch,
        normalisation=task.normalisation,
        augment=Augment.none(),
        seed=task.seed + 1,
        ignore_index=task.info.ignore_index,
        steps=steps,
    )
