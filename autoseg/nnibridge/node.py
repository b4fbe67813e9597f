"""The process of NNI's manager: node with our guard, in a process group of its own, ended as a whole."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from autoseg.errors import AutosegError
from autoseg.nnibridge.ports import FIRST, LOOPBACK, check_address, free_pairs

log = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.js")
_PATIENCE = 60.0  # seconds until the page must answer; about one is usual
_ATTEMPTS = 10
_TAIL = 2000  # characters of a log that an error carries
_OTHERS = ("NODE_OPTIONS", "NODE_PATH", "AUTOSEG_BIND")  # of the environment, not for our node
_ADVICE = "; --no-ui works without it"


class ManagerFailed(AutosegError):
    """NNI's manager did not start, or does not do what it is told; the message ends with what it wrote last."""


class Node:
    """A manager that runs and answers.

    Args:
        folder: Folder of the experiments; NNI's idea of a home folder and the log of the manager are in it.
        experiment: NNI's id of the experiment.
        action: NNI's word for what to do with it: ``create`` or ``view``.
        port: Where to look for free ports first.
        bind: An address beside 127.0.0.1 on which others shall reach it.
        needed: Whether nothing works without it, so that errors do not advise to leave it out.

    Attributes:
        port: Its port.
        pid: Its process id, which is also that of its process group.
        token: What a request needs that starts something.
        ended: Set when it and its trials are gone.

    Raises:
        UserError: This machine has no address ``bind``.
        ManagerFailed: It did not start.
    """

    def __init__(
        self,
        folder: Path,
        experiment: str,
        action: str,
        *,
        port: int | None = None,
        bind: str | None = None,
        needed: bool = False,
    ) -> None:
        self._folder, self._experiment, self._bind = folder, experiment, bind
        self._advice = "" if needed else _ADVICE
        self.log = folder / "manager.log"
        self._logs = {self.log: 0, folder / experiment / "log" / "nnimanager.log": 0}
        self.token = secrets.token_hex(16)
        self.ended = threading.Event()
        if bind is not None:
            check_address(bind)
        (folder / "home").mkdir(parents=True, exist_ok=True)
        for _, number in zip(range(_ATTEMPTS), free_pairs(FIRST if port is None else port, bind), strict=False):
            self.port = number
            if self._start(action):
                break
        else:
            raise self._failure("no free port was found for NNI's manager")
        if port is not None and self.port != port:
            log.warning("port %d is taken; the page is at port %d", port, self.port)

    def _start(self, action: str) -> bool:
        """Start it; False when its port was taken meanwhile."""
        found = importlib.util.find_spec("nni_node")
        if found is None or not found.submodule_search_locations:
            fix = f"pip install --force-reinstall nni==3.0{self._advice}"
            raise ManagerFailed(f"NNI's manager is not installed: {fix}")
        place = Path(found.submodule_search_locations[0])
        arguments = {
            "port": self.port,
            "experiment-id": self._experiment,
            "action": action,
            "experiments-directory": self._folder,
            "log-level": "info",
            "python-interpreter": sys.executable,
            "tuner-command-channel": f"ws://localhost:{self.port}/tuner",
        }
        words = [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
        command = [str(place / "node"), "--max-old-space-size=4096", "--require", str(_GUARD), str(place / "main.js")]
        with self.log.open("ab") as output:
            self._logs = {path: path.stat().st_size if path.exists() else 0 for path in self._logs}
            try:
                self._process = subprocess.Popen(
                    command + words,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=place,
                    env=self._environment(),
                    process_group=0,  # Ctrl-C in the terminal is not for it: we decide
                )
            except OSError as error:
                raise ManagerFailed(f"NNI's manager cannot be started: {error}{self._advice}") from error
        self.pid = self._process.pid
        self._hand_token()
        try:
            return self._answers()
        except BaseException:
            self.kill()
            raise

    def _hand_token(self) -> None:
        """Through a pipe, which nobody can read again; an environment could be read in /proc."""
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:  # it has ended already, and says why
            pipe.write(self.token.encode())

    def _environment(self) -> dict[str, str]:
        """NNI writes into the home folder; it gets one in the run folder instead."""
        kept = {key: value for key, value in os.environ.items() if key not in _OTHERS}
        ours = {
            "HOME": str(self._folder / "home"),
            "AUTOSEG_HOME": os.environ.get("HOME", ""),
            "AUTOSEG_PARENT": str(os.getpid()),
            "AUTOSEG_TOKEN_FD": "0",
        }
        return {**kept, **ours, **({} if self._bind is None else {"AUTOSEG_BIND": self._bind})}

    def _answers(self) -> bool:
        """Wait until it answers; False when it ended because its port was taken."""
        listening = f"listening on {LOOPBACK}:{self.port}\n"  # whoever else answers there has not written this
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                written = self._written()
                if "EADDRINUSE" in written:
                    return False
                raise self._failure("NNI's manager ended at once")
            if listening in self._written():
                with suppress(ManagerFailed):
                    if isinstance(self.request("GET", "/check-status", seconds=5), dict):
                        threading.Thread(target=self._watch, name="nni-manager", daemon=True).start()
                        return True
            time.sleep(0.02)
        raise self._failure(f"NNI's manager did not answer within {_PATIENCE:.0f} seconds")

    def _written(self) -> str:
        """What it has written in this attempt, NNI's own log last."""
        text = b""
        for path, begin in self._logs.items():
            with suppress(OSError), path.open("rb") as file:
                file.seek(begin)
                text += file.read()
        return text.decode(errors="replace")

    def _failure(self, what: str) -> ManagerFailed:
        tail = self._written()[-_TAIL:].strip()
        return ManagerFailed(f"{what}{self._advice}. {self.log} ends with:\n{tail}")

    def _watch(self) -> None:
        """Wait for its end, then end the trials that it left behind."""
        self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.ended.set()

    def kill(self) -> None:
        """End it and its trials at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def request(self, method: str, path: str, body: Any = None, *, seconds: float = 20.0) -> Any:
        """Ask its REST server.

        Args:
            method: HTTP method.
            path: Route after ``/api/v1/nni``.
            body: JSON to send.
            seconds: How long to wait for the answer.

        Returns:
            The JSON of the answer; None when it is empty, text when it is not JSON.

        Raises:
            ManagerFailed: It does not answer, or with an error.
        """
        connection = HTTPConnection(LOOPBACK, self.port, timeout=seconds)
        headers = {"content-type": "application/json", "x-autoseg-token": self.token, "connection": "close"}
        try:
            content = None if body is None else json.dumps(body, allow_nan=False)
            connection.request(method, "/api/v1/nni" + path, content, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise ManagerFailed(f"NNI's manager does not answer {method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ManagerFailed(f"NNI's manager refuses {method} {path}: {answer.status} {text[:_TAIL]}")
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text
