"""The trial itself: what it asks NNI, reports to it, leaves behind, and tells the main process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stand_in
from stand_in import StandIn, Started, until

from autoseg.config import load_config
from autoseg.job import Job
from autoseg.nnibridge.forks import TrialForks
from autoseg.nnibridge.reports import Reports, direct
from autoseg.plan import Plan
from autoseg.runfolder import RunFolder, read_json, write_json, write_text
from autoseg.train.recipe import Recipe

Messages = list[tuple[int, str, str, Any]]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TrialForks, Messages]]:
    """Trials whose jobs do what their label says."""
    heard: Messages = []
    run = tmp_path_factory.mktemp("runs") / "run"
    run.mkdir()
    forks = TrialForks(run, 2, lambda *message: heard.append(message), work=stand_in.pretended)
    yield forks, heard
    forks.stop()


Forks = tuple[TrialForks, Messages]


def trial(forks: Forks, tmp_path: Path, job: Job, parameter_id: int | None = 3) -> tuple[Started, StandIn, Messages]:
    """A finished trial, what it has reported and what it has told."""
    forks[1].clear()
    with StandIn(job.to_json(), parameter_id) as manager:
        environment = manager.environment(tmp_path / "out")
        started = Started(forks[0].command, environment)
        started.wait()
    return started, manager, list(forks[1])


def test_a_trial_does_the_job_that_nni_gives_it(forks: Forks, tmp_path: Path) -> None:
    job = Job("training", "unet", architecture={"space": "ednas", "choices": {"op": "conv3"}}, code="E=[0]")
    started, manager, told = trial(forks, tmp_path, job)
    result = {"miou": 0.75, "threads": 2, "run": "run", "code": "E=[0]", "curve": [1.0]}
    assert started.process.returncode == 0
    assert read_json(started.output / "outcome.json") == {"result": result}
    assert read_json(started.output / "architecture.json") == job.architecture
    assert manager.values("FINAL") == [{"default": 0.75, "code": "E=[0]"}]
    assert told[0] == (3, "trial3", "progress", ("begin", ("unet, seed 0", 3, "epochs")))
    assert told[-2:] == [
        (3, "trial3", "progress", ("end", ("unet, seed 0", "done"))),
        (3, "trial3", "done", result),
    ]
    assert started.stderr == ""


def test_figures_reach_nni_though_the_search_has_taken_its_channel_but_not_in_a_flood(
    forks: Forks, tmp_path: Path
) -> None:
    _, manager, told = trial(forks, tmp_path, Job("search"))
    figures = manager.values("PERIODICAL")
    assert 1 <= len(figures) <= 3  # of a hundred within milliseconds
    assert figures[-1] == {"default": 0.99}  # the newest; its loss was not a number
    assert [m["sequence"] for m in manager.metrics] == [*range(len(figures)), 0]
    assert {(m["parameter_id"], m["trial_job_id"]) for m in manager.metrics} == {(3, "trial3")}
    forwarded = [content for _, _, kind, content in told if kind == "progress" and content[0] == "figures"]
    assert len(forwarded) == 100


def test_the_choices_of_a_candidate_lie_in_its_output(forks: Forks, tmp_path: Path) -> None:
    started, _, _ = trial(forks, tmp_path, Job("candidate", number=2, choices={"op": "conv5"}, epochs=1))
    assert read_json(started.output / "architecture.json") == {"choices": {"op": "conv5"}}


def test_what_the_user_can_mend_is_told_without_a_traceback(forks: Forks, tmp_path: Path) -> None:
    started, manager, told = trial(forks, tmp_path, Job("training", "mend"))
    assert started.process.returncode == 2
    assert started.stderr == "data: no images\n  -> put some there\nno masks\n"
    problems = [
        {"what": "no images", "where": "data", "fix": "put some there"},
        {"what": "no masks", "where": "", "fix": ""},
    ]
    assert read_json(started.output / "outcome.json") == {"problems": problems}
    assert told[-1][2] == "mend" and [str(p) for p in told[-1][3]] == [
        "data: no images\n  -> put some there",
        "no masks",
    ]
    assert manager.values("FINAL") == []


def test_a_full_disk_is_no_failure_of_the_job(forks: Forks, tmp_path: Path) -> None:
    started, _, told = trial(forks, tmp_path, Job("training", "full"))
    assert started.process.returncode == 2
    assert told[-1][2] == "mend"
    (problem,) = told[-1][3]
    assert (problem.what, problem.where) == ("No space left on device", "full, seed 0")
    assert read_json(started.output / "outcome.json")["problems"][0]["what"] == "No space left on device"
    assert "Traceback" not in started.stderr


def test_a_failure_leaves_its_traceback(forks: Forks, tmp_path: Path) -> None:
    started, _, told = trial(forks, tmp_path, Job("training", "fail"))
    assert started.process.returncode == 1
    assert "in pretend" in started.stderr and "ValueError: the first line" in started.stderr
    outcome = read_json(started.output / "outcome.json")
    assert outcome["failed"] == "ValueError: the first line"
    assert told[-1][2:] == ("failed", ("ValueError: the first line", outcome["log"]))


def test_a_trial_that_the_run_did_not_submit_is_refused(forks: Forks, tmp_path: Path) -> None:
    started, _, told = trial(forks, tmp_path, Job("training", "unet"), parameter_id=None)
    assert started.process.returncode == 2
    assert [message[2] for message in told] == ["mend"]
    assert "not one of the run's own" in started.stderr


def test_a_manager_that_is_gone_costs_the_figures_alone(forks: Forks, tmp_path: Path) -> None:
    forks[1].clear()
    manager = StandIn(Job("training", "wait").to_json())
    started = Started(forks[0].command, manager.environment(tmp_path / "out"))
    assert until(lambda: forks[1])  # it has its job
    manager.close()
    (forks[0]._run / "go").touch()
    assert started.wait() == 0
    assert read_json(started.output / "outcome.json")["result"]["miou"] == 0.75
    warnings = [content for _, _, kind, content in forks[1] if kind == "log"]
    assert len(warnings) == 1 and "does not receive the figures" in warnings[0][2]
    assert "does not receive the figures" in started.stdout


def test_a_manager_that_has_closed_ends_the_trial(forks: Forks, tmp_path: Path) -> None:
    forks[1].clear()
    with StandIn(None) as manager:
        started = Started(forks[0].command, manager.environment(tmp_path / "out"))
        assert started.wait() == 1
    assert forks[1][-1][:3] == (3, "trial3", "failed")


def test_a_manager_that_hangs_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.nnibridge.reports._PATIENCE", 0.1)
    release = threading.Event()

    class Hanging:
        def send_metric(self, *arguments: Any) -> None:
            release.wait(20)

    reports = Reports(Hanging(), 0, "trial")
    reports.figures({"default": 0.5})
    reports.final({"default": 0.5})
    release.set()


def test_the_manager_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "intra.net")
    monkeypatch.delenv("NO_PROXY", raising=False)
    direct("http://10.0.0.7:8080/env/1/2")
    direct("http://10.0.0.7:8080/env/1/2")
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == ("intra.net,10.0.0.7", "10.0.0.7")


def test_a_trial_on_another_machine_leaves_its_results_in_its_output(tmp_path: Path) -> None:
    code, output = tmp_path / "code", tmp_path / "out"
    config = load_config(
        {
            "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
            "space": {"name": "ednas", "options": {"blocks": 2, "layers": 2, "width": 4}},
            "baselines": [{"name": "unet", "options": {"width": 4, "depth": 2}}],
            "compute": {"device": "cpu"},
        }
    )
    folder = RunFolder(code)
    write_text(folder.config, config.to_yaml())
    write_json(folder.plan, Plan(Recipe(epochs=1, batch=4, patch=32), None, ["unet"], [0], workers=2).to_json())
    write_json(code / "trial.json", {"run": "run", "threads": 1})
    (code / "data").mkdir()
    with StandIn(Job("training", "unet").to_json()) as manager:
        environment = {**os.environ, **manager.environment(output)}
        command = [sys.executable, "-m", "autoseg.nnibridge.trial"]
        done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    test = json.loads((output / "run" / "models" / "unet" / "seed-0" / "test.json").read_text())
    assert test["model"] == "unet"
    assert manager.values("FINAL")[0]["default"] == pytest.approx(test["val_miou"])
    assert len(manager.values("PERIODICAL")) >= 1
    assert read_json(output / "outcome.json")["result"]["miou"] == pytest.approx(test["val_miou"])
    assert sorted(path.name for path in (output / "run").iterdir()) == ["config.yaml", "models", "plan.json"]
    assert sorted(path.name for path in code.iterdir()) == ["config.yaml", "data", "plan.json", "trial.json"]
