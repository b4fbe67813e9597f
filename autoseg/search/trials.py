"""One candidate of a multi-trial search: trained from scratch by itself, and its score.

A trial is a function of (task, number, choices) with a result of plain values, so that it can as well run in
a process or on a machine of its own. Its last act is to write the result into ``trials/`` of the search's
folder, and a trial whose result is there is not trained again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch

from autoseg.errors import AutosegError, UserError, machine_told
from autoseg.progress import Progress, Watched
from autoseg.runfolder import read_json, write_json
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices
from autoseg.train.compute import seed_everything
from autoseg.train.distributed import agreed
from autoseg.train.module import TrainingDiverged
from autoseg.train.trainer import train_network

log = logging.getLogger(__name__)


class TrialResult(TypedDict):
    """The outcome of a trial, JSON-able.

    Attributes:
        miou: Best validation mIoU of the training, 0..1; 0 when there is none.
        seconds: Wall-clock seconds of the training, those before an interruption included.
        cpu_seconds: CPU seconds of the process that finished it, all threads.
        note: Why there is no score; empty when there is one.
    """

    miou: float
    seconds: float
    cpu_seconds: float
    note: str


class TrialFailed(AutosegError):
    """The training of one candidate failed for a reason of its own, so that it scores 0."""


class Bench(Protocol):
    """Trains the candidates of a search, several at a time.

    Attributes:
        concurrency: How many at a time. What a search proposes depends on this number, never on timing.
    """

    concurrency: int

    def begin(
        self, number: int, choices: Choices, *, code: str, epochs: int | None, seconds: float | None
    ) -> Callable[[], TrialResult]:
        """Start a training.

        Args:
            number: Number of the candidate in the search, from 0.
            choices: The candidate.
            code: The same, for people.
            epochs: Length in epochs, or None.
            seconds: Length in seconds, or None.

        Returns:
            Waits for the result. It raises a :class:`TrialFailed` when this one training has failed; everything
            else it raises ends the search, such as a UserError where the user can mend something.
        """


class InProcessBench:
    """Trains in this process, one candidate at a time, when its result is asked for.

    Args:
        task: The search.
        shown: Gives the progress of the next training.
    """

    concurrency = 1

    def __init__(self, task: SearchTask, shown: Callable[[], Progress]) -> None:
        self.task, self.shown = task, shown

    def begin(
        self, number: int, choices: Choices, *, code: str, epochs: int | None, seconds: float | None
    ) -> Callable[[], TrialResult]:
        """See :meth:`Bench.begin`; the returned function trains."""
        del code  # for people who look on

        def result() -> TrialResult:
            name, shown = f"candidate {number + 1}", Watched(self.shown())
            try:
                with machine_told(name):
                    return train_candidate(self.task, number, choices, epochs=epochs, seconds=seconds, progress=shown)
            except Exception as error:
                if shown.error is not None:
                    raise shown.error from None
                if isinstance(error, UserError):
                    raise
                log.exception("%s failed", name)
                raise TrialFailed(f"{name} failed: {type(error).__name__}: {error}") from error

        return result


def state_file(task: SearchTask, number: int) -> Path:
    """Where the training of a candidate keeps its state until the candidate is in the journal."""
    return task.folder / f"trial-{number}.safetensors"


def result_file(folder: Path, number: int) -> Path:
    """Where the result of a candidate is: what :func:`train_candidate` returns, its choices and its ``curve``.

    Args:
        folder: The folder of the search.
        number: Number of the candidate.
    """
    return folder / "trials" / f"{number}.json"


def read_result(folder: Path, number: int, choices: Choices) -> TrialResult | None:
    """The result of a candidate that has been trained; None when it has not, or was another one.

    Args:
        folder: The folder of the search.
        number: Number of the candidate.
        choices: The candidate.

    Raises:
        UserError: The file is damaged.
    """
    path = result_file(folder, number)
    found = read_json(path) if path.exists() else {}
    if found.get("choices") != choices:
        return None
    return TrialResult(
        miou=found["miou"], seconds=found["seconds"], cpu_seconds=found["cpu_seconds"], note=found["note"]
    )


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
        number: Number of the candidate in the search, from 0; it names the files of state and result.
        choices: The candidate.
        epochs: Length of the training in epochs, or None when ``seconds`` is given.
        seconds: Length of the training in seconds.
        progress: Shows the progress of the training; by default that of the task.

    Raises:
        UserError: The data, the state file or the result file is unusable.
    """
    found = agreed(task.compute, lambda: read_result(task.folder, number, choices))
    if found is not None:
        return found
    began, cpu = time.monotonic(), time.process_time()
    curve: list[dict[str, float]] = []
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
            state_file=state_file(task, number),
            progress=progress or task.progress,
            label=f"candidate {number + 1}",
        )
        score, note, length, curve = trained.best_miou, "", trained.seconds, trained.curve
    except TrainingDiverged as error:
        score, note, length = 0.0, f"the training diverged: {error}", time.monotonic() - began
    result = TrialResult(
        miou=score, seconds=round(length, 3), cpu_seconds=round(time.process_time() - cpu, 3), note=note
    )
    told = {"number": number, "choices": choices, "code": task.architecture(choices).code}
    if not task.compute.rank:  # one of several ranks writes
        write_json(result_file(task.folder, number), {**told, **result, "curve": curve})
    return result


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

    def figures(self, label: str, values: dict[str, float]) -> None:
        """Pass on the figures of the training."""
        self.outer.figures(label, values)


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
