"""The run folder: every file a run leaves, written so that nothing half-written is taken for whole.

Files appear by rename after a flush to disk, so a file that exists is complete. The search journal is
append-only; a torn last line (power loss) is cut off when it is opened again. States of searches and
trainings are trees of tensors and plain values in one safetensors file: no pickle is ever read here.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from autoseg.errors import Problem, UserError


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Write a file so that it is either the old one or the complete new one.

    Args:
        path: Target; missing folders are made.
        write: Called with an open binary file.

    Returns:
        The path.
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
    """Write JSON atomically; NaN is refused, because JSON has none."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        UserError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            Problem("is missing", str(path), "check that this is a run folder and the run got so far")
        ) from error
    except ValueError as error:
        raise UserError(
            Problem(f"is not JSON ({error})", str(path), "restore it, or delete it and resume the run")
        ) from error


class Journal:
    """An append-only file of JSON lines, one per epoch or candidate of a search.

    Args:
        path: The file; it is created on the first append.

    Example:
        >>> journal = Journal(Path(tempfile.mkdtemp()) / "journal.jsonl")
        >>> journal.append({"kind": "epoch", "epoch": 0})
        True
        >>> journal.append({"kind": "epoch", "epoch": 0}), len(journal.rows)
        (False, 1)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self._read()

    def _read(self) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # a line without its end: the writer was killed
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        self.rows = [json.loads(line) for line in whole.splitlines()]

    @staticmethod
    def key(row: dict[str, Any]) -> str:
        """What makes a row unique: the epoch, or the choices of a candidate."""
        return json.dumps([row["kind"], row.get("epoch"), row.get("choices")], sort_keys=True)

    def append(self, row: dict[str, Any]) -> bool:
        """Add a row unless one with the same key is there (work repeated after a kill).

        Returns:
            Whether the row was added.
        """
        if any(self.key(row) == self.key(old) for old in self.rows):
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write((json.dumps(row, allow_nan=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(row)
        return True


class RunFolder:
    """Paths and guarded access for one run.

    Args:
        path: The folder.
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
        self.log = self.path / "log.txt"

    def model(self, name: str, seed: int) -> Path:
        """Folder of one training."""
        return self.models / name / f"seed-{seed}"

    def open(self, resume: bool) -> None:
        """Create the folder, or check that it may be continued.

        Raises:
            UserError: It is in use and ``resume`` is False, it holds something else, or it cannot be written.
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
        if not started and found - {".lock", self.log.name}:  # these two alone: a run killed at its first breath
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
        for leftover in self.path.rglob(".*.part"):  # a write that a kill cut short
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
            except OSError as error:
                raise UserError(
                    Problem("another process is working in this run folder", str(self.path), "wait for it, or stop it")
                ) from error
            yield
