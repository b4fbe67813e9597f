"""What all multi-trial strategies share: NNI's strategy proposes, every candidate is trained by itself.

A strategy is a small subclass of :class:`MultiTrial` that makes one of NNI's strategies; everything else,
such as several candidates at a time, limits, resuming, budgets and the journal, happens here, in
:mod:`autoseg.search.engine` and in :mod:`autoseg.search.trial_ledger`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.base import Strategy

from autoseg.errors import Problem, raise_if
from autoseg.runfolder import write_json
from autoseg.search import health
from autoseg.search.engine import LedgerEngine
from autoseg.search.objective import pareto_json
from autoseg.search.task import SearchResult, SearchTask
from autoseg.search.trial_ledger import TrialLedger
from autoseg.spaces.base import Choices, decisions, named_points
from autoseg.train.compute import seed_everything

Check = tuple[bool, str, str]
"""Whether an option is right, its name, and what is wrong otherwise."""


class MultiTrial(ABC):
    """Base of the strategies that train every candidate from scratch.

    Args:
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds, which the trials then
            share equally.
        checks: Checks of the subclass's own options.

    Attributes:
        name: What the strategy is called in messages.
        begins_with_named: Whether NNI's strategy itself begins with the named points of the space; otherwise
            they are scored before it starts.
        patience: Proposals in a row that train nothing, known ones or such that break a limit, before the
            search ends.

    Raises:
        UserError: An option is out of range; all problems together.
    """

    one_shot: ClassVar[bool] = False
    name: ClassVar[str]
    begins_with_named: ClassVar[bool] = False
    patience: ClassVar[int] = 500

    def __init__(self, *, trials: int = 16, epochs: int = 4, checks: Sequence[Check] = ()) -> None:
        all_checks = [(trials >= 1, "trials", "must be 1 or more"), (epochs >= 1, "epochs", "must be 1 or more")]
        raise_if(
            [
                Problem(why, f"strategy {self.name}, option {option}", "change it")
                for ok, option, why in [*all_checks, *checks]
                if not ok
            ]
        )
        self.trials, self.epochs = trials, epochs

    @abstractmethod
    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's strategy, seeded with the task's seed.

        Args:
            task: The search.
            named: Named points of the space.
            values: Every decision and its possible values.

        Returns:
            A strategy; when it has a method ``distribution()``, entropy and stability of what that returns
            (see :mod:`autoseg.search.health`) are recorded with each candidate.
        """

    @classmethod
    def supports(cls, space: ModelSpace) -> str | None:
        """None, or the reason why the strategy cannot search this (unfrozen) space."""
        try:
            decisions(space)
        except TypeError as error:
            return str(error)
        return None

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one candidate, to predict its time.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        return float(self.trials * self.epochs * steps_per_epoch)

    def search(self, task: SearchTask) -> SearchResult:
        """Search, or continue a search that was interrupted.

        Args:
            task: Space, data and folder. The journal in the folder decides where to continue.

        Returns:
            The best architecture and all trained candidates. With a length in epochs it does not depend on
            interruptions, nor on how fast candidates are trained that the task's bench trains side by side.

        Raises:
            UserError: No architecture keeps the limits, the journal is damaged or of another search, or the
                data is unusable.
            AutosegError: The trainings of all candidates have failed.
        """
        task.compute.prepare()
        named = list(named_points(task.space_class, task.kwargs).values())
        space = task.build_space()
        values = decisions(space)
        ledger = TrialLedger(task, self.trials, self.epochs, named, self.patience)
        candidates = SimplifiedModelSpace.from_model(space)
        del space  # the supernet; NNI keeps its decisions
        engine = LedgerEngine(ledger)
        task.progress.begin("search", self.trials, "trials")
        seed_everything(task.seed, 1 << 21)
        with quiet_nni():
            strategy = self.strategy(task, named, values)
            ledger.distribution = getattr(strategy, "distribution", None)
            strategy.initialize(candidates, engine)
            if not self.begins_with_named:
                for point in named:
                    if engine.budget_available():
                        engine.submit_models(candidates.freeze(point))
            strategy.run()
            engine.wait_models()
        found = ledger.candidates()
        task.progress.end("search", f"{len(found)} trials, best mIoU {found[0].miou:.3f}")
        write_json(task.folder / "pareto.json", pareto_json(task, found))
        rows = [row for row in ledger.journal.rows if row["kind"] == "candidate"]
        notes = ledger.notes() + self.notes(rows) + health.diagnosis(rows, found[0].choices, task.space_class)
        return SearchResult(task.architecture(found[0].choices), found, rows, ledger.seconds, notes)

    def notes(self, rows: list[dict[str, Any]]) -> list[str]:
        """What a strategy itself wants to tell about its journal rows; nothing by default."""
        return []


@contextmanager
def quiet_nni() -> Iterator[None]:
    """Keep NNI from telling standard output about each proposal; its errors still appear."""
    logger = logging.getLogger("nni")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
