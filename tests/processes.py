"""Running the command line in processes that tests may kill, without waiting for torch to be imported each time.

One process imports the program, does nothing with it, and forks a child for every run. Runs see one core, as
the shared tiny run does: the number of threads decides the last digits of the results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

TIMEOUT = 120.0
ONE_CORE = "import os; os.cpu_count = lambda: 1\n"
CONSOLE = [sys.executable, "-c", ONE_CORE + "from autoseg.cli import main; main()"]
"""The console script ``autoseg``."""
SERVER = """
import json, os, sys
import autoseg.terminal.commands, autoseg.search.enas
from autoseg.cli import main

for line in sys.stdin:
    arguments, output, folder, eager = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
        os.dup2(1, 2)
        if eager:
            import functools, autoseg.jobs
            autoseg.jobs.train_network = functools.partial(autoseg.jobs.train_network, save_every=0.0)
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Child:
    """One run of the command line."""

    def __init__(self, server: Server, pid: int, output: Path) -> None:
        self.server, self.pid, self._output = server, pid, output
        self._code: int | None = None

    @property
    def output(self) -> str:
        """What it printed, both streams."""
        return self._output.read_text()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        """The exit code, minus the signal when one ended it."""
        if self._code is None:
            self._code = int(self.server.answer())
        return self._code

    def alive(self) -> bool:
        """Whether it still runs."""
        if self._code is None:
            try:
                os.kill(self.pid, 0)
                return True
            except ProcessLookupError:
                return False
        return False


class Server:
    """The process that forks; one child at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", ONE_CORE + SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        for child in self.children:  # what a failed test has left running
            if child.alive():
                os.killpg(child.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def start(self, *arguments: object, cwd: Path | None = None, eager: bool = False) -> Child:
        """Run ``autoseg ARGUMENTS``; ``eager`` saves the state of a training after every epoch."""
        assert self.process.stdin is not None
        output = self.folder / f"output-{len(self.children)}.txt"
        output.touch()
        words = [str(argument) for argument in arguments]
        self.process.stdin.write(json.dumps([words, str(output), str(cwd or self.folder), eager]) + "\n")
        self.process.stdin.flush()
        self.children.append(Child(self, int(self.answer()), output))
        return self.children[-1]


def wait_for(condition: Callable[[], object], alive: Callable[[], bool] = lambda: True, every: float = 0.002) -> bool:
    """Wait until something is so; False when the process ended before."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if not alive():
            return bool(condition())
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true in time")
        time.sleep(every)
    return True


def session_members(leader: int) -> list[int]:
    """Running processes of a session, zombies left out (Linux)."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(session) == leader and state not in "ZX":
                members.append(int(entry.name))
    return members
