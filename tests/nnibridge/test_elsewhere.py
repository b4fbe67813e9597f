"""What is put on other machines and fetched from them: hiccups, interruptions, and what is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from sshd import Sshd
from test_remote import Notes, experiment, machines, run_folder, wait_for

from autoseg.config import load_config
from autoseg.errors import UserError
from autoseg.job import Job
from autoseg.nnibridge import remote, worker
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.outcome import Outcome
from autoseg.nnibridge.remote import Elsewhere
from autoseg.nnibridge.ssh import Login, SshFailed
from autoseg.progress import Progress
from autoseg.runfolder import read_json, write_json, write_text

__all__ = ["machines"]  # a fixture


def equipped(path: Path, machine: Sshd, progress: Progress | None = None) -> Elsewhere:
    folder = run_folder(path, experiment([machine]))
    return Elsewhere(folder, load_config(folder.config), progress or Progress())


def leave(elsewhere: Elsewhere, trial: str, **outcome: Any) -> None:
    """What a finished trial leaves on a machine."""
    (place,) = elsewhere.workers
    output = Path(place.folder, "home", "nni-experiments", "x", "environments", "remote-worker1", "trials", trial)
    write_json(output / "outcome.json", outcome or {"result": {"miou": 0.5}})
    write_json(output / "run" / "search" / "trials" / "3.json", {"miou": 0.5})


class NoManager:
    def trial(self, trial: str) -> dict[str, Any]:
        raise ManagerFailed("gone")


CANDIDATE, NO_MANAGER = Job("candidate", number=3), cast(Manager, NoManager())


def test_a_hiccup_does_not_cost_finished_results(
    tmp_path: Path, machines: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = equipped(tmp_path / "run", machines[0])
    monkeypatch.setattr(remote, "_PAUSES", (0.1,) * 4)
    fetch, attempts = Login.fetch, list[int]()

    def shaky(login: Login, *arguments: Any, **more: Any) -> None:
        attempts.append(1)
        if len(attempts) < 5:
            raise SshFailed("connection reset by peer", 255)
        fetch(login, *arguments, **more)

    monkeypatch.setattr(Login, "fetch", shaky)
    leave(elsewhere, "t1")
    outcome = elsewhere.collect(CANDIDATE, NO_MANAGER, "t1", "SUCCEEDED")
    assert outcome.result == {"miou": 0.5} and len(attempts) == 5
    assert read_json(tmp_path / "run" / "search" / "trials" / "3.json") == {"miou": 0.5}
    lost = elsewhere.collect(CANDIDATE, NO_MANAGER, "t2", "SUCCEEDED")  # which nobody has: no need to ask again
    assert lost.lost == "no machine has its results" and len(attempts) == 6
    leave(elsewhere, "t3", problems=[{"what": "there is no GPU"}])
    (problem,) = elsewhere.collect(CANDIDATE, NO_MANAGER, "t3", "FAILED").problems
    assert problem.what == f"on {elsewhere.workers[0]}: there is no GPU"
    elsewhere.stop()
    assert not (machines[0].cache / "autoseg").exists()


def test_results_that_could_not_be_fetched_stay_there(
    tmp_path: Path, machines: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    elsewhere = equipped(tmp_path / "run", machines[0], notes)
    monkeypatch.setattr(remote, "_SETTLING", 0.5)
    monkeypatch.setattr(worker, "_FETCH", "sleep 30")
    leave(elsewhere, "t1")
    answers: list[Outcome] = []
    thread = threading.Thread(
        target=lambda: answers.append(elsewhere.collect(CANDIDATE, NO_MANAGER, "t1", "SUCCEEDED"))
    )
    thread.start()
    wait_for("the fetching", lambda: elsewhere._collecting, 10)
    time.sleep(0.5)
    began = time.monotonic()
    elsewhere.stop()
    thread.join()
    assert time.monotonic() - began < 5 and "it was interrupted" in answers[0].lost
    (there,) = (machines[0].cache / "autoseg").iterdir()
    assert len(list(there.glob("home/nni-experiments/*/environments/*/trials/t1/run/search/trials/3.json"))) == 1
    (note,) = notes.notes
    assert "may still have finished results of candidate 4" in note and str(there) in note


def test_a_disk_that_is_full_here_is_told(
    tmp_path: Path, machines: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = equipped(tmp_path / "run", machines[0])

    def full(*arguments: Any) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", "/full")

    monkeypatch.setattr(worker.Worker, "fetch", full)
    (problem,) = elsewhere.collect(CANDIDATE, NO_MANAGER, "t1", "SUCCEEDED").problems
    assert (problem.where, "resume" in problem.fix) == ("/full", True)
    assert problem.what == "the results of candidate 4 cannot be written here: No space left on device"
    elsewhere.stop()
    assert len(list((machines[0].cache / "autoseg").iterdir())) == 1


def test_an_interruption_ends_the_copying_and_leaves_nothing(
    tmp_path: Path, machines: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_EQUIP", worker._EQUIP.replace("tar -xf -\n", "tar -xf -\nsleep 40\ntouch late\n"))
    folder = run_folder(tmp_path / "run", experiment(machines))
    times: list[float] = []

    def press() -> None:
        for machine in machines:
            wait_for("the copying", lambda: list(machine.cache.glob("autoseg/*/code")), 60)  # noqa: B023
        times.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner may be deaf to it
    try:
        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            Elsewhere(folder, load_config(folder.config), Progress())
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - times[0] < 10
    assert [list(machine.cache.glob("autoseg*")) for machine in machines] == [[], []]
    sleeping = [process for process in psutil.process_iter(["cmdline"]) if "autoseg-equips" in str(process.info)]
    assert sleeping == []


def test_a_process_that_ends_without_stop_leaves_nothing(tmp_path: Path, machines: list[Sshd]) -> None:
    """As when a second Ctrl-C hits the way out."""
    folder = run_folder(tmp_path / "run", experiment(machines[:1]))
    script = f"""
