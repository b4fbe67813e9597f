"""The conductor with a crew that pretends: what is done in which order, and what becomes of failures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autoseg.comparison import compare
from autoseg.conduct import Conductor, CrewBench, all_done, search_jobs, training_jobs
from autoseg.config import load_config
from autoseg.crew import Crew, JobFailed, Result, Ticket
from autoseg.environment import describe_environment
from autoseg.errors import AutosegError, Problem, UserError
from autoseg.job import Job
from autoseg.plan import Plan
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.report.page import render
from autoseg.report.rundata import read_run
from autoseg.runfolder import Journal, RunFolder, read_json, write_json, write_text
from autoseg.search.trials import result_file
from autoseg.train.recipe import Recipe

CONFIG: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"width": 4, "layers": 2, "blocks": 2}},
    "baselines": [{"name": "unet", "options": {"width": 4}}, "random"],
    "repeats": 2,
    "compute": {"device": "cpu"},
}
TRACE = (
    "Traceback (most recent call last):\n" + "".join(f"  step {n}\n" for n in range(20)) + "ValueError: 7 is too many\n"
)


class Told(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Pretending(Crew):
    """Leaves results as jobs do, in no time; ``ends`` names jobs that end otherwise."""

    def __init__(self, folder: RunFolder, prepared: Prepared, slots: int = 2, **ends: Exception) -> None:
        self.told = Told()
        super().__init__(slots, self.told)
        self.folder, self.prepared = folder, prepared
        self.ends = {name.replace("_", " "): error for name, error in ends.items()}
        self.done: list[str] = []

    def begin(self, ticket: Ticket) -> None:
        job = ticket.job
        self.done.append(str(job))
        for name, error in self.ends.items():
            if str(job).replace(",", "") == name:
                self.failed(ticket, error)
                return
        self.finished(
            ticket, {"search": self.search, "candidate": self.candidate, "training": self.train}[job.kind](job)
        )

    def stop(self) -> None:
        pass

    def search(self, job: Job) -> Result:
        found = {"space": "ednas", "kwargs": CONFIG["space"]["options"], "choices": dict(self.prepared.control.choices)}
        found |= {
            "search_seed": job.seed,
            "miou": {0: 0.25, 1: 0.5, 2: 0.125}[job.seed],
            "code": f"E=[{job.seed}]",
            "notes": [],
        }
        write_json(self.folder.search_of(job.seed, job.number) / "found.json", found)
        return {"miou": found["miou"], "code": found["code"]}

    def candidate(self, job: Job) -> Result:
        result = {"miou": (job.number + 1) / 16, "seconds": 1.0, "cpu_seconds": 1.0, "note": ""}
        write_json(result_file(self.folder.search, job.number), {"choices": job.choices, "curve": [], **result})
        return result

    def train(self, job: Job) -> Result:
        image = {"name": "a", "miou": 0.5, "confusion": [[4, 1, 0], [1, 4, 0], [0, 0, 4]]}
        role = {"searched": "finalist", "unet": "baseline", "random": "control"}[job.label]
        test = {
            "model": job.label,
            "role": role,
            "seed": job.seed,
            "params": 9,
            "miou": 0.5,
            "dice": 0.6,
            "val_miou": 0.5,
        }
        test |= {"accuracy": 0.7, "iou_per_class": [0.5, 0.5, 0.5], "train_seconds": 1.0, "images": [image, image]}
        write_json(self.folder.model(job.label, job.seed) / "test.json", test)
        return {"miou": 0.5}


@cache
def prepared_for(strategy: str) -> Prepared:
    return prepare(load_config({**CONFIG, "strategy": json.loads(strategy)})).with_threads(1)


Setting = Callable[..., tuple[RunFolder, Prepared, Plan]]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Makes a run folder with a plan; drawings are left out, they take a second each."""
    monkeypatch.setattr("autoseg.conduct.save_architecture", lambda *_: None)

    def make(strategy: dict[str, Any], **plan: Any) -> tuple[RunFolder, Prepared, Plan]:
        prepared = prepared_for(json.dumps(strategy))
        folder = RunFolder(tmp_path / "run")
        folder.open(resume=False)
        models = ["searched", "unet", "random"]
        recipe = Recipe(epochs=1, batch=4, patch=32)
        return folder, prepared, Plan(recipe, None, models, [0, 1], control=dict(prepared.control.choices), **plan)

    return make


