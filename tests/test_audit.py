"""``autoseg audit`` on a run folder: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoseg.agreement import rank_agreement
from autoseg.audit import audit
from autoseg.cli import main
from autoseg.errors import UserError
from autoseg.runfolder import RunFolder

pytestmark = pytest.mark.usefixtures("one_core")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished tiny run."""
    shutil.copytree(tiny_folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return command


def problems(run: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        audit(run, **options)
    return "\n".join(str(problem) for problem in caught.value.problems)


def test_an_audit_from_the_command_line_and_a_longer_one_after_it(run: Path, call: Call) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = call("audit", run, "--count", 3, "--epochs", 1, "--json")
    assert code == 0 and "Training 3 architectures alone, 1 epoch(s) each" in err
    found = json.loads(out)
    assert found == json.loads((run / "audit/audit.json").read_text())
    assert (run / "audit/audit.png").read_bytes()[1:4] == b"PNG"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Audit of the ranking" in page and "Kendall&#39;s tau" in page
    changed = [path.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == ["report.html"]  # otherwise the run is as it was
    assert {found[key] for key in ("space", "strategy", "seed", "seconds", "epochs")} == {"ednas", "enas", 0, None, 1}
    rows = found["architectures"]
    scores = [row["supernet"] for row in rows]
    assert scores == sorted(scores, reverse=True) and len({row["code"] for row in rows}) == 3
    expected = rank_agreement(scores, [row["alone"] for row in rows])
    assert (found["tau"], found["regret"]) == (expected.tau, expected.regret)
    assert (found["favourite"], found["best"]) == (rows[0]["code"], rows[expected.best]["code"])

    code, out, err = call("audit", run, "--count", 4)
    assert code == 0 and "Training 1 architectures alone" in err and f"picture: {run / 'audit/audit.png'}" in err
    longer = json.loads((run / "audit/audit.json").read_text())["architectures"]
    assert [row for row in longer if row["number"] < 3] == rows
    assert all(row["code"] in out and f"{row['params']:,}" in out for row in longer)
    assert "Regret of the supernet's favourite:" in out

    code, _, err = call("audit", run, "--count", 4, "--seed", 5, "--seconds", "2s")
    assert code == 2
    assert "was begun with seed = 0, now it is 5" in err and "was begun with seconds = None, now it is 2.0" in err


def test_the_length_is_a_fourth_of_a_training_of_the_run_and_said_beforehand(run: Path, call: Call) -> None:
    tested = RunFolder(run).model("searched", 0) / "test.json"
    tested.write_text(json.dumps({**json.loads(tested.read_text()), "train_seconds": 4.8}))
    code, _, err = call("audit", run, "--count", 2)
    assert code == 0 and "Training 2 architectures alone, 1.2 s each, about 2.4 s in all" in err
    rows = json.loads((run / "audit/audit.json").read_text())["architectures"]
    assert [row["train_seconds"] for row in rows] == pytest.approx([1.2, 1.2], abs=0.6)


def test_wrong_options_are_reported_together(run: Path) -> None:
    text = problems(run, count=1, seconds=-1, epochs=0)
    for part in ("count: must be 2", "seconds: must be positive", "epochs: must be 1", "cannot both be given"):
        assert part in text
    assert not (run / "audit").exists()


def test_a_folder_without_a_finished_search(run: Path, tmp_path: Path) -> None:
    assert "is not a run folder" in problems(tmp_path)
    (run / "architecture.json").unlink()
    assert "the search of this run is not finished" in problems(run)


def test_a_run_without_a_supernet(run: Path) -> None:
    state = run / "search/state.safetensors"
    state.unlink()
    assert "has left no weights of a supernet" in problems(run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(json.dumps({**config, "strategy": {"name": "random"}}))
    text = problems(run)
    assert "the strategy 'random' trains every candidate by itself" in text and "such as enas" in text


def test_changed_data_and_a_busy_folder_are_refused(run: Path) -> None:
    with RunFolder(run).lock():
        assert "another process is working in this run folder" in problems(run)
    found = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**found, "data_hash": "0" * 64}))
    assert "the images or masks have changed" in problems(run)
