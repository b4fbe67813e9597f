from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.job import Job
from autoseg.nnibridge.outcome import Outcome, merge, read_outcome
from autoseg.runfolder import RunFolder, write_json, write_text

TRAINING = Job("training", "unet", 1)


def training(output: Path) -> None:
    """What a trial leaves, and things that are none of its business."""
    place = output / "run" / "models" / "unet" / "seed-1"
    for name in ("history.csv", "predictions/a.png"):
        write_text(place / name, name)
    write_json(place / "test.json", {"miou": 0.5})
    write_text(output / "run" / "config.yaml", "name: changed")
    write_text(output / "run" / "models" / "unet" / "seed-0" / "test.json", "{}")
    write_text(output / "run" / "architecture.json", "{}")
    (place / "link.csv").symlink_to("/etc/hostname")


def test_a_result_is_moved_into_the_run_folder(tmp_path: Path) -> None:
    training(tmp_path / "out")
    write_json(tmp_path / "out" / "outcome.json", {"result": {"miou": 0.5}})
    folder = RunFolder(tmp_path / "run")
    write_text(folder.config, "name: mine")
    assert read_outcome(tmp_path / "out", TRAINING, folder) == Outcome(result={"miou": 0.5})
    files = sorted(file.relative_to(folder.path).as_posix() for file in folder.path.rglob("*") if file.is_file())
    assert files == [
        "config.yaml", "models/unet/seed-1/history.csv", "models/unet/seed-1/predictions/a.png",
        "models/unet/seed-1/test.json",
    ]  # fmt: skip
    assert folder.config.read_text() == "name: mine"


def test_the_file_that_says_done_comes_last(tmp_path: Path) -> None:
    training(tmp_path / "out")
    source, folder = tmp_path / "out" / "run", RunFolder(tmp_path / "run")
    write_text(folder.model("unet", 1) / "predictions", "a file where a folder must be")  # the move stops here
    with pytest.raises(OSError):
        merge(source, TRAINING, folder)
    assert not TRAINING.done(folder)


def test_candidates_and_searches_have_their_own_places(tmp_path: Path) -> None:
    folder, out = RunFolder(tmp_path / "run"), tmp_path / "out" / "run"
    for name in ("trials/3.json", "trials/4.json", "found.json", "journal.jsonl", "seed-5/found.json"):
        write_text(out / "search" / name, "{}")
    merge(out, Job("candidate", number=3), folder)
    assert [file.name for file in folder.path.rglob("*.json")] == ["3.json"]
    merge(out, Job("search", "search, seed 5", 5, number=1), folder)
    assert (folder.search / "seed-5" / "found.json").exists() and not (folder.search / "found.json").exists()
    merge(out, Job("search", seed=4), folder)
    assert (folder.search / "found.json").exists() and (folder.search / "journal.jsonl").exists()


def test_how_a_trial_failed(tmp_path: Path) -> None:
    folder, out = RunFolder(tmp_path / "run"), tmp_path / "out"
    write_text(out / "trial.stderr", "x" * 5000 + "Killed")
    silent = read_outcome(out, TRAINING, folder)
    assert silent.failed == "it ended without a word" and silent.log.endswith("xKilled") and len(silent.log) == 4000
    write_json(out / "outcome.json", {"failed": "ValueError: no", "log": "Traceback"})
    assert read_outcome(out, TRAINING, folder) == Outcome(failed="ValueError: no", log="Traceback")
    write_json(out / "outcome.json", {"problems": [{"what": "bad", "where": "a", "fix": "b"}]})
    (problem,) = read_outcome(out, TRAINING, folder).problems
    assert str(problem) == "a: bad\n  -> b"
    (problem,) = read_outcome(out, TRAINING, folder, "me@gpu1").problems
    assert str(problem) == "a: on me@gpu1: bad\n  -> b"
    write_json(out / "outcome.json", {"failed": "ValueError: no"})
    assert read_outcome(out, TRAINING, folder, "me@gpu1").failed == "on me@gpu1: ValueError: no"
    write_json(out / "outcome.json", {"result": {"miou": 1.0}})
    assert read_outcome(out, TRAINING, folder).lost == "its results did not come with it"
    write_text(out / "outcome.json", '{"resu')
    assert "cannot be read" in read_outcome(out, TRAINING, folder).lost
