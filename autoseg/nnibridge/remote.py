"""Jobs on other machines: what is put there by ssh, NNI's settings, and what comes back.

Everything on a worker lies in one folder in the user's cache there, which is removed in the end: our code, the
packed data, and whatever NNI writes. NNI starts the trials; their results are fetched from here.
"""

from __future__ import annotations

import logging
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from autoseg.config import ExperimentConfig
from autoseg.errors import Problem, UserError, raise_if
from autoseg.job import Job
from autoseg.nnibridge.bundle import COMMAND, make_bundle
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.outcome import Outcome, read_outcome
from autoseg.nnibridge.services import SHARED, check_services, service_settings, shared_command
from autoseg.nnibridge.ssh import Login, SshFailed, check
from autoseg.nnibridge.worker import Worker
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, write_text

log = logging.getLogger(__name__)

_PORT = 8080  # where NNI's manager listens unless the user says otherwise
_ENDED = {"USER_CANCELED": "it was cancelled on NNI's page"}
_LOST = ("SYS_CANCELED", "EARLY_STOPPED", "UNKNOWN")

T = TypeVar("T")
R = TypeVar("R")


class Elsewhere:
    """The machines of a run, checked and given what they need at once; call :meth:`stop` in the end.

    Args:
        folder: The run folder, with config.yaml, plan.json and the packed data in it.
        config: The experiment.
        progress: Told of machines that cannot be used, and of what trials report.

    Attributes:
        command: How NNI starts a trial there.
        code: The folder that NNI sends along.
        service: NNI's training service, as its REST server takes it.

    Raises:
        UserError: No machine can be used, or the settings of Kubernetes are wrong.
    """

    def __init__(self, folder: RunFolder, config: ExperimentConfig, progress: Progress) -> None:
        raise_if(check_services(config))
        self.folder, self.config, self.progress = folder, config, progress
        self._told: set[str] = set()
        self._lock = threading.Lock()
        bundle = make_bundle(folder)
        self.workers: list[Worker] = []
        if config.compute.service == "remote":
            self.command, self.code = COMMAND, folder.nni / "sent"
            write_text(self.code / "README", "NNI sends this folder; what the trials need is on the machine already.\n")
            self.workers = self._equip(self._usable())
        else:
            self.command, self.code = shared_command(folder), bundle
            (bundle / "data").symlink_to(folder.data.resolve())
        machines = [(worker.login.machine, worker.programs) for worker in self.workers]
        self.service = service_settings(config, self.code, self.command, machines)

    def told(self, job: Job, figures: Mapping[str, float]) -> None:
        """A trial has reported figures of an epoch."""
        label = str(job)
        with self._lock:
            new = label not in self._told
            self._told.add(label)
        if new:
            self.progress.begin(label, 1)
        shown = [f"{name} {value:.3g}" for name, value in figures.items() if name in ("default", "loss")]
        self.progress.update(label, figures.get("progress", 0.0), ", ".join(shown).replace("default", "val mIoU"))

    def collect(self, job: Job, manager: Manager, trial: str, status: str) -> Outcome:
        """Fetch what a trial has left, and put its results into the run folder.

        Args:
            job: Its job.
            manager: NNI's manager, which knows where it was.
            trial: NNI's name of the trial.
            status: NNI's word for how it ended.
        """
        outcome = self._collect(job, manager, trial, status)
        with self._lock:
            open_still = str(job) in self._told
            self._told.discard(str(job))
        if open_still:
            self.progress.end(str(job), "done" if outcome.result is not None else "failed")
        return outcome

    def stop(self) -> None:
        """Remove our folders from the machines, as far as they can be reached."""

        def remove(worker: Worker) -> None:
            try:
                worker.remove()
            except SshFailed as error:
                log.warning("%s is left there: %s", worker.folder, error)

        _side_by_side(remove, self.workers)

    def _collect(self, job: Job, manager: Manager, trial: str, status: str) -> Outcome:
        if status in _ENDED:
            return Outcome(failed=_ENDED[status])
        if status in _LOST:
            return Outcome(lost="its machine was lost, or its process was killed there")
        if not self.workers:
            return read_outcome(self.folder.nni / SHARED / trial, job, self.folder)
        reasons = []
        with tempfile.TemporaryDirectory(dir=self.folder.nni, prefix="fetched-") as target:
            for number, worker in enumerate(self._likely_first(manager, trial)):
                place = Path(target, str(number))
                try:
                    if worker.fetch(trial, place):
                        return read_outcome(place, job, self.folder)
                except SshFailed as error:
                    reasons.append(str(error))
        return Outcome(lost="; ".join(reasons) or "no machine has its results")

    def _likely_first(self, manager: Manager, trial: str) -> list[Worker]:
        """All workers; first the one that NNI's numbers point to, which is right unless an agent was started anew."""
        try:
            place = str(manager.trial(trial).get("logPath", ""))
        except ManagerFailed:  # it has just ended; the results are there all the same
            place = ""
        numbers = re.search(r"worker(\d+)/trials/", place)
        likely = int(numbers[1]) - 1 if numbers else 0
        return sorted(self.workers, key=lambda worker: self.workers.index(worker) != likely)

    def _usable(self) -> list[Login]:
        """The machines that can work for us; what is wrong with the others is told."""
        compute, port = self.config.compute, self.config.ui.port
        manager = (compute.bind or "127.0.0.1", _PORT if port == "auto" else int(port))
        logins = [Login(machine, self.folder.nni / "known_hosts") for machine in compute.machines]
        found = _side_by_side(lambda login: check(login.machine, login.known_hosts, manager), logins)
        usable = [login for login, problems in zip(logins, found, strict=True) if not problems]
        problems = [problem for each in found for problem in each]
        if not usable:
            raise UserError(problems)
        for problem in problems:
            self.progress.note(f"left out: {problem.what} ({problem.fix})")
        return usable

    def _equip(self, logins: list[Login]) -> list[Worker]:
        """Give every machine what it needs; one that fails now is left out."""
        token = self.folder.nni / "token"
        if not token.exists():
            write_text(token, secrets.token_hex(6))
        share = -(-self.config.compute.slots // len(logins))

        def equip(login: Login) -> Worker | SshFailed:
            name = re.sub(r"[^\w.-]", "_", f"{token.read_text()}-{login.machine.host}-{login.machine.port}")
            try:
                return Worker.equip(login, self.folder, name, share)
            except SshFailed as error:
                return error

        found = _side_by_side(equip, logins)
        failed = [Problem(str(error), "compute.machines") for error in found if isinstance(error, SshFailed)]
        workers = [worker for worker in found if isinstance(worker, Worker)]
        if not workers:
            raise UserError(failed)
        for problem in failed:
            self.progress.note(f"left out: {problem.what}")
        return workers


def _side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results for all items, in their order."""
    with ThreadPoolExecutor(max(1, min(16, len(items)))) as pool:
        return list(pool.map(work, items))
