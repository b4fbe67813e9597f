"""The book of a multi-trial search: answers every proposal once, writes it down, and says when to stop.

NNI's strategies are deterministic given their seed and the scores they receive. A search that was interrupted
therefore runs its strategy again from the start, and this book answers from the journal what has been
trained already.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from autoseg.errors import Problem, UserError
from autoseg.runfolder import Journal
from autoseg.search import health, trials
from autoseg.search.candidates import rank
from autoseg.search.objective import CostMeter
from autoseg.search.task import Candidate, SearchTask
from autoseg.spaces.base import Choices, choices_key, operations_in, plain
from autoseg.train.clock import Stopwatch

_LEAST_SHARE = 0.5  # of a trial's share of the time; with less left, no further trial is begun


class TrialLedger:
    """Scores what a strategy proposes: trained, looked up, or refused.

    Args:
        task: The search.
        length: Candidates to train.
        epochs: Epochs of each training; under ``task.seconds`` the time is divided instead.
        named: The named points of the space.
        patience: Proposals in a row that train nothing (known, or over a limit) before the search ends.

    Attributes:
        distribution: What the strategy has learned so far, or None where it learns no distribution.
        trained: Candidates that count as trials.
        idle: Proposals since the last trial.

    Raises:
        UserError: The journal in the task's folder is damaged.
    """

    def __init__(self, task: SearchTask, length: int, epochs: int, named: list[Choices], patience: int) -> None:
        self.task, self.length, self.epochs, self.patience = task, length, epochs, patience
        self.journal = Journal(task.folder / "journal.jsonl")
        self.distribution: Callable[[], health.Distribution] | None = None
        self.trained: list[dict[str, Any]] = []
        self.idle = 0
        self._recorded = list(self.journal.rows)
        self._answered: dict[str, dict[str, Any]] = {}
        self._named = {choices_key(choices) for choices in named}
        self._meter = CostMeter(task)
        self._preferred: Mapping[str, Any] | None = None
        last = self._recorded[-1] if self._recorded else {}
        self._watch = Stopwatch(float(last.get("seconds", 0.0)), float(last.get("cpu_seconds", 0.0)))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the search so far, interruptions left out."""
        return self._watch.wall

    @property
    def open(self) -> bool:
        """Whether another proposal is wanted."""
        if len(self.trained) >= self.length or self.idle >= self.patience:
            return False
        return len(self._answered) < len(self._recorded) or self._share() is None or self._share_is_long_enough()

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Rows of candidates that broke a limit."""
        return [row for row in self._answered.values() if "refused" in row]

    @property
    def best(self) -> float:
        """Best mIoU so far, 0 before the first."""
        return max((row["miou"] for row in self.trained), default=0.0)

    def score(self, sample: Mapping[Any, Any]) -> float:
        """Answer a proposal.

        Args:
            sample: Choices as NNI gives them.

        Returns:
            Its validation mIoU, 0..1; 0, the worst, when it breaks a limit or its training diverges.

        Raises:
            UserError: The journal holds another search, or the data is unusable.
        """
        choices = plain(dict(sample))
        key = choices_key(choices)
        self.idle += 1
        if key not in self._answered:
            with trials.generators_kept():
                learned = self.distribution() if self.distribution else None
                number = len(self._answered)
                if number < len(self._recorded):
                    row = self._replayed(number, choices)
                else:
                    row = self._evaluate(number, choices, learned)
                    self.journal.append(row)
                trials.state_file(self.task, number).unlink(missing_ok=True)
            self._preferred = health.most_probable(learned) if learned else None
            self._answered[key] = row
            if row["miou"] is not None:
                self.trained.append(row)
                self.idle = 0
            self.task.progress.update("search", len(self.trained), self._state())
        return float(self._answered[key]["miou"] or 0.0)

    def candidates(self) -> list[Candidate]:
        """All trained candidates, best first; FLOPs and latency of the first few are measured.

        Raises:
            UserError: There is none, because all that were proposed break a limit.
        """
        if not self.trained:
            raise UserError(self._nothing_admitted())
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
        diverged = [row for row in self.trained if "note" in row]
        if diverged:
            found.append(f"{len(diverged)} of {len(self.trained)} trainings diverged and scored 0: lower train.lr.")
        if self.refused:
            found.append(f"{len(self.refused)} proposed architectures broke a limit and were not trained.")
        return found

    def _replayed(self, number: int, choices: Choices) -> dict[str, Any]:
        """The row of a candidate that is in the journal."""
        row = self._recorded[number]
        if row.get("number") != number or row.get("choices") != choices:
            what = f"the search would now propose another candidate {number} than the journal holds"
            fix = "continue it with the version and the options it was started with, or start anew with --out"
            raise UserError(Problem(what, str(self.journal.path), fix))
        return row

    def _evaluate(self, number: int, choices: Choices, learned: health.Distribution | None) -> dict[str, Any]:
        """Train a candidate, or refuse it; returns its row of the journal."""
        objective = self.task.objective
        row: dict[str, Any] = {
            "kind": "candidate",
            "number": number,
            "rank_source": "named" if choices_key(choices) in self._named else "sampled",
            "choices": choices,
            "code": self.task.architecture(choices).code,
        }
        problem = objective.problem(self._meter.of(choices)) if objective.limited else ""
        if problem:
            row |= {"miou": None, "refused": problem, **asdict(self._meter.of(choices))}
        else:
            share = self._share()
            result = trials.train_candidate(
                self.task,
                number,
                choices,
                epochs=self.epochs if share is None else None,
                seconds=share,
                progress=trials.TrialProgress(self.task.progress, len(self.trained), self._state()),
            )
            self._watch = Stopwatch(self._watch.wall + result["earlier"], self._watch.cpu)
            row |= {"miou": result["miou"], **asdict(self._meter.of(choices))}
            if result["note"]:
                row["note"] = result["note"]
        trained = [*self.trained, row] if row["miou"] is not None else self.trained
        scores = [r["miou"] for r in trained]
        entropy = health.entropy(learned) if learned else None
        stability = health.stability(self._preferred, health.most_probable(learned)) if learned else None
        return row | {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self._watch.cpu, 3),
            "best": max(scores, default=None),
            "median": statistics.median(scores) if scores else None,
            "entropy": None if entropy is None else round(entropy, 6),
            "stability": None if stability is None else round(stability, 6),
            "histogram": health.histogram([operations_in(self.task.space_class, r["choices"]) for r in trained]),
        }

    def _share(self) -> float | None:
        """Seconds for the next trial: its share of what is left, at most an equal share of the whole."""
        if self.task.seconds is None:
            return None
        left = max(1, self.length - len(self.trained))
        return min(self.task.seconds / self.length, (self.task.seconds - self.seconds) / left)

    def _share_is_long_enough(self) -> bool:
        seconds, share = self.task.seconds, self._share()
        return seconds is None or share is None or share >= _LEAST_SHARE * seconds / self.length

    def _state(self) -> str:
        return f"best mIoU {self.best:.3f}" if self.trained else ""

    def _nothing_admitted(self) -> Problem:
        """Names the limits that stood in the way, and how near the candidates came to each."""
        limits = {k: v for k, v in asdict(self.task.objective).items() if v is not None}
        nearest = []
        for name, limit in limits.items():
            values = [row[name.removeprefix("max_")] for row in self.refused]
            measured = [value for value in values if value is not None]
            smallest = f"the smallest of these has {min(measured):,}" if measured else "it cannot be measured here"
            if not measured or min(measured) > limit:
                nearest.append(f"{name} is {limit:,} and {smallest}")
        reason = "; ".join(nearest) or "each breaks one limit or another"
        what = f"none of the {len(self.refused)} architectures that were tried keeps the limits: {reason}"
        return Problem(what, "objective", "raise the limit, or make the space narrower or shallower")
