"""Doing jobs side by side in worker processes, each with its share of the cores.

N one-thread trainings on N cores get more done than one training on N threads: networks for small images
do not keep several threads busy. Workers come from a fork server that has torch and NNI imported already.
They live no longer than their parent, however it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError, UserError
from autoseg.jobs import Job, run_job
from autoseg.progress import Forwarded, Progress
from autoseg.runfolder import RunFolder

log = logging.getLogger(__name__)

_PATIENCE = 0.5  # seconds in which idle workers end by themselves


class WorkerFailed(AutosegError):
    """A job failed in its process; the message is the job's own."""


class Workers:
    """A pool of worker processes for the jobs of one run; call :meth:`stop` when it is no longer needed.

    Args:
        count: Number of processes, 1 or more.
        path: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads of each.
        progress: Receives what the workers report, in this process and thread.
    """

    def __init__(self, count: int, path: Path, threads: int, progress: Progress) -> None:
        self.path, self.threads, self.progress = path.resolve(), threads, progress
        self._workers: dict[Connection, Any] = {}
        context = multiprocessing.get_context("forkserver")
        with _fork_server():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, str(self.path), threads), daemon=True)
                process.start()
                theirs.close()
                self._workers[ours] = process

    @staticmethod
    def warm_up() -> None:
        """Start the fork server, which imports torch and NNI while this process does something else."""
        with _fork_server():
            forkserver.ensure_running()

    def run(self, jobs: list[Job], on_done: Callable[[Job], None] | None = None) -> None:
        """Do all jobs, each as soon as a worker is free and what it needs is there.

        Args:
            jobs: In the order in which they are to start; the search, where others need it, is among them
                or has been done.
            on_done: Called with each job that is done.

        Raises:
            UserError: A job met something the user can mend.
            WorkerFailed: A job failed or its process was killed. The other workers go on until :meth:`stop`.
            ValueError: A job needs a search that was not done and is not among the jobs.
        """
        folder = RunFolder(self.path)
        waiting, idle = list(jobs), list(self._workers)
        running: dict[Connection, Job] = {}
        while waiting or running:
            searched = folder.architecture.exists()
            ready = [job for job in waiting if searched or not job.needs_search]
            while ready and idle:
                connection, job = idle.pop(0), ready.pop(0)
                waiting.remove(job)
                self._send(connection, job)
                running[connection] = job
            if not running:
                raise ValueError(f"{waiting[0]} needs a search that is not among the jobs")
            readable = wait(list(running))
            for connection in [c for c in running if c in readable]:
                if self._receive(connection, running[connection]):
                    job = running.pop(connection)
                    idle.append(connection)
                    if on_done:
                        on_done(job)

    def _send(self, connection: Connection, job: Job) -> None:
        try:
            connection.send(job)
        except OSError:  # it died while it was idle
            raise self._failure(connection, job) from None

    def _failure(self, connection: Connection, job: Job) -> WorkerFailed:
        process = self._workers[connection]
        process.join(5)
        return WorkerFailed(_how_it_ended(job, process.exitcode))

    def _receive(self, connection: Connection, job: Job) -> bool:
        """Handle one message of a worker; True when its job is done."""
        try:
            kind, content = connection.recv()
        except (EOFError, OSError):
            raise self._failure(connection, job) from None
        if kind == "progress":
            method, arguments = content
            getattr(self.progress, method)(*arguments)
            return False
        if kind == "log":
            name, level, text = content
            logging.getLogger(name).log(level, "%s: %s", job, text)
            return False
        if kind == "mend":
            raise UserError(content)
        if kind == "failed":
            message, trace = content
            log.error("%s failed:\n%s", job, trace)
            raise WorkerFailed(f"{job} failed: {message}")
        return True

    def stop(self) -> None:
        """End all workers now; what they have saved so far is on disk."""
        for connection in self._workers:
            connection.close()
        patience = time.monotonic() + _PATIENCE
        for process in self._workers.values():
            process.join(max(0.0, patience - time.monotonic()))
        for process in self._workers.values():
            process.terminate()
        for process in self._workers.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self._workers = {}


@contextmanager
def _fork_server() -> Iterator[None]:
    """Processes that start in here know our modules but not the script that called us.

    multiprocessing would import the caller's script again in every worker, which runs it again unless it
    is written for that; the workers need nothing from it.
    """
    forkserver.set_forkserver_preload(["autoseg.jobs"])
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _how_it_ended(job: Job, code: int | None) -> str:
    """A sentence about a process that ended without a word."""
    if code == -signal.SIGKILL:
        return (
            f"{job}: its process was killed, most likely because memory ran out; "
            "give a smaller train.batch or compute.workers and resume the run"
        )
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    return f"{job}: its process ended {how}; resume the run to try it again"


def _work(connection: Connection, path: str, threads: int) -> None:
    """The worker: do the jobs that come through the pipe until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    library = logging.getLogger("autoseg")
    library.addHandler(_ToParent(connection))
    library.setLevel(logging.INFO)
    library.propagate = False

    def send(method: str, arguments: tuple[Any, ...]) -> None:
        connection.send(("progress", (method, arguments)))

    try:
        while True:
            job: Job = connection.recv()
            try:
                run_job(job, Path(path), threads, Forwarded(send))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except UserError as error:
                connection.send(("mend", list(error.problems)))
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else ""
                connection.send(("failed", (f"{type(error).__name__}: {first}", traceback.format_exc())))
            else:
                connection.send(("done", None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone or has closed the pipe


def _end_with_parent() -> None:
    """Wait for the end of the parent, then end this process whatever it is doing; files are written whole."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _ToParent(logging.Handler):
    """Sends what the library logs to the parent, which keeps the log of the run."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain values."""
        self.connection.send(("log", (record.name, record.levelno, record.getMessage())))
