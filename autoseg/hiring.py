"""Which crew does the jobs of a run: this process alone, worker processes, or NNI's trials here and elsewhere."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from autoseg.crew import Alone, Crew, Result
from autoseg.data.packed import is_packed, pack
from autoseg.job import Job
from autoseg.jobs import do_job
from autoseg.nnibridge.crew import NniCrew
from autoseg.nnibridge.manager import ManagerFailed
from autoseg.plan import Plan
from autoseg.prepare import Prepared
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder
from autoseg.workers import Workers

log = logging.getLogger(__name__)


def hire(folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> Crew:
    """The crew for a run.

    With the web page on, or with other machines, the jobs are NNI's trials; a page that cannot be started
    stops no run on this machine. Processes other than this one get the checked data from the run folder.

    Args:
        folder: The run folder.
        prepared: The checked experiment.
        plan: Says how many jobs go side by side.
        progress: Receives the progress, and the address of the page.

    Raises:
        UserError: No other machine can be used.
        ManagerFailed: NNI's manager does not start, and the jobs are for other machines.
    """
    config = prepared.config
    here = config.compute.service == "local"
    threads = max(1, prepared.compute.threads // (plan.workers * config.compute.devices))
    pool = partial(Workers, plan.workers, folder.path, threads, progress, plan.gpus)
    if config.ui.enabled or not here:
        pack_data(folder, prepared)
        try:
            return NniCrew(folder, config, plan, threads, progress, pool if here else None)
        except ManagerFailed as error:
            if not here:
                raise
            progress.note(f"The run goes on without NNI's web page: {error}")
    if plan.workers == config.compute.devices == 1:

        def work(job: Job, shown: Progress) -> Result:
            return do_job(job, folder, prepared, plan, shown)

        return Alone(work, progress)
    pack_data(folder, prepared)
    return pool()


def pack_data(folder: RunFolder, prepared: Prepared) -> Path:
    """Put the checked data where other processes find them, unless they are there or do not fit on the disk."""
    if not is_packed(folder.data):
        try:
            pack(prepared.data, folder.data)
        except OSError as error:
            log.warning("the data are read anew by each process (%s)", error)
    return folder.data
