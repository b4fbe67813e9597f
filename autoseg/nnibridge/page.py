"""What a run folder tells about NNI's pages: which one is up now, and which experiments can be looked at again.

While a page is up, ``RUN/nni/page.json`` says where.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from autoseg.nnibridge.ports import LOOPBACK
from autoseg.runfolder import write_json

_FILE = "page.json"


@dataclass(frozen=True)
class Page:
    """A page that is up.

    Attributes:
        url: Where to look.
        port: Its port on 127.0.0.1.
        experiment: NNI's id of the experiment.
        pid: Process id of the manager that serves it.
    """

    url: str
    port: int
    experiment: str
    pid: int

    def write(self, folder: Path) -> None:
        """Say so in the folder of the experiments."""
        write_json(folder / _FILE, asdict(self))

    def remove(self, folder: Path) -> None:
        """Take it back, unless another page has come up since."""
        if read_page(folder, alive=False) == self:
            (folder / _FILE).unlink(missing_ok=True)


def read_page(folder: Path, *, alive: bool = True) -> Page | None:
    """The page of a run that is up.

    Args:
        folder: The folder of the experiments, ``RUN/nni``.
        alive: Whether only a page counts that answers.

    Returns:
        The page; None when there is none.

    Example:
        >>> read_page(Path("no/such/folder")) is None
        True
    """
    try:
        page = Page(**json.loads((folder / _FILE).read_text(encoding="utf-8")))
        return page if not alive or _shown_at(page.port) == page.experiment else None
    except (OSError, HTTPException, ValueError, TypeError, AttributeError):
        return None


def _shown_at(port: int) -> object:
    """Id of the experiment that a manager at this port shows."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        connection.request("GET", "/api/v1/nni/experiment")
        return json.loads(connection.getresponse().read()).get("id")


def experiments(folder: Path) -> list[str]:
    """Ids of the experiments in a folder that have trials to look at, the latest last.

    Example:
        >>> experiments(Path("no/such/folder"))
        []
    """
    found = sorted(folder.glob("*/db/nni.sqlite"), key=lambda path: path.stat().st_ctime_ns)
    return [path.parent.parent.name for path in found]


def succeeded(folder: Path, experiment: str) -> int:
    """How many trials of an experiment have succeeded; 0 when its database cannot be read."""
    select = "select count(distinct trialJobId) from TrialJobEvent where event = 'SUCCEEDED'"
    with suppress(sqlite3.Error), closing(_database(folder, experiment)) as database:
        return int(database.execute(select).fetchone()[0])
    return 0


def _database(folder: Path, experiment: str) -> sqlite3.Connection:
    return sqlite3.connect(folder / experiment / "db" / "nni.sqlite", timeout=2)


def settle_trials(folder: Path, experiment: str) -> int:
    """Mark the trials that never ended, because their run was stopped or killed, as cancelled by the system.

    NNI would show them as running for ever. They end when the last was heard of them.

    Returns:
        How many there were; 0 also when the database cannot be written.
    """
    select = """
        select e.trialJobId, e.logPath, e.sequenceId, e.environmentId, (
            select max(t) from (
                select timestamp as t from TrialJobEvent where trialJobId = e.trialJobId
                union all select timestamp from MetricData where trialJobId = e.trialJobId))
        from TrialJobEvent e
        where e.event in ('WAITING', 'RUNNING', 'UNKNOWN') and e.rowid = (
            select max(rowid) from TrialJobEvent where trialJobId = e.trialJobId)"""
    insert = """
        insert into TrialJobEvent (event, trialJobId, logPath, sequenceId, environmentId, timestamp)
        values ('SYS_CANCELED', ?, ?, ?, ?, ?)"""
    with (
        suppress(sqlite3.Error),
        closing(_database(folder, experiment)) as database,
        database,
    ):
        rows = database.execute(select).fetchall()
        database.executemany(insert, rows)
        return len(rows)
    return 0
