"""The run folder: nothing half-written is ever taken for whole, and nobody else's files are touched."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoseg.errors import UserError
from autoseg.runfolder import Journal, RunFolder, journal_rows, read_json, write_atomic, write_json, write_text

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from autoseg.runfolder import write_atomic

def write(file):
    file.write(b"half of the new cont")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomic(Path(sys.argv[1]), write)
"""

HOLDS_THE_LOCK = """
import sys
from pathlib import Path
from autoseg.runfolder import RunFolder

with RunFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def problem(do: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        do()
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].fix
    return str(caught.value)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.txt"
    assert write_text(path, "old") == path
    write_text(path, "néw\n")
    assert path.read_bytes() == b"n\xc3\xa9w\n"
    assert names(path.parent) == {"a.txt"}
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_the_old_file_stays_when_the_writer_raises(tmp_path: Path, error: BaseException) -> None:
    path = write_text(tmp_path / "a.txt", "old")

    def write(file) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_the_old_file_stays_when_the_process_is_killed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    path = write_text(folder.config, "old")
    ended = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (leftover,) = names(folder.path) - {"config.yaml"}
    assert leftover.startswith(".config.yaml.") and leftover.endswith(".part")
    deeper = write_text(folder.model("unet", 0) / ".weights.safetensors.x.part", "half")
    kept = write_text(folder.model("unet", 0) / "notes.part", "the user's")
    folder.open(resume=True)
    assert names(folder.path) == {"config.yaml", "models"}
    assert kept.exists() and not deeper.exists()


def test_a_kill_before_the_first_file_was_whole_leaves_a_folder_to_start_in(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in (".config.yaml.a1b2.part", ".lock", "log.txt"):
        (tmp_path / name).touch()
    folder.open(resume=False)
    assert names(tmp_path) == {".lock", "log.txt"}


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1.0, -math.inf]}])
def test_json_has_no_nan(tmp_path: Path, value: object) -> None:
    path = write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, value)
    assert read_json(path) == {"old": True}


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    assert "is missing" in problem(lambda: read_json(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text('{"miou": 0.')
    assert "is not JSON" in problem(lambda: read_json(tmp_path / "a.json"))
    (tmp_path / "a.json").write_bytes(b"\xff\xfe")
    assert "is not JSON" in problem(lambda: read_json(tmp_path / "a.json"))
    assert "cannot be read" in problem(lambda: read_json(tmp_path))


def epoch(number: int) -> dict[str, object]:
    return {"kind": "epoch", "epoch": number, "loss": 1 / (1 + number), "reward": None}


def candidate(**choices: object) -> dict[str, object]:
    return {"kind": "candidate", "choices": choices, "miou": 0.5}


def test_the_journal_is_append_only_and_knows_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "search" / "journal.jsonl"
    journal = Journal(path)
    assert journal.rows == [] and not path.exists()
    assert journal.append(epoch(0)) and journal.append(candidate(a=1, b=[2, 3]))
    before = path.read_bytes()
    assert not journal.append({**epoch(0), "loss": 9.0})  # work repeated after a kill
    assert not journal.append(candidate(b=[2, 3], a=1))
    assert path.read_bytes() == before
    again = Journal(path)
    assert again.rows == journal.rows == [epoch(0), candidate(a=1, b=[2, 3])]
    assert not again.append(epoch(0))
    assert again.append(epoch(1)) and again.append(candidate(a=1, b=[3, 2]))
    assert path.read_bytes().startswith(before)
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "epoch", "candidate", "epoch", "candidate",
    ]  # fmt: skip


@pytest.mark.parametrize("torn", ["{", '{"kind": "epoch", "epoch": 2, "loss": 0.1}', "é"])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append(epoch(0))
    journal.append(epoch(1))
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode()[:-1] + b"\xc3")
    again = Journal(path)
    assert again.rows == [epoch(0), epoch(1)]
    assert path.read_bytes() == whole
    again.append(epoch(2))
    assert Journal(path).rows == [epoch(0), epoch(1), epoch(2)]


def test_a_journal_of_one_torn_line_is_empty(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"kind": "ep')
    assert Journal(tmp_path / "journal.jsonl").rows == []


def test_who_only_looks_leaves_the_file_to_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert journal_rows(path) == [] and not path.exists()
    Journal(path).append(epoch(0))
    line = json.dumps(epoch(1))
    with path.open("a") as file:  # the writer is in the middle of a line
        file.write(line[:9])
        file.flush()
        before = path.read_bytes()
        assert journal_rows(path) == [epoch(0)] and path.read_bytes() == before
        file.write(line[9:] + "\n")
    assert journal_rows(path) == Journal(path).rows == [epoch(0), epoch(1)]


def test_the_journal_takes_no_nan_and_stays_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({**epoch(0), "loss": math.nan})
    assert journal.append(epoch(0))
    assert Journal(journal.path).rows == [epoch(0)]


@pytest.mark.parametrize("line", ["{]", "7", '{"epoch": 3}', "\0\0\0"])
def test_a_damaged_line_inside_the_journal_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{json.dumps(epoch(0))}\n{line}\n{json.dumps(epoch(1))}\n")
    text = problem(lambda: Journal(path))
    assert "line 2" in text and str(path) in text


def test_where_things_are(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.model("unet", 3) == tmp_path / "run/models/unet/seed-3"
    assert folder.journal == tmp_path / "run/search/journal.jsonl"
    assert not folder.path.exists()


def test_a_folder_that_is_in_use_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open(resume=False)
    folder.open(resume=False)  # it is there, but nothing was started
    write_text(folder.config, "name: a\n")
    text = problem(lambda: folder.open(resume=False))
    assert "already used by a run" in text and "--resume" in text
    folder.open(resume=True)
    assert folder.config.read_text() == "name: a\n"


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert "no run to resume" in problem(lambda: folder.open(resume=True))
    assert not folder.path.exists()


@pytest.mark.parametrize("resume", [False, True])
def test_foreign_files_are_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("dear reader")
    text = problem(lambda: RunFolder(tmp_path).open(resume))
    assert "not a run" in text and "--out" in text
    assert names(tmp_path) == {"thesis.tex"}


def test_a_file_is_not_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    assert "is a file, not a folder" in problem(lambda: RunFolder(tmp_path / "run").open(resume=False))
    assert "cannot be written" in problem(lambda: RunFolder(tmp_path / "run" / "inside").open(resume=False))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot be written" in problem(lambda: RunFolder(tmp_path / "run").open(resume=False))
        assert "cannot be written" in problem(lambda: RunFolder(tmp_path).open(resume=False))
    finally:
        tmp_path.chmod(0o700)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"

        def take() -> None:
            with folder.lock():
                pytest.fail("two processes hold the lock")

        assert "another process is working" in problem(take)
        other.kill()  # the lock does not outlive its holder, however that ends
        other.wait(10)
        with folder.lock():
            pass


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunFolder(tmp_path).lock():
        pass
    assert "Operation not supported" in caplog.text
