"""Processes for the jobs of a run, forked from a server that has torch and NNI imported already.

Importing torch and NNI takes seconds; a fork of a process that has done it takes milliseconds. The server is
the one of Python's multiprocessing. It computes nothing and never touches CUDA, so every child sets its own
number of threads and may use a GPU. Children live no longer than the process that asked for them.
"""

from __future__ import annotations

import gc
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
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.process import BaseProcess
from typing import Any

from autoseg.errors import AutosegError, UserError
from autoseg.fork_server import SERVER_OF

PRELOAD = ["autoseg.jobs", "autoseg.workers", "autoseg.nnibridge.trial"]
"""What the server imports; importing them must start no thread of torch and no CUDA."""

_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads of one child that wait must not slow down another
_WATCH = 1.0  # seconds between two looks at a parent that is not ours to wait for

_lock = threading.RLock()


class CallFailed(AutosegError):
    """A function that was called in a process of its own raised something, or the process died."""


def warm_up() -> None:
    """Start the server, which imports torch and NNI while this process does something else."""
    with _lock, _as_server_of_ours():
        forkserver.ensure_running()


def start(target: Callable[..., object], args: tuple[Any, ...] = ()) -> BaseProcess:
    """Start a process; the first call waits until the server has imported what it needs.

    Several threads may call this and :func:`exit_code` at a time. Keep the process: the child ends when it
    is collected, as when this process ends.

    Args:
        target: A function of an importable module; not of the script that called us, which children do not know.
        args: Its arguments, which are pickled.

    Returns:
        The running process. It is daemonic: ended when this process exits.

    Raises:
        OSError: The process could not be started.
        EOFError: The server has died; the next call starts another.
    """
    with _lock, _as_server_of_ours():
        process = multiprocessing.get_context("forkserver").Process(target=_begin, args=(target, args), daemon=True)
        process.start()
    return process


def _begin(target: Callable[..., object], args: tuple[Any, ...]) -> None:
    """The child: what it was born with lives as long as it does, so it is not searched for garbage.

    Such a search writes to all of the memory that child and server share, and so copies it, which takes
    longer than starting the child.
    """
    gc.freeze()
    target(*args)


def exit_code(process: BaseProcess, timeout: float | None = None) -> int | None:
    """Wait for a process of :func:`start` and tell how it ended.

    Args:
        process: The process.
        timeout: Seconds to wait, for ever by default.

    Returns:
        Its exit code, minus the signal when one ended it, or None when it still runs.
    """
    wait([process.sentinel], timeout)
    with _lock:  # two threads that read the code of one process at a time would get it wrong
        return process.exitcode


def call(target: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
    """Call a function in a process of its own, which takes everything with it that it has occupied.

    Args:
        target: A function of an importable module.
        args: Its arguments, which are pickled, as is what it returns.

    Returns:
        What it returns.

    Raises:
        UserError: The function raised one.
        CallFailed: It raised another exception, whose traceback is in the message, or its process died.
    """
    ours, theirs = Pipe(duplex=False)
    with ours:
        with theirs:
            process = start(_answer, (theirs, target, args))
        try:
            kind, content = ours.recv()
        except EOFError:
            kind, content = "failed", f"its process ended with exit code {exit_code(process, 5)}"
        finally:
            process.kill()  # it has nothing more to say, or nobody waits for it any more
            exit_code(process)
    if kind == "mend":
        raise UserError(content)
    if kind == "failed":
        raise CallFailed(f"{target.__name__} failed: {content}")
    return content


def _answer(connection: Connection, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """The child of :func:`call`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides
    end_with_parent()
    try:
        connection.send(("done", target(*args)))
    except UserError as error:
        connection.send(("mend", list(error.problems)))
    except Exception:
        connection.send(("failed", traceback.format_exc()))


def end_with_parent() -> None:
    """Make this process end at once when its parent does, whatever it is doing then.

    For a process of :func:`start` that is the process which called it, not the server; for any other
    process it is the one that started it.
    """
    threading.Thread(target=_end_with_parent, name="parent", args=(os.getppid(),), daemon=True).start()


def _end_with_parent(number: int) -> None:
    parent = multiprocessing.parent_process()
    gone = False
    while not gone and os.getppid() == number:  # of a child: the server, whose end is also its own
        if parent is None:
            time.sleep(_WATCH)
        else:
            gone = bool(wait([parent.sentinel], _WATCH))
    os._exit(1)  # files are written whole, so nothing is lost but the work since they were


@contextmanager
def _as_server_of_ours() -> Iterator[None]:
    """A server that starts in here is deaf to Ctrl-C, and children know our modules but not the caller's script.

    multiprocessing would import the caller's script again in every child, which runs it again unless it is
    written for that; the children need nothing from it. Ctrl-C reaches the whole process group; this
    process decides what becomes of the others.
    """
    forkserver.set_forkserver_preload(PRELOAD)
    environment = {**_ENVIRONMENT, SERVER_OF: str(os.getpid())}
    resource_tracker.ensure_running()  # the server needs it, and its start would lift the block
    before = {name: os.environ.get(name) for name in environment}
    script = sys.modules["__main__"]
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits it
    os.environ.update({name: value for name, value in environment.items() if before[name] is None})
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name in (name for name, value in before.items() if value is None):
            del os.environ[name]
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
