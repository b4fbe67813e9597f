"""Training on two ranks (two processes on the CPU): the same as one process, the same on both, and no rank left."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rank_jobs
import torch
from torch import distributed as dist

from autoseg.errors import UserError
from autoseg.statefile import load_tree
from autoseg.train import distributed, ranks
from autoseg.train.compute import Compute
from autoseg.train.distributed import RanksDiffer, confirm
from autoseg.train.ranks import RankFailed, several_ranks

JOBS: dict[str, list[Any]] = {
    "agreed": ["agreement", {}],
    "gradient": ["gradient", {"items": 5}],
    "least": ["gradient", {"items": 2}],
    "five": ["evaluation", {"images": 5}],
    "one": ["evaluation", {"images": 1}],
    "plain": ["training", {}],
    "normalised": ["training", {"network": "normalised"}],
    "partly": ["training", {"network": "partly used", "epochs": 1}],
    "poisoned": ["training", {"network": "poisoned"}],
    "time": ["training", {"epochs": None, "seconds": 1.5}],
    "cut": ["training", {"network": "normalised"}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All jobs done by the same two ranks; "cut" was begun before, by one process that was interrupted."""
    folder = tmp_path_factory.mktemp("ranks")
    arguments = {"folder": str(folder), "jobs": JOBS}
    (folder / "cut").mkdir()
    rank_jobs.training(Compute(), str(folder / "cut"), cut=12, network="normalised")
    assert load_tree(folder / "cut" / "state.safetensors")["epoch"] == 0
    hook, threads = sys.excepthook, torch.get_num_threads()
    with several_ranks(Compute(devices=2, threads=threads), "rank_jobs:several", arguments) as own:
        assert (own.ranks, own.rank, own.threads) == (2, 0, threads)
        rank_jobs.several(own, **arguments)
    assert not dist.is_initialized() and sys.excepthook is hook
    assert torch.get_num_threads() == threads
    return folder


