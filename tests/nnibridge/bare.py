"""A manager with bare trials, and what comes back through its channel."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from autoseg.nnibridge.channel import TrialChannel
from autoseg.nnibridge.manager import Manager

TRIAL = shlex.join([sys.executable, "-S", "-E", str(Path(__file__).with_name("bare_trial.py"))])


class Bare:
    """An experiment of bare trials."""

    def __init__(self, folder: Path, slots: int = 2, command: str = TRIAL, **options: Any) -> None:
        self.metrics: list[tuple[int, str, str, Any]] = []
        self.ends: dict[int, tuple[str, str]] = {}
        self.lost: list[str] = []
        self._news = threading.Condition()
        self.manager = Manager.start(folder, "bare", slots=slots, trial_command=command, code=folder, **options)
        self.channel = TrialChannel(self.manager, self._metric, self._end, self._lost)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.manager.stop(1.0)

    def _metric(self, *found: Any) -> None:
        with self._news:
            self.metrics.append(found)
            self._news.notify_all()

    def _end(self, number: int, trial: str, status: str) -> None:
        with self._news:
            assert number not in self.ends
            self.ends[number] = (trial, status)
            self._news.notify_all()

    def _lost(self, reason: str) -> None:
        with self._news:
            self.lost.append(reason)
            self._news.notify_all()

    def wait(self, condition: Callable[[], object], seconds: float = 120.0) -> None:
        """Wait until news make something so."""
        with self._news:
            assert self._news.wait_for(condition, seconds), (self.metrics, self.ends, self.lost)

    def status(self, *numbers: int) -> list[str]:
        """How trials ended, once they have."""
        self.wait(lambda: all(number in self.ends for number in numbers))
        return [self.ends[number][1] for number in numbers]

    def running(self, parameters: dict[str, Any]) -> tuple[int, str]:
        """Submit a trial and wait until it is at work; its number and NNI's id."""
        number = self.channel.submit({**parameters, "reports": ["0"]})
        self.wait(lambda: any(one[0] == number for one in self.metrics))
        return number, next(one[1] for one in self.metrics if one[0] == number)


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """A request as anybody could send it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that run, zombies left out."""
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            found.append(pid)
    return found


def group(leader: int) -> list[int]:
    """Processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def until(condition: Callable[[], object], seconds: float = 15.0) -> float:
    """Wait until something is so; how long that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.05)
    return time.monotonic() - begin
