"""What finished jobs have to show: the curves of their files, in the order in which they were started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoseg.config import load_config
from autoseg.finished import finished_jobs
from autoseg.job import Job
from autoseg.jobs import result_of
from autoseg.plan import Plan
from autoseg.runfolder import Journal, RunFolder, write_json
from autoseg.search.architecture import Architecture
from autoseg.search.trials import result_file
from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
from autoseg.train.keeper import HISTORY, Trained
from autoseg.train.recipe import Recipe

OPTIONS = {"blocks": 3}
CONFIG = load_config(
    {
        "data": {"dataset": "synthetic-ceramic"},
        "space": {"name": "ednas", "options": OPTIONS},
        "baselines": [{"name": "unet"}, "random"],
    }
)
CONTROL = to_choices(ED_NAS_N3)
ROWS: list[tuple[Any, ...]] = [
    (0, 1.5, 0.003, 0.75, None, None),
    (1, 3.0, 0.002, 0.5, 0.625, 0.25),
    (2, 4.5, 0.001, None, None, None),
    (3, 6.0, 0.001, 0.25, None, 0.5),
]
TRAINED = Trained([dict(zip(HISTORY, row, strict=True)) for row in ROWS])


def plan(search_seeds: list[int] | None = None) -> Plan:
    models = ["searched", "unet", "random"]
    return Plan(Recipe(epochs=4), None, models, [0, 1], control=CONTROL, search_seeds=search_seeds or [0])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def trained(folder: RunFolder, label: str, seed: int, done: bool = True) -> None:
    place = folder.model(label, seed)
    TRAINED.write_history(place / "history.csv")
    if done:
        write_json(place / "test.json", {"val_miou": 0.5, "best_epoch": 3, "params": 1234, "miou": 0.125})


def test_a_new_run_has_nothing_to_show(folder: RunFolder) -> None:
    assert finished_jobs(folder, plan(), CONFIG) == []


def test_the_curve_of_a_training_is_the_one_it_reported(folder: RunFolder) -> None:
    trained(folder, "unet", 1)
    (found,) = finished_jobs(folder, plan(), CONFIG)
    assert str(found.job) == "unet, seed 1"
    assert found.curve == TRAINED.curve
    assert found.curve == [
        {"default": 0.0, "loss": 0.75},
        {"default": 0.25, "loss": 0.5, "val_loss": 0.625},
        {"default": 0.25},
        {"default": 0.5, "loss": 0.25},
    ]
    assert found.result == {"miou": 0.5, "epoch": 3, "params": 1234}  # the validation, never the test


def test_a_training_that_was_cut_is_not_finished(folder: RunFolder) -> None:
    trained(folder, "unet", 0, done=False)
    assert finished_jobs(folder, plan(), CONFIG) == []


def test_jobs_come_in_the_order_in_which_they_were_started(folder: RunFolder) -> None:
    found = {"space": "ednas", "kwargs": OPTIONS, "choices": CONTROL, "code": "of an older version"}
    write_json(folder.architecture, found)
    for label, seed in (("unet", 1), ("random", 0), ("searched", 0), ("unet", 0)):
        trained(folder, label, seed)
    jobs = [finished.job for finished in finished_jobs(folder, plan(), CONFIG)]
    assert [str(job) for job in jobs] == ["searched, seed 0", "unet, seed 0", "random, seed 0", "unet, seed 1"]
    assert jobs[2].architecture is not None and jobs[2].architecture["choices"] == CONTROL
    assert jobs[0].code == jobs[2].code == Architecture("ednas", OPTIONS, CONTROL).code


def candidate(folder: RunFolder, number: int, **more: Any) -> None:
    """Leaves what the training of a candidate leaves."""
    told = {"number": number, "choices": {"op": f"conv{number}"}, "code": f"E=[{number}]", "miou": number / 16}
    rest = {"seconds": 1.0, "cpu_seconds": 1.0, "note": "", "curve": [{"default": number / 16, "loss": 0.5}]}
    write_json(result_file(folder.search, number), told | rest | more)


def test_candidates_are_those_that_were_trained_whether_or_not_they_are_in_the_journal(folder: RunFolder) -> None:
    for number in (10, 0, 3):
        candidate(folder, number)
    row = {"kind": "candidate", "number": 0, "choices": {"op": "conv0"}, "code": "E=[0]", "miou": 0.0}
    Journal(folder.journal).append(row)
    refused = {**row, "number": 1, "choices": {"op": "conv1"}, "miou": None, "refused": "too large"}
    Journal(folder.journal).append(refused)
    found = finished_jobs(folder, plan(), CONFIG)
    assert [str(finished.job) for finished in found] == ["candidate 1", "candidate 4", "candidate 11"]
    assert [finished.job.choices for finished in found] == [{"op": "conv0"}, {"op": "conv3"}, {"op": "conv10"}]
    assert [finished.job.code for finished in found] == ["E=[0]", "E=[3]", "E=[10]"]
    assert [finished.curve for finished in found] == [[{"default": n / 16, "loss": 0.5}] for n in (0, 3, 10)]
    assert [finished.result for finished in found] == [{"miou": n / 16} for n in (0, 3, 10)]


def epochs(place: Path, *rewards: float | None) -> None:
    for epoch, reward in enumerate(rewards):
        row = {"kind": "epoch", "epoch": epoch, "seconds": 1.0, "loss": 0.5, "reward": reward, "entropy": None}
        Journal(place / "journal.jsonl").append({**row, "phase": "search", "stability": 0.75})


def test_each_one_shot_search_shows_its_epochs(folder: RunFolder) -> None:
    for seed, place in ((0, folder.search), (7, folder.search / "seed-7")):
        epochs(place, None, 0.25 + seed)
        write_json(place / "found.json", {"miou": 0.5, "code": f"E=[{seed}]"})
    epochs(folder.search / "seed-8", 0.125)  # not done
    found = finished_jobs(folder, plan([0, 7, 8]), CONFIG)
    assert [str(finished.job) for finished in found] == ["search, seed 0", "search, seed 7"]
    assert found[1].curve == [
        {"default": 0.0, "loss": 0.5, "stability": 0.75},
        {"default": 7.25, "loss": 0.5, "stability": 0.75},
    ]
    assert found[1].result == {"miou": 0.5, "code": "E=[7]"}


def test_looking_leaves_a_line_that_is_being_written_alone(folder: RunFolder) -> None:
    epochs(folder.search, 0.25)
    write_json(folder.search / "found.json", {"miou": 0.5, "code": "E=[0]"})
    with folder.journal.open("a") as file:
        file.write('{"kind": "epo')
    before = folder.journal.read_bytes()
    (found,) = finished_jobs(folder, plan(), CONFIG)
    assert len(found.curve) == 1 and folder.journal.read_bytes() == before


def test_a_result_is_read_back_as_the_job_gave_it(folder: RunFolder) -> None:
    trained(folder, "unet", 1)
    candidate(folder, 3, miou=0.25, note="the training diverged")
    write_json(folder.search / "seed-7" / "found.json", {"miou": 0.5, "code": "E=[7]", "notes": []})
    assert result_of(Job("training", "unet", 1), folder) == {"miou": 0.5, "epoch": 3, "params": 1234}
    expected = {"miou": 0.25, "seconds": 1.0, "cpu_seconds": 1.0, "note": "the training diverged"}
    assert result_of(Job("candidate", number=3, choices={"op": "conv3"}), folder) == expected
    assert result_of(Job("search", "search, seed 7", 7, number=1), folder) == {"miou": 0.5, "code": "E=[7]"}
    other = Job("candidate", number=3, choices={"op": "conv5"})  # of which the number was another one's
    undone = [other, Job("training", "unet", 0), Job("search"), Job("candidate", number=4, choices={})]
    assert [result_of(job, folder) for job in undone] == [None] * 4
