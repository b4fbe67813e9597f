"""The conductor with a crew that pretends: what becomes of failures, losses, and a crew that is gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pretending import ENAS, RANDOM, TRACE, TRAININGS, Pretending, Setting, conduct, settings

from autoseg.comparison import compare
from autoseg.conduct import all_done, training_jobs
from autoseg.crew import CrewGone, JobFailed, JobLost, Ticket
from autoseg.environment import describe_environment
from autoseg.errors import AutosegError, Problem, UserError
from autoseg.report.page import render
from autoseg.report.rundata import read_run
from autoseg.runfolder import Journal, read_json, write_json, write_text


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return settings(tmp_path, monkeypatch)


def test_one_of_two_searches_may_fail(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    folder, prepared, _ = made
    crew = Pretending(folder, prepared, search_seed_1=JobFailed("search, seed 1 failed: ValueError", TRACE))
    conductor = conduct(made, crew)
    found = read_json(folder.architecture)
    assert found["search_seed"] == 0 and found["searches"] == [{"seed": 0, "miou": 0.25, "code": "E=[0]"}]
    assert sorted(crew.done[2:]) == sorted(TRAININGS)
    assert [failure["job"] for failure in conductor.failures] == ["search, seed 1"]
    note = "Search, seed 1 failed: ValueError; the architecture is the best of the other searches."
    assert found["notes"] == [note]
    verdict = compare(folder, made[2].models, made[2].seeds)["verdict"]
    assert verdict["notes"] == [note] and "training failed" not in verdict["text"]
    shutil.rmtree(folder.model("unet", 0))  # a resumed run does what is missing, but for the search
    again = Pretending(folder, prepared)
    conduct(made, again)
    assert again.done == ["unet, seed 0"] and read_json(folder.architecture) == found
    assert [failure["job"] for failure in read_json(folder.failures)] == ["search, seed 1"]


def test_a_search_that_was_lost_is_noted_without_advice_that_comes_too_late(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    lost = JobLost("search, seed 1: its process was killed", "resume the run to try it again")
    conduct(made, Pretending(*made[:2], search_seed_1=lost))
    note = "Search, seed 1: its process was killed; the architecture is the best of the other searches."
    assert read_json(made[0].architecture)["notes"] == [note]


def test_a_search_that_failed_is_done_again_while_nothing_is_chosen(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    failed = {"job": "search, seed 1", "kind": "search", "label": "search, seed 1", "message": "failed", "log": ""}
    write_json(made[0].failures, [failed])
    conduct(made, Pretending(*made[:2]))
    found = read_json(made[0].architecture)
    assert (found["search_seed"], found["notes"]) == (1, []) and not made[0].failures.exists()


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


@pytest.mark.parametrize("slots", [1, 2])
def test_a_candidate_that_is_lost_for_good_ends_the_search_without_a_row(setting: Setting, slots: int) -> None:
    made = setting(RANDOM)
    folder, prepared, _ = made
    lost = JobLost("candidate 2: its process was killed", "use less memory", TRACE)
    with pytest.raises(JobLost, match="candidate 2: its process was killed; use less memory"):
        conduct(made, Pretending(folder, prepared, slots, candidate_2=lost))
    rows = [row for row in Journal(folder.journal).rows if row["kind"] == "candidate"]
    assert [row["number"] for row in rows] == [0] and not folder.architecture.exists()
    assert [failure["log"] for failure in read_json(folder.failures)] == [TRACE]
    again = Pretending(folder, prepared, slots)
    conduct(made, again)
    assert "candidate 2" in again.done and not folder.failures.exists()
    rows = [row for row in Journal(folder.journal).rows if row["kind"] == "candidate"]
    assert [row["miou"] for row in rows] == [n / 16 for n in (1, 2, 3, 4)]


class Leaving(Pretending):
    """Is gone when a job begins."""

    last = ""

    def begin(self, ticket: Ticket) -> None:
        if str(ticket.job) == self.last:
            self.gone("NNI's manager has stopped")
        else:
            super().begin(ticket)


@pytest.mark.parametrize("last", ["candidate 3", "unet, seed 1"])
def test_when_the_crew_is_gone_the_run_ends_and_nothing_has_failed(setting: Setting, last: str) -> None:
    made = setting(RANDOM)
    folder, prepared, _ = made
    crew = Leaving(folder, prepared)
    crew.last = last
    with pytest.raises(CrewGone, match=r"NNI's manager has stopped; .* resume the run"):
        conduct(made, crew)
    rows = [row for row in Journal(folder.journal).rows if row["kind"] == "candidate"]
    assert [row["miou"] for row in rows] == [n / 16 for n in ((1, 2) if last == "candidate 3" else (1, 2, 3, 4))]
    assert folder.architecture.exists() == (last != "candidate 3") and not folder.failures.exists()
    conduct(made, Pretending(folder, prepared))
    assert all_done(folder, made[2]) and read_json(folder.architecture)["miou"] == 0.25


def test_when_the_crew_is_gone_no_search_is_chosen(setting: Setting) -> None:
    made = setting({**ENAS, "repeats": 2}, search_seeds=[0, 1])
    crew = Leaving(*made[:2], slots=1)
    crew.last = "search, seed 1"
    with pytest.raises(CrewGone):
        conduct(made, crew)
    assert not made[0].architecture.exists() and not made[0].failures.exists()


@pytest.mark.parametrize("where", ["candidate 2", "candidate 4", "unet, seed 0", "random, seed 1"])
def test_a_progress_that_raises_ends_the_run_with_its_error(setting: Setting, where: str) -> None:
    """Also in the report of the very last job; nobody waits for ever, and nothing scores 0."""
    made = setting(RANDOM)
    folder, prepared, _ = made

    class Reporting(Pretending):
        def begin(self, ticket: Ticket) -> None:
            super().begin(ticket)
            self.progress.end(str(ticket.job))

    crew = Reporting(folder, prepared)

    def end(label: str, text: str = "") -> None:
        if label == where:
            raise BrokenPipeError(label)

    crew.told.end = end  # type: ignore[method-assign]
    with pytest.raises(BrokenPipeError, match=where):
        conduct(made, crew)
    rows = [row for row in Journal(folder.journal).rows if row["kind"] == "candidate"]
    assert all(row["miou"] > 0 for row in rows) and not folder.failures.exists()


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
