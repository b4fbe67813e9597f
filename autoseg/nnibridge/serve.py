"""Serving the web page of a run again, whether it is finished, was interrupted, or never had a page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from autoseg.errors import Problem, UserError
from autoseg.nnibridge.manager import Manager
from autoseg.nnibridge.page import experiments, read_page
from autoseg.runfolder import RunFolder, read_json

log = logging.getLogger(__name__)

_PATIENCE = 120.0  # seconds to put finished jobs on a new page


@contextmanager
def served(folder: RunFolder, port: int | None = None) -> Iterator[tuple[str, threading.Event | None]]:
    """The page of a run, for as long as the context lasts.

    A page that is up already is left alone. The page of an experiment that has ended is NNI's own view of it;
    a run that was made without the page gets one from its results.

    Args:
        folder: The run folder.
        port: Where to look for a free pair of ports first; 8080 when None.

    Yields:
        The address, and an event that is set when the page goes away; None for a page that is not ours.

    Raises:
        UserError: It is not a run folder, or nothing in it is finished.
        ManagerFailed: NNI's manager does not start.
    """
    if not (folder.config.exists() and folder.plan.exists()):
        fix = "give the folder that autoseg run has written"
        raise UserError(Problem("is not a run folder", str(folder.path), fix))
    up, kept = read_page(folder.nni), experiments(folder.nni)
    if up:
        yield up.url, None
    elif kept:
        manager = Manager.view(folder.nni, kept[-1], port)
        try:
            yield manager.url, manager.ended
        finally:
            manager.stop()
    else:
        from autoseg.config import load_config
        from autoseg.nnibridge.crew import NniCrew  # torch with it
        from autoseg.plan import Plan
        from autoseg.progress import Progress

        crew = NniCrew(folder, load_config(folder.config), Plan.from_json(read_json(folder.plan)), 1, Progress())
        try:
            if not crew.all_shown(_PATIENCE):
                log.warning("not all finished jobs could be put on the page")
            yield crew.manager.url, crew.manager.ended
        finally:
            crew.stop()
