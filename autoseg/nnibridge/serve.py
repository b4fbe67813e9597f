"""Serving the web page of a run again, whether it is finished, was interrupted, or never had a page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from autoseg.errors import Problem, UserError
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.page import experiments, read_page, succeeded
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
        return
    shown = _view(folder, kept[-1], port) if kept and succeeded(folder.nni, kept[-1]) >= _results(folder) else None
    if shown:
        try:
            yield shown.url, shown.ended
        finally:
            shown.stop()
    else:
        with _from_results(folder, port) as manager:
            yield manager.url, manager.ended


def _results(folder: RunFolder) -> int:
    """How many jobs of a run have a result; the last experiment of a run that was resumed may not have them all."""
    candidates = len(list(folder.search.glob("trials/*.json")))
    searches = 0 if candidates else len([*folder.search.glob("found.json"), *folder.search.glob("seed-*/found.json")])
    return candidates + searches + len(list(folder.models.glob("*/seed-*/test.json")))


def _view(folder: RunFolder, experiment: str, port: int | None) -> Manager | None:
    """NNI's own view of an experiment; None when its files are damaged."""
    try:
        return Manager.view(folder.nni, experiment, port)
    except ManagerFailed as error:
        log.warning("experiment %s cannot be shown again, a page is made from the results: %s", experiment, error)
        return None


@contextmanager
def _from_results(folder: RunFolder, port: int | None) -> Iterator[Manager]:
    """A new page that shows the finished jobs of a run."""
    from autoseg.config import load_config
    from autoseg.nnibridge.crew import NniCrew  # torch with it
    from autoseg.plan import Plan
    from autoseg.progress import Progress

    here = ["compute={}", *([f"ui.port={port}"] if port else [])]
    plan = Plan.from_json(read_json(folder.plan))
    crew = NniCrew(folder, load_config(folder.config, here), plan, 1, Progress())
    try:
        if not crew.all_shown(_PATIENCE):
            log.warning("not all finished jobs could be put on the page")
        yield crew.manager
    finally:
        crew.stop()
