"""Which crew does the jobs: a run on this machine never depends on the page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoseg import hiring
from autoseg.config import load_config
from autoseg.crew import Alone
from autoseg.data.packed import is_packed
from autoseg.errors import Problem, UserError
from autoseg.hiring import hire
from autoseg.job import Job
from autoseg.nnibridge.manager import ManagerFailed
from autoseg.plan import Plan
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder
from autoseg.train.recipe import Recipe

CONFIG: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"blocks": 2, "layers": 2, "width": 4}},
    "compute": {"device": "cpu"},
}
MACHINE = {"host": "worker", "user": "me", "key": __file__, "python": "/usr/bin/python3"}
REMOTE = {"service": "remote", "bind": "192.0.2.1", "machines": [MACHINE]}


class Told(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Pool:
    """Stands for worker processes."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr(hiring, "Workers", Pool)
    made = RunFolder(tmp_path / "run")
    made.open(resume=False)
    return made


def prepared(ui: bool, **compute: Any) -> Prepared:
    local = prepare(load_config({**CONFIG, "ui": {"enabled": ui}})).with_threads(8)
    local.config = load_config({**CONFIG, "ui": {"enabled": ui}, "compute": {**CONFIG["compute"], **compute}})
    return local


def arguments_of(crew: Any) -> Any:
    """What a crew that is played here was made with."""
    return crew.arguments


def plan(workers: int) -> Plan:
    return Plan(Recipe(epochs=1), None, ["searched"], [0], workers=workers)


def test_one_job_at_a_time_without_the_page_needs_nobody_else(folder: RunFolder, told: Told) -> None:
    assert isinstance(hire(folder, prepared(ui=False), plan(1), told), Alone)
    assert not folder.nni.exists() and not is_packed(folder.data) and told.notes == []


def test_several_at_a_time_without_the_page_are_workers_that_share_cores_and_data(
    folder: RunFolder, told: Told
) -> None:
    crew = hire(folder, prepared(ui=False), plan(3), told)
    assert isinstance(crew, Pool) and crew.arguments == (3, folder.path, 2, told, [])  # 8 threads among 3
    assert is_packed(folder.data) and not folder.nni.exists()


def test_with_the_page_the_jobs_are_trials_and_workers_are_in_reserve(
    folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hiring, "NniCrew", lambda *arguments: SimpleNamespace(arguments=arguments))
    threads, fallback = arguments_of(hire(folder, prepared(ui=True), plan(2), told))[3::2]
    assert threads == 4 and fallback().arguments == (2, folder.path, 4, told, [])
    assert is_packed(folder.data)


def test_trials_elsewhere_have_no_reserve(folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiring, "NniCrew", lambda *arguments: SimpleNamespace(arguments=arguments))
    assert arguments_of(hire(folder, prepared(ui=True, **REMOTE), plan(2), told))[5] is None


@pytest.mark.parametrize(("workers", "kind"), [(1, Alone), (2, Pool)])
def test_a_page_that_cannot_start_stops_no_run(
    folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int, kind: type
) -> None:
    node = tmp_path / "nni_node" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\necho 'node: cannot execute' >&2\nexit 127\n")
    node.chmod(0o755)
    find = importlib.util.find_spec
    bad = SimpleNamespace(submodule_search_locations=[str(node.parent)])
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: bad if name == "nni_node" else find(name, *rest)
    )
    crew = hire(folder, prepared(ui=True), plan(workers), told)
    assert isinstance(crew, kind)
    (note,) = told.notes
    assert note.startswith("The run goes on without NNI's web page: NNI's manager ended at once")
    assert note.endswith("node: cannot execute")
    if isinstance(crew, Alone):
        crew.work = lambda job, shown: {"label": job.label}
        assert crew.submit(Job("training", "unet")).result(0) == {"label": "unet"}


def test_without_its_manager_nothing_can_be_done_elsewhere(
    folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ManagerFailed("NNI's manager ended at once")

    monkeypatch.setattr(hiring, "NniCrew", fail)
    with pytest.raises(ManagerFailed):
        hire(folder, prepared(ui=True, **REMOTE), plan(2), told)


def test_what_the_user_can_mend_is_no_reason_to_go_on(
    folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError(Problem("this machine has no such address", "compute.bind"))

    monkeypatch.setattr(hiring, "NniCrew", refuse)
    with pytest.raises(UserError):
        hire(folder, prepared(ui=True), plan(1), told)


def test_data_that_do_not_fit_on_the_disk_are_read_anew(
    folder: RunFolder, told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hiring, "pack", full)
    assert isinstance(hire(folder, prepared(ui=False), plan(2), told), Pool)
    assert "No space left on device" in caplog.text
