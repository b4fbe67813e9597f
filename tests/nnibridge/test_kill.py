"""Kills with NNI's page on: whatever ends, nothing is left running, nothing is done twice, and the run ends the same.

These are whole runs in processes of their own, with trials side by side; they take a minute and more.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from processes import Child, Server, session_members, wait_for
from tiny_experiment import comparison_of, write_experiment

CHANGES: dict[str, Any] = {
    "strategy": {"name": "evolution", "options": {"trials": 8, "epochs": 2, "population": 4, "tournament": 2}},
    "train": {"epochs": 3, "batch": 4},
    "compute": {"workers": 2, "device": "cpu"},
}
LABELS = ("searched", "unet", "random")
ORPHANED = 15.0  # seconds after which nothing may be left

Results = dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as forking:
        yield forking


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("experiment") / "tiny.yaml", **CHANGES, ui={"enabled": True})


@pytest.fixture(scope="module")
def whole(server: Server, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the experiment, done without the page and without a disturbance."""
    run = tmp_path_factory.mktemp("whole") / "run"
    child = server.start("run", experiment, "--no-ui", "--out", run)
    assert child.wait() == 0, child.output
    assert not (run / "nni").exists()
    return run


def mentioning(text: str) -> list[int]:
    """Running processes that have a text in their command or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text.encode() in told and state not in "ZX":
                found.append(int(entry.name))
    return found


def processes_of(run: Path, child: Child) -> set[int]:
    """Every process of a run: its session, and whatever was told its folder."""
    return {*session_members(child.pid), *mentioning(str(run))} - {child.server.process.pid}


def seconds_until_gone(run: Path, child: Child, limit: float = ORPHANED) -> float:
    """How long the processes of a run outlive it; it is an error when that is too long."""
    begin = time.monotonic()
    while left := processes_of(run, child):
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in left if Path(f"/proc/{pid}").exists()}
        assert time.monotonic() - begin < limit, commands
        time.sleep(0.05)
    return time.monotonic() - begin


def results(run: Path) -> Results:
    """The results of a run so far: inode and content of each file, which writing it again would change."""
    files = [*run.glob("search/trials/*.json"), *run.glob("models/*/seed-*/test.json")]
    return {str(file.relative_to(run)): (file.stat().st_ino, file.read_bytes()) for file in files}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "search" / "journal.jsonl").read_text().splitlines()]


def assert_ended_the_same(run: Path, whole: Path) -> None:
    assert comparison_of(run) == comparison_of(whole)
    told = [
        [(row["kind"], row.get("number"), row.get("choices"), row.get("miou")) for row in lines(x)]
        for x in (run, whole)
    ]
    assert told[0] == told[1]
    assert [row.get("number") for row in lines(run)] == [None, *range(8)]
    assert results(run).keys() == results(whole).keys() and len(results(run)) == 8 + 2 * len(LABELS)
    assert (run / "report.html").exists() and not (run / "failures.json").exists()
    assert not list(run.rglob("*.safetensors.*")) and not list(run.glob("search/trial-*.safetensors"))


def page_is_up(run: Path, child: Child, after: int = 0) -> int:
    """Wait for the page of a run, one that came after a moment; its own moment (ns)."""
    page = run / "nni" / "page.json"
    assert wait_for(lambda: page.exists() and page.stat().st_mtime_ns > after, child.alive), child.output
    return page.stat().st_mtime_ns


def results_come(run: Path, child: Child, enough: int) -> None:
    """Wait until a run has so many results."""
    assert wait_for(lambda: len(results(run)) >= enough, child.alive, 0.02), child.output


def test_five_kills_in_one_run(server: Server, experiment: Path, whole: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(5)
    before: Results = {}
    outlived, page = [], 0
    for kill in range(5):
        child = server.start("run", experiment, "--out", run, *(["--resume"] if kill else []))
        early = kill == 1  # in its first steps
        if not early:
            page, enough = page_is_up(run, child, page), len(before) + rng.randint(1, 2)
            results_come(run, child, enough)
        time.sleep(rng.uniform(0.2, 1.5))
        assert child.kill() == -signal.SIGKILL, child.output
        outlived.append(seconds_until_gone(run, child, ORPHANED))
        now = results(run)
        assert {name: now[name] for name in before} == before
        before = now
    child = server.start("run", experiment, "--out", run, "--resume")
    assert child.wait() == 0, child.output
    now = results(run)
    assert {name: now[name] for name in before} == before and len(before) < len(now)
    assert_ended_the_same(run, whole)
    outlived.append(seconds_until_gone(run, child))
    print(
        f"processes outlived their run by {max(outlived):.1f} s at most", [round(x, 1) for x in outlived], len(before)
    )


def fork_server(child: Child) -> int:
    """The process that trials are forked from."""
    (server,) = [pid for pid in session_members(child.pid) if parent(pid) == child.pid and "forkserver" in command(pid)]
    return server


def trials(child: Child) -> list[int]:
    """Processes in which trials run, or workers."""
    server = fork_server(child)
    return [pid for pid in session_members(child.pid) if parent(pid) == server]


def command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return -1


def one_more(run: Path, child: Child) -> None:
    """Wait for another result, and then for a trial at work."""
    results_come(run, child, len(results(run)) + 1)
    assert wait_for(lambda: trials(child), child.alive), child.output


def resume_command(child: Child) -> list[str]:
    told = re.search(r"The state is saved; continue with\n  autoseg (run .*--resume)$", child.output, re.MULTILINE)
    assert told is not None and "Traceback" not in child.output, child.output
    return shlex.split(told[1])


def test_signals_end_everything_and_the_run_survives_the_death_of_each_of_its_helpers(
    server: Server, experiment: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    child = server.start("run", experiment, "--out", run)
    one_more(run, child)
    os.killpg(child.pid, signal.SIGINT)  # Ctrl-C
    assert child.wait() == 130, child.output
    outlived = [seconds_until_gone(run, child)]
    before = results(run)

    child = server.start(*resume_command(child))
    one_more(run, child)
    assert child.kill(signal.SIGTERM) == 130, child.output
    outlived.append(seconds_until_gone(run, child))

    child = server.start(*resume_command(child))
    one_more(run, child)
    os.kill(trials(child)[0], signal.SIGKILL)
    one_more(run, child)
    os.kill(fork_server(child), signal.SIGKILL)
    results_come(run, child, len(results(run)) + 2)
    os.kill(json.loads((run / "nni" / "page.json").read_text())["pid"], signal.SIGKILL)
    assert child.wait() == 0, child.output
    outlived.append(seconds_until_gone(run, child))
    assert "its process was killed, most likely because memory ran out; it is tried again" in child.output
    assert child.output.count("NNI's web page has stopped (NNI's manager has ended unexpectedly); the run goes on") == 1
    now = results(run)
    assert before and {name: now[name] for name in before} == before
    assert_ended_the_same(run, whole)
    print("processes outlived signals by", [round(x, 1) for x in outlived], "s")
