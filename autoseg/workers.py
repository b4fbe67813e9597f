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
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from autoseg import processes
from autoseg.crew import Crew, JobFailed, Ticket, as_failure
from autoseg.errors import UserError
from autoseg.job import Job
from autoseg.jobs import run_job
from autoseg.progress import Forwarded, Progress

_PATIENCE = 0.5  # seconds in which idle workers end by themselves


class Workers(Crew):
    """A pool of worker processes for the jobs of one run; call :meth:`stop` when it is no longer needed.

    Args:
        count: Number of processes, 1 or more.
        path: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads of each.
        progress: Receives what the workers report.
        gpus: GPUs to share out, one for each worker; 0 leaves the choice to the jobs.
    """

    def __init__(self, count: int, path: Path, threads: int, progress: Progress, gpus: int = 0) -> None:
        super().__init__(count, progress)
        self.path, self.threads, self.gpus = path.resolve(), threads, gpus
        self._idle: list[tuple[Connection, Any]] = []
        self._processes: list[Any] = []
        for _ in range(count):
            self._idle.append(self._hire())

    def _hire(self) -> tuple[Connection, Any]:
        """Start a worker."""
        ours, theirs = Pipe()
        gpu = len(self._processes) % self.gpus if self.gpus else None
        process = processes.start(_work, (theirs, str(self.path), self.threads, gpu))
        theirs.close()
        self._processes.append(process)
        return ours, process

    def begin(self, ticket: Ticket) -> None:
        """Give a job to an idle worker."""
        with self._lock:
            worker = self._idle.pop() if self._idle else self._hire()
        threading.Thread(target=self._attend, args=(ticket, *worker), daemon=True).start()

    def _attend(self, ticket: Ticket, connection: Connection, process: Any) -> None:
        """Hand the job over and take what the worker says until the job has ended."""
        try:
            connection.send(ticket.job)
            while True:
                outcome = take_message(ticket.job, self.progress, *connection.recv())
                if outcome is not None:
                    break
        except (EOFError, OSError):  # it died, now or while it was idle
            code = processes.exit_code(process, 5)
            if not self._stopped:
                self.lost(ticket, *how_it_ended(code))
            return
        with self._lock:
            self._idle.append((connection, process))
        if isinstance(outcome, Exception):
            self.failed(ticket, outcome)
        else:
            self.finished(ticket, outcome)

    def stop(self) -> None:
        """End all workers now; what they have saved so far is on disk."""
        self._stopped = True
        for connection, _ in self._idle:
            connection.close()
        patience = time.monotonic() + _PATIENCE
        for _, process in self._idle:
            processes.exit_code(process, max(0.0, patience - time.monotonic()))
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            if processes.exit_code(process, 5) is None:
                process.kill()
                processes.exit_code(process)
        self._idle, self._processes = [], []


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
        advice = "give a smaller train.batch or compute.workers and resume the run"
        return "its process was killed, most likely because memory ran out", advice
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    return f"its process ended {how}", ""


def serve(connection: Connection, job: Job, path: Path, threads: int, progress: Progress) -> None:
    """In the child: do a job and tell how it went.

    Args:
        connection: To the parent; receives ``("done", result)``, ``("mend", problems)`` or
            ``("failed", (message, traceback))`` in the end.
        job: What to do.
        path: The run folder.
        threads: CPU threads.
        progress: Receives the progress.
    """
    try:
        result = run_job(job, path, threads, progress)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise  # the parent is gone
    except Exception as error:
        failure = as_failure(job, error)
        if isinstance(failure, UserError):
            connection.send(("mend", list(failure.problems)))
        else:
            connection.send(("failed", (str(failure), getattr(failure, "log", ""))))
    else:
        connection.send(("done", result))


def to_parent(connection: Connection) -> Progress:
    """In the child: send log records and progress to the parent from now on."""
    library = logging.getLogger("autoseg")
    library.addHandler(_ToParent(connection))
    library.setLevel(logging.INFO)
    library.propagate = False
    return Forwarded(lambda method, arguments: connection.send(("progress", (method, arguments))))


def _work(connection: Connection, path: str, threads: int, gpu: int | None = None) -> None:
    """The worker: do the jobs that come through the pipe until it closes."""
    if gpu is not None:  # before anything touches CUDA
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    processes.end_with_parent()
    progress = to_parent(connection)
    try:
        while True:
            serve(connection, connection.recv(), Path(path), threads, progress)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone or has closed the pipe


class _ToParent(logging.Handler):
    """Sends what the library logs to the parent, which keeps the log of the run."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain values."""
        self.connection.send(("log", (record.name, record.levelno, record.getMessage())))