def of(folder: Path, job: str) -> tuple[Any, Any]:
    first, second = (json.loads((folder / job / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    return first, second


def alone(tmp_path: Path, job: str) -> Any:
    name, options = JOBS[job]
    getattr(rank_jobs, name)(Compute(), str(tmp_path), **options)
    return json.loads((tmp_path / "rank-0.json").read_text())


def without_times(found: dict[str, Any]) -> Any:
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in found["history"]]
    return {**found, "history": history, "seconds": None}


def test_rank_0_decides(folder: Path) -> None:
    first, second = of(folder, "agreed")
    assert first["rank"] == second["rank"] == 0


@pytest.mark.parametrize("job", ["gradient", "least"])
def test_the_gradient_is_that_of_the_whole_batch(job: str, folder: Path, tmp_path: Path) -> None:
    """With shares of 3 and 2 items, or of one each, and other numbers of labelled pixels in them."""
    first, second = of(folder, job)
    assert first == second
    wanted = alone(tmp_path, job)
    np.testing.assert_allclose(np.array(first["logits"]), np.array(wanted["logits"]), atol=1e-6)
    for found, right in zip(first["gradient"], wanted["gradient"], strict=True):
        np.testing.assert_allclose(np.array(found), np.array(right), atol=1e-6)


@pytest.mark.parametrize("job", ["five", "one"])
def test_images_are_shared_and_counts_summed(job: str, folder: Path, tmp_path: Path) -> None:
    first, second = of(folder, job)
    assert first == second
    wanted = alone(tmp_path, job)
    assert first["names"] == wanted["names"] and first["confusions"] == wanted["confusions"]
    assert first["loss"] == pytest.approx(wanted["loss"], abs=1e-6)


@pytest.mark.parametrize("job", ["plain", "normalised", "partly", "poisoned", "time", "cut"])
def test_both_ranks_end_with_the_same(job: str, folder: Path) -> None:
    first, second = of(folder, job)
    assert without_times(first) == without_times(second)
    assert not (folder / job / "of-rank-1.safetensors").exists()


def test_a_training_is_that_of_one_process(folder: Path, tmp_path: Path) -> None:
    first, wanted = of(folder, "plain")[0], alone(tmp_path, "plain")
    assert [row["epoch"] for row in first["history"]] == [0, 1, 2]
    for row, right in zip(first["history"], wanted["history"], strict=True):
        for key in ("lr", "loss", "val_loss", "val_miou"):
            assert row[key] == pytest.approx(right[key], abs=1e-5)
    for name, right in wanted["weights"].items():
        np.testing.assert_allclose(np.array(first["weights"][name]), np.array(right), atol=1e-5)


def test_statistics_of_normalisation_come_from_all_ranks(folder: Path, tmp_path: Path) -> None:
    mean = np.array(of(folder, "normalised")[0]["weights"]["1.running_mean"])
    wanted = np.array(alone(tmp_path, "normalised")["weights"]["1.running_mean"])
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(mean, wanted, atol=0.05)


def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_both(folder: Path) -> None:
    first, _ = of(folder, "poisoned")
    assert first["notes"] == ["steps left out because loss or gradients were not finite: 1"]
    assert np.isfinite(np.array(first["weights"]["conv.bias"])).all()


def test_a_budget_in_seconds_ends_both_at_the_same_step(folder: Path) -> None:
    first, second = of(folder, "time")
    assert first["history"] == second["history"]  # times and learning rates as well
    assert 0.5 < first["seconds"] < 4.0


def test_a_state_is_that_of_any_number_of_ranks(folder: Path, tmp_path: Path) -> None:
    """A training that two ranks have finished is read by one process, bit for bit."""
    state = load_tree(folder / "normalised" / "state.safetensors")
    assert state["finished"] and state["epoch"] == 2
    (tmp_path / "state.safetensors").write_bytes((folder / "normalised" / "state.safetensors").read_bytes())
    again = alone(tmp_path, "normalised")
    assert again["weights"] == of(folder, "normalised")[0]["weights"]


FAILURES: dict[str, tuple[type[Exception], str]] = {
    "exception": (RankFailed, "^rank 1 failed: LookupError: planted$"),
    "problem": (UserError, "^data: wrong image\n  -> mend it$"),
    "memory": (UserError, r"^rank 1: does not fit into memory \(CUDA out of memory\)"),
    "killed": (RankFailed, "^rank 1 was killed, most likely because memory ran out"),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_that_fails_says_why(how: str, caplog: pytest.LogCaptureFixture) -> None:
    kind, message = FAILURES[how]
    with (
        pytest.raises(kind, match=message),
        several_ranks(Compute(devices=2), "rank_jobs:failing", {"how": how}) as own,
    ):
        rank_jobs.failing(own, how)
    assert not dist.is_initialized()
    assert ("Traceback" in caplog.text) == (how == "exception")


def test_lines_that_are_not_ours_are_skipped(caplog: pytest.LogCaptureFixture) -> None:
    foreign = ['{"level": "warning"}', "[1, 2]", "NCCL version 2.27", '{"ready":']
    assert [ranks._words_in(line) for line in foreign] == [{}] * 4
    assert ranks._words_in('{"ready": true}\n') == {"ready": True}
    lines = "".join(line + "\n" for line in foreign)
    caplog.set_level("INFO", "autoseg.train.ranks")
    found = listened(lines + '{"ready": true}\n{"failed": "KeyError: 1", "trace": "..."}\n')
    assert found.words == {"ready": True, "failed": "KeyError: 1", "trace": "..."}
    assert [r.getMessage() for r in caplog.records] == [f"rank 1 wrote: {line}" for line in foreign]


def listened(output: str) -> Any:
    """A rank whose process has written something and ended."""
    rank = object.__new__(ranks._Rank)
    rank.compute, rank.words, rank._ready = Compute(rank=1), {}, threading.Event()
    rank._process = SimpleNamespace(stdout=io.StringIO(output), wait=lambda: 0)  # type: ignore[assignment]
    rank._listen()
    assert rank._ready.is_set()
    return rank


def test_a_listener_that_fails_leaves_nobody_waiting() -> None:
    rank = object.__new__(ranks._Rank)
    rank.compute, rank.words, rank._ready = Compute(rank=1), {}, threading.Event()
    closed = io.StringIO()
    closed.close()
    rank._process = SimpleNamespace(stdout=closed, wait=lambda: 0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="closed"):
        rank._listen()
    assert rank._ready.is_set()


def test_a_rank_that_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program in the place of Python that says something and then waits."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\necho hello\necho 'the disk is slow' >&2\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(ranks, "_START", 0.7)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        pytest.raises(RankFailed, match=r"^rank 1 was not ready after 0\.7 s\. the disk is slow$"),
        several_ranks(Compute(devices=2), "rank_jobs:failing", {"how": "never"}),
    ):
        pass
    assert list(tmp_path.iterdir()) == [slow]  # the folder of the ranks is gone


def test_ranks_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "agreed", lambda compute, make: "{'op': 0}")
    confirm(Compute(ranks=2, rank=1), "the path", {"op": 0})
    with pytest.raises(RanksDiffer, match=r"^the path of rank 1 is \{'op': 1\}, that of rank 0 is \{'op': 0\}$"):
        confirm(Compute(ranks=2, rank=1), "the path", {"op": 1})


def test_a_batch_that_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a batch of 1 cannot be shared by 2 devices"):
        rank_jobs.training(Compute(devices=2, ranks=2), str(tmp_path), batch=1)


LEADER = """
import sys, rank_jobs
from autoseg.train.compute import Compute
from autoseg.train.ranks import several_ranks
with several_ranks(Compute(devices=2), "rank_jobs:wait", {"folder": sys.argv[1]}) as own:
    rank_jobs.wait(own, sys.argv[1])
"""


def test_no_rank_outlives_rank_0(tmp_path: Path) -> None:
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    leader = subprocess.Popen([sys.executable, "-c", LEADER, str(tmp_path)], env=paths)
    try:
        file = tmp_path / "pid-1"
        wait_for(lambda: file.exists() and file.read_text(), 150)
        number = int(file.read_text())
        assert runs(number)
    finally:
        leader.kill()
        leader.wait()
    wait_for(lambda: not runs(number), 5)


def runs(number: int) -> bool:
    """Whether a process is there, and is no zombie."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False


def wait_for(what: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
