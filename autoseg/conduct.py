"""In which order the jobs of a run are given to a crew, and what becomes of a run when a job fails.

The search goes first. A one-shot search is one job, or one for each of several seeds; a multi-trial search
is led from here, and each of its candidates is a job. Baselines and control need no search and are trained
beside it where there are places left; the finalist is trained as soon as the search is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from autoseg.config import ExperimentConfig
from autoseg.crew import Crew, JobFailed, JobLost, Result
from autoseg.job import Job
from autoseg.jobs import search
from autoseg.plan import Plan
from autoseg.prepare import CONTROL, FINALIST, Prepared
from autoseg.progress import Progress
from autoseg.report.pictures import save_architecture
from autoseg.runfolder import RunFolder, journal_rows, read_json, write_json
from autoseg.search.architecture import Architecture
from autoseg.search.trials import TrialFailed, TrialResult, read_result
from autoseg.spaces.base import Choices

log = logging.getLogger(__name__)

_SHOWN = 8  # lines of what a failed job wrote last

Pending = dict[Future[Result], Job]


def search_jobs(plan: Plan) -> list[Job]:
    """The searches: one, or one for each search seed."""
    several = len(plan.search_seeds) > 1
    return [
        Job("search", f"search, seed {seed}" if several else "", seed, number=number)
        for number, seed in enumerate(plan.search_seeds)
    ]


def training_jobs(plan: Plan, config: ExperimentConfig | None = None, found: Architecture | None = None) -> list[Job]:
    """All trainings, in the order in which they are started: every network once, seed by seed, the finalist first.

    Args:
        plan: The plan.
        config: The experiment, which says what the control is called.
        found: The finalist's architecture.
    """
    architectures = {FINALIST: found}
    if config and plan.control:
        drawn = Architecture(config.space.name, dict(config.space.options), dict(plan.control))
        architectures |= {baseline.label: drawn for baseline in config.baselines if baseline.name == CONTROL}
    jobs = []
    for seed in plan.seeds:
        for label in plan.models:
            architecture = architectures.get(label)
            code, content = (architecture.code, architecture.to_json()) if architecture else ("", None)
            job = Job("training", label, seed, needs_search=label == FINALIST, code=code, architecture=content)
            jobs.append(job)
    return jobs


def all_done(folder: RunFolder, plan: Plan) -> bool:
    """Whether the search and every training of a run have been done."""
    return folder.architecture.exists() and all(job.done(folder) for job in training_jobs(plan))


class Conductor:
    """Gets all jobs of a run done.

    Args:
        folder: The run folder.
        prepared: The checked experiment.
        plan: What to do.
        crew: Who does it.
        progress: Receives the progress.

    Attributes:
        failures: ``{"job", "kind", "label", "message", "log"}`` of the jobs that failed; also in failures.json.
    """

    def __init__(self, folder: RunFolder, prepared: Prepared, plan: Plan, crew: Crew, progress: Progress) -> None:
        self.folder, self.prepared, self.plan, self.crew, self.progress = folder, prepared, plan, crew, progress
        self.failures: list[dict[str, str]] = []
        self._begun: set[str] = set()
        self._missing: list[str] = []  # why searches are missing

    def run(self) -> None:
        """Do what is not done yet.

        A training that fails does not end the others; its network is left out of the comparison.

        Raises:
            UserError: A job met something the user can mend.
            JobFailed: The search, or a training of what it found, failed.
            CrewGone: The crew is gone; nothing has failed, and the run can be resumed.
            Exception: What whoever receives the progress has raised.
        """
        self._forget_failures()
        alone = not getattr(self.prepared.strategy, "one_shot", True)
        searches = [] if self.folder.architecture.exists() else search_jobs(self.plan)
        if searches and alone:  # led from this thread, with all places for its candidates
            self._lead(searches.pop())
        pending = {self.crew.submit(job, rank=-1): job for job in searches if not job.done(self.folder)}
        self._take_ended(pending)  # a crew that is this process alone has done them
        while True:
            if not self.folder.architecture.exists() and not any(job.kind == "search" for job in pending.values()):
                self._choose()
            self._begin_trainings(pending)
            if not pending:
                break
            wait(pending, return_when=FIRST_COMPLETED)
            self._take_ended(pending)
        if self.crew.broken is not None:  # when its last job was over
            raise self.crew.broken
        failed = [failure for failure in self.failures if failure["label"] == FINALIST]
        if failed:
            raise JobFailed(failed[0]["message"], failed[0]["log"])

    def _forget_failures(self) -> None:
        """What failed before is tried again, except candidates that were scored as failed, and searches too late."""
        kept = read_json(self.folder.failures) if self.folder.failures.exists() else []
        rows = journal_rows(self.folder.journal)
        scored = {str(Job("candidate", number=row["number"])) for row in rows if row.get("failed")}
        chosen = self.folder.architecture.exists()
        self.failures = [f for f in kept if f["job"] in scored or (chosen and f["kind"] == "search")]
        if self.failures:
            write_json(self.folder.failures, self.failures)
        else:
            self.folder.failures.unlink(missing_ok=True)

    def _begin_trainings(self, pending: Pending) -> None:
        """Submit the trainings that can begin and have not been submitted."""
        searched = self.folder.architecture.exists()
        found = Architecture.read(self.folder.architecture) if searched else None
        for rank, job in enumerate(training_jobs(self.plan, self.prepared.config, found)):
            if str(job) not in self._begun and (searched or not job.needs_search):
                self._begun.add(str(job))
                if not job.done(self.folder):
                    pending[self.crew.submit(job, rank)] = job

    def _take_ended(self, pending: Pending) -> None:
        for future in [future for future in pending if future.done()]:
            self._note_end(pending.pop(future), future)

    def _lead(self, job: Job) -> None:
        """A multi-trial search: its strategy runs here, its candidates are jobs."""
        if not job.done(self.folder):
            bench = (
                CrewBench(self.crew, self.folder.search, self.plan.search_slots, self._note_failure)
                if self.plan.search_slots > 1 or self.crew.elsewhere
                else None
            )
            search(self.folder, self.prepared, self.plan, self.crew.progress, job, bench)

    def _note_end(self, job: Job, future: Future[Result]) -> None:
        try:
            future.result()
        except JobFailed as error:
            self._note_failure(job, error)
            if job.kind == "search":
                if len(self.plan.search_seeds) == 1:
                    raise
                self._missing.append(error.what)

    def _note_failure(self, job: Job, error: JobFailed) -> None:
        """Show and keep the message of a job and what it wrote last; the others go on."""
        told = {"job": str(job), "kind": job.kind, "label": job.label, "message": str(error)}
        self.failures.append({**told, "log": error.log[-4000:]})
        write_json(self.folder.failures, self.failures)
        last = [f"  | {line}" for line in error.log.rstrip().splitlines()[-_SHOWN:]]
        self.progress.note("\n".join([str(error), *last]))

    def _choose(self) -> None:
        """Of several searches take the one whose architecture has the best validation mIoU."""
        found = [
            (job, read_json(self.folder.search_of(job.seed, job.number) / "found.json"))
            for job in search_jobs(self.plan)
            if job.done(self.folder)
        ]
        if not found:
            last = [failure for failure in self.failures if failure["kind"] == "search"][-1]
            raise JobFailed(last["message"], last["log"])
        _, best = max(found, key=lambda pair: pair[1]["miou"])
        if len(self.plan.search_seeds) > 1:
            told = [{"seed": job.seed, "miou": each["miou"], "code": each["code"]} for job, each in found]
            best = {**best, "searches": told, "notes": [*best.get("notes", []), *map(_without, self._missing)]}
        save_architecture(best, self.folder.architecture)
        write_json(self.folder.architecture, best)


def _without(what: str) -> str:
    """The note on a search that is missing, given what became of it; it is not done again after the choice."""
    return f"{what[:1].upper()}{what[1:]}; the architecture is the best of the other searches."


class CrewBench:
    """Has the candidates of a multi-trial search trained by a crew, several at a time.

    Args:
        crew: Who trains them.
        folder: Folder of the search; a candidate whose result is there is not trained again.
        concurrency: How many are proposed at a time, however many places the crew has now.
        on_failure: Called with a candidate that failed, and its error.
    """

    def __init__(
        self, crew: Crew, folder: Path, concurrency: int, on_failure: Callable[[Job, JobFailed], None]
    ) -> None:
        self.crew, self.folder, self.concurrency, self.on_failure = crew, folder, concurrency, on_failure

    def begin(
        self, number: int, choices: Choices, *, code: str, epochs: int | None, seconds: float | None
    ) -> Callable[[], TrialResult]:
        """Start the training of a candidate; the returned function waits for its result.

        Args:
            number: Number of the candidate in the search, from 0.
            choices: The candidate.
            code: The same, readable.
            epochs: Length in epochs, or None.
            seconds: Length in seconds, or None.

        Returns:
            See :meth:`autoseg.search.trials.Bench.begin`. A candidate that was lost again and again raises
            :class:`~autoseg.crew.JobLost`: what it is worth is not known, so the search cannot go on.
        """
        known = read_result(self.folder, number, choices)
        if known is not None:
            return lambda: known
        job = Job("candidate", number=number, code=code, choices=choices, epochs=epochs, seconds=seconds)
        future = self.crew.submit(job, rank=-1)

        def result() -> TrialResult:
            try:
                return TrialResult(**future.result())  # type: ignore[typeddict-item]
            except JobFailed as error:
                self.on_failure(job, error)
                if isinstance(error, JobLost):
                    raise
                raise TrialFailed(str(error)) from error

        return result
