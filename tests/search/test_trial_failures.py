"""What becomes of a search when the training of a candidate fails, or something else does."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_tools import STRATEGIES, Bench, bench_for, search
from toy import PlantedWide
from trial_tools import outcome, toy_spaces

from autoseg.crew import CrewGone, JobFailed
from autoseg.errors import AutosegError, UserError
from autoseg.progress import Progress
from autoseg.runfolder import Journal
from autoseg.search import trials
from autoseg.search.multitrial import MultiTrial
from autoseg.search.random_search import RandomSearch
from autoseg.search.trials import TrialFailed, TrialResult


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    with toy_spaces():
        yield


class Failing(Bench):
    """Some trainings fail."""

    def __init__(self, folder: Path, wrong: set[int], error: type[Exception] = TrialFailed) -> None:
        super().__init__(folder, 2, PlantedWide.quality)
        self.wrong, self.error = wrong, error

    def begin(self, number: int, choices: dict[str, Any], **lengths: Any) -> Callable[[], TrialResult]:
        wait = super().begin(number, choices, **lengths)

        def fail() -> TrialResult:
            wait()
            raise self.error(f"no memory for {number}")

        return fail if number in self.wrong else wait


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_training_scores_zero_and_the_search_goes_on(strategy: type[MultiTrial], tmp_path: Path) -> None:
    result = search(strategy(trials=8), tmp_path, Failing(tmp_path, {1, 4}))
    assert [row["number"] for row in result.history if row["miou"] == 0] == [1, 4]
    assert result.history[1]["note"] == "its training failed: no memory for 1" and result.history[1]["failed"]
    assert "2 of 8 trainings failed and scored 0; of the first, its training failed: no memory for 1" in result.notes
    assert len(result.candidates) == 8 and result.candidates[5].miou > 0.3 > result.candidates[6].miou == 0
    again = search(strategy(trials=8), tmp_path, Failing(tmp_path, set(range(8))))
    assert outcome(again) == outcome(result)


def test_when_all_fail_the_first_message_is_told(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"none of the 4 candidates was trained: .* no memory for 0") as caught:
        search(RandomSearch(trials=4), tmp_path, Failing(tmp_path, set(range(4))))
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize("error", [UserError, CrewGone, JobFailed, BrokenPipeError])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_not_the_fault_of_a_candidate_ends_the_search(
    strategy: type[MultiTrial], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error, match="no memory for 2"):
        search(strategy(trials=6), tmp_path, Failing(tmp_path, {2}, error))
    rows = [row for row in Journal(tmp_path / "journal.jsonl").rows if row["kind"] == "candidate"]
    assert [row["number"] for row in rows] == [0, 1]
    expected = search(strategy(trials=6), tmp_path / "whole", bench_for(tmp_path / "whole", 2))
    assert outcome(search(strategy(trials=6), tmp_path, bench_for(tmp_path, 2))) == outcome(expected)


def test_no_space_for_a_candidate_in_this_process_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, left = trials.train_network, [2]

    def full(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device", "state.safetensors")
        left[0] -= 1
        return train(*arguments, **options)

    monkeypatch.setattr(trials, "train_network", full)
    with pytest.raises(UserError) as caught:
        search(RandomSearch(trials=3, epochs=1), tmp_path, None)
    (problem,) = caught.value.problems
    assert problem.where == "state.safetensors" and problem.what == "candidate 3: No space left on device"
    assert [row["number"] for row in Journal(tmp_path / "journal.jsonl").rows] == [0, 1]


def test_a_progress_that_raises_in_this_process_ends_the_search(tmp_path: Path) -> None:
    class Gone(Progress):
        def figures(self, label: str, values: dict[str, float]) -> None:
            if label == "candidate 2":
                raise ValueError("the listener stops")

    with pytest.raises(ValueError, match="the listener stops"):
        search(RandomSearch(trials=3, epochs=1), tmp_path, None, progress=Gone())
    assert [row["number"] for row in Journal(tmp_path / "journal.jsonl").rows] == [0]
