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
from autoseg.plan import Plan
from autoseg.runfolder import Journal, RunFolder, read_json
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
        if job.done(folder):
            place = folder.model(job.label, job.seed)
            test = read_json(place / "test.json")
            result = {"miou": test["val_miou"], "epoch": test["best_epoch"], "params": test["params"]}
            found.append(Finished(job, list(_history(place / "history.csv")), result))
    return found


def _candidates(folder: RunFolder) -> Iterator[Finished]:
    for row in Journal(folder.journal).rows:
        file = folder.search / "trials" / f"{row.get('number')}.json"
        if row["kind"] == "candidate" and file.exists():
            job = Job("candidate", number=row["number"], code=row["code"], choices=row["choices"])
            kept = read_json(file)
            yield Finished(job, kept.get("curve", []), {"miou": row["miou"]})


def _searches(folder: RunFolder, plan: Plan) -> Iterator[Finished]:
    for job in search_jobs(plan):
        place = folder.search_of(job.seed, job.number)
        rows = [row for row in Journal(place / "journal.jsonl").rows if row["kind"] == "epoch"]
        if job.done(folder) and rows:  # a multi-trial search shows as its candidates
            kept = read_json(place / "found.json")
            curve = [
                {"default": row["reward"] or 0.0, "stability": row.get("stability") or 0.0}
                | {key: row[key] for key in ("loss", "entropy") if isinstance(row.get(key), float)}
                for row in rows
            ]
            yield Finished(job, curve, {"miou": kept["miou"], "code": kept["code"]})


def _history(path: Path) -> Iterator[dict[str, float]]:
    last = 0.0
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last = float(row["val_miou"]) if row["val_miou"] else last
            told = {"default": last} | {key: float(row[key]) for key in ("loss", "val_loss") if row[key]}
            yield told
