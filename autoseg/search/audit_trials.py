"""The work of an audit: random architectures, scored with shared weights and trained alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from autoseg.durations import format_duration
from autoseg.errors import Problem, UserError
from autoseg.runfolder import Journal
from autoseg.search.control import uniform_draws
from autoseg.search.objective import CostMeter
from autoseg.search.supernet import PathSupernet
from autoseg.search.task import SearchTask
from autoseg.search.trials import TrialProgress, state_file, train_candidate
from autoseg.spaces.base import Choices, decisions
from autoseg.train.compute import seed_everything

_SCORE_SEED = 1 << 22
_TRIES = 200  # draws per wanted architecture


def draw(task: SearchTask, count: int) -> list[Choices]:
    """Different architectures, every decision drawn uniformly, within the limits of the search.

    Args:
        task: The search; its seed decides. A larger ``count`` only adds to the list.
        count: How many; a small space may have fewer.

    Raises:
        UserError: Fewer than two were found.
    """
    meter, draws = CostMeter(task), uniform_draws(decisions(task.build_space()), task.seed)
    codes, found = set[str](), list[Choices]()
    for choices in islice(draws, _TRIES * count):
        code = task.architecture(choices).code  # choices may differ in what the network does not have
        if code not in codes and meter.admits(choices):
            found.append(choices)
        codes.add(code)
        if len(found) == count:
            break
    if len(found) < 2:
        what = f"{_TRIES * count} random draws gave {len(found)} architectures within the limits: two are needed"
        raise UserError(Problem(what, "objective", "audit a run with wider limits"))
    return found


def measure(
    task: SearchTask,
    weights: Mapping[str, Any],
    paths: list[Choices],
    *,
    seconds: float | None = None,
    epochs: int | None = None,
) -> list[dict[str, Any]]:
    """Score architectures with shared weights, and train each on its own.

    Args:
        task: The search; its folder gets the journal, its seed is that of all trainings.
        weights: Of the supernet, by name.
        paths: The architectures, those of an audit that was cut first and in the same order.
        seconds: Length of each training, or None when ``epochs`` is given.
        epochs: Length of each training in epochs.

    Returns:
        A row per architecture: ``number``, ``choices``, ``code``, ``supernet`` and ``alone`` (validation mIoU,
        0..1), ``params``, ``train_seconds`` and ``note`` (why the training has no score, mostly empty).

    Raises:
        UserError: The journal in the folder holds other architectures, or the weights do not fit the space.
    """
    journal = Journal(task.folder / "journal.jsonl")
    done = len(journal.rows)
    if [row["choices"] for row in journal.rows[: len(paths)]] != paths[:done]:
        what = "the audit would now draw other architectures than the journal holds"
        raise UserError(Problem(what, str(journal.path), f"remove {task.folder} to start anew"))
    for number in range(done):  # where the kill came between the two
        state_file(task, number).unlink(missing_ok=True)
    left = max(0, len(paths) - done)
    length = f"{epochs} epoch(s) each"
    if seconds is not None:
        length = f"{format_duration(seconds)} each, about {format_duration(left * seconds)} in all"
    task.progress.stage(f"Training {left} architectures alone, {length}")
    task.progress.begin("audit", len(paths), "architectures")
    supernet = _supernet(task, weights)
    for number in range(done, len(paths)):
        choices = paths[number]
        seed_everything(task.seed, _SCORE_SEED, number)  # a path may draw random numbers of its own
        score = supernet.score(choices)
        shown = _AuditProgress(task.progress, number, f"architecture {number + 1} of {len(paths)}")
        trained = train_candidate(task, number, choices, epochs=epochs, seconds=seconds, progress=shown)
        journal.append(
            {
                "kind": "audited",
                "number": number,
                "choices": choices,
                "code": task.architecture(choices).code,
                "supernet": score,
                "alone": trained["miou"],
                "params": CostMeter(task).of(choices).params,
                "train_seconds": round(trained["seconds"], 2),
                "note": trained["note"],
            }
        )
        state_file(task, number).unlink(missing_ok=True)
    task.progress.end("audit", f"{left} architectures trained")
    return journal.rows[: len(paths)]


def _supernet(task: SearchTask, weights: Mapping[str, Any]) -> PathSupernet:
    try:
        return PathSupernet(task, weights)
    except RuntimeError as error:  # torch's way to say that weights are missing or have another shape
        what = "the weights of the supernet do not fit the space"
        fix = "use the version of autoseg (and of the plugin) that made the run"
        raise UserError(Problem(what, str(task.folder.parent), fix)) from error


class _AuditProgress(TrialProgress):
    """Shows a training as a part of the audit."""

    def update(self, label: str, done: float, text: str = "") -> None:
        self.outer.update("audit", self.finished + min(1.0, done / self.total), self.text)
