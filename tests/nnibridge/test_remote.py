"""Runs whose jobs are done on two other machines: real ssh servers of our own, NNI's real agents and manager."""

from __future__ import annotations

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
from typing import Any

import pytest
from sshd import Sshd, need_sshd

import autoseg
from autoseg.config import load_config
from autoseg.data.packed import pack, read_packed
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.errors import UserError
from autoseg.nnibridge.remote import Elsewhere
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
