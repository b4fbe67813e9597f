"""The crew whose jobs are NNI's trials: on its web page, on this machine or on others.

One run is one NNI experiment, and this process is its tuner: it submits every job as a trial with readable
parameters. Trials of this machine answer through a pipe of their own (:mod:`autoseg.nnibridge.forks`); what
trials of other machines have written is fetched when they end (:mod:`autoseg.nnibridge.remote`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from autoseg.config import ExperimentConfig
from autoseg.crew import Crew, JobFailed, Result, Ticket
from autoseg.errors import UserError
from autoseg.finished import Finished, finished_jobs
from autoseg.nnibridge.channel import TrialChannel
from autoseg.nnibridge.forks import Imported, TrialForks, TrialRequest
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.remote import Elsewhere
from autoseg.nnibridge.trial import final_figures
from autoseg.plan import Plan
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder
from autoseg.workers import take_message

log = logging.getLogger(__name__)

_LAST_WORDS = 4000  # characters
_SETTLING, _FETCHING = 3.0, 15.0  # seconds for the last words of trials, here and elsewhere
_WATCH = 5.0  # seconds between two questions to NNI's manager
_AT_A_TIME = 8  # finished jobs that are put on the page side by side


class NniCrew(Crew):
    """Has the jobs of a run done as trials of an NNI experiment; call :meth:`stop` in the end.

    Args:
        folder: The run folder, with config.yaml, plan.json and the packed data in it.
        config: The experiment.
        plan: Says how many jobs go side by side.
        threads: CPU threads of each job on this machine.
        progress: Receives the progress, and the address of the page.
        fallback: Makes the crew that goes on when NNI's manager is lost; None where the jobs need NNI.

    Attributes:
        manager: NNI's manager.

    Raises:
        ManagerFailed: The manager does not start.
        UserError: No other machine can be used.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: ExperimentConfig,
        plan: Plan,
        threads: int,
        progress: Progress,
        fallback: Callable[[], Crew] | None = None,
    ) -> None:
        super().__init__(plan.workers, progress)
        self.folder, self._fallback = folder, fallback
        self._substitute: Crew | None = None
        self._leaving, self._gone = False, ""  # whether, and why, NNI's manager is not there any more
        self._tickets: dict[int, Ticket] = {}
        self._to_show: deque[Finished] = deque()  # jobs that were done before,
        self._shown: dict[int, Finished] = {}  # and those of them that are on their way to the page
        self._ended = threading.Condition()
        self._forks: TrialForks | None = None
        self._elsewhere: Elsewhere | None = None
        self._fetching = ThreadPoolExecutor(max(1, plan.workers), thread_name_prefix="fetch")
        with ExitStack() as held:
            if config.compute.service == "local":
                self._forks = TrialForks(
                    folder.path, threads, self._on_message, imported=self._imported, groups=plan.gpus
                )
                held.callback(self._forks.stop)
                command, code, service = self._forks.command, folder.nni, None
            else:
                self._elsewhere = Elsewhere(folder, config, self.progress)
                held.callback(self._elsewhere.stop)
                command, code, service = self._elsewhere.command, self._elsewhere.code, self._elsewhere.service
            port = None if config.ui.port == "auto" else int(config.ui.port)
            if self._elsewhere and self._elsewhere.port is not None:
                port = self._elsewhere.port  # the one that the machines have been seen to reach
            self.manager = Manager.start(
                folder.nni,
                config.name,
                slots=plan.workers,
                port=port,
                bind=config.compute.bind,
                service=service,
                trial_command=command,
                code=code,
            )
            held.callback(self.manager.stop)
            self._channel = TrialChannel(self.manager, self._on_metric, self._on_end, self._on_lost)
            held.callback(self._channel.close)
            threading.Thread(target=self._watch, name="nni-state", daemon=True).start()
            if self._elsewhere is None:
                self.show(finished_jobs(folder, plan, config))
            self._held = held.pop_all()
        self.progress.note(f"NNI's web page: {self.manager.url}")
        if config.compute.bind:
            reached = f"{config.compute.bind}:{self.manager.port}"
            self.progress.note(f"warning: NNI's manager can also be reached at {reached}, and asks for no password")

    def show(self, jobs: list[Finished]) -> None:
        """Put jobs that were done before on the page; nothing is done again.

        Args:
            jobs: The jobs and what they reported.
        """
        if jobs:
            self.manager.set_concurrency(self.slots + 2 * _AT_A_TIME)  # new jobs need not wait for these
            self._to_show.extend(jobs)
            self._show_more()

    def _show_more(self) -> None:
        """Submit as many finished jobs as are shown at a time."""
        with self._lock:
            while self._to_show and len(self._shown) < _AT_A_TIME:
                finished = self._to_show.popleft()
                self._shown[self._channel.submit(finished.job.to_json())] = finished
            if not self._shown:
                self.manager.set_concurrency(self.slots)

    def all_shown(self, timeout: float) -> bool:
        """Wait until all finished jobs are on the page; False when that takes too long."""
        with self._ended:
            return self._ended.wait_for(lambda: not (self._shown or self._to_show), timeout)

    def begin(self, ticket: Ticket) -> None:
        """Submit a trial."""
        with self._lock:
            if not self._gone:
                try:
                    self._tickets[self._channel.submit(ticket.job.to_json())] = ticket
                except ManagerFailed:  # which is about to be told, and the job then passed on
                    self._tickets[-1 - ticket.number] = ticket
                return
        self._pass_on(ticket)

    def stop(self) -> None:
        """End the experiment and all of its trials."""
        try:
            self._fetching.shutdown(wait=False, cancel_futures=True)
            if self._elsewhere:
                self._elsewhere.settle(_FETCHING)
            self._settle()
        finally:
            self._stopped = True
            self._channel.close()
            if self._forks:
                self._forks.stop()  # before the manager, which then has nothing to wait for
            self._held.close()
            if self._substitute:
                self._substitute.stop()

    def _settle(self) -> None:
        """Let NNI note the end of the trials whose jobs are done; it would call them cancelled."""

        def done() -> bool:
            return not any(ticket.future.done() for ticket in list(self._tickets.values()))

        with self._ended:
            if self.manager.alive and not self._ended.wait_for(done, _SETTLING):
                log.info("NNI has not noted the end of all trials")

    def _imported(self, request: TrialRequest) -> Imported | None:
        """Asked for every trial on this machine: what to show for a job that was done before."""
        with self._lock:
            finished = self._shown.get(request.sequence_id)
        return Imported(final_figures(finished.job, finished.result), finished.curve) if finished else None

    def _on_message(self, number: int, trial_id: str, kind: str, content: Any) -> None:
        """What a trial on this machine says."""
        ticket = self._tickets.get(number)
        if ticket is None or kind == "cancelled":  # of what ended it, the end of trial or manager tells
            return
        if kind == "lost":
            if self._tickets.pop(number, None):  # a new trial is about to stand for this job
                self.lost(ticket, content, log_tail=self._last_words(trial_id))
        elif kind == "failed":
            message, trace = content
            self.failed(ticket, JobFailed(f"{ticket.job} failed: {message}", trace))
        else:
            outcome = take_message(ticket.job, self.progress, kind, content)
            if isinstance(outcome, Exception):
                self.failed(ticket, outcome)
            elif outcome is not None:
                self.finished(ticket, outcome)

    def _last_words(self, trial_id: str) -> str:
        """What a trial on this machine wrote last to its standard error."""
        file = self.manager.folder / "environments" / "local-env" / "trials" / trial_id / "trial.stderr"
        try:
            return file.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
        except OSError:
            return ""

    def _on_metric(self, number: int, trial_id: str, kind: str, value: Any) -> None:
        """What a trial reports to NNI; from other machines it is all the progress there is."""
        ticket = self._tickets.get(number)
        if ticket and self._elsewhere and kind == "PERIODICAL" and isinstance(value, dict):
            self._elsewhere.told(ticket.job, value)

    def _on_end(self, number: int, trial_id: str, status: str) -> None:
        """NNI says that a trial has ended."""
        with self._ended:
            was_shown = self._shown.pop(number, None)
            ticket = self._tickets.pop(number, None)
            if was_shown:
                with suppress(ManagerFailed):
                    self._show_more()
            self._ended.notify_all()
        if ticket is None:
            return
        if self._elsewhere:
            with suppress(RuntimeError):  # the run is ending
                self._fetching.submit(self._collect, ticket, trial_id, status)
        elif status == "USER_CANCELED":
            self.failed(ticket, JobFailed(f"{ticket.job} was cancelled in NNI's web page"))
        else:  # no more than it has said itself, if it has said anything
            self.lost(ticket, f"its trial ended as {status}")

    def _collect(self, ticket: Ticket, trial_id: str, status: str) -> None:
        """Fetch what a trial on another machine has left."""
        assert self._elsewhere is not None
        try:
            outcome = self._elsewhere.collect(ticket.job, self.manager, trial_id, status)
        except Exception as error:
            log.exception("the results of %s could not be fetched", ticket.job)
            self.lost(ticket, f"its results could not be fetched ({error})")
            return
        if outcome.result is not None:
            self.finished(ticket, outcome.result)
        elif outcome.problems:
            self.failed(ticket, UserError(outcome.problems))
        elif outcome.lost:
            self.lost(ticket, outcome.lost)
        else:
            self.failed(ticket, JobFailed(f"{ticket.job} failed: {outcome.failed}", outcome.log))

    def _watch(self) -> None:
        """A manager that is there but has given its experiment up, as on a full disk, is as good as gone."""
        while not (self._stopped or self._leaving):
            with suppress(ManagerFailed):
                state = self.manager.status()
                if state in ("ERROR", "STOPPING", "STOPPED"):
                    self._on_lost(f"it reports the state {state}; see {self.manager.folder / 'log'}")
            time.sleep(_WATCH)

    def _on_lost(self, reason: str) -> None:
        """The manager is gone: go on without it where that is possible."""
        with self._lock:
            if self._stopped or self._leaving:
                return
            self._leaving = True
        log.warning("NNI's manager is gone: %s", reason)
        if self._forks:
            self._forks.stop()  # whose last words are still heard
        with self._lock:
            self._gone = reason
            tickets = [ticket for ticket in self._tickets.values() if ticket in self._running]
            self._tickets = {}
            if self._fallback is not None:
                self.progress.note(f"NNI's web page has stopped ({reason}); the run goes on without it")
                try:
                    self._substitute = self._fallback()
                except (OSError, EOFError):
                    log.exception("no worker processes could be started")
        for ticket in tickets:
            self._pass_on(ticket)

    def _pass_on(self, ticket: Ticket) -> None:
        """Have a job done without NNI's manager."""
        if self._substitute is None:
            given_up = self._elsewhere.given_up() if self._elsewhere else []
            self.gone("; ".join([f"NNI's manager has stopped ({self._gone})", *given_up]))
            return

        def passed(done: Future[Result]) -> None:
            error = done.exception()
            if error is None:
                self.finished(ticket, done.result())
            else:
                self.failed(ticket, error if isinstance(error, Exception) else JobFailed(str(error)))

        self._substitute.submit(ticket.job, ticket.rank).add_done_callback(passed)
