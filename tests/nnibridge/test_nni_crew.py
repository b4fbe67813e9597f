"""The crew of NNI trials: each end of a trial is told once, whoever tells it, and finished jobs are shown again.

Most of it is with a manager that is played by the test; the last tests are with NNI's own.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import autoseg.nnibridge.crew as module
from autoseg.config import load_config
from autoseg.crew import Crew, CrewGone, JobFailed, Ticket
from autoseg.data.packed import pack
from autoseg.errors import Problem, UserError
from autoseg.finished import Finished, finished_jobs
from autoseg.job import Job
from autoseg.jobs import run_job
from autoseg.nnibridge.crew import NniCrew
from autoseg.nnibridge.manager import ManagerFailed
from autoseg.nnibridge.ports import LOOPBACK, free_pairs
from autoseg.plan import Plan
from autoseg.prepare import prepare
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, read_json, write_json, write_text
from autoseg.train.recipe import Recipe

CONFIG: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"blocks": 2, "layers": 2, "width": 4}},
    "baselines": [
        {"name": "unet", "options": {"width": 4, "depth": 2}},
        {"name": "unet", "as": "other", "options": {"width": 4}},
    ],
    "repeats": 1,
    "compute": {"device": "cpu"},
}
UNET, OTHER = Job("training", "unet"), Job("training", "other")
PLAN = Plan(Recipe(epochs=2, batch=4, patch=32), None, ["searched", "unet", "other"], [0], workers=2)


class Told(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Played:
    """Manager, channel and forks in one, whose part the test plays."""

    def __init__(self, folder: Path) -> None:
        self.submitted: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.concurrency: list[int] = []
        self.alive, self.state = True, "RUNNING"
        self.folder, self.url, self.command = folder, "http://127.0.0.1:1", "relay"
        self.on_stop: Callable[[], None] = lambda: None

    def hear(self, *callbacks: Any) -> Played:
        _, self.on_end, self.on_lost = callbacks
        return self

    def submit(self, parameters: dict[str, Any]) -> int:
        if not self.alive:
            raise ManagerFailed("NNI's manager is gone")
        self.submitted.append(parameters)
        return len(self.submitted) - 1

    def set_concurrency(self, number: int) -> None:
        if not self.alive:
            raise ManagerFailed("NNI's manager is gone")
        self.concurrency.append(number)

    def status(self) -> str:
        return self.state

    def close(self) -> None:
        self.calls.append("channel closed")

    def stop(self) -> None:
        self.calls.append("stopped")
        self.on_stop()

    def labels(self) -> list[str]:
        return [parameters["label"] for parameters in self.submitted]


class Echo(Crew):
    """The crew that goes on without NNI."""

    def __init__(self) -> None:
        super().__init__(2, Progress())
        self.done: list[str] = []

    def begin(self, ticket: Ticket) -> None:
        self.done.append(str(ticket.job))
        self.finished(ticket, {"by": "echo"})

    def stop(self) -> None:
        self.done.append("stopped")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def played(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Played:
    play = Played(folder.nni / "experiment")
    monkeypatch.setattr(module, "Manager", SimpleNamespace(start=lambda *_, **__: play))
    monkeypatch.setattr(module, "TrialChannel", lambda manager, *callbacks: play.hear(*callbacks))
    monkeypatch.setattr(module, "TrialForks", lambda *_, **__: play)
    return play


@pytest.fixture
def crew(folder: RunFolder, played: Played) -> NniCrew:
    crew = NniCrew(folder, load_config(CONFIG), PLAN, 1, Told(), Echo)
    crew.told = notes_of(crew)  # type: ignore[attr-defined]
    return crew


def notes_of(crew: NniCrew) -> list[str]:
    notes: list[str] = []
    crew.progress.note = notes.append  # type: ignore[method-assign, assignment]
    return notes


def test_a_trial_that_dies_is_submitted_once_more_and_not_twice(crew: NniCrew, played: Played) -> None:
    """It is told twice: by its process at once, and by NNI a moment later, when the next trial runs already."""
    first, second = crew.submit(UNET), crew.submit(OTHER)
    stderr = played.folder / "environments" / "local-env" / "trials" / "t0" / "trial.stderr"
    write_text(stderr, "Killed")
    crew._on_message(0, "t0", "lost", "its process was killed")
    assert played.labels() == ["unet", "other", "unet"]
    crew._on_end(0, "t0", "FAILED")
    assert played.labels() == ["unet", "other", "unet"] and not first.done()
    crew._on_message(2, "t2", "done", {"miou": 0.5})
    crew._on_end(2, "t2", "SUCCEEDED")
    assert first.result(0) == {"miou": 0.5} and not second.done()
    assert played.labels() == ["unet", "other", "unet"]


def test_a_trial_that_dies_again_and_again_fails_with_its_last_words(crew: NniCrew, played: Played) -> None:
    future = crew.submit(UNET)
    for number in range(3):
        trial = f"t{number}"
        write_text(played.folder / f"environments/local-env/trials/{trial}/trial.stderr", f"the end of {trial}")
        crew._on_message(number, trial, "lost", "its process was killed")
        crew._on_end(number, trial, "FAILED")
    error = future.exception(0)
    assert isinstance(error, JobFailed) and error.log == "the end of t2"
    assert len(played.submitted) == 3


@pytest.mark.parametrize("status", ["FAILED", "SYS_CANCELED"])
def test_a_trial_whose_relay_dies_is_tried_again(crew: NniCrew, played: Played, status: str) -> None:
    future = crew.submit(UNET)
    crew._on_message(0, "t0", "cancelled", "its process ended by signal SIGTERM")
    assert not future.done() and len(played.submitted) == 1
    crew._on_end(0, "t0", status)
    assert not future.done() and played.labels() == ["unet", "unet"]


def test_a_trial_that_is_cancelled_in_the_page_fails(crew: NniCrew, played: Played) -> None:
    future = crew.submit(UNET)
    crew._on_message(0, "t0", "cancelled", "its process ended by signal SIGTERM")
    crew._on_end(0, "t0", "USER_CANCELED")
    assert str(future.exception(0)) == "unet, seed 0 was cancelled in NNI's web page"
    assert len(played.submitted) == 1


def test_failures_say_what_the_trial_said(crew: NniCrew, played: Played) -> None:
    failed, mend = crew.submit(UNET), crew.submit(OTHER)
    crew._on_message(0, "t0", "failed", ("ValueError: 7", "the traceback"))
    crew._on_end(0, "t0", "FAILED")
    crew._on_message(1, "t1", "mend", [Problem("it diverged", "train.lr", "lower it")])
    crew._on_end(1, "t1", "FAILED")
    error = failed.exception(0)
    assert isinstance(error, JobFailed) and str(error) == "unet, seed 0 failed: ValueError: 7"
    assert error.log == "the traceback"
    assert isinstance(mend.exception(0), UserError)
    assert played.labels() == ["unet", "other"]


def test_when_the_manager_is_lost_what_is_not_done_goes_on_without_it(crew: NniCrew, played: Played) -> None:
    done, cut, waiting = crew.submit(UNET), crew.submit(OTHER), crew.submit(Job("search"))
    crew._on_message(0, "t0", "done", {"miou": 0.5})  # of its end NNI cannot tell any more
    assert played.submitted[2]["kind"] == "search"
    played.alive = False
    late = Job("training", "late")
    crew.submit(late)
    crew._on_message(1, "t1", "cancelled", "its process ended by signal SIGTERM")  # its relay fell with the manager
    crew._on_message(2, "t2", "lost", "its process was killed")
    assert not cut.done()
    played.on_lost("NNI's manager has ended unexpectedly")
    assert done.result(0) == {"miou": 0.5}
    assert [future.result(0) for future in (cut, waiting)] == [{"by": "echo"}] * 2
    substitute = crew._substitute
    assert isinstance(substitute, Echo)
    assert sorted(substitute.done) == ["late, seed 0", "other, seed 0", "the search"]  # each once, unet not again
    assert "stopped" in played.calls
    told = crew.told  # type: ignore[attr-defined]
    assert [note for note in told if "the run goes on without it" in note] == [
        "NNI's web page has stopped (NNI's manager has ended unexpectedly); the run goes on without it"
    ]
    assert crew.submit(Job("training", "later")).result(0) == {"by": "echo"}
    crew.stop()
    assert substitute.done[-1] == "stopped"


def test_a_trial_that_ends_well_while_the_manager_is_being_lost_is_not_done_again(
    crew: NniCrew, played: Played
) -> None:
    future = crew.submit(UNET)
    played.on_stop = lambda: crew._on_message(0, "t0", "done", {"miou": 0.75})  # its last words
    played.on_lost("NNI's manager has ended unexpectedly")
    assert future.result(0) == {"miou": 0.75}
    assert isinstance(crew._substitute, Echo) and crew._substitute.done == []


def test_without_anyone_to_go_on_the_crew_is_gone(crew: NniCrew, played: Played) -> None:
    def broken() -> Crew:
        raise EOFError

    crew._fallback = broken
    future = crew.submit(UNET)
    played.on_lost("NNI's manager has ended unexpectedly")
    assert isinstance(future.exception(0), CrewGone)  # which is no failure of the job
    assert "NNI's manager has stopped" in str(future.exception(0))
    assert "resume the run" in str(crew.submit(OTHER).exception(0))


def test_a_manager_that_has_given_up_is_as_good_as_gone(
    folder: RunFolder, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, where NNI cannot enter a trial and says nothing."""
    monkeypatch.setattr(module, "_WATCH", 0.02)
    substitute, told = Echo(), Told()
    crew = NniCrew(folder, load_config(CONFIG), PLAN, 1, told, lambda: substitute)
    future = crew.submit(UNET)
    time.sleep(0.1)
    assert not future.done()
    played.state = "ERROR"
    assert future.result(5) == {"by": "echo"} and substitute.done == ["unet, seed 0"]
    assert any("reports the state ERROR" in note and "goes on without it" in note for note in told.notes)
    crew.stop()


