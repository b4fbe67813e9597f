"""The conductor with a crew that pretends: what is done in which order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pretending import ENAS, RANDOM, TRAININGS, Pretending, Setting, conduct, settings

from autoseg.conduct import CrewBench, all_done, search_jobs, training_jobs
from autoseg.runfolder import read_json


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return settings(tmp_path, monkeypatch)


def test_a_one_shot_search_and_all_trainings(setting: Setting) -> None:
    made = setting(ENAS)
    folder, prepared, plan = made
    crew = Pretending(folder, prepared)
    assert not all_done(folder, plan)
    conduct(made, crew)
    assert crew.done[0] == "the search" and sorted(crew.done[1:]) == sorted(TRAININGS)
    assert all_done(folder, plan) and not folder.failures.exists() and crew.told.notes == []
    assert "searches" not in read_json(folder.architecture)
    again = Pretending(folder, prepared)
    conduct(made, again)
    assert again.done == []  # nothing is done twice


def test_what_is_not_done_is_done_when_the_run_is_resumed(setting: Setting) -> None:
    made = setting(ENAS)
    folder, prepared, _ = made
    conduct(made, Pretending(folder, prepared))
    folder.architecture.unlink()  # killed between search and choice
    shutil.rmtree(folder.model("random", 1))
    again = Pretending(folder, prepared)
    conduct(made, again)
    assert again.done == ["random, seed 1"] and read_json(folder.architecture)["code"] == "E=[0]"


def test_of_several_searches_the_better_one_wins(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    folder, prepared, plan = made
    crew = Pretending(folder, prepared)
    assert [str(job) for job in search_jobs(plan)] == ["search, seed 0", "search, seed 1"]
    conduct(made, crew)
    assert crew.done[:2] == ["search, seed 0", "search, seed 1"] and sorted(crew.done[2:]) == sorted(TRAININGS)
    assert (folder.search / "found.json").exists() and (folder.search / "seed-1" / "found.json").exists()
    found = read_json(folder.architecture)
    assert (found["search_seed"], found["miou"], found["code"]) == (1, 0.5, "E=[1]")
    assert found["searches"] == [
        {"seed": 0, "miou": 0.25, "code": "E=[0]"},
        {"seed": 1, "miou": 0.5, "code": "E=[1]"},
    ]


def test_a_candidate_is_a_readable_job(setting: Setting) -> None:
    folder, prepared, _ = setting(RANDOM)
    crew, seen = Pretending(folder, prepared, slots=3), []
    crew.candidate = lambda job: seen.append(job) or {"miou": 0.5, "seconds": 1.0, "cpu_seconds": 1.0, "note": ""}  # type: ignore[method-assign, func-returns-value, assignment]
    bench = CrewBench(crew, folder.search, 2, lambda job, error: None)
    assert bench.concurrency == 2  # that of the plan, however many places there are now
    result = bench.begin(4, {"op": "conv3"}, code="E=[0]", epochs=None, seconds=2.5)()
    assert result == {"miou": 0.5, "seconds": 1.0, "cpu_seconds": 1.0, "note": ""}
    (job,) = seen
    assert job.to_json() == {
        "job": "candidate 5",
        "kind": "candidate",
        "number": 4,
        "code": "E=[0]",
        "choices": {"op": "conv3"},
        "seconds": 2.5,
    }


def test_a_candidate_that_was_trained_but_not_written_down_is_no_job_again(setting: Setting) -> None:
    folder, prepared, _ = setting(RANDOM)
    crew = Pretending(folder, prepared)
    bench = CrewBench(crew, folder.search, 2, lambda job, error: None)
    for choices in ({"op": "conv3"}, {"op": "conv3"}, {"op": "conv5"}):  # the last is another candidate
        assert bench.begin(4, choices, code="E=[0]", epochs=1, seconds=None)()["miou"] == 5 / 16
    assert crew.done == ["candidate 5"] * 2


def test_the_trainings_carry_what_another_machine_needs(setting: Setting) -> None:
    _, prepared, plan = setting(ENAS)
    jobs = training_jobs(replace(plan, seeds=[3, 4]), prepared.config, prepared.control)
    assert [(job.label, job.seed) for job in jobs[:4]] == [("searched", 3), ("unet", 3), ("random", 3), ("searched", 4)]
    by_label = {job.label: job for job in jobs}
    assert by_label["searched"].architecture == prepared.control.to_json() and by_label["searched"].needs_search
    assert by_label["random"].architecture is not None and not by_label["random"].needs_search
    assert by_label["random"].architecture["choices"] == dict(prepared.control.choices)
    assert by_label["unet"].architecture is None
