"""The run folder: every file a run leaves, written so that nothing half-written is taken for whole.

Files appear by rename after a flush to disk, so a file that exists is complete. The search journal is
append-only; a torn last line (power loss) is cut off when it is opened again. One process at a time works
in a run folder, which a lock file sees to.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from autoseg.errors import Problem, UserError

log = logging.getLogger(__name__)


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Write a file so that it is either the old one or the complete new one.

    Args:
        path: Target; missing folders are made.
        write: Called with an open binary file; when it raises, the old file stays.

    Returns:
        The path.

    Example:
        >>> path = write_atomic(Path(tempfile.mkdtemp()) / "new" / "a.bin", lambda file: file.write(b"ab"))
        >>> path.read_bytes(), [entry.name for entry in path.parent.iterdir()]
        (b'ab', ['a.bin'])
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    """Write bytes atomically."""
    return write_atomic(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> Path:
    """Write text atomically as UTF-8."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write JSON atomically.

    Raises:
        ValueError: There is a NaN or an infinity in it, which JSON does not have: write None.
        TypeError: There is something else in it that JSON does not have.

    Example:
        >>> read_json(write_json(Path(tempfile.mkdtemp()) / "a.json", {"miou": 0.5, "flops": None}))
        {'miou': 0.5, 'flops': None}
    """
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        UserError: The file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            Problem("is missing", str(path), "check that this is a run folder and the run got so far")
        ) from error
    except OSError as error:
        raise UserError(Problem(f"cannot be read ({error.strerror})", str(path), "check its permissions")) from error
    except ValueError as error:
        raise UserError(
            Problem(f"is not JSON ({error})", str(path), "restore it, or delete it and resume the run")
        ) from error


def journal_rows(path: Path) -> list[dict[str, Any]]:
    r"""The whole lines of a journal, oldest first; the file stays as it is, somebody may be writing.

    Args:
        path: The file; when it does not exist there are no rows.

    Raises:
        UserError: A whole line is not a JSON object with a ``"kind"``.

    Example:
        >>> path = write_text(Path(tempfile.mkdtemp()) / "journal.jsonl", '{"kind": "epoch"}\n{"ki')
        >>> journal_rows(path), path.read_text()[-4:]
        ([{'kind': 'epoch'}], '{"ki')
    """
    rows = []
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(_whole(content).splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or "kind" not in row:
            what = f"line {number} is not a line of a search journal"
            raise UserError(Problem(what, str(path), "delete that line, or start the run anew with --out"))
        rows.append(row)
    return rows


def _whole(content: bytes) -> bytes:
    """The lines that have an end."""
    return content[: content.rfind(b"\n") + 1]


class Journal:
    """An append-only file of JSON lines, one per epoch or candidate of a search.

    It is for whoever writes it, for a torn last line is cut off; others take :func:`journal_rows`.

    Args:
        path: The file; it is created on the first append.

    Attributes:
        rows: What is in the file, oldest first.

    Raises:
        UserError: A whole line is not a JSON object with a ``"kind"``.

    Example:
        >>> journal = Journal(Path(tempfile.mkdtemp()) / "journal.jsonl")
        >>> journal.append({"kind": "epoch", "epoch": 0})
        True
        >>> journal.append({"kind": "epoch", "epoch": 0}), len(journal.rows)
        (False, 1)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        whole = _whole(content)
        if len(whole) < len(content):  # a line without its end: the writer was killed
            with path.open("r+b") as file:
                file.truncate(len(whole))
        self.rows = journal_rows(path)
        self._keys = {self.key(row) for row in self.rows}

    @staticmethod
    def key(row: dict[str, Any]) -> str:
        """What makes a row unique: the epoch, or the choices of a candidate."""
        return json.dumps([row["kind"], row.get("epoch"), row.get("choices")], sort_keys=True)

    def append(self, row: dict[str, Any]) -> bool:
        """Add a row unless one with the same key is there (work repeated after a kill).

        Returns:
            Whether the row was added.
        """
        key = self.key(row)
        if key in self._keys:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write((json.dumps(row, allow_nan=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        self._keys.add(key)
        return True


class RunFolder:
    """Paths and guarded access for one run.

    Args:
        path: The folder; it need not exist.

    Example:
        >>> folder = RunFolder(Path("runs/ceramic"))
        >>> str(folder.model("unet", 0)), str(folder.journal)
        ('runs/ceramic/models/unet/seed-0', 'runs/ceramic/search/journal.jsonl')
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.plan = self.path / "plan.json"
        self.architecture = self.path / "architecture.json"
        self.search = self.path / "search"
        self.journal = self.search / "journal.jsonl"
        self.models = self.path / "models"
        self.comparison = self.path / "comparison.json"
        self.report = self.path / "report.html"
        self.failures = self.path / "failures.json"
        self.data = self.path / "data"
        self.nni = self.path / "nni"
        self.log = self.path / "log.txt"

    def model(self, name: str, seed: int) -> Path:
        """Folder of one training."""
        return self.models / name / f"seed-{seed}"

    def search_of(self, seed: int, number: int = 0) -> Path:
        """Folder of one search: ``search/`` for the first, ``search/seed-K/`` for repetitions with other seeds."""
        return self.search / f"seed-{seed}" if number else self.search

    def winning_search(self, architecture: Mapping[str, Any]) -> Path:
        """Folder of the search that found the architecture of the run, given the content of architecture.json."""
        repeated = self.search / f"seed-{architecture.get('search_seed')}"
        return repeated if repeated.is_dir() else self.search

    def open(self, resume: bool) -> None:
        """Create the folder, or check that it may be continued; remove what a kill left half-written.

        Another process may be writing just now: where the folder has a lock file, take :meth:`lock` first.

        Args:
            resume: Whether a run is to be continued in it.

        Raises:
            UserError: It holds a run and ``resume`` is False, it does not exist and ``resume`` is True, it
                holds something else, or it cannot be written.
        """
        started = self.config.exists()
        if resume and not self.path.exists():
            raise UserError(Problem("there is no run to resume", str(self.path), "leave out --resume to start one"))
        found = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        if self.path.exists() and not self.path.is_dir():
            raise UserError(Problem("is a file, not a folder", str(self.path), "choose another folder with --out"))
        if started and not resume:
            fix = "add --resume to continue it, or choose another folder with --out"
            raise UserError(Problem("the output folder is already used by a run", str(self.path), fix))
        # These alone are from a run that was killed at its first breath.
        ours = {name for name in found if name in (".lock", self.log.name) or _is_leftover(name)}
        if not started and found - ours:
            fix = "choose another folder with --out"
            raise UserError(Problem("the output folder holds files that are not a run", str(self.path), fix))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(
                Problem(
                    f"the output folder cannot be written ({error.strerror})",
                    str(self.path),
                    "choose another with --out",
                )
            ) from error
        self.sweep()

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written; nobody may be writing now."""
        for leftover in self.path.rglob("*.part"):
            if _is_leftover(leftover.name):
                leftover.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises:
            UserError: Another process is working in the folder.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    Problem("another process is working in this run folder", str(self.path), "wait for it, or stop it")
                ) from error
            except OSError as error:
                log.warning("this file system has no locks (%s): do not run twice in one folder", error.strerror)
            yield


def _is_leftover(name: str) -> bool:
    """Whether this is a temporary file of :func:`write_atomic`."""
    return name.startswith(".") and name.endswith(".part")
