"""Jobs on other machines: what is put there by ssh, NNI's settings, and what comes back.

Everything on a worker lies in one folder in the user's cache there, which is removed in the end: our code, the
packed data, and whatever NNI writes. NNI starts the trials; their results are fetched from here.
"""

from __future__ import annotations

import atexit
import logging
import re
import secrets
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from autoseg.config import ExperimentConfig
from autoseg.errors import Problem, UserError, raise_if
from autoseg.job import Job
from autoseg.nnibridge.bundle import COMMAND, check_data, make_bundle
from autoseg.nnibridge.machinecheck import check, gpus_of, way_back
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.outcome import Outcome, read_outcome
from autoseg.nnibridge.services import SHARED, check_services, service_settings, shared_command
from autoseg.nnibridge.ssh import Login, SshFailed, UnsafeArchive
from autoseg.nnibridge.worker import Worker, side_by_side
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, write_text

log = logging.getLogger(__name__)

_ENDED = {"USER_CANCELED": "it was cancelled on NNI's page"}
_LOST = ("SYS_CANCELED", "EARLY_STOPPED", "UNKNOWN")
_PAUSES = (2.0, 5.0, 10.0, 20.0)  # seconds before results are asked for again
_SETTLING = 15.0  # seconds that results on their way get in the end
_GIVEN_UP = re.compile(r"^given up: (.*)$", re.MULTILINE)  # written by mend_remote.js


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
        port: Where NNI's manager is to listen, which the machines have tried; None where none was tried.

    Raises:
        UserError: No machine can be used, the data cannot be copied, or the settings of Kubernetes are wrong.
    """

    def __init__(self, folder: RunFolder, config: ExperimentConfig, progress: Progress) -> None:
        raise_if(check_services(config))
        self.folder, self.config, self.progress = folder, config, progress
        self._told: set[str] = set()
        self._lock = threading.Lock()
        self._still = threading.Condition()
        self._collecting = 0
        self._ending = threading.Event()
        self._unfetched: dict[str, set[Worker]] = {}  # by job: where its results may still be
        self._manager_log = folder.nni / "manager.log"
        self._read = self._manager_log.stat().st_size if self._manager_log.exists() else 0
        self._logins: list[Login] = []
        self.workers: list[Worker] = []
        self.port: int | None = None
        if config.compute.data == "copy":
            check_data(folder)
        bundle = make_bundle(folder)
        atexit.register(self.stop)  # for an interruption that hits the way out
        try:
            if config.compute.service == "remote":
                self.command, self.code = COMMAND, folder.nni / "sent"
                readme = "NNI sends this folder; what the trials need is on the machine already.\n"
                write_text(self.code / "README", readme)
                self._equip(self._usable())
            else:
                self.command, self.code = shared_command(folder), bundle
                (bundle / "data").symlink_to(folder.data.resolve())
            machines = [(worker.login.machine, worker.programs) for worker in self.workers]
            self.service = service_settings(config, self.code, self.command, machines)
        except BaseException:
            self.stop()
            raise

    def told(self, job: Job, figures: Mapping[str, float]) -> None:
        """A trial has reported figures of an epoch."""
        label = str(job)
        with self._lock:
            new = label not in self._told
            self._told.add(label)
        if new:
            self.given_up()
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
        self.given_up()
        with self._still:
            self._collecting += 1
        try:
            outcome = self._collect(job, manager, trial, status)
        finally:
            with self._still:
                self._collecting -= 1
                self._still.notify_all()
        with self._lock:
            open_still = str(job) in self._told
            self._told.discard(str(job))
        if open_still:
            self.progress.end(str(job), "done" if outcome.result is not None else "failed")
        return outcome

    def given_up(self) -> list[str]:
        """Machines that NNI's manager has given up since this was asked last, each with the reason; they are noted."""
        with self._lock:
            try:
                with self._manager_log.open("rb") as file:
                    file.seek(self._read)
                    written = file.read()
            except OSError:
                return []
            whole = written[: written.rfind(b"\n") + 1]
            self._read += len(whole)
        found = _GIVEN_UP.findall(whole.decode(errors="replace"))
        for each in found:
            self.progress.note(f"a machine is not used any more: {each}")
        return found

    def settle(self, seconds: float) -> bool:
        """Wait until all results that are on their way are here; False when that takes too long.

        None that failed on the way is asked for again from now on. :meth:`stop` does this too.
        """
        self._ending.set()
        with self._still:
            return self._still.wait_for(lambda: not self._collecting, seconds)

    def stop(self) -> None:
        """Remove our folders from the machines, as far as they can be reached, also after an interruption.

        A folder stays where it has finished results that could not be fetched; the log says so.
        """
        if self.workers:
            self.settle(_SETTLING)
        for login in self._logins:
            login.abort()
        with self._lock:
            kept = {worker: job for job, workers in self._unfetched.items() for worker in workers}

        def remove(worker: Worker) -> None:
            if worker in kept:
                place = f"{worker.folder}/home/nni-experiments/*/environments/*/trials/*/run"
                what = f"{worker} may still have finished results of {kept[worker]}: {place}"
                self.progress.note(f"{what}; copy them into {self.folder.path} before resuming, or they are made again")
                return
            try:
                worker.remove()
            except SshFailed as error:
                log.warning("our folder in the cache there is left: %s", error)

        if self.workers and threading.main_thread().is_alive():
            side_by_side(remove, self.workers)
        else:  # this process is on its way out and starts no more threads
            for worker in self.workers:
                remove(worker)
        self.workers = []
        atexit.unregister(self.stop)

    def _collect(self, job: Job, manager: Manager, trial: str, status: str) -> Outcome:
        if status in _ENDED:
            return Outcome(failed=_ENDED[status])
        if status in _LOST:
            return Outcome(lost="its machine was lost, or its process was killed there")
        if self.config.compute.service != "remote":
            return read_outcome(self.folder.nni / SHARED / trial, job, self.folder)
        workers = self._likely_first(manager, trial)
        if not workers:
            return Outcome(lost="the run has ended")
        try:
            return self._fetched(job, trial, workers)
        except OSError as error:
            fix = "make room or mend the permissions, then resume"
            what = f"the results of {job} cannot be written here: {error.strerror or error}"
            return Outcome(problems=[Problem(what, str(error.filename or self.folder.path), fix)])

    def _fetched(self, job: Job, trial: str, workers: list[Worker]) -> Outcome:
        """How a trial that has ended went; a machine that does not answer at once is asked again."""
        reasons: list[str] = []
        with self._lock:
            asked = self._unfetched.setdefault(str(job), set())
            asked.add(workers[0])
        with tempfile.TemporaryDirectory(dir=self.folder.nni, prefix="fetched-") as target:
            for attempt, pause in enumerate((0.0, *_PAUSES)):
                if attempt and (not reasons or self._ending.wait(pause)):
                    break
                reasons = []
                for number, worker in enumerate(workers):
                    place = Path(target, f"{attempt}-{number}")
                    try:
                        if worker.fetch(trial, place):
                            outcome = read_outcome(place, job, self.folder, str(worker))
                            self._fetched_all(job)
                            return outcome
                    except UnsafeArchive as error:
                        self._fetched_all(job)
                        return Outcome(failed=str(error))
                    except SshFailed as error:
                        reasons.append(str(error))
                        log.warning("fetching the results of %s, attempt %d: %s", job, attempt + 1, error)
        if not reasons:
            self._fetched_all(job)
        return Outcome(lost="; ".join(reasons) or "no machine has its results")

    def _fetched_all(self, job: Job) -> None:
        """Nothing of a job is left on any machine."""
        with self._lock:
            self._unfetched.pop(str(job), None)

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
        compute = self.config.compute
        self._logins = [Login(machine, self.folder.nni / "known_hosts") for machine in compute.machines]
        with way_back(compute.bind, self.config.ui.port) as manager:
            self.port = manager.port
            found = side_by_side(lambda login: check(login, manager, gpus_of(compute)), self._logins)
        usable = [login for login, problems in zip(self._logins, found, strict=True) if not problems]
        problems = [problem for each in found for problem in each]
        if not usable:
            raise UserError(problems)
        for problem in problems:
            self.progress.note(f"left out: {problem.what} ({problem.fix})")
        return usable

    def _equip(self, logins: list[Login]) -> None:
        """Give every machine what it needs; one that fails now is left out."""
        token = self.folder.nni / "token"
        if not token.exists():
            write_text(token, secrets.token_hex(6))
        share = -(-self.config.compute.slots // len(logins))

        def equip(worker: Worker) -> str:
            try:
                worker.equip(self.folder, share)
            except SshFailed as error:
                if not worker.login.aborted:
                    try:
                        worker.remove()
                    except SshFailed as failure:
                        log.warning("our folder in the cache there is left: %s", failure)
                return str(error)
            return ""

        for login in logins:
            where = re.sub(r"[^\w.-]", "_", f"{login.machine.host}-{login.machine.port}")
            self.workers.append(Worker(login, f"{token.read_text()}-{where}"))
        failed = side_by_side(equip, self.workers)
        problems = [Problem(reason, "compute.machines") for reason in failed if reason]
        self.workers = [worker for worker, reason in zip(self.workers, failed, strict=True) if not reason]
        if not self.workers:
            raise UserError(problems)
        for problem in problems:
            self.progress.note(f"left out: {problem.what}")