from autoseg.config import load_config
from autoseg.nnibridge.remote import Elsewhere
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder
folder = RunFolder({str(folder.path)!r})
elsewhere = Elsewhere(folder, load_config(folder.config), Progress())
print(elsewhere.workers[0].folder, flush=True)
raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stdout.startswith(str(machines[0].cache / "autoseg"))
    assert list(machines[0].cache.glob("autoseg*")) == []


def test_a_machine_that_fails_half_way_is_left_clean(
    tmp_path: Path, machines: list[Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = worker._EQUIP.replace("tar -xf -\n", "tar -xf -\necho the disk is full >&2; exit 3\n")
    monkeypatch.setattr(worker, "_EQUIP", script)
    with pytest.raises(UserError, match="the disk is full"):
        equipped(tmp_path / "run", machines[0])
    monkeypatch.undo()
    monkeypatch.setattr(remote, "service_settings", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        equipped(tmp_path / "run2", machines[1])
    assert [list(machine.cache.glob("autoseg*")) for machine in machines] == [[], []]


def test_without_the_data_no_machine_is_touched(tmp_path: Path, machines: list[Sshd]) -> None:
    folder = run_folder(tmp_path / "run", experiment(machines))
    (folder.data / "info.json").unlink()
    with pytest.raises(UserError, match="could not be written"):
        Elsewhere(folder, load_config(folder.config), Progress())
    assert not machines[0].cache.exists()


def test_machines_that_the_manager_gave_up_are_named_once(tmp_path: Path, machines: list[Sshd]) -> None:
    notes = Notes()
    folder = run_folder(tmp_path / "run", experiment(machines[:1]))
    log = folder.nni / "manager.log"
    write_text(log, "given up: me@old:22: from an earlier run\n")
    elsewhere = Elsewhere(folder, load_config(folder.config), notes)
    with log.open("a") as file:
        file.write("listening\ngiven up: me@gpu1:22: no python\ngiven up: me@gp")
    assert elsewhere.collect(CANDIDATE, NO_MANAGER, "t1", "SYS_CANCELED").lost
    assert notes.notes == ["a machine is not used any more: me@gpu1:22: no python"]
    with log.open("a") as file:
        file.write("u2:22: gone\n")
    assert elsewhere.given_up() == ["me@gpu2:22: gone"] and elsewhere.given_up() == []
    elsewhere.stop()
