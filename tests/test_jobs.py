"""Doing a job: one that is done is not done again, and the machine's errors are told as such."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import EXPERIMENT

from autoseg import jobs
from autoseg.config import load_config
from autoseg.errors import UserError
from autoseg.job import Job
from autoseg.jobs import do_job, result_of, run_job
from autoseg.plan import Plan, infer_recipe
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, write_json, write_text

UNET = Job("training", "unet")


class Figures(Progress):
    def __init__(self) -> None:
        self.epochs = 0

    def figures(self, label: str, values: dict[str, float]) -> None:
        self.epochs += 1


@pytest.fixture
def setting(tmp_path: Path) -> tuple[RunFolder, Prepared, Plan]:
    config = load_config({**EXPERIMENT, "strategy": {"name": "random", "options": {"trials": 2, "epochs": 1}}})
    prepared = prepare(config)
    folder = RunFolder(tmp_path)
    recipe, _ = infer_recipe(config, prepared.data)
    labels = [spec.label for spec in prepared.specs(prepared.control)]
    plan = Plan(recipe, None, labels, [0], control=dict(prepared.control.choices))
    write_text(folder.config, config.to_yaml())
    write_json(folder.plan, plan.to_json())
    return folder, prepared, plan


def test_a_training_that_is_done_is_not_done_again(setting: tuple[RunFolder, Prepared, Plan]) -> None:
    folder = setting[0]
    first = Figures()
    assert result_of(UNET, folder) is None
    result = run_job(UNET, folder.path, 1, first)
    written = {file: file.stat().st_mtime_ns for file in folder.models.rglob("*")}
    again = Figures()
    assert run_job(UNET, folder.path, 1, again) == result == result_of(UNET, folder)
    assert first.epochs == 2 and again.epochs == 0
    assert {file: file.stat().st_mtime_ns for file in folder.models.rglob("*")} == written


def test_searches_and_candidates_that_are_done_are_not_done_again(setting: tuple[RunFolder, Prepared, Plan]) -> None:
    folder, prepared, plan = setting
    job = Job("candidate", number=1, choices=dict(prepared.control.choices), epochs=1)
    told = Figures()
    results = [do_job(job, folder, prepared, plan, told) for _ in range(2)]
    assert results[0] == results[1] == result_of(job, folder) and told.epochs == 1
    write_json(folder.search / "found.json", {"miou": 0.75, "code": "E=[0]", "choices": {}})
    assert do_job(Job("search"), folder, prepared, plan, told) == {"miou": 0.75, "code": "E=[0]"}
    assert told.epochs == 1


def test_a_full_disk_is_the_users_to_mend(
    setting: tuple[RunFolder, Prepared, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(jobs, "do_job", full)
    with pytest.raises(UserError) as caught:
        run_job(UNET, setting[0].path, 1, Progress())
    (problem,) = caught.value.problems
    assert (problem.where, problem.what) == ("unet, seed 0", "No space left on device")
    assert problem.fix.startswith("free some space")
