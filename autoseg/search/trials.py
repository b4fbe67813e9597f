"""One candidate of a multi-trial search: trained from scratch by itself, and its score.

A trial is a function of (task, number, choices) with a result of plain values, so that it can as well run in
a process of its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from autoseg.progress import Progress
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices
from autoseg.train.compute import seed_everything
from autoseg.train.module import TrainingDiverged
from autoseg.train.trainer import train_network


class TrialResult(TypedDict):
    """The outcome of a trial, JSON-able.

    Attributes:
        miou: Best validation mIoU of the training, 0..1; 0 when it diverged.
        earlier: Seconds of the training that were spent before this process, by a trial that was cut.
        note: Why there is no score; empty when there is one.
    """

    miou: float
    earlier: float
    note: str


def state_file(task: SearchTask, number: int) -> Path:
    """Where the training of a candidate keeps its state until the candidate is in the journal."""
    return task.folder / f"trial-{number}.safetensors"


def train_candidate(
    task: SearchTask,
    number: int,
    choices: Choices,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> TrialResult:
    """Train a candidate from scratch and score it; continue the training when it was cut.

    All candidates of a search start from the same seed and see the same batches, so that they compare. Only
    training and validation images are used.

    Args:
        task: Space, data and protocol, of which the length is replaced.
        number: Number of the candidate in the search, from 0; it names the state file.
        choices: The candidate.
        epochs: Length of the training in epochs, or None when ``seconds`` is given.
        seconds: Length of the training in seconds.
        progress: Shows the progress of the training.

    Raises:
        UserError: The data or the state file is unusable.
    """
    began, file = time.monotonic(), state_file(task, number)
    seed_everything(task.seed)
    network = task.architecture(choices).build(task.info.channels, task.info.num_classes)
    try:
        trained = train_network(
            network,
            train=task.train,
            val=task.val,
            info=task.info,
            normalisation=task.normalisation,
            recipe=replace(task.recipe, epochs=epochs, seconds=seconds),
            seed=task.seed,
            compute=task.compute,
            state_file=file,
            progress=progress,
            label=f"candidate {number + 1}",
        )
    except TrainingDiverged as error:
        return TrialResult(miou=0.0, earlier=0.0, note=f"the training diverged: {error}")
    earlier = max(0.0, trained.seconds - (time.monotonic() - began))
    return TrialResult(miou=trained.best_miou, earlier=earlier, note="")


class TrialProgress(Progress):
    """Shows the training of a candidate as a part of the search's own progress.

    Args:
        outer: Receives the progress of the search, in trials.
        finished: Trials that are over.
        text: What to show beside it.

    Example:
        >>> class Shown(Progress):
        ...     def update(self, label, done, text=""):
        ...         print(label, done, text)
        >>> inner = TrialProgress(Shown(), finished=3, text="best mIoU 0.5")
        >>> inner.begin("candidate 4", total=10, unit="epochs")
        >>> inner.update("candidate 4", 5, "epoch 5")
        search 3.5 best mIoU 0.5
    """

    def __init__(self, outer: Progress, finished: int, text: str) -> None:
        self.outer, self.finished, self.text = outer, finished, text
        self.total = 1.0

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Learn how long the training is."""
        self.total = max(total, 1e-9)

    def update(self, label: str, done: float, text: str = "") -> None:
        """Show the share of the training as a share of a trial."""
        self.outer.update("search", self.finished + min(1.0, done / self.total), self.text)

    def end(self, label: str, text: str = "") -> None:
        """Nothing: the search says itself how the trial ended."""


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global random generators of Python, numpy and torch (CPU) as they were.

    Strategies draw from them; with this around every trial, what a strategy draws does not depend on whether
    a candidate was trained or looked up.

    Example:
        >>> seed_everything(0)
        >>> first = torch.rand(2)
        >>> seed_everything(0)
        >>> with generators_kept():
        ...     _ = torch.rand(7)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
