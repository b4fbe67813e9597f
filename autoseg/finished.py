"""What the finished jobs of a run have to show: their curves and results, for a web page that starts anew."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.conduct import search_jobs, training_jobs
from autoseg.config import ExperimentConfig
from autoseg.job import Job
from autoseg.jobs import result_of
from autoseg.plan import Plan
from autoseg.runfolder import RunFolder, journal_rows, read_json
from autoseg.search.architecture import Architecture


@dataclass(frozen=True)
class Finished:
    """A job that is done.

    Attributes:
        job: The job.
        curve: Figures of its epochs; ``default`` is the one to judge by.
        result: Its result, as :func:`autoseg.jobs.run_job` returns it.
    """

    job: Job
    curve: list[dict[str, float]]
    result: dict[str, Any]


def finished_jobs(folder: RunFolder, plan: Plan, config: ExperimentConfig) -> list[Finished]:
    """All jobs of a run whose results are in its folder, in the order in which they were started.

    Args:
        folder: The run folder.
        plan: Its plan.
        config: The experiment.

    Raises:
        UserError: A result is damaged.
    """
    found = [*_candidates(folder), *_searches(folder, plan)]
    architecture = Architecture.read(folder.architecture) if folder.architecture.exists() else None
    for job in training_jobs(plan, config, architecture):
        result = result_of(job, folder)
        if result is not None:
            found.append(Finished(job, list(_history(folder.model(job.label, job.seed) / "history.csv")), result))
    return found


def _candidates(folder: RunFolder) -> Iterator[Finished]:
    """Those that were trained, also the last ones, which the search may not have written down yet."""
    trained = [read_json(file) for file in (folder.search / "trials").glob("*.json")]
    for kept in sorted(trained, key=lambda kept: int(kept["number"])):
        job = Job("candidate", number=kept["number"], code=kept["code"], choices=kept["choices"])
        yield Finished(job, kept["curve"], {"miou": kept["miou"]})


def _searches(folder: RunFolder, plan: Plan) -> Iterator[Finished]:
    for job in search_jobs(plan):
        place = folder.search_of(job.seed, job.number)
        rows = [row for row in journal_rows(place / "journal.jsonl") if row["kind"] == "epoch"]
        result = result_of(job, folder)
        if result is not None and rows:  # a multi-trial search shows as its candidates
            curve = [
                {"default": row["reward"] or 0.0, "stability": row.get("stability") or 0.0}
                | {key: row[key] for key in ("loss", "entropy") if isinstance(row.get(key), float)}
                for row in rows
            ]
            yield Finished(job, curve, result)


def _history(path: Path) -> Iterator[dict[str, float]]:
    last = 0.0
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last = float(row["val_miou"]) if row["val_miou"] else last
            told = {"default": last} | {key: float(row[key]) for key in ("loss", "val_loss") if row[key]}
            yield told
