"""The course that all one-shot searches share: train a supernet, draw a pool of candidates, score them.

1. *Search*: the engine of the strategy trains shared weights and learns which choices are good.
2. *Pool*: the most probable architecture, samples of what was learned, and the named points of the space
   (the hand-designed ones), as far as they are within the limits.
3. *Tuning*, for strategies whose weights were not trained path by path: paths of the pool are trained.
4. *Scoring* on whole validation images; the best candidate is the result.

What was done is in the folder of the search (journal, state, pool), and a search that was killed goes on
from there. With lengths in epochs the result does not depend on interruptions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from torch import nn

from autoseg.errors import Problem, UserError, raise_if
from autoseg.runfolder import Journal
from autoseg.search.candidates import Pool, concluded, score_pool
from autoseg.search.objective import CostMeter
from autoseg.search.shared_weights import Optimiser, SharedWeights
from autoseg.search.silent import Unwritten
from autoseg.search.supernet import PathSupernet
from autoseg.search.supernet_training import train_supernet
from autoseg.search.task import Candidate, SearchResult, SearchTask
from autoseg.spaces.base import decisions
from autoseg.statefile import load_tree
from autoseg.train.clock import Stopwatch
from autoseg.train.compute import seed_everything
from autoseg.train.distributed import agreed, check_batch
from autoseg.train.module import Optimisation
from autoseg.train.recipe import Recipe

POOL_SEED = 1 << 20
STATE = "state.safetensors"


class OneShot(ABC):
    """Base class of the one-shot strategies: subclasses say which engine trains the supernet.

    Args:
        epochs: Passes over the training patches, tuning included; ignored when the task has a budget in
            seconds.
        warmup: Share of the search in which only weights are trained, 0..1, below 1.
        candidates: Samples to score in the end beside the most probable architecture and the named ones.
        lr: Highest learning rate of the shared weights; None takes the training's, as for the next five.
        optimiser: Of the shared weights: ``"adamw"``, ``"adam"`` or ``"sgd"``.
        momentum: Of SGD.
        weight_decay: Of the shared weights.
        clip: Largest gradient norm of the shared weights; 0 turns clipping off.
        schedule: Of their learning rate, as ``train.schedule`` has it.

    Attributes:
        name: Name of the strategy, for messages.
        learns: Whether the engine learns which choices are good, so that there is a most probable one.
        tuning: Share of the search for the tuning, 0 for none.
        scoring: Share of a budget in seconds for scoring the candidates.
        steps_in_time: Most steps of an epoch under a budget in seconds, where warm-up and search end at epochs.

    Raises:
        UserError: An option is out of range; all problems together.
    """

    one_shot = True
    name = "one-shot"
    learns = True
    tuning = 0.0
    scoring = 0.1
    steps_in_time = 40

    def __init__(
        self,
        *,
        epochs: int = 12,
        warmup: float = 0.3,
        candidates: int = 12,
        lr: float | None = None,
        optimiser: Optimiser | None = None,
        momentum: float | None = None,
        weight_decay: float | None = None,
        clip: float | None = None,
        schedule: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.epochs, self.warmup, self.candidates = epochs, warmup, candidates
        self.weights = SharedWeights(
            lr=lr, optimiser=optimiser, momentum=momentum, weight_decay=weight_decay, clip=clip, schedule=schedule
        )
        checks = [
            (epochs >= 1, "epochs", "must be 1 or more"),
            (0 <= warmup < 1, "warmup", "must be in 0..1, below 1"),
            *self.weights.checks(),
            (candidates >= 0, "candidates", "must not be negative"),
            *self.checks(),
        ]
        where = f"strategy {self.name}, option "
        raise_if([Problem(why, where + option, "change it") for ok, option, why in checks if not ok])

    def checks(self) -> list[tuple[bool, str, str]]:
        """``(is it right?, option, what is wrong otherwise)`` for the options of the subclass."""
        return []

    @classmethod
    def supports(cls, space: ModelSpace) -> str | None:
        """None, or why this strategy cannot search a space.

        Args:
            space: An unfrozen instance.
        """
        try:
            return None if decisions(space) else "it has nothing to decide"
        except TypeError as error:
            return str(error)

    @abstractmethod
    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's strategy object whose one-shot module trains the supernet.

        Its module offers ``draw(greedy)``, ``distribution()``, ``rewards``, ``complete``, ``search_state()`` and
        ``load_search_state(state)``, see :class:`autoseg.search.nni_paths.PathModule`.

        Args:
            task: The search.
            epochs: Length of the search, or None under a budget in seconds.
            warmup_epochs: Length of the warm-up.
        """

    @abstractmethod
    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> Any:
        """The batches from which the architecture is learned, with ``set_epoch``.

        Args:
            task: The search.
            patch: Side of the patches, pixels.
            train: The loader of the training patches.
        """

    def prepare(self, network: nn.Module) -> None:
        """Change the supernet before it is trained; NNI has replaced its choices already."""
        del network  # most engines need no change

    def optimisation(self, recipe: Recipe) -> Optimisation:
        """How the shared weights are trained."""
        return self.weights.applied_to(recipe)

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one path, to predict its time.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        return float(self.epochs * steps_per_epoch + self.candidates)

    def search(self, task: SearchTask) -> SearchResult:
        """Search, or continue a search that was interrupted.

        Args:
            task: Space, data and folder. What is in the folder decides where to continue.

        Returns:
            The best architecture and all scored candidates. With a length in epochs it does not depend on
            interruptions; with a budget in seconds the last epoch is cut where the time ends.

        Raises:
            TrainingDiverged: The gradients of the shared weights stayed infinite or not-a-number.
            UserError: The state in the folder is damaged, a batch of the data does not fit, or no architecture
                is within the limits.
        """
        journal = Journal(task.folder / "journal.jsonl")
        state_file = task.folder / STATE
        state = load_tree(state_file) if state_file.exists() else {"wall": 0.0, "cpu": 0.0}
        last = journal.rows[-1] if journal.rows else {}
        watch = Stopwatch(max(state["wall"], last.get("seconds", 0.0)), max(state["cpu"], last.get("cpu_seconds", 0.0)))
        meter = CostMeter(task)
        pool = self._learn(task, journal, watch, meter)
        supernet = PathSupernet(task, load_tree(state_file)["weights"])
        candidates = self.explore(task, supernet, pool, journal, watch, meter)
        if not candidates:
            raise UserError(meter.nothing_admitted())
        return concluded(task, candidates, meter, journal, watch, pool.notes, learns=self.learns)

    def take_part(self, task: SearchTask) -> None:
        """What the other ranks do while rank 0 searches: train the supernet with it.

        Args:
            task: The search, with the rank in its ``compute``; nothing is written into its folder.
        """
        self._learn(task, Unwritten(task.folder / "none"), Stopwatch(), CostMeter(task))

    def _learn(self, task: SearchTask, journal: Journal, watch: Stopwatch, meter: CostMeter) -> Pool:
        """Train the supernet and draw the pool, as far as that has not been done."""
        compute = task.compute
        check_batch(compute, task.recipe.batch)
        pool = agreed(compute, lambda: Pool.read(task.folder))
        if pool is None:
            engine = train_supernet(self, "search", task, task.folder / STATE, journal, watch)
            pool = agreed(compute, lambda: self._drawn_pool(task, engine, meter, watch))
        if self.tuning:
            train_supernet(self, "tuning", task, task.folder / STATE, journal, watch, pool)
        return pool

    def _drawn_pool(self, task: SearchTask, engine: Any, meter: CostMeter, watch: Stopwatch) -> Pool:
        seed_everything(task.seed, POOL_SEED)
        pool = self.draw_pool(task, engine, meter, watch)
        pool.write(task.folder)
        return pool

    def draw_pool(self, task: SearchTask, engine: Any, meter: CostMeter, watch: Stopwatch) -> Pool:
        """The candidates: the most probable architecture, the named ones, and samples of what was learned.

        Args:
            task: The search.
            engine: NNI's module, trained.
            meter: Knows the limits.
            watch: Time of the whole search.

        Raises:
            UserError: None of them is within the limits.
        """
        return Pool.drawn(task, meter, engine.draw, self.candidates, watch, greedy=self.learns)

    def explore(
        self,
        task: SearchTask,
        supernet: PathSupernet,
        pool: Pool,
        journal: Journal,
        watch: Stopwatch,
        meter: CostMeter,
    ) -> list[Candidate]:
        """Score candidates with the shared weights.

        Args:
            task: The search.
            supernet: Answers what a path scores.
            pool: The candidates.
            journal: One row per candidate goes there.
            watch: Time of the whole search.
            meter: Cost of the candidates.
        """
        return score_pool(task, supernet, pool, journal, watch, meter)

    def length(self, phase: str, task: SearchTask) -> tuple[int | None, float | None]:
        """Epochs and seconds of a phase, one of them None.

        Args:
            phase: ``"search"`` or ``"tuning"``.
            task: The search, with a budget in seconds or without.
        """
        share = self.tuning if phase == "tuning" else 1 - self.tuning
        if task.seconds is not None:
            return None, task.seconds * share * (1 - self.scoring)
        tuning = max(1, round(self.tuning * self.epochs)) if self.tuning else 0
        return (tuning if phase == "tuning" else max(1, self.epochs - tuning)), None
