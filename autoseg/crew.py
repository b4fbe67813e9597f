"""Who does the jobs of a run: the common part of worker processes, NNI trials, and this process alone.

Jobs wait in the order of their rank, start as soon as a place is free, and answer through a future. A job
whose process or machine was lost is tried again; one that failed for a reason of its own is not. When the crew
itself is gone, or whoever receives the progress fails, all jobs end with that: it is no failure of theirs.
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

from autoseg.errors import AutosegError, UserError, machine_problem, one_line
from autoseg.job import Job
from autoseg.progress import Progress, Watched

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_TRACE = 20_000  # characters of a traceback, of which the end says most

Result = dict[str, Any]


class JobFailed(AutosegError):
    """A job failed; the message is the job's own.

    Attributes:
        what: What happened, without advice.
        log: What it had written last, such as its traceback; may be empty.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.what, self.log = message, log


class JobLost(JobFailed):
    """The process or machine of a job was lost again and again; that need not be the job's fault.

    Args:
        what: What happened.
        advice: What to do.
        log: What the job had written last.
    """

    def __init__(self, what: str, advice: str, log: str = "") -> None:
        super().__init__(f"{what}; {advice}", log)
        self.what = what


class CrewGone(AutosegError):
    """The crew itself is gone, so that its jobs cannot be done now; none of them has failed."""


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
        progress: Receives what the jobs report, from any thread, one call at a time. When it raises, the crew
            ends with that error, as every job does.

    Attributes:
        elsewhere: Whether the jobs are done by other processes.
        broken: What has ended the crew before it was stopped, or None.

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
        self.slots = slots
        self.progress = Watched(progress, self._break if self.elsewhere else None)
        self.broken: Exception | None = None
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
            where the user can mend something, a :class:`JobFailed` where the job failed, and otherwise what has
            ended the crew, such as :class:`CrewGone`.
        """
        with self._lock:
            ticket = Ticket(rank, next(self._numbers), job)
            if self.broken is None:
                heapq.heappush(self._waiting, ticket)
            else:
                ticket.future.set_exception(self.broken)
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
        with self._lock:
            if not self._over(ticket):
                return
            ticket.losses += 1
            again = ticket.losses < _ATTEMPTS and not self._stopped
            if again:
                heapq.heappush(self._waiting, ticket)
        if again:
            self.progress.note(f"{ticket.job}: {reason}; it is tried again")
        else:
            advice = advice or "resume the run to try it again"
            ticket.future.set_exception(JobLost(f"{ticket.job}: {reason}", advice, log_tail))
        self._feed()

    def gone(self, reason: str) -> None:
        """The crew itself is gone: every job that waits, runs or is still submitted ends with :class:`CrewGone`.

        Args:
            reason: What happened, as "NNI's manager has stopped".
        """
        self._break(CrewGone(f"{reason}; what is done is kept, resume the run to do the rest"))

    def _break(self, error: Exception) -> None:
        """End all jobs with an error that is not theirs; those that run are not waited for."""
        with self._lock:
            if self.broken is not None:
                return
            self.broken = error
            tickets = [*self._running, *self._waiting]
            self._running, self._waiting = [], []
        for ticket in tickets:
            ticket.future.set_exception(error)

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
            if self.progress.error is not None:
                self._break(self.progress.error)
            else:
                self.failed(ticket, as_failure(ticket.job, error))
        else:
            self.finished(ticket, result)

    def stop(self) -> None:
        """Nothing is left running."""


def as_failure(job: Job, error: BaseException) -> Exception:
    """What a future of a job raises for an exception in it.

    A UserError stays as it is, what the machine is to blame for becomes one, and others become a JobFailed.
    """
    if isinstance(error, UserError | JobFailed | CrewGone):
        return error
    trace = "".join(traceback.format_exception(error))
    log.error("%s failed:\n%s", job, trace)
    problem = machine_problem(error, str(job))
    if problem is not None:
        return problem
    return JobFailed(f"{job} failed: {one_line(error)}", trace[-_TRACE:])
