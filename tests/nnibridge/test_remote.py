"""Runs whose jobs are done on two other machines: real ssh servers of our own, NNI's real agents and manager."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from sshd import Sshd, need_sshd

import autoseg
from autoseg.config import load_config
from autoseg.data.packed import pack, read_packed
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.errors import UserError
from autoseg.job import Job
from autoseg.nnibridge import remote, worker
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.outcome import Outcome
from autoseg.nnibridge.remote import Elsewhere
from autoseg.nnibridge.ssh import Login, SshFailed
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, read_json, write_json, write_text

EXPERIMENT: dict[str, Any] = {
    "name": "far",
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"width": 4}},
    "strategy": {"name": "random", "options": {"trials": 2, "epochs": 1}},
    "train": {"epochs": 1},
    "baselines": [{"name": "unet", "options": {"width": 4}}],
    "repeats": 1,
    "compute": {"device": "cpu", "service": "remote"},
}


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Sshd]]:
    need_sshd()
    machines = [Sshd(tmp_path / name) for name in ("one", "two")]
    yield machines
    for machine in machines:
        machine.stop()


def experiment(machines: list[Sshd], **changes: Any) -> dict[str, Any]:
    compute = {**EXPERIMENT["compute"], "machines": [machine.machine for machine in machines], "bind": own_address()}
    return {**EXPERIMENT, "compute": compute, **changes}


def wait_for(what: str, condition: Callable[[], object], seconds: float) -> float:
    """Seconds until the condition is true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} takes longer than {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - began


def own_address() -> str | None:
    """An address of this machine that is not the loopback one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run_folder(path: Path, source: dict[str, Any]) -> RunFolder:
    """As far as a run has got when it looks for machines."""
    folder = RunFolder(path)
    write_text(folder.config, load_config(source).to_yaml())
    write_json(folder.plan, {})
    pack(synthetic_ceramic(count=12, size=32), folder.data)
    return folder


def test_a_machine_that_cannot_be_used_is_left_out(tmp_path: Path, machines: list[Sshd]) -> None:
    good, dead = machines
    dead.stop()
    source = experiment(machines)
    source["compute"]["machines"][0]["host"] = "localhost"
    folder, notes = run_folder(tmp_path / "run", source), Notes()
    elsewhere = Elsewhere(folder, load_config(folder.config), notes)
    (note,) = notes.notes
    assert note.startswith("left out: ") and f"127.0.0.1 port {dead.port}: Connection refused" in note
    (there_too,) = elsewhere.workers
    (there,) = (good.cache / "autoseg").iterdir()
    assert Path(there_too.folder) == there and there.name.endswith(f"-localhost-{good.port}")
    assert there.stat().st_mode & 0o077 == 0
    code = there / "code"
    assert read_packed(code / "data").train.names == read_packed(folder.data).train.names
    assert json.loads((code / "trial.json").read_text()) == {
        "run": "run",
        "threads": max(1, (os.cpu_count() or 1) // 2),
    }
    assert elsewhere.service["machineList"][0]["pythonPath"] == f"{there}/bin"
    assert [file.name for file in elsewhere.code.iterdir()] == ["README"]
    (there / "home" / "old").mkdir()
    again = Elsewhere(folder, load_config(folder.config), Notes())  # the run was killed and is resumed
    assert [each.folder for each in again.workers] == [there_too.folder] and not (there / "home" / "old").exists()
    again.stop()
    assert not (good.cache / "autoseg").exists()


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

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        Elsewhere(folder, load_config(folder.config), Progress())
    assert time.monotonic() - times[0] < 10
    assert [list(machine.cache.glob("autoseg*")) for machine in machines] == [[], []]
    sleeping = [process for process in psutil.process_iter(["cmdline"]) if "autoseg-equips" in str(process.info)]
    assert sleeping == []


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


def test_without_any_machine_there_is_no_run(tmp_path: Path, machines: list[Sshd]) -> None:
    for machine in machines:
        machine.stop()
    folder = run_folder(tmp_path / "run", experiment(machines))
    with pytest.raises(UserError) as caught:
        Elsewhere(folder, load_config(folder.config), Progress())
    for machine, problem in zip(machines, caught.value.problems, strict=True):
        assert str(machine.port) in problem.what
    assert {problem.where for problem in caught.value.problems} == {"compute.machines"}


def test_one_of_two_machines_dies_and_the_result_is_complete(tmp_path: Path, machines: list[Sshd]) -> None:
    first, second = machines
    killed: list[list[int]] = []

    def pull_the_plug() -> None:
        wait_for("a candidate on the second machine", second.trials, 300)
        killed.append(second.trials())
        second.kill()

    killer = threading.Thread(target=pull_the_plug)
    killer.start()
    progress = Notes()
    done = autoseg.run(experiment(machines), out=tmp_path / "run", progress=progress)
    killer.join()
    assert done is not None and killed and killed[0]

    assert sorted(done.comparison["models"]) == ["searched", "unet"]
    for name in ("searched", "unet"):
        place = done.folder / "models" / name / "seed-0"
        assert len(read_json(place / "test.json")["images"]) == 2
        assert (place / "weights.safetensors").stat().st_size > 1000
        assert len(list((place / "predictions").glob("*.png"))) == 2
    rows = [json.loads(line) for line in (done.folder / "search" / "journal.jsonl").read_text().splitlines()]
    assert sum(row["kind"] == "candidate" for row in rows) == 2
    assert sorted(file.name for file in (done.folder / "search" / "trials").iterdir()) == ["0.json", "1.json"]
    assert len({json.dumps(row["choices"]) for row in rows if row["kind"] == "candidate"}) == 2
    tried_again = [note for note in progress.notes if "tried again" in note]
    assert len(tried_again) == 1 and tried_again[0].startswith("candidate "), progress.notes
    assert not (done.folder / "failures.json").exists()

    assert first.processes() == []
    assert list(first.cache.glob("autoseg*")) == []
    assert not list((done.folder / "nni").glob("fetched-*"))


def test_nothing_is_left_on_a_machine_when_we_are_killed(tmp_path: Path, machines: list[Sshd]) -> None:
    file = tmp_path / "far.json"  # JSON is YAML
    file.write_text(json.dumps(experiment(machines[:1], train={"epochs": 10_000}, strategy={"name": "random-oneshot"})))
    command = [sys.executable, "-m", "autoseg", "run", str(file), "--out", str(tmp_path / "run")]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for("a trial on the machine", machines[0].trials, 300)
        assert machines[0].listening() == {"127.0.0.1"}  # NNI's agent serves its trials and nobody else
        manager = read_json(tmp_path / "run" / "nni" / "page.json")["pid"]
        os.killpg(manager, signal.SIGKILL)  # as when this whole machine dies: the agent hears no word
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    spent = wait_for("the end of everything on the machine", lambda: not machines[0].processes(), 30)
    print(f"everything on the machine was gone after {spent:.1f} s")
