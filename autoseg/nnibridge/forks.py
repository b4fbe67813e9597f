"""Trials on this machine: for every relay that NNI starts, a process forked from our server.

Each trial has a thread here, which starts its process, passes on what the process says, ends it when its relay
is gone, and tells the relay its exit code. So what NNI sees, starts and cancels is a small stand-in, and the
trial itself begins in milliseconds.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe, reduction
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from autoseg import processes
from autoseg.gpus import VISIBLE, GpuShares
from autoseg.nnibridge import relay
from autoseg.nnibridge.parameters import next_parameters
from autoseg.nnibridge.reports import direct, tellable
from autoseg.nnibridge.trial import Work, forked, run_trial
from autoseg.ownfolder import OwnFolder
from autoseg.workers import how_it_ended

log = logging.getLogger(__name__)
logging.getLogger("nni.runtime.trial_command_channel").setLevel(logging.WARNING)  # it tells our standard output of each

_GRACE = 3.0  # seconds between asking a trial to end and killing it
_WATCH = 0.1  # seconds between two looks for GPUs that have become free
_SOCKET = "trials"
_KIND = "autoseg-trials"
_REQUEST = 1 << 16  # most bytes of a request; NNI's variables are some hundred

OnMessage = Callable[[int, str, str, Any], None]


@dataclass(frozen=True)
class TrialRequest:
    """A trial that NNI starts.

    Attributes:
        sequence_id: The number of the trial's parameters, in the order of submission; negative for a trial that
            somebody else has added.
        trial_id: NNI's name of it.
        environment: What NNI has set for it.
    """

    sequence_id: int
    trial_id: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Imported:
    """A trial that was done before: NNI's page is shown what it reported.

    Attributes:
        final: Its final figures, as :func:`autoseg.nnibridge.trial.final_figures` makes them.
        figures: Its figures, epoch by epoch, each with a ``default``.
    """

    final: Mapping[str, Any]
    figures: Sequence[Mapping[str, float]] = ()


class TrialForks:
    """Answers the relays of one run's trials; call :meth:`stop` when it is no longer needed.

    Args:
        run: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads of each trial.
        on_message: Called with ``(number, trial_id, kind, content)``, one call at a time, from threads of ours;
            ``number`` is NNI's of the trial's parameters. The kinds are those of
            :func:`autoseg.nnibridge.trial.run_trial` but ``"parameter"``. A trial that ends without one of its
            last three gives ``("cancelled", how)`` when NNI or :meth:`stop` ended it, else ``("lost", how)``.
            It must not call :meth:`stop`.
        imported: Asked for every trial; where it answers, no process is started.
        groups: For each trial side by side the names of its GPUs, as in :attr:`autoseg.plan.Plan.gpus`; a trial
            waits until some are free. Empty where each takes what it finds.
        work: What a trial does.

    Attributes:
        command: The command that NNI shall run as a trial.
    """

    def __init__(
        self,
        run: Path,
        threads: int,
        on_message: OnMessage,
        *,
        imported: Callable[[TrialRequest], Imported | None] = lambda request: None,
        groups: Sequence[str] = (),
        work: Work = run_trial,
    ) -> None:
        self._run, self._threads, self._work = run.resolve(), threads, work
        self._on_message, self._imported = on_message, imported
        self._shares = GpuShares(groups)
        self._folder, self._listener = _listen(self._run)
        path = self._folder.path / _SOCKET
        self._stopping, self._stop = os.pipe()  # what waits sees the end of this pipe
        self._telling, self._stop_once = threading.Lock(), threading.Lock()
        self._trials: list[threading.Thread] = []
        self.command = shlex.join([sys.executable, "-S", "-E", relay.__file__, str(path)])
        self._accepting = threading.Thread(target=self._accept, name="trials", daemon=True)
        self._accepting.start()

    def stop(self) -> None:
        """End all trials now, and take no more; what they have saved so far is on disk."""
        with self._stop_once:
            stop, self._stop = self._stop, -1
        if stop < 0:
            return  # it was called before
        os.close(stop)
        self._accepting.join()
        deadline = time.monotonic() + 2 * _GRACE  # a server that is just starting is not waited for
        for trial in self._trials:
            trial.join(max(0.0, deadline - time.monotonic()))
        if not any(trial.is_alive() for trial in self._trials):
            os.close(self._stopping)
        self._listener.close()
        self._folder.remove()

    def _accept(self) -> None:
        while self._stopping not in wait([self._listener, self._stopping]):
            connection, _ = self._listener.accept()
            trial = threading.Thread(target=self._answer, args=(connection,), name="trial", daemon=True)
            self._trials = [running for running in self._trials if running.is_alive()] + [trial]
            trial.start()

    def _answer(self, connection: socket.socket) -> None:
        """One relay, from its request to its exit code."""
        with connection:
            message, streams, *_ = socket.recv_fds(connection, _REQUEST, 2)
            if not streams:
                return  # it was killed at its first breath
            for stream in streams:
                os.set_inheritable(stream, False)
            environment = dict(pair.split("=", 1) for pair in message.decode().split("\0"))
            request = TrialRequest(int(environment["NNI_TRIAL_SEQ_ID"]), environment["NNI_TRIAL_JOB_ID"], environment)
            try:
                found = self._imported(request)
                code = _report(request, found) if found else self._fork(request, streams, connection)
            except Exception:
                log.exception("trial %s could not be run", request.trial_id)
                self._tell(request.sequence_id, request, "lost", "its process could not be started")
                code = 1
            finally:
                for stream in streams:
                    os.close(stream)
            with suppress(OSError):  # the relay is gone
                connection.send(str(code).encode())

    def _fork(self, request: TrialRequest, streams: list[int], connection: socket.socket) -> int:
        """Run a trial in a process of its own, on GPUs of its own; returns the exit code that a shell would tell."""
        if not self._shares.any:
            return self._run_process(request, request.environment, streams, connection)
        while (group := self._shares.take()) is None:  # the process of a trial may live longer than its relay
            if wait([connection, self._stopping], _WATCH):
                self._tell(request.sequence_id, request, "cancelled", "it was ended while it waited for a GPU")
                return 128 + signal.SIGTERM
        try:
            return self._run_process(request, {**request.environment, VISIBLE: group}, streams, connection)
        finally:
            self._shares.give_back(group)

    def _run_process(
        self, request: TrialRequest, environment: dict[str, str], streams: list[int], connection: socket.socket
    ) -> int:
        ours, theirs = Pipe(duplex=False)
        with ours:
            with theirs:
                handed = [_Handed(stream) for stream in streams]
                details = (self._work, self._run, self._threads, environment, handed, theirs)
                process = processes.start(forked, details)
            watched: list[Any] = [process.sentinel, ours, connection, self._stopping]
            number, answered, ended = request.sequence_id, False, False
            kill_at: float | None = None
            code: int | None = None
            while code is None:
                ready = wait(watched, None if kill_at is None else max(0.0, kill_at - time.monotonic()))
                if process.sentinel in ready:
                    code = processes.exit_code(process)
                while ours in watched and ours.poll():
                    try:
                        kind, content = ours.recv()
                    except EOFError:
                        watched.remove(ours)
                        break
                    if kind == "parameter":
                        number = content
                    else:
                        answered = answered or kind in ("done", "mend", "failed")
                        self._tell(number, request, kind, content)
                    if code is None:
                        break  # a process that talks without end can be ended
                if not ended and (connection in ready or self._stopping in ready):
                    ended, kill_at = True, time.monotonic() + _GRACE
                    watched = [entry for entry in watched if entry not in (connection, self._stopping)]
                    process.terminate()
                elif kill_at is not None and time.monotonic() >= kill_at:
                    kill_at = None
                    process.kill()
        if not answered:
            self._tell(number, request, "cancelled" if ended else "lost", how_it_ended(code)[0])
            code = code or 1  # without a word it has not succeeded
        return code if code >= 0 else 128 - code

    def _tell(self, number: int, request: TrialRequest, kind: str, content: Any) -> None:
        if number < 0:
            return  # somebody else has added this trial; it is nothing to the run
        try:
            with self._telling:
                self._on_message(number, request.trial_id, kind, content)
        except Exception:
            log.exception("a message of trial %s was not understood", request.trial_id)


def _listen(run: Path) -> tuple[OwnFolder, socket.socket]:
    """A socket in a folder of its own: in the run folder where that works, else where temporary files are."""
    last: OSError | None = None
    if run.is_dir():
        (run / "nni").mkdir(exist_ok=True)
    for parent in (run / "nni", None, Path("/tmp")):
        try:
            folder = OwnFolder(_KIND, parent)
        except OSError as error:
            last = error
            continue
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(str(folder.path / _SOCKET))
        except OSError as error:  # the path is longer than a socket's may be (108 bytes), or sockets cannot be there
            last = error
            listener.close()
            folder.remove()
            continue
        (folder.path / _SOCKET).chmod(0o600)
        listener.listen(64)
        return folder, listener
    raise OSError(f"no socket can be made: {last}")


def _report(request: TrialRequest, found: Imported) -> int:
    """Show NNI what a trial has reported before; returns the exit code of the trial."""
    from nni.runtime.trial_command_channel.v3 import TrialCommandChannelV3

    url = request.environment["NNI_TRIAL_COMMAND_CHANNEL"]
    direct(url)
    channel = TrialCommandChannelV3(url)
    try:
        record = next_parameters(url)
        number = None if record is None else record["parameter_id"]
        for sequence, figures in enumerate(found.figures):
            channel.send_metric("PERIODICAL", number, request.trial_id, sequence, tellable(figures))
        channel.send_metric("FINAL", number, request.trial_id, 0, tellable(found.final))
    except OSError as error:
        log.warning("NNI's page does not show the figures of trial %s: %s", request.trial_id, error)
    return 0


class _Handed:
    """An open file that is handed to a process which is being started; there it is a number again."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detach, (reduction.DupFd(self._descriptor),)


def _detach(handed: Any) -> int:
    return int(handed.detach())
