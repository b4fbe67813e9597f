"""The book of a multi-trial search: answers every proposal once, writes it down, and says when to stop.

NNI's strategies are deterministic given their seed and the scores they receive, and they receive them in the
order of their proposals. A search that was interrupted therefore runs its strategy again from the start, and
this book answers from the journal what has been trained already.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from autoseg.errors import AutosegError, Problem, UserError
from autoseg.runfolder import Journal
from autoseg.search import health, trials
from autoseg.search.candidates import rank
from autoseg.search.engine import Answer
from autoseg.search.objective import CostMeter, none_admitted
from autoseg.search.task import Candidate, SearchTask
from autoseg.search.trials import Bench, InProcessBench, TrialFailed, TrialProgress, TrialResult
from autoseg.spaces.base import Choices, choices_key, operations_in, plain
from autoseg.train.clock import Stopwatch

_LEAST_SHARE = 0.5  # of a trial's share of the time; with less left, no further trial is begun

Row = dict[str, Any]


class TrialLedger:
    """Scores what a strategy proposes: trained, looked up, or refused.

    Args:
        task: The search; its bench trains, or this process where it has none.
        length: Candidates to train.
        epochs: Epochs of each training; under ``task.seconds`` the time is divided instead.
        named: The named points of the space.
        patience: Proposals in a row that train nothing (known, or over a limit) before the search ends.

    Attributes:
        concurrency: Trainings at a time.
        distribution: What the strategy has learned so far, or None where it learns no distribution.
        trained: Rows of the candidates that count as trials and are over.
        idle: Proposals since the last trial was begun.

    Raises:
        UserError: The journal in the task's folder is damaged, or was begun with another concurrency.
    """

    def __init__(self, task: SearchTask, length: int, epochs: int, named: list[Choices], patience: int) -> None:
        self.task, self.length, self.epochs, self.patience = task, length, epochs, patience
        self.journal = Journal(task.folder / "journal.jsonl")
        self.bench: Bench = task.bench or InProcessBench(task, self._shown)
        self.concurrency = self.bench.concurrency
        self.distribution: Callable[[], health.Distribution] | None = None
        self.trained: list[Row] = []
        self.idle = 0
        self._check_concurrency()
        self._recorded = [row for row in self.journal.rows if row["kind"] == "candidate"]
        self._begun: dict[str, int] = {}  # number of each architecture
        self._rows: list[Row] = []  # of those that are over, by number
        self._flying = 0
        self._named = {choices_key(choices) for choices in named}
        self._meter = CostMeter(task)
        self._preferred: Mapping[str, Any] | None = None
        last = self._recorded[-1] if self._recorded else {}
        self._watch = Stopwatch(float(last.get("seconds", 0.0)), float(last.get("cpu_seconds", 0.0)))

    def _check_concurrency(self) -> None:
        """A search that was begun with several candidates at a time says so in the first line of its journal."""
        rows, now = self.journal.rows, self.concurrency
        if not rows and now > 1:
            self.journal.append({"kind": "search", "concurrency": now})
        then = rows[0].get("concurrency", 1) if rows else now
        if then != now:
            what = f"the search was begun with {then} candidates at a time, which decides what it proposes, not {now}"
            fix = "continue it with the same compute settings, or start anew with --out"
            raise UserError(Problem(what, str(self.journal.path), fix))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the search so far, interruptions left out."""
        return self._watch.wall

    @property
    def _moment(self) -> float:
        """Seconds of the search at the proposal that is being answered, also when it is repeated after a cut."""
        if len(self._rows) >= len(self._recorded):
            return self.seconds
        return float(self._rows[-1]["seconds"]) if self._rows else 0.0

    @property
    def open(self) -> bool:
        """Whether another proposal is wanted."""
        if len(self.trained) + self._flying >= self.length or self.idle >= self.patience:
            return False
        return len(self._begun) < len(self._recorded) or self._share() is None or self._share_is_long_enough()

    @property
    def refused(self) -> list[Row]:
        """Rows of candidates that broke a limit."""
        return [row for row in self._rows if "refused" in row]

    @property
    def best(self) -> float:
        """Best mIoU so far, 0 before the first."""
        return max((row["miou"] for row in self.trained), default=0.0)

    def begin(self, sample: Mapping[Any, Any]) -> Answer:
        """Take a proposal: look it up, refuse it, or begin its training.

        Args:
            sample: Choices as NNI gives them.

        Returns:
            Its metric is the validation mIoU, 0..1; 0, the worst, when it breaks a limit or its training
            diverges or fails. Metrics must be asked for in the order of the proposals.

        Raises:
            UserError: The journal holds another search, or the data is unusable.
        """
        choices = plain(dict(sample))
        key = choices_key(choices)
        self.idle += 1
        known = self._begun.get(key)
        if known is not None:
            return Answer(trains=False, metric=lambda: self._metric(known))
        number = self._begun[key] = len(self._begun)
        with trials.generators_kept():
            learned = self.distribution() if self.distribution else None
            if number < len(self._recorded):
                row = self._replayed(number, choices)
                trains, finish = row["miou"] is not None, lambda: row
            else:
                row = self._proposed(number, choices, learned)
                trains = "refused" not in row
                finish = self._train(row) if trains else lambda: self._with_statistics(row)
        self._preferred = health.most_probable(learned) if learned else None
        if trains:
            self._flying += 1
            self.idle = 0
        return Answer(trains, lambda: self._book(finish, trains))

    def _metric(self, number: int) -> float:
        return float(self._rows[number]["miou"] or 0.0)

    def _book(self, finish: Callable[[], Row], trained: bool) -> float:
        """Wait for a candidate and write it down; its state file is not needed any more."""
        with trials.generators_kept():
            row = finish()
            self.journal.append(row)  # unless it is there
            trials.state_file(self.task, row["number"]).unlink(missing_ok=True)
        self._rows.append(row)
        if trained:
            self._flying -= 1
            self.trained.append(row)
        self.task.progress.update("search", len(self.trained), self._state())
        return self._metric(row["number"])

    def candidates(self) -> list[Candidate]:
        """All trained candidates, best first; FLOPs and latency of the first few are measured.

        Raises:
            UserError: There is none, because all that were proposed break a limit.
            AutosegError: The trainings of all have failed.
        """
        if not self.trained:
            raise UserError(none_admitted(self.task.objective, self.refused))
        if all(row.get("failed") for row in self.trained):
            raise AutosegError(f"none of the {len(self.trained)} candidates was trained: {self.trained[0]['note']}")
        found = [
            Candidate(r["choices"], r["miou"], r["rank_source"], r["params"], r["flops"], r["latency_ms"])
            for r in self.trained
        ]
        return rank(self.task, found, self._meter, self._watch)

    def notes(self) -> list[str]:
        """What the user should know about the way the search went."""
        found = []
        if len(self.trained) < self.length:
            timed = self.task.seconds is not None and not self._share_is_long_enough()
            reason = "the time was over" if timed else "the strategy proposed no other architecture"
            found.append(f"The search ended after {len(self.trained)} of {self.length} trials: {reason}.")
        failed = [row for row in self.trained if row.get("failed")]
        if failed:
            told = f"{len(failed)} of {len(self.trained)} trainings failed and scored 0"
            found.append(f"{told}; of the first, {failed[0]['note']}")
        diverged = [row for row in self.trained if "note" in row and not row.get("failed")]
        if diverged:
            found.append(f"{len(diverged)} of {len(self.trained)} trainings diverged and scored 0: lower train.lr.")
        if self.refused:
            found.append(f"{len(self.refused)} proposed architectures broke a limit and were not trained.")
        return found

    def _replayed(self, number: int, choices: Choices) -> Row:
        """The row of a candidate that is in the journal."""
        row = self._recorded[number]
        if row.get("number") != number or row.get("choices") != choices:
            what = f"the search would now propose another candidate {number} than the journal holds"
            fix = "continue it with the version and the options it was started with, or start anew with --out"
            raise UserError(Problem(what, str(self.journal.path), fix))
        return row

    def _proposed(self, number: int, choices: Choices, learned: health.Distribution | None) -> Row:
        """The first part of a candidate's row: what is known before it is trained."""
        row: Row = {
            "kind": "candidate",
            "number": number,
            "rank_source": "named" if choices_key(choices) in self._named else "sampled",
            "choices": choices,
            "code": self.task.architecture(choices).code,
        }
        if self.task.objective.limited:
            cost = self._meter.of(choices)
            problem = self.task.objective.problem(cost)
            if problem:
                row |= {"miou": None, "refused": problem, **asdict(cost)}
        entropy = health.entropy(learned) if learned else None
        stability = health.stability(self._preferred, health.most_probable(learned)) if learned else None
        return row | {
            "entropy": None if entropy is None else round(entropy, 6),
            "stability": None if stability is None else round(stability, 6),
        }

    def _train(self, row: Row) -> Callable[[], Row]:
        """Begin the training of a candidate; the returned function waits for it and completes its row."""
        share, began = self._share(), self._moment
        wait = self.bench.begin(
            row["number"],
            row["choices"],
            code=row["code"],
            epochs=self.epochs if share is None else None,
            seconds=share,
        )

        def finish() -> Row:
            failed = False
            try:
                result = wait()
            except TrialFailed as error:
                failed = True
                result = TrialResult(miou=0.0, seconds=0.0, cpu_seconds=0.0, note=f"its training failed: {error}")
            before = max(0.0, began + result["seconds"] - self.seconds)  # in a process that was interrupted
            elsewhere = 0.0 if self.task.bench is None else result["cpu_seconds"]
            self._watch = Stopwatch(self._watch.wall + before, self._watch.cpu + elsewhere)
            note: Row = {"note": result["note"]} if result["note"] else {}
            if failed:
                note["failed"] = True
            cost = asdict(self._meter.of(row["choices"]))
            return self._with_statistics({**row, "miou": result["miou"], **cost, **note})

        return finish

    def _with_statistics(self, row: Row) -> Row:
        """A row with what it says about the search so far, this candidate included."""
        rows = [*self.trained, row] if row["miou"] is not None else self.trained
        scores = [r["miou"] for r in rows]
        return row | {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self._watch.cpu, 3),
            "best": max(scores, default=None),
            "median": statistics.median(scores) if scores else None,
            "histogram": health.histogram([operations_in(self.task.space_class, r["choices"]) for r in rows]),
        }

    def _share(self) -> float | None:
        """Seconds for the next trial: of the time that is left, and at most of the whole, what its round has.

        A round is as many trials as there are at a time.
        """
        if self.task.seconds is None:
            return None
        left = max(1, self.length - len(self.trained) - self._flying)
        return min(self._whole_share(self.task.seconds), (self.task.seconds - self._moment) / self._rounds(left))

    def _whole_share(self, seconds: float) -> float:
        return seconds / self._rounds(self.length)

    def _rounds(self, trainings: int) -> int:
        return math.ceil(trainings / self.concurrency)

    def _share_is_long_enough(self) -> bool:
        seconds, share = self.task.seconds, self._share()
        return seconds is None or share is None or share >= _LEAST_SHARE * self._whole_share(seconds)

    def _shown(self) -> TrialProgress:
        """Shows a training in this process as a part of the search."""
        return TrialProgress(self.task.progress, len(self.trained), self._state())

    def _state(self) -> str:
        return f"best mIoU {self.best:.3f}" if self.trained else ""
