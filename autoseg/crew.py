"""Who does the jobs of a run: the common part of worker processes, NNI trials, and this process alone.

Jobs wait in the order of their rank, start as soon as a place is free, and answer through a future. A job
whose process or machine was lost is tried again; one that failed for a reason of its own is not.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from autoseg.errors import AutosegError, UserError
from autoseg.job import Job
from autoseg.progress import Forwarded, Progress

log = logging.getLogger(__name__)

_ATTEMPTS = 3

Result = dict[str, Any]


class JobFailed(AutosegError):
    """A job failed; the message is the job's own.

    Attributes:
        log: What it had written last, such as its traceback; may be empty.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclass(order=True)
class Ticket:
    """A job on its way.

    Attributes:
        rank: The lowest goes first.
        number: Order of submission, among equals.
        job: What is to be done.
        future: Receives the result.
        losses: How often its process or machine was lost.
    """

    rank: int
    number: int
    job: Job = field(compare=False)
    future: Future[Result] = field(compare=False, default_factory=Future)
    losses: int = field(compare=False, default=0)


class Crew(ABC):
    """Does jobs side by side; call :meth:`stop` when it is no longer needed.

    Args:
        slots: Jobs at a time, 1 or more.
        progress: Receives what the jobs report, from any thread, one call at a time.

    Attributes:
        elsewhere: Whether the jobs are done by other processes.

    Example:
        >>> class Echo(Crew):
        ...     def begin(self, ticket):
        ...         self.finished(ticket, {"label": ticket.job.label})
        ...     def stop(self):
        ...         pass
        >>> Echo(1, Progress()).submit(Job("training", "unet")).result()
        {'label': 'unet'}
    """

    elsewhere = True

    def __init__(self, slots: int, progress: Progress) -> None:
        self.slots, self.progress = slots, one_at_a_time(progress)
        self._waiting: list[Ticket] = []
        self._running: list[Ticket] = []
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._stopped = False

    def submit(self, job: Job, rank: int = 0) -> Future[Result]:
        """Have a job done.

        Args:
            job: The job.
            rank: Of the jobs that wait, the one with the lowest rank goes first.

        Returns:
            A future with the result as :func:`autoseg.jobs.run_job` returns it. Its exception is a UserError
            where the user can mend something, else a :class:`JobFailed`.
        """
        with self._lock:
            ticket = Ticket(rank, next(self._numbers), job)
            heapq.heappush(self._waiting, ticket)
        self._feed()
        return ticket.future

    @abstractmethod
    def begin(self, ticket: Ticket) -> None:
        """Start a job; its end is told by :meth:`finished`, :meth:`failed` or :meth:`lost`, from any thread."""

    @abstractmethod
    def stop(self) -> None:
        """End everything now; what the jobs have saved so far is on disk."""

    def finished(self, ticket: Ticket, result: Result) -> None:
        """A job is done."""
        if self._over(ticket):
            ticket.future.set_result(result)
            self._feed()

    def failed(self, ticket: Ticket, error: Exception) -> None:
        """A job has failed for a reason of its own."""
        if self._over(ticket):
            ticket.future.set_exception(error)
            self._feed()

    def lost(self, ticket: Ticket, reason: str, advice: str = "", log_tail: str = "") -> None:
        """The process or machine of a job is gone: try it again, but not for ever.

        Args:
            ticket: The job.
            reason: What happened, as "its process was killed".
            advice: What to do when it happens again and again.
            log_tail: What the job had written last.
        """
        if not self._over(ticket):
            return
        ticket.losses += 1
        if ticket.losses < _ATTEMPTS and not self._stopped:
            self.progress.note(f"{ticket.job}: {reason}; it is tried again")
            with self._lock:
                heapq.heappush(self._waiting, ticket)
        else:
            advice = advice or "resume the run to try it again"
            ticket.future.set_exception(JobFailed(f"{ticket.job}: {reason}; {advice}", log_tail))
        self._feed()

    def _over(self, ticket: Ticket) -> bool:
        """Free the place of a job; False when that was done already."""
        with self._lock:
            if ticket not in self._running:
                return False
            self._running.remove(ticket)
            return True

    def _feed(self) -> None:
        """Start what can start."""
        while True:
            with self._lock:
                if self._stopped or not self._waiting or len(self._running) >= self.slots:
                    return
                ticket = heapq.heappop(self._waiting)
                self._running.append(ticket)
            try:
                self.begin(ticket)
            except Exception as error:
                log.exception("%s could not be started", ticket.job)
                self.lost(ticket, f"it could not be started ({type(error).__name__})")


class Alone(Crew):
    """This process does each job itself, at once, when it is submitted.

    Args:
        work: Does a job, such as :func:`autoseg.jobs.do_job`.
        progress: Receives the progress.
    """

    elsewhere = False

    def __init__(self, work: Callable[[Job, Progress], Result], progress: Progress) -> None:
        super().__init__(1, progress)
        self.work = work

    def begin(self, ticket: Ticket) -> None:
        """Do the job."""
        try:
            result = self.work(ticket.job, self.progress)
        except Exception as error:
            self.failed(ticket, as_failure(ticket.job, error))
        else:
            self.finished(ticket, result)

    def stop(self) -> None:
        """Nothing is left running."""


def one_at_a_time(progress: Progress) -> Progress:
    """The same progress for several threads: it receives one call at a time."""
    lock = threading.RLock()

    def send(method: str, arguments: tuple[Any, ...]) -> None:
        with lock:
            getattr(progress, method)(*arguments)

    return Forwarded(send)


def as_failure(job: Job, error: Exception) -> Exception:
    """What a future of a job raises for an exception in it: a UserError as it is, others as a JobFailed."""
    if isinstance(error, UserError | JobFailed):
        return error
    trace = "".join(traceback.format_exception(error))
    first = str(error).splitlines()[0] if str(error) else ""
    log.error("%s failed:\n%s", job, trace)
    return JobFailed(f"{job} failed: {type(error).__name__}: {first}".rstrip(": "), trace)
