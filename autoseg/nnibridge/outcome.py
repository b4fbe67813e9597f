"""What a trial on another machine has left in its output folder, and its way into the run folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoseg.errors import Problem
from autoseg.job import Job
from autoseg.runfolder import RunFolder

_TAIL = 4000  # characters of the trial's standard error


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; one of ``result``, ``problems``, ``failed`` and ``lost`` is set.

    Attributes:
        result: What :func:`autoseg.jobs.run_job` returned.
        problems: What the user can mend.
        failed: The message of a failure.
        log: What the trial wrote last, for a failure.
        lost: Why there is nothing of it; it can be tried again.
    """

    result: dict[str, Any] | None = None
    problems: list[Problem] = field(default_factory=list)
    failed: str = ""
    log: str = ""
    lost: str = ""


def read_outcome(output: Path, job: Job, folder: RunFolder, machine: str = "") -> Outcome:
    """Move the results of a trial into the run folder and tell how it ended.

    Args:
        output: Its output folder, or a copy on the same file system as the run folder.
        job: Its job.
        folder: The run folder.
        machine: Where it was; named in what is told of a failure.
    """
    where = f"on {machine}: " if machine else ""
    stderr = output / "trial.stderr"
    tail = stderr.read_text(encoding="utf-8", errors="replace")[-_TAIL:] if stderr.is_file() else ""
    try:
        told = json.loads((output / "outcome.json").read_text(encoding="utf-8"))
        if "problems" in told:
            problems = [Problem(**problem) for problem in told["problems"]]
            return Outcome(problems=[replace(one, what=where + one.what) for one in problems], log=tail)
        if "failed" in told:
            return Outcome(failed=where + str(told["failed"]), log=str(told.get("log") or tail))
        result = dict(told["result"])
    except FileNotFoundError:
        return Outcome(failed=f"{where}it ended without a word", log=tail)
    except (ValueError, TypeError, KeyError) as error:
        return Outcome(lost=f"its outcome cannot be read ({error})")
    merge(output / "run", job, folder)
    if not job.done(folder):
        return Outcome(lost="its results did not come with it")
    return Outcome(result=result)


def merge(source: Path, job: Job, folder: RunFolder) -> None:
    """Move the files of one job into the run folder; the one that says that it is done comes last.

    Files that do not belong to the job stay where they are.
    """
    own, last = _places(job, folder)
    target = folder.path
    files = [file for file in sorted(source.rglob("*")) if file.is_file() and not file.is_symlink()]
    wanted = [file for file in files if (target / file.relative_to(source)).is_relative_to(own)]
    for file in sorted(wanted, key=lambda file: target / file.relative_to(source) == last):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as content:
            os.fsync(content.fileno())
        os.replace(file, place)


def _places(job: Job, folder: RunFolder) -> tuple[Path, Path]:
    """Where the files of a job lie, and the file that says that it is done."""
    if job.kind == "candidate":
        file = folder.search / "trials" / f"{job.number}.json"
        return file, file
    if job.kind == "search":
        place = folder.search_of(job.seed, job.number)
        return place, place / "found.json"
    place = folder.model(job.label, job.seed)
    return place, place / "test.json"
