"""Processes from the fork server: quick to start, clean to begin with, and gone when their parent is."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from autoseg import processes
from autoseg.errors import Problem, UserError


def state(connection: Connection, threads: int) -> None:
    """What a child finds when it begins, and after it has computed with some threads."""
    main = sys.modules["__main__"]
    found: dict[str, Any] = {"imported": {"torch", "nni", "autoseg.jobs"} <= set(sys.modules)}
    import torch

    found["frozen"] = gc.get_freeze_count() > 100_000
    found["cuda"] = torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork()
    found["waiting"] = os.environ["OMP_WAIT_POLICY"]
    found["main"] = hasattr(main, "pytest") or hasattr(main, "__file__")
    before = len(list(Path("/proc/self/task").iterdir()))
    torch.set_num_threads(threads)
    a = torch.ones(512, 512)
    found["largest"] = float((a @ a).max())
    found["threads"] = torch.get_num_threads()
    found["grown"] = len(list(Path("/proc/self/task").iterdir())) > before
    connection.send(found)


@pytest.fixture(autouse=True)
def no_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_child_begins_with_everything_imported_and_nothing_computed(threads: int) -> None:
    ours, theirs = Pipe(duplex=False)
    script = sys.modules["__main__"]
    process = processes.start(state, (theirs, threads))
    theirs.close()
    assert ours.recv() == {
        "imported": True,
        "frozen": True,
        "cuda": False,
        "waiting": "PASSIVE",
        "main": False,
        "largest": 512.0,
        "threads": threads,
        "grown": threads > 1,
    }
    assert processes.exit_code(process) == 0
    assert sys.modules["__main__"] is script
    assert "OMP_WAIT_POLICY" not in os.environ
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_many_threads_start_processes_and_learn_how_they_ended() -> None:
    codes: dict[int, int | None] = {}

    def one(number: int) -> None:
        codes[number] = processes.exit_code(processes.start(os._exit, (number,)))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == {number: number for number in range(24)}


def test_a_process_that_still_runs_has_no_exit_code() -> None:
    process = processes.start(time.sleep, (60,))
    assert processes.exit_code(process, 0.05) is None
    process.terminate()
    assert processes.exit_code(process, 10) == -signal.SIGTERM


def test_a_process_is_started_in_milliseconds() -> None:
    processes.exit_code(processes.start(os._exit, (0,)))
    began = time.monotonic()
    assert processes.exit_code(processes.start(os._exit, (0,))) == 0
    assert time.monotonic() - began < 1.0  # an import of torch takes seconds


CTRL_C = """
import multiprocessing.forkserver, os, signal
from autoseg import processes

processes.PRELOAD[:] = ["torch"]  # enough to be met while it imports
processes.warm_up()
server = multiprocessing.forkserver._forkserver._forkserver_pid
os.kill(server, signal.SIGINT)  # while it imports
print(processes.exit_code(processes.start(os._exit, (5,))), flush=True)
os.kill(server, signal.SIGINT)
same = server == multiprocessing.forkserver._forkserver._forkserver_pid
print(processes.exit_code(processes.start(os._exit, (6,))), same)
"""


def test_the_server_is_deaf_to_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("5\n6 True\n", "")


WATCHING = "import os, time; from autoseg import processes; processes.end_with_parent(); print(os.getpid(), flush=True)"


def test_a_process_of_another_kind_ends_with_the_one_that_started_it() -> None:
    command = f"'{sys.executable}' -c '{WATCHING}; time.sleep(60)'; true"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        shell.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def divide(a: int, b: int) -> tuple[float, int]:
    """A function to be called elsewhere."""
    if b < 0:
        raise UserError(Problem("is negative", "b", "give a positive one"))
    if b == 99:
        os._exit(7)
    return a / b, os.getpid()


def test_a_function_called_in_a_process_of_its_own() -> None:
    result, pid = processes.call(divide, (1, 4))
    assert result == 0.25 and pid != os.getpid()
    assert not Path(f"/proc/{pid}").exists()  # and what it has occupied is free
    with pytest.raises(processes.CallFailed, match=r"(?s)^divide failed: Traceback.*ZeroDivisionError"):
        processes.call(divide, (1, 0))
    with pytest.raises(processes.CallFailed, match=r"^divide failed: its process ended with exit code 7$"):
        processes.call(divide, (1, 99))
    with pytest.raises(UserError) as caught:
        processes.call(divide, (1, -1))
    assert caught.value.problems == (Problem("is negative", "b", "give a positive one"),)
