"""One NNI experiment under our care: started, served on 127.0.0.1, stopped without anything left behind.

NNI's own launcher is not used: it writes into the home folder, and its manager listens everywhere and outlives
its parent. The same manager is started here with a guard (guard.js) and with its home folder in the run folder.
"""

from __future__ import annotations

import json
import logging
import secrets
import string
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoseg.errors import Problem, UserError
from autoseg.nnibridge.experiment_json import experiment_json
from autoseg.nnibridge.node import ManagerFailed, Node
from autoseg.nnibridge.page import Page, settle_trials
from autoseg.nnibridge.ports import LOOPBACK
from autoseg.runfolder import write_text

log = logging.getLogger(__name__)

__all__ = ["Manager", "ManagerFailed"]


class Manager:
    """A manager with one experiment; made by :meth:`start` or :meth:`view`.

    Attributes:
        url: The page.
        port: Its port on 127.0.0.1.
        experiment: NNI's id of the experiment.
        folder: Folder of the experiment.
        pid: Process id; also the id of the process group of the manager and its local trials.
        token: What the tuner channel needs to be let in.
        stopping: Whether :meth:`stop` was called.
        ended: Set when manager and local trials are gone.
    """

    def __init__(self, node: Node, folder: Path, experiment: str) -> None:
        self._node, self._root = node, folder
        self.port, self.pid, self.token, self.ended = node.port, node.pid, node.token, node.ended
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.experiment, self.folder = experiment, folder / experiment
        self.stopping = False
        self._stop_once = threading.Lock()
        self._page = Page(self.url, self.port, experiment, self.pid)
        self._page.write(folder)

    @classmethod
    def start(
        cls,
        folder: Path,
        name: str,
        *,
        slots: int,
        trial_command: str,
        code: Path,
        port: int | None = None,
        bind: str | None = None,
        service: dict[str, Any] | None = None,
        search_space: dict[str, Any] | None = None,
    ) -> Manager:
        """Start an experiment without trials; connect a :class:`~autoseg.nnibridge.channel.TrialChannel` next.

        NNI gives an experiment up whose tuner channel is not connected within 10 seconds.

        Args:
            folder: Where the experiments of the run are, ``RUN/nni``.
            name: Name of the experiment, shown in the page.
            slots: Trials at a time.
            trial_command: Shell command of a trial.
            code: Folder in which local trials start, or that is copied to the workers.
            port: Where to look for a free pair of ports first; 8080 when None.
            bind: An address of this machine beside 127.0.0.1 on which workers reach the manager.
            service: Canonical JSON of an NNI training service; None is this machine.
            search_space: Shown in the page, in NNI's form; None shows what kinds of trials there are.

        Returns:
            The manager, whose page answers.

        Raises:
            UserError: ``bind`` is not an address of this machine.
            ManagerFailed: NNI's manager could not be started.
        """
        folder, experiment = folder.resolve(), _new_id()
        node = Node(folder, experiment, "create", port=port, bind=bind, needed=service is not None)
        try:
            config = experiment_json(
                name,
                slots=slots,
                trial_command=trial_command,
                code=code.resolve(),
                folder=folder,
                service=service,
                search_space=search_space,
            )
            _register(folder, experiment, node, name)
            node.request("POST", "/experiment", config, seconds=60)
            return cls(node, folder, experiment)
        except BaseException:
            node.kill()
            raise

    @classmethod
    def view(cls, folder: Path, experiment: str, port: int | None = None) -> Manager:
        """Serve the page of an experiment that has ended or was killed, for reading.

        Args:
            folder: Where the experiments of the run are, ``RUN/nni``.
            experiment: NNI's id of it.
            port: Where to look for a free pair of ports first; 8080 when None.

        Returns:
            The manager, whose page answers.

        Raises:
            UserError: There is no such experiment.
            ManagerFailed: NNI's manager could not be started.
        """
        folder = folder.resolve()
        if not (folder / experiment / "db" / "nni.sqlite").is_file():
            fix = "check that the run had NNI's page, and that its nni folder is whole"
            raise UserError(Problem(f"there is no NNI experiment {experiment!r}", str(folder), fix))
        settle_trials(folder, experiment)
        node = Node(folder, experiment, "view", port=port, needed=True)
        try:
            _register(folder, experiment, node, experiment)
            node.request("POST", "/experiment", {}, seconds=60)
            return cls(node, folder, experiment)
        except BaseException:
            node.kill()
            raise

    @property
    def alive(self) -> bool:
        """Whether the manager runs."""
        return not self.ended.is_set()

    def trial(self, trial_id: str) -> dict[str, Any]:
        """What NNI knows about a trial, such as ``status``, ``logPath`` and ``finalMetricData``.

        Raises:
            ManagerFailed: The manager is gone, or knows no such trial.
        """
        found = self._node.request("GET", f"/trial-jobs/{trial_id}")
        if not isinstance(found, dict):
            raise ManagerFailed(f"NNI knows no trial {trial_id}")
        return found

    def trials(self) -> list[dict[str, Any]]:
        """What NNI knows about all trials.

        Raises:
            ManagerFailed: The manager is gone.
        """
        found = self._node.request("GET", "/trial-jobs")
        return found if isinstance(found, list) else []

    def status(self) -> str:
        """NNI's word for the state of the experiment, such as ``RUNNING`` or ``ERROR``.

        Raises:
            ManagerFailed: The manager is gone.
        """
        found = self._node.request("GET", "/check-status")
        return str(found.get("status", "")) if isinstance(found, dict) else ""

    def set_concurrency(self, n: int) -> None:
        """Let ``n`` trials run at a time from now on.

        Raises:
            ManagerFailed: The manager is gone, the experiment is only viewed, or ``n`` is not within 1 to 1024.
        """
        change = {"params": {"trialConcurrency": n}}
        self._node.request("PUT", "/experiment?update_type=TRIAL_CONCURRENCY", change)

    def stop(self, patience: float = 5.0) -> None:
        """End the manager and its trials; calls after the first only wait for that.

        Args:
            patience: Seconds for NNI's own way: trials are cancelled, the database is closed. Then all are killed.
        """
        self.stopping = True
        with self._stop_once:
            deadline = time.monotonic() + patience
            if self.alive:
                with suppress(ManagerFailed):
                    self._node.request("DELETE", "/experiment", seconds=max(0.1, patience))
            if not self.ended.wait(max(0.0, deadline - time.monotonic())):
                log.info("NNI's manager did not stop within %.0f s and is killed", patience)
                self._node.kill()
            self.ended.wait()
            self._page.remove(self._root)


def _new_id() -> str:
    """An id like NNI's own."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(8))


def _register(folder: Path, experiment: str, node: Node, name: str) -> None:
    """The list of experiments that NNI looks up in its home folder; ours has this one alone."""
    entry = {
        "id": experiment,
        "port": node.port,
        "startTime": int(time.time() * 1000),
        "endTime": "N/A",
        "status": "INITIALIZED",
        "platform": "local",
        "experimentName": name,
        "tag": [],
        "pid": node.pid,
        "webuiUrl": [],
        "logDir": str(folder),
        "prefixUrl": None,
    }
    write_text(folder / "home" / "nni-experiments" / ".experiment", json.dumps({experiment: entry}, indent=4))