def test_a_manager_that_is_lost_while_finished_jobs_are_shown_leaves_nothing_running(
    folder: RunFolder, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.alive = False
    monkeypatch.setattr(module, "finished_jobs", lambda *_: [Finished(UNET, [], {"miou": 0.5})])
    with pytest.raises(ManagerFailed):
        NniCrew(folder, load_config(CONFIG), PLAN, 1, Told(), Echo)
    assert played.calls == ["channel closed", "stopped", "stopped"]  # channel, manager, forks


def test_finished_jobs_take_no_place_of_those_to_do(crew: NniCrew, played: Played) -> None:
    crew.show([Finished(UNET, [{"default": 0.25}], {"miou": 0.5}), Finished(OTHER, [], {"miou": 0.75})])
    assert played.concurrency == [2 + 2 * module._AT_A_TIME]
    future = crew.submit(Job("search"))
    assert not crew.all_shown(0.01)
    crew._on_end(0, "t0", "SUCCEEDED")
    crew._on_end(1, "t1", "SUCCEEDED")
    assert crew.all_shown(0) and played.concurrency[-1] == 2
    crew._on_message(2, "t2", "done", {"miou": 0.5})
    assert future.result(0) == {"miou": 0.5}


# With NNI's own manager


def prepared_folder(path: Path) -> RunFolder:
    prepared = prepare(load_config(CONFIG))
    folder = RunFolder(path)
    folder.open(resume=False)
    write_text(folder.config, prepared.config.to_yaml())
    plan = {**PLAN.to_json(), "control": dict(prepared.control.choices)}
    write_json(folder.plan, plan)
    pack(prepared.data, folder.data)
    return folder


@pytest.fixture
def real(folder: RunFolder) -> Iterator[tuple[NniCrew, RunFolder, list[str]]]:
    """A crew in a run folder in which one of two trainings has been done, and whose first ports are taken."""
    made = prepared_folder(folder.path)
    run_job(UNET, made.path, 1, Progress())
    told = Told()
    first = next(free_pairs(20_000))
    with socket.create_server((LOOPBACK, first + 1)):
        config = load_config({**CONFIG, "ui": {"port": first}})
        crew = NniCrew(made, config, Plan.from_json(read_json(made.plan)), 1, told)
        assert crew.manager.port >= first + 2
        try:
            yield crew, made, told.notes
        finally:
            crew.stop()
    assert not crew.manager.alive


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_resumed_run_shows_what_is_done_and_does_the_rest(real: tuple[NniCrew, RunFolder, list[str]]) -> None:
    crew, folder, notes = real
    test = folder.model("unet", 0) / "test.json"
    before = test.stat().st_ino
    future = crew.submit(OTHER)
    assert crew.all_shown(60)
    result = future.result(60)
    assert OTHER.done(folder) and test.stat().st_ino == before
    assert notes == [f"NNI's web page: {crew.manager.url}"]
    wait_for(lambda: [trial["status"] for trial in crew.manager.trials()] == ["SUCCEEDED"] * 2)
    shown, done = sorted(crew.manager.trials(), key=lambda trial: trial["sequenceId"])
    parameters = [json.loads(trial["hyperParameters"][0])["parameters"] for trial in (shown, done)]
    assert parameters == [UNET.to_json(), OTHER.to_json()]
    final = [json.loads(json.loads(trial["finalMetricData"][0]["data"])) for trial in (shown, done)]
    kept = read_json(test)
    assert final[0] == {"default": kept["val_miou"], "params": kept["params"], "epoch": kept["best_epoch"]}
    assert final[1] == {"default": result["miou"], "params": result["params"], "epoch": result["epoch"]}
    metrics = crew.manager._node.request("GET", f"/metric-data/{shown['trialJobId']}")
    curve = [json.loads(json.loads(metric["data"])) for metric in metrics if metric["type"] == "PERIODICAL"]
    config, plan = load_config(folder.config), Plan.from_json(read_json(folder.plan))
    (unet,) = [finished for finished in finished_jobs(folder, plan, config) if finished.job == UNET]
    assert curve == unet.curve and len(curve) == 2
    trials = folder.nni / crew.manager.experiment / "environments" / "local-env" / "trials"
    really_ran = [path.parent.name for path in trials.glob("*/outcome.json")]
    assert really_ran == [done["trialJobId"]]


def test_the_traceback_of_a_failed_trial_is_in_its_error_and_in_nnis_files(
    real: tuple[NniCrew, RunFolder, list[str]],
) -> None:
    crew, folder, _ = real
    (folder.models / "other").touch()  # where a folder should be
    error = crew.submit(OTHER).exception(60)
    assert isinstance(error, JobFailed) and str(error).startswith("other, seed 0 failed: NotADirectoryError")
    assert "Traceback" in error.log and "train_and_test" in error.log
    trials = folder.nni / crew.manager.experiment / "environments" / "local-env" / "trials"
    (stderr,) = [path for path in trials.glob("*/trial.stderr") if path.stat().st_size]
    assert "NotADirectoryError" in stderr.read_text()
    wait_for(lambda: sorted(trial["status"] for trial in crew.manager.trials()) == ["FAILED", "SUCCEEDED"])
