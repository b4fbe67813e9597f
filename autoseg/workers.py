"""Doing jobs side by side in worker processes, each with its share of the cores.

N one-thread trainings on N cores get more done than one training on N threads: networks for small images
do not keep several threads busy. Workers come from a fork server that has torch and NNI imported already
and live no longer than their parent, however it ends. The same child serves a run without the web page
(:class:`Workers`, many jobs for each process) and NNI's trials (one job, see :mod:`autoseg.nnibridge`).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.utilities.exceptions import SIGTERMException

from autoseg import processes
from autoseg.crew import Crew, JobFailed, Result, Ticket, as_failure
from autoseg.errors import UserError
from autoseg.gpus import VISIBLE, GpuShares
from autoseg.job import Job
from autoseg.jobs import run_job
from autoseg.progress import Forwarded, Progress

_PATIENCE = 0.5  # seconds in which idle workers end by themselves
_DYING = 5.0  # seconds in which a worker that has closed its pipe ends by itself

Send = Callable[[str, Any], None]


class _Worker(NamedTuple):
    """A worker process, seen from here."""

    connection: Connection
    process: BaseProcess
    gpus: str | None


class _ParentGone(BaseException):
    """In a worker: nobody is at the other end of the pipe; whatever the job does, it ends."""


class Workers(Crew):
    """A pool of worker processes for the jobs of one run; call :meth:`stop` when it is no longer needed.

    Args:
        count: Number of processes, 1 or more.
        path: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads of each.
        progress: Receives what the workers report.
        gpus: For each worker the names of its GPUs, as in :attr:`autoseg.plan.Plan.gpus`; empty where each takes
            what it finds.
    """

    def __init__(self, count: int, path: Path, threads: int, progress: Progress, gpus: Sequence[str] = ()) -> None:
        super().__init__(count, progress)
        self.path, self.threads = path.resolve(), threads
        self._shares = GpuShares(gpus)
        self._idle: list[_Worker] = []
        self._processes: list[BaseProcess] = []
        for _ in range(count):
            self._idle.append(self._hire())

    def _hire(self) -> _Worker:
        """Start a worker."""
        ours, theirs = Pipe()
        gpus = self._shares.take()
        try:
            with theirs:
                process = processes.start(_work, (theirs, str(self.path), self.threads, gpus))
        except BaseException:
            ours.close()
            self._shares.give_back(gpus)
            raise
        self._processes.append(process)
        return _Worker(ours, process, gpus)

    def _dismiss(self, worker: _Worker) -> int | None:
        """See to it that a worker is gone; returns its exit code."""
        code = processes.exit_code(worker.process, _DYING)
        if code is None:
            worker.process.kill()
            code = processes.exit_code(worker.process)
        worker.connection.close()
        with self._lock:
            if worker.process in self._processes:
                self._processes.remove(worker.process)
                self._shares.give_back(worker.gpus)
        return code

    def begin(self, ticket: Ticket) -> None:
        """Give a job to an idle worker."""
        with self._lock:
            if self._stopped:
                return
            worker = self._idle.pop() if self._idle else self._hire()
        threading.Thread(target=self._attend, args=(ticket, worker), daemon=True).start()

    def _attend(self, ticket: Ticket, worker: _Worker) -> None:
        """Hand the job over and take what the worker says until the job has ended.

        Only the pipe tells of the end of a worker. An exception of our own fails the job; the worker, which
        would go on with it, is ended.
        """
        outcome: Result | Exception | None = None
        try:
            message = _next(worker.connection, ticket.job)
            while message is not None:
                outcome = take_message(ticket.job, self.progress, *message)
                if outcome is not None:
                    break
                message = _next(worker.connection)
        except Exception as error:
            if not self._stopped:
                worker.process.kill()
                self._dismiss(worker)
                self.failed(ticket, as_failure(ticket.job, error))
            return
        if outcome is None:  # it died, now or while it was idle
            if not self._stopped:
                self.lost(ticket, *how_it_ended(self._dismiss(worker)))
            return
        with self._lock:
            self._idle.append(worker)
        if isinstance(outcome, Exception):
            self.failed(ticket, outcome)
        else:
            self.finished(ticket, outcome)

    def stop(self) -> None:
        """End all workers now; what they have saved so far is on disk."""
        self._stopped = True
        with self._lock:
            idle, hired = self._idle, self._processes
            self._idle, self._processes = [], []
        for worker in idle:
            worker.connection.close()
        patience = time.monotonic() + _PATIENCE
        for worker in idle:
            processes.exit_code(worker.process, max(0.0, patience - time.monotonic()))
        for process in hired:
            process.terminate()
        for process in hired:
            if processes.exit_code(process, _DYING) is None:
                process.kill()
                processes.exit_code(process)


def _next(connection: Connection, job: Job | None = None) -> tuple[str, Any] | None:
    """The next message of a worker, after handing it a job perhaps; None when it is gone."""
    try:
        if job is not None:
            connection.send(job)
        message: tuple[str, Any] = connection.recv()
    except (EOFError, OSError):
        return None
    return message


def take_message(job: Job, progress: Progress, kind: str, content: Any) -> dict[str, Any] | Exception | None:
    """Handle one message of a process that does a job.

    Args:
        job: The job.
        progress: Receives what it reports.
        kind: As :func:`serve` sends it.
        content: The same.

    Returns:
        The result, or the exception to raise for it; None when the job goes on.
    """
    if kind == "progress":
        method, arguments = content
        getattr(progress, method)(*arguments)
        return None
    if kind == "log":
        name, level, text = content
        logging.getLogger(name).log(level, "%s: %s", job, text)
        return None
    if kind == "mend":
        return UserError(content)
    if kind == "failed":
        return JobFailed(*content)
    result: dict[str, Any] = content
    return result


def how_it_ended(code: int | None) -> tuple[str, str]:
    """Two sentences about a process that ended without a word: what happened, and what to do."""
    if code == -signal.SIGKILL:
        advice = "resume the run with fewer compute.workers, or start anew with a smaller train.batch"
        return "its process was killed, most likely because memory ran out", advice
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    return f"its process ended {how}", ""


def serve(send: Send, job: Job, path: Path, threads: int, progress: Progress) -> None:
    """In the child: do a job and tell how it went.

    Args:
        send: To the parent, who receives ``("done", result)``, ``("mend", problems)`` or
            ``("failed", (message, traceback))`` in the end.
        job: What to do.
        path: The run folder.
        threads: CPU threads.
        progress: Receives the progress.
    """
    try:
        send("done", run_job(job, path, threads, progress))
    except SIGTERMException:  # Lightning's word for being ended from outside
        raise
    except (Exception, SystemExit) as error:
        failure = as_failure(job, error)
        if isinstance(failure, UserError):
            send("mend", list(failure.problems))
        else:
            send("failed", (str(failure), getattr(failure, "log", "")))


def to_parent(connection: Connection) -> Send:
    """In the child: what sends a message to the parent, one at a time, as the log does from now on."""
    lock = threading.RLock()

    def send(kind: str, content: Any) -> None:
        try:
            with lock:
                connection.send((kind, content))
        except OSError as error:
            raise _ParentGone from error

    library = logging.getLogger("autoseg")
    library.addHandler(_ToParent(send))
    library.setLevel(logging.INFO)
    library.propagate = False
    return send


def _work(connection: Connection, path: str, threads: int, gpus: str | None = None) -> None:
    """The worker: do the jobs that come through the pipe until it closes."""
    if gpus is not None:  # before anything touches CUDA
        os.environ[VISIBLE] = gpus
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    processes.end_with_parent()
    send = to_parent(connection)
    progress = Forwarded(lambda method, arguments: send("progress", (method, arguments)))
    with suppress(_ParentGone):
        while True:
            try:
                job = connection.recv()
            except (EOFError, OSError):  # the parent is gone or has closed the pipe
                break
            serve(send, job, Path(path), threads, progress)


class _ToParent(logging.Handler):
    """Sends what the library logs to the parent, which keeps the log of the run."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain values."""
        self.send("log", (record.name, record.levelno, record.getMessage()))
