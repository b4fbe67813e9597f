"""Strategy ``oneshot-evolution``: a single-path supernet, then evolution scored with its weights.

The supernet is trained on uniformly random paths (:mod:`autoseg.search.nni_paths`). Then NNI's regularised
evolution proposes architectures, the named points of the space first, and the supernet scores each on the
validation images, which takes a forward pass instead of a training.
"""

from __future__ import annotations

from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.space import SimplifiedModelSpace

from autoseg.runfolder import Journal
from autoseg.search.batches import WATCHED, RewardBatches
from autoseg.search.candidates import Pool, late, score_one
from autoseg.search.engine import Answer, LedgerEngine
from autoseg.search.evolution import EvolutionFrom
from autoseg.search.multitrial import quiet_nni
from autoseg.search.nni_paths import PathStrategy
from autoseg.search.objective import CostMeter
from autoseg.search.oneshot import OneShot
from autoseg.search.supernet import PathSupernet
from autoseg.search.task import Candidate, SearchTask
from autoseg.search.trials import generators_kept
from autoseg.spaces.base import decisions, named_points, plain
from autoseg.train.clock import Stopwatch

_LATE_PATIENCE = 20  # the same when the time is over and nothing has been scored
_PATIENCE = 500  # proposals in a row that are known or over a limit, before the evolution ends


class OneShotEvolution(OneShot):
    """Single Path One-Shot: uniform supernet, then regularised evolution with its scores.

    Args:
        epochs: Passes over the training patches; ignored when the task has a budget in seconds.
        evaluations: Architectures to score; under a budget in seconds fewer when the time is over.
        population: Architectures alive at a time.
        tournament: Architectures drawn from the population, of which the best becomes a parent.
        mutation: Chance of each decision to be drawn anew in a child; None changes one on average.
        lr: Highest learning rate of the shared weights; None takes the training's.

    Source: Single Path One-Shot NAS; Real et al., algorithm 1, for the evolution.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> OneShotEvolution(epochs=10, evaluations=60).training_steps(steps_per_epoch=100)
        1060.0
    """

    name = "oneshot-evolution"
    learns = False
    scoring = 0.3

    def __init__(
        self,
        *,
        epochs: int = 12,
        evaluations: int = 60,
        population: int = 20,
        tournament: int = 5,
        mutation: float | None = None,
        lr: float | None = None,
    ) -> None:
        self.evaluations, self.population = evaluations, population
        self.tournament, self.mutation = tournament, mutation
        super().__init__(epochs=epochs, warmup=0.0, lr=lr, candidates=0)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether the options of the evolution are in range."""
        fits = 1 <= self.tournament <= max(self.population, 1)
        return [
            (self.evaluations >= 1, "evaluations", "must be 1 or more"),
            (self.population >= 1, "population", "must be 1 or more"),
            (fits, "tournament", f"must be in 1..population ({self.population})"),
            (self.mutation is None or 0 < self.mutation <= 1, "mutation", "must be above 0 and at most 1"),
        ]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's random one-shot engine, seeded."""
        return PathStrategy()

    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> RewardBatches:
        """Patches on which a few paths are scored per epoch, to be seen in the journal; nothing is learned yet."""
        return RewardBatches(task, patch, WATCHED)

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one path, to predict its time.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        return super().training_steps(steps_per_epoch) + self.evaluations

    def explore(
        self,
        task: SearchTask,
        supernet: PathSupernet,
        pool: Pool,
        journal: Journal,
        watch: Stopwatch,
        meter: CostMeter,
    ) -> list[Candidate]:
        """Let the evolution propose and the supernet score."""
        space = task.build_space()
        scores = _Scores(self.evaluations, task, supernet, journal, watch, meter)
        models = SimplifiedModelSpace.from_model(space)
        evolution = EvolutionFrom(
            scores.named,
            population_size=max(self.population, len(scores.named)),
            sample_size=self.tournament,
            mutation_prob=self.mutation or 1 / max(len(decisions(space)), 1),
            seed=task.seed,
        )
        task.progress.begin("candidates", self.evaluations, "architectures")
        with quiet_nni():
            evolution(models, LedgerEngine(scores))
        best = max((candidate.miou for candidate in scores.found), default=0.0)
        text = f"{len(scores.found)} scored with shared weights, best mIoU {best:.3f}"
        task.progress.end("candidates", text)
        return scores.found

    def draw_pool(self, task: SearchTask, engine: Any, meter: CostMeter, watch: Stopwatch) -> Pool:
        """Nothing: the evolution proposes its own candidates."""
        return Pool()


class _Scores:
    """Answers the proposals of the evolution, each once, until there are enough or the time is over."""

    concurrency = 1

    def __init__(
        self,
        evaluations: int,
        task: SearchTask,
        supernet: PathSupernet,
        journal: Journal,
        watch: Stopwatch,
        meter: CostMeter,
    ) -> None:
        self.evaluations, self.task, self.supernet = evaluations, task, supernet
        self.journal, self.watch, self.meter = journal, watch, meter
        self.named = list(named_points(task.space_class, task.kwargs).values())
        self.found: list[Candidate] = []
        self._idle = 0

    @property
    def open(self) -> bool:
        """Whether another proposal is wanted."""
        ended = late(self.task, self.watch) and (bool(self.found) or self._idle > _LATE_PATIENCE)
        return len(self.found) < self.evaluations and self._idle < _PATIENCE and not ended

    def begin(self, sample: Any) -> Answer:
        """A proposal is scored when its metric is asked for."""
        return Answer(True, lambda: self.score(sample))

    def score(self, sample: Any) -> float:
        """The validation mIoU of a proposal; 0, the worst, when it is not within the limits."""
        choices = plain(dict(sample))
        self._idle += 1
        known = next((c.miou for c in self.found if c.choices == choices), None)
        if known is not None or not self.meter.admits(choices):
            return known or 0.0
        source = "named" if choices in self.named else "sampled"
        with generators_kept():
            candidate = score_one(self.task, self.supernet, choices, source, self.journal, self.watch, self.meter)
        self.found.append(candidate)
        self._idle = 0
        best = max(c.miou for c in self.found)
        self.task.progress.update("candidates", len(self.found), f"best mIoU {best:.3f}")
        return candidate.miou
