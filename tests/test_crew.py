"""Crews: who goes first, what is tried again, and what a failure says."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
import torch

from autoseg.crew import Alone, Crew, CrewGone, JobFailed, JobLost, Ticket, as_failure
from autoseg.errors import AutosegError, Problem, UserError
from autoseg.job import Job
from autoseg.progress import Progress

UNET, FCN = Job("training", "unet"), Job("training", "fcn")


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Held(Crew):
    """Its jobs run until the test ends them."""

    def __init__(self, slots: int = 1, noted: Noted | None = None) -> None:
        self.noted = noted or Noted()
        super().__init__(slots, self.noted)
        self.begun: list[Ticket] = []

    @property
    def order(self) -> list[str]:
        return [ticket.job.label for ticket in self.begun]

    def begin(self, ticket: Ticket) -> None:
        self.begun.append(ticket)

    def stop(self) -> None:
        self._stopped = True


def test_as_many_jobs_run_as_there_are_places_and_the_lowest_rank_goes_next() -> None:
    crew = Held(slots=2)
    for label, rank in (("first", 9), ("second", 9), ("b", 2), ("c", 2), ("a", 1)):
        crew.submit(Job("training", label), rank)
    assert crew.order == ["first", "second"]
    crew.finished(crew.begun[1], {})
    crew.submit(Job("search", "search"), -1)
    assert crew.order == ["first", "second", "a"]
    for _ in range(4):
        crew.finished(crew.begun[-1], {})
    assert crew.order == ["first", "second", "a", "search", "b", "c"]
    assert not crew.begun[0].future.done()


def test_a_lost_job_goes_back_to_its_rank_and_is_tried_three_times() -> None:
    crew = Held()
    important, other = crew.submit(UNET, rank=0), crew.submit(FCN, rank=1)
    for _ in range(2):
        crew.lost(crew.begun[-1], "its process was killed")
    assert crew.order == ["unet", "unet", "unet"]  # before the other, which has waited longer
    assert crew.noted.notes == ["unet, seed 0: its process was killed; it is tried again"] * 2
    crew.lost(crew.begun[-1], "its process was killed", "use less memory", "the last words")
    with pytest.raises(JobFailed, match=r"^unet, seed 0: its process was killed; use less memory$") as caught:
        important.result(0)
    assert isinstance(caught.value, JobLost) and caught.value.log == "the last words"
    assert caught.value.what == "unet, seed 0: its process was killed"  # what is still true when nothing can be done
    assert crew.order[3:] == ["fcn"]
    crew.finished(crew.begun[-1], {"miou": 0.5})
    assert other.result(0) == {"miou": 0.5}  # the losses of another are not held against it


def test_a_job_that_was_lost_twice_can_still_be_done() -> None:
    crew = Held()
    future = crew.submit(UNET)
    for _ in range(2):
        crew.lost(crew.begun[-1], "its machine is gone")
    crew.finished(crew.begun[-1], {"miou": 0.25})
    assert future.result(0) == {"miou": 0.25}


def test_without_advice_the_user_is_told_to_resume() -> None:
    crew = Held()
    future = crew.submit(UNET)
    for _ in range(3):
        crew.lost(crew.begun[-1], "its machine is gone")
    assert str(future.exception(0)) == "unet, seed 0: its machine is gone; resume the run to try it again"


def test_a_job_that_failed_is_not_tried_again() -> None:
    crew, error = Held(), JobFailed("unet, seed 0 failed: ValueError", "trace")
    failing, other = crew.submit(UNET), crew.submit(FCN)
    crew.failed(crew.begun[0], error)
    assert failing.exception(0) is error
    assert crew.order == ["unet", "fcn"] and crew.noted.notes == [] and not other.done()


def test_only_the_first_end_of_a_job_counts() -> None:
    crew = Held()
    futures = [crew.submit(job) for job in (UNET, FCN)]
    ended = crew.begun[0]
    crew.finished(ended, {"miou": 1.0})
    crew.lost(ended, "its trial ended as FAILED")
    crew.failed(ended, JobFailed("late"))
    assert futures[0].result(0) == {"miou": 1.0}
    assert crew.order == ["unet", "fcn"] and ended.losses == 0 and not futures[1].done()


def test_nothing_begins_after_the_end() -> None:
    crew = Held()
    futures = [crew.submit(job) for job in (UNET, FCN)]
    crew.stop()
    crew.lost(crew.begun[0], "its process ended by signal SIGTERM")
    assert crew.order == ["unet"] and futures[0].done() and not futures[1].done()


class Stillborn(Held):
    """Cannot start the first few jobs."""

    bad = 0

    def begin(self, ticket: Ticket) -> None:
        super().begin(ticket)
        if len(self.begun) <= self.bad:
            raise EOFError


def test_a_job_that_cannot_be_started_is_tried_again() -> None:
    crew = Stillborn()
    crew.bad = 2
    future = crew.submit(UNET)
    assert crew.order == ["unet"] * 3 and not future.done()
    crew.finished(crew.begun[-1], {})
    assert future.result(0) == {}
    assert crew.noted.notes[0] == "unet, seed 0: it could not be started (EOFError); it is tried again"


def test_jobs_that_can_never_be_started_fail_one_after_the_other() -> None:
    crew = Stillborn(slots=2)
    crew.bad = 1000
    futures = [crew.submit(Job("training", str(number))) for number in range(20)]
    assert all("it could not be started (EOFError); resume" in str(future.exception(0)) for future in futures)
    assert len(crew.begun) == 60


def test_what_the_user_can_mend_stays_that_and_everything_else_is_a_failed_job() -> None:
    mend = UserError(Problem("no images"))
    assert as_failure(UNET, mend) is mend
    failed = JobFailed("told already")
    assert as_failure(UNET, failed) is failed
    ours = as_failure(UNET, AutosegError("the ranks differ"))
    assert isinstance(ours, JobFailed) and str(ours) == "unet, seed 0 failed: AutosegError: the ranks differ"
    try:
        raise ValueError("the first line\nthe second")
    except ValueError as error:
        other = as_failure(UNET, error)
    assert isinstance(other, JobFailed) and str(other) == "unet, seed 0 failed: ValueError: the first line"
    assert "the second" in other.log and "test_crew.py" in other.log
    assert str(as_failure(UNET, KeyError())) == "unet, seed 0 failed: KeyError"


def test_this_process_alone_does_each_job_at_once() -> None:
    def work(job: Job, progress: Progress) -> dict[str, Any]:
        if job.label == "bad":
            raise ZeroDivisionError("division by zero")
        progress.note(threading.current_thread().name)
        return {"label": job.label}

    noted = Noted()
    crew = Alone(work, noted)
    assert not crew.elsewhere and crew.slots == 1
    futures = [crew.submit(Job("training", label)) for label in ("a", "bad", "b")]
    assert all(future.done() for future in futures)
    assert (futures[0].result(), futures[2].result()) == ({"label": "a"}, {"label": "b"})
    error = futures[1].exception()
    assert isinstance(error, JobFailed) and "in work" in error.log
    assert noted.notes == [threading.current_thread().name] * 2
    crew.stop()


def test_when_the_crew_is_gone_no_job_has_failed() -> None:
    crew = Held(slots=2)
    done, *futures = [crew.submit(Job("training", label)) for label in ("done", "a", "b", "c", "d")]
    crew.finished(crew.begun[0], {"miou": 0.5})
    crew.gone("NNI's manager has stopped (exit code 1)")
    futures.append(crew.submit(UNET))
    assert done.result(0) == {"miou": 0.5} and crew.order == ["done", "a", "b"]
    for future in futures:
        error = future.exception(0)
        assert isinstance(error, CrewGone) and not isinstance(error, JobFailed)
        assert str(error) == (
            "NNI's manager has stopped (exit code 1); what is done is kept, resume the run to do the rest"
        )
    for ticket in crew.begun:  # what is said of the jobs afterwards changes nothing, and begins nothing
        crew.lost(ticket, "its trial ended as FAILED")
        crew.failed(ticket, JobFailed("late"))
        crew.finished(ticket, {})
    crew.gone("another reason")
    assert crew.submit(FCN).exception(0) is crew.broken is futures[0].exception(0)
    assert crew.order == ["done", "a", "b"] and crew.noted.notes == []


class Broken(Noted):
    """Its terminal is closed after some notes."""

    def __init__(self, notes: int = 0) -> None:
        super().__init__()
        self.room, self.calls = notes, 0

    def note(self, text: str) -> None:
        self.calls += 1
        if len(self.notes) == self.room:
            raise OSError(errno.EIO, "Input/output error")
        super().note(text)


def test_a_progress_that_raises_ends_all_jobs_with_its_error_and_is_not_called_again() -> None:
    broken = Broken()
    crew = Held(slots=1, noted=broken)
    futures = [crew.submit(job) for job in (UNET, FCN)]
    crew.progress.note("the first")  # from the thread of a worker, which goes on
    crew.progress.note("the second")
    futures.append(crew.submit(UNET))
    assert [type(future.exception(0)) for future in futures] == [OSError] * 3
    assert str(futures[2].exception(0)) == "[Errno 5] Input/output error" and broken.calls == 1


def test_a_job_is_not_forgotten_when_its_loss_cannot_be_told() -> None:
    crew = Held(slots=1, noted=Broken(notes=1))
    futures = [crew.submit(job) for job in (UNET, FCN)]
    crew.lost(crew.begun[-1], "its process was killed")
    assert not futures[0].done()
    crew.lost(crew.begun[-1], "its process was killed")
    assert [type(future.exception(0)) for future in futures] == [OSError, OSError]
    assert crew.order == ["unet", "unet"]


def test_alone_the_job_is_cut_short_by_a_progress_that_raises() -> None:
    steps: list[str] = []

    def work(job: Job, progress: Progress) -> dict[str, Any]:
        steps.append("begun")
        try:
            progress.note("the first epoch")
        except OSError as error:  # as some library may do
            raise ZeroDivisionError from error
        steps.append("ended")
        return {}

    crew = Alone(work, Broken())
    futures = [crew.submit(job) for job in (UNET, FCN)]
    assert [type(future.exception(0)) for future in futures] == [OSError, OSError] and steps == ["begun"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/runs/state"),
            "/runs/state: unet, seed 0: No space left on device\n"
            "  -> free some space or choose another folder; --resume continues the run",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "unet, seed 0: Read-only file system\n"
            "  -> choose another folder or change its permissions; --resume continues the run",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."),
            "unet, seed 0: does not fit into memory (CUDA out of memory. Tried to allocate 2 GiB.)\n"
            "  -> free memory and continue with --resume, or start anew with a smaller train.batch or train.patch "
            "or with fewer compute.workers",
        ),
    ],
)
def test_what_the_machine_is_to_blame_for_is_not_the_failure_of_a_job(error: Exception, text: str) -> None:
    told = as_failure(UNET, error)
    assert isinstance(told, UserError) and str(told) == text


def test_memory_of_this_machine_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    for error in (caught.value, MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")):
        told = as_failure(UNET, error)
        assert isinstance(told, UserError) and "does not fit into memory" in told.problems[0].what


def test_other_errors_of_the_system_are_those_of_the_job() -> None:
    told = as_failure(UNET, FileNotFoundError(errno.ENOENT, "No such file or directory", "weights.pt"))
    assert isinstance(told, JobFailed) and str(told).startswith("unet, seed 0 failed: FileNotFoundError: [Errno 2]")
    gone = CrewGone("NNI's manager has stopped")
    assert as_failure(UNET, gone) is gone
