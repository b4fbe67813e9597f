"""The candidates of a search: drawn within the limits, scored with shared weights, ranked."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.errors import UserError
from autoseg.runfolder import Journal, read_json, write_json
from autoseg.search import health
from autoseg.search.objective import CostMeter, pareto_json
from autoseg.search.supernet import PathSupernet
from autoseg.search.task import Candidate, SearchResult, SearchTask
from autoseg.spaces.base import Choices, choices_key, named_points, plain
from autoseg.train.clock import Stopwatch
from autoseg.train.compute import seed_everything

SCORE_SEED = 1 << 21
_TRIES = 20  # draws per wanted sample: controllers that are sure repeat themselves, and limits refuse
_MEASURED = 8  # candidates whose FLOPs and latency are measured, best first


@dataclass
class Pool:
    """Architectures to score, each once.

    Attributes:
        paths: Their choices.
        sources: Where each comes from: ``"greedy"``, ``"named"`` or ``"sampled"``.
        notes: What the user should know about them.
    """

    paths: list[Choices] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def drawn(
        cls,
        task: SearchTask,
        meter: CostMeter,
        draw: Callable[[bool], Choices],
        samples: int,
        watch: Stopwatch,
        greedy: bool = True,
    ) -> Pool:
        """The most probable architecture, the named ones of the space, and samples, as far as the limits allow.

        Args:
            task: The search.
            meter: Knows the limits.
            draw: ``draw(greedy)`` gives a path.
            samples: How many samples; fewer when a budget in seconds is used up.
            watch: Time of the whole search.
            greedy: Whether there is a most probable architecture.

        Raises:
            UserError: None of them is within the limits.
        """
        pool, known = cls(), set[str]()

        def add(choices: Choices, source: str) -> bool:
            key = choices_key(choices)
            if key in known:
                return False
            known.add(key)
            if not meter.admits(choices):
                return False
            pool.paths.append(choices)
            pool.sources.append(source)
            return True

        if greedy and not add(best := plain(draw(True)), "greedy"):
            problem = task.objective.problem(meter.of(best))
            pool.notes.append(f"The most probable architecture is not within the limits ({problem}).")
        for choices in named_points(task.space_class, task.kwargs).values():
            add(choices, "named")
        tries = _TRIES * samples
        while samples > 0 and tries > 0 and not (pool.paths and late(task, watch)):
            tries -= 1
            samples -= add(plain(draw(False)), "sampled")
        if not pool.paths:
            raise UserError(meter.nothing_admitted())
        return pool

    @classmethod
    def read(cls, folder: Path) -> Pool | None:
        """The pool in a search folder; None when there is none yet."""
        path = folder / "pool.json"
        return cls(**read_json(path)) if path.exists() else None

    def write(self, folder: Path) -> None:
        """Write ``pool.json``."""
        write_json(folder / "pool.json", {"paths": self.paths, "sources": self.sources, "notes": self.notes})


def late(task: SearchTask, watch: Stopwatch) -> bool:
    """Whether a budget in seconds is used up."""
    return task.seconds is not None and watch.wall > task.seconds


def score_pool(
    task: SearchTask, supernet: PathSupernet, pool: Pool, journal: Journal, watch: Stopwatch, meter: CostMeter
) -> list[Candidate]:
    """Score all of a pool, in order; when a budget in seconds is used up, samples beyond the first are left out."""
    found: list[Candidate] = []
    task.progress.begin("candidates", len(pool.paths), "architectures")
    for choices, source in zip(pool.paths, pool.sources, strict=True):
        if found and source == "sampled" and late(task, watch):
            break
        found.append(score_one(task, supernet, choices, source, journal, watch, meter))
        best = max(c.miou for c in found)
        task.progress.update("candidates", len(found), f"best mIoU {best:.3f}")
    task.progress.end("candidates", f"{len(found)} scored with shared weights, best mIoU {best:.3f}")
    return found


def score_one(
    task: SearchTask,
    supernet: PathSupernet,
    choices: Choices,
    source: str,
    journal: Journal,
    watch: Stopwatch,
    meter: CostMeter,
) -> Candidate:
    """Score one architecture, or take its score from the journal; the journal gets a row."""
    rows = [row for row in journal.rows if row["kind"] == "candidate"]
    known = next((row for row in rows if row["choices"] == choices), None)
    if known is not None:
        return Candidate(choices, known["miou"], source, known["params"])
    seed_everything(task.seed, SCORE_SEED, len(rows))  # a path may draw random numbers of its own
    score = supernet.score(choices)
    params = meter.of(choices).params
    scores = [row["miou"] for row in rows] + [score]
    journal.append(
        {
            "kind": "candidate",
            "number": len(rows),
            "rank_source": source,
            "choices": choices,
            "code": task.architecture(choices).code,
            "miou": score,
            "params": params,
            "flops": None,
            "latency_ms": None,
            "seconds": round(watch.wall, 3),
            "cpu_seconds": round(watch.cpu, 3),
            "best": max(scores),
            "median": statistics.median(scores),
        }
    )
    return Candidate(choices, score, source, params)


def rank(task: SearchTask, candidates: list[Candidate], meter: CostMeter, watch: Stopwatch) -> list[Candidate]:
    """Best first; FLOPs and latency of the best are measured, and of some more while a budget in seconds lasts.

    Args:
        task: The search.
        candidates: In any order; an architecture that is there twice is kept once.
        meter: Cost of the candidates.
        watch: Time of the whole search.
    """
    unique = {choices_key(c.choices): c for c in reversed(candidates)}
    ranked = sorted(unique.values(), key=lambda c: (c.rank, choices_key(c.choices)))
    for i, candidate in enumerate(ranked[:_MEASURED]):
        if i and late(task, watch):
            break
        cost = meter.of(candidate.choices, full=True)
        ranked[i] = replace(candidate, flops=cost.flops, latency_ms=cost.latency_ms)
    return ranked


def concluded(
    task: SearchTask,
    candidates: list[Candidate],
    meter: CostMeter,
    journal: Journal,
    watch: Stopwatch,
    notes: list[str],
    *,
    learns: bool,
) -> SearchResult:
    """The result of a one-shot search: candidates ranked, pareto.json written, doubts about the search noted.

    Args:
        task: The search.
        candidates: All that were scored, at least one.
        meter: Cost of the candidates.
        journal: Journal of the search.
        watch: Time of the whole search.
        notes: What is to be noted already.
        learns: Whether the engine learns which choices are good.
    """
    ranked = rank(task, candidates, meter, watch)
    write_json(task.folder / "pareto.json", pareto_json(task, ranked))
    rows = [row for row in journal.rows if row["kind"] == "epoch"]
    learning = [row for row in rows if row["phase"] == "search"]
    notes = list(notes)
    if learns and rows and not learning:
        early = "its time ended within the warm-up, and nothing was learned about the choices"
        notes.append(f"The search has not converged: {early}.")
    notes += health.diagnosis(learning, ranked[0].choices, task.space_class)
    return SearchResult(task.architecture(ranked[0].choices), ranked, rows, watch.wall, notes)