def conduct(setting: tuple[RunFolder, Prepared, Plan], crew: Pretending) -> Conductor:
    conductor = Conductor(*setting, crew, crew.told)
    conductor.run()
    return conductor


TRAININGS = [f"{label}, seed {seed}" for seed in (0, 1) for label in ("searched", "unet", "random")]
ENAS = {"name": "enas", "options": {"epochs": 1}}
RANDOM = {"name": "random", "options": {"trials": 4, "epochs": 2}}


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


def test_one_of_two_searches_may_fail(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    folder, prepared, _ = made
    crew = Pretending(folder, prepared, search_seed_1=JobFailed("search, seed 1 failed: ValueError", TRACE))
    conductor = conduct(made, crew)
    found = read_json(folder.architecture)
    assert found["search_seed"] == 0 and found["searches"] == [{"seed": 0, "miou": 0.25, "code": "E=[0]"}]
    assert sorted(crew.done[2:]) == sorted(TRAININGS)
    assert [failure["job"] for failure in conductor.failures] == ["search, seed 1"]


def test_when_every_search_fails_the_error_is_that_of_a_search(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    failed: dict[str, Any] = {f"search_seed_{n}": JobFailed(f"search, seed {n} failed", f"trace {n}") for n in (0, 1)}
    crew = Pretending(*made[:2], slots=1, **failed, unet_seed_0=JobFailed("unet, seed 0 failed", "another trace"))
    with pytest.raises(JobFailed, match="search, seed 1 failed") as caught:
        conduct(made, crew)
    assert caught.value.log == "trace 1"


def test_the_only_search_fails(setting: Setting) -> None:
    made = setting(ENAS)
    with pytest.raises(JobFailed, match="the search failed"):
        conduct(made, Pretending(*made[:2], the_search=JobFailed("the search failed", TRACE)))
    assert read_json(made[0].failures)[0]["job"] == "the search"


def test_what_the_user_can_mend_ends_the_run(setting: Setting) -> None:
    made = setting(ENAS)
    with pytest.raises(UserError, match="lower it"):
        conduct(made, Pretending(*made[:2], unet_seed_0=UserError(Problem("it diverged", "train.lr", "lower it"))))
    assert not made[0].failures.exists()


def test_a_failed_baseline_leaves_the_comparison_and_is_tried_again_by_the_next_run(setting: Setting) -> None:
    made = setting(ENAS)
    folder, prepared, plan = made
    crew = Pretending(folder, prepared, unet_seed_1=JobFailed("unet, seed 1 failed: ValueError: 7 is too many", TRACE))
    conduct(made, crew)
    assert sorted(crew.done[1:]) == sorted(TRAININGS)  # the others were done
    (failure,) = read_json(folder.failures)
    assert (failure["job"], failure["label"], failure["kind"]) == ("unet, seed 1", "unet", "training")
    assert failure["log"] == TRACE
    (note,) = crew.told.notes
    assert note.startswith("unet, seed 1 failed: ValueError: 7 is too many\n  |   step 13\n")  # the last lines of it
    assert note.endswith("  | ValueError: 7 is too many")
    comparison = compare(folder, plan.models, plan.seeds)
    assert list(comparison["models"]) == ["searched", "random"]
    assert "Left out because its training failed: unet." in comparison["verdict"]["text"]
    again = Pretending(folder, prepared)
    conduct(made, again)
    assert again.done == ["unet, seed 1"] and not folder.failures.exists()
    assert list(compare(folder, plan.models, plan.seeds)["models"]) == ["searched", "unet", "random"]


def test_a_failed_finalist_ends_the_run_after_the_others_were_done(setting: Setting) -> None:
    made = setting(ENAS)
    error = JobFailed("searched, seed 0 failed: ValueError", TRACE)
    crew = Pretending(*made[:2], slots=1, searched_seed_0=error)
    with pytest.raises(JobFailed, match="searched, seed 0 failed: ValueError") as caught:
        conduct(made, crew)
    assert caught.value.log == TRACE
    assert sorted(crew.done[1:]) == sorted(TRAININGS)
    missing = [job for job in training_jobs(made[2]) if not job.done(made[0])]
    assert [str(job) for job in missing] == ["searched, seed 0"]


def test_a_failed_candidate_scores_0_and_the_search_goes_on(setting: Setting) -> None:
    made = setting(RANDOM)
    folder, prepared, _ = made
    crew = Pretending(folder, prepared, candidate_2=JobFailed("candidate 2 failed: ValueError: 7 is too many", TRACE))
    conduct(made, crew)
    assert crew.done[:4] == [f"candidate {n}" for n in (1, 2, 3, 4)] and sorted(crew.done[4:]) == sorted(TRAININGS)
    rows = [row for row in Journal(folder.journal).rows if row["kind"] == "candidate"]
    assert [row["miou"] for row in rows] == [1 / 16, 0.0, 3 / 16, 4 / 16]
    assert [row["number"] for row in rows if row.get("failed")] == [1]
    found = read_json(folder.architecture)
    assert found["miou"] == 0.25 and found["choices"] == rows[3]["choices"]
    assert any("1 of 4 trainings failed and scored 0" in note for note in found["notes"])
    (failure,) = read_json(folder.failures)
    assert failure["job"] == "candidate 2" and failure["log"] == TRACE
    assert any(note.startswith("candidate 2 failed: ValueError") for note in crew.told.notes)


def test_a_resumed_search_knows_which_candidates_had_failed(setting: Setting) -> None:
    made = setting(RANDOM)
    folder, prepared, _ = made
    ends: dict[str, Any] = {"candidate_2": JobFailed("candidate 2 failed", TRACE)}
    ends["unet_seed_0"] = JobFailed("unet, seed 0 failed", TRACE)
    conduct(made, Pretending(folder, prepared, **ends))
    journal = folder.journal.read_text()
    (folder.search / "found.json").unlink()
    folder.architecture.unlink()
    again = Pretending(folder, prepared)
    conduct(made, again)
    assert again.done == ["unet, seed 0"]  # no candidate, the failed one neither
    assert folder.journal.read_text() == journal
    assert [failure["job"] for failure in read_json(folder.failures)] == ["candidate 2"]


def test_when_all_candidates_fail_there_is_nothing_to_train(setting: Setting) -> None:
    made = setting(RANDOM)
    ends: dict[str, Any] = {f"candidate_{n}": JobFailed(f"candidate {n} failed: ValueError") for n in (1, 2, 3, 4)}
    crew = Pretending(*made[:2], **ends)
    with pytest.raises(AutosegError, match=r"none of the 4 candidates was trained.*candidate 1 failed: ValueError"):
        conduct(made, crew)
    assert len(crew.done) == 4 and len(read_json(made[0].failures)) == 4


def test_a_candidate_is_a_readable_job(setting: Setting) -> None:
    folder, prepared, _ = setting(RANDOM)
    crew, seen = Pretending(folder, prepared, slots=3), []
    crew.candidate = lambda job: seen.append(job) or {"miou": 0.5, "seconds": 1.0, "cpu_seconds": 1.0, "note": ""}  # type: ignore[method-assign, func-returns-value, assignment]
    bench = CrewBench(crew, folder.search, lambda job, error: None)
    assert bench.concurrency == 3
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
    bench = CrewBench(crew, folder.search, lambda job, error: None)
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


def test_the_report_shows_what_failed(setting: Setting) -> None:
    folder, prepared, _ = made = setting(ENAS)
    conduct(made, Pretending(folder, prepared, unet_seed_1=JobFailed("unet, seed 1 failed: ValueError", TRACE)))
    write_text(folder.config, prepared.config.to_yaml())
    write_json(folder.environment, describe_environment([0, 1], "hash", "cpu"))
    write_json(folder.plan, made[2].to_json())
    page = render(read_run(folder.path), prepared.data)
    section = page[page.index('<section id="failures">') :].partition("</section>")[0]
    assert "<h2>Failed</h2>" in section and "<summary>unet, seed 1 failed: ValueError</summary>" in section
    assert "  step 0\n" in section and "ValueError: 7 is too many" in section
