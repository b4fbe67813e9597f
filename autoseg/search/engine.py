"""NNI's execution engine as our multi-trial searches need it: several candidates in flight, results in order.

NNI's own engines tell a strategy of each result when it comes, so that what it proposes next depends on how
fast the machines are. Here the results come in the order in which the candidates were submitted: what a
strategy proposes depends on how many are in flight, never on timing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nni.nas.execution import ExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.space import ModelStatus

_BACKLOG = 8


@dataclass(frozen=True)
class Answer:
    """What a ledger says to a proposal.

    Attributes:
        trains: Whether it takes a place: a training was begun.
        metric: Waits until there is a metric, and gives it; the higher, the better.
    """

    trains: bool
    metric: Callable[[], float]


class Ledger(Protocol):
    """Answers the proposals of NNI's strategies.

    Attributes:
        concurrency: Trainings at a time.
    """

    concurrency: int

    @property
    def open(self) -> bool:
        """Whether another proposal is wanted."""

    def begin(self, sample: Mapping[Any, Any]) -> Answer:
        """Take a proposal, given its choices as NNI has them; begin its training where it needs one."""


class LedgerEngine(ExecutionEngine):
    """Hands the proposals of a strategy to a ledger, and its answers back in order of submission.

    A submission returns at once while there are free places. When all are taken, it waits for the oldest
    candidate and tells the strategy of it, in the strategy's own thread. Proposals that train nothing take no
    place; they are told of as soon as all before them have been. A strategy that goes on with such proposals
    waits as well, before it is far ahead of what it could learn from.

    Args:
        ledger: Answers, and says when to stop.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self._models: list[Any] = []
        self._waiting: deque[tuple[Any, Answer]] = deque()

    def submit_models(self, *models: Any) -> None:
        """Take frozen models; see the class."""
        for model in models:
            model.status = ModelStatus.Training
            self._models.append(model)
            self._waiting.append((model, self.ledger.begin(model.sample)))
            while self._waiting and self._due():
                self._tell()

    def wait_models(self, *models: Any) -> None:
        """Wait for these models, or without any for all; those before them are told of as well."""
        wanted = list(models) if models else [model for model, _ in self._waiting]
        while any(not model.status.completed() for model in wanted) and self._waiting:
            self._tell()

    def list_models(self, status: ModelStatus | None = None) -> Iterable[Any]:
        """All submitted models, or those with a status."""
        return [model for model in self._models if status is None or model.status == status]

    def idle_worker_available(self) -> bool:
        """Always: a submission waits by itself."""
        return True

    def budget_available(self) -> bool:
        """Whether strategies shall go on proposing."""
        return self.ledger.open

    def _due(self) -> bool:
        """Whether the oldest must be told of before the strategy goes on."""
        taken = sum(answer.trains for _, answer in self._waiting)
        places = self.ledger.concurrency
        return not self._waiting[0][1].trains or taken >= places or len(self._waiting) >= _BACKLOG * places

    def _tell(self) -> None:
        """Wait for the oldest candidate and tell the strategy."""
        model, answer = self._waiting.popleft()
        self.dispatch_model_event(FinalMetricEvent(model, answer.metric()))
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))
