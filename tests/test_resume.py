"""Ctrl-C, SIGTERM and kill -9 at any moment: --resume continues and ends with the same comparison.json."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from processes import CONSOLE, TIMEOUT, Child, Server, session_members, wait_for
from tiny_experiment import MODELS, SEEDS, comparison_of, write_experiment

from autoseg.cli import main
from autoseg.errors import Interrupted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as forking:
        yield forking


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml")


def assert_whole(run: Path) -> None:
    """Every file that a kill has left is complete."""
    for path in run.rglob("*.json"):
        json.loads(path.read_text())
    for path in run.rglob("*.safetensors"):
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
        assert len(content) == 8 + length + max(ends)
    for path in run.rglob("predictions/*.png"):
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None


pytestmark = pytest.mark.usefixtures("one_core")
Moment = Callable[[Path], bool]
MOMENTS: dict[str, Moment] = {
    "before anything is written": lambda run: run.exists(),
    "while configuration and plan are written": lambda run: (run / "config.yaml").exists(),
    "before the search": lambda run: (run / "plan.json").exists(),
    "in the search": lambda run: (run / "search" / "state.safetensors").exists(),
    "while candidates are scored": lambda run: "candidate" in text(run / "search" / "journal.jsonl"),
    "between search and training": lambda run: (run / "architecture.json").exists(),
    "in the first training": lambda run: (run / "models/searched/seed-0/state.safetensors").exists(),
    "between training and test": lambda run: (run / "models/unet/seed-0/model.json").exists(),
    "in a later training": lambda run: (run / "models/random/seed-1/state.safetensors").exists(),
    "before the comparison": lambda run: (run / "models/random/seed-1/test.json").exists(),
    "while costs are measured": lambda run: (run / "models/searched/seed-0/cost.json").exists(),
    "in the report": lambda run: (run / "comparison.json").exists(),
}


def test_kill_at_every_stage_in_turn(server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    killed = []
    for name, reached in MOMENTS.items():
        if reached(run):
            continue  # passed before the last kill came
        child = server.start("run", experiment, "--out", run, *(["--resume"] if killed else []), eager=True)
        wait_for(lambda reached=reached: reached(run), child.alive)
        code = child.kill()
        assert code in (0, -signal.SIGKILL), f"{name}: {child.output}"
        if code:
            killed.append(name)
            assert_whole(run)
    assert len(killed) >= 8, killed  # some moments are short
    child = server.start("run", experiment, "--out", run, "--resume")
    assert child.wait() == 0, child.output
    assert comparison_of(run) == comparison_of(tiny_folder)
    assert (run / "report.html").exists()
    rows = [json.loads(line) for line in (run / "search/journal.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1]
    assert not list(run.rglob("*.part")) and not list(run.rglob("models/*/*/state.safetensors"))


def test_kill_at_random_moments(server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path) -> None:
    run, rng = tmp_path / "run", random.Random(7)
    for attempt in range(40):
        child = server.start("run", experiment, "--out", run, *(["--resume"] if attempt else []), eager=True)
        time.sleep(rng.uniform(0.3, 1.5) + 0.1 * attempt * 1.1**attempt)  # ever longer, so that it comes to an end
        code = child.kill() if child.alive() else child.wait()
        if code == 0:
            break
        assert code == -signal.SIGKILL, child.output
        if run.exists():
            assert_whole(run)
    assert code == 0 and attempt > 1
    assert comparison_of(run) == comparison_of(tiny_folder)


def test_an_interrupt_saves_the_state_and_says_how_to_go_on(
    server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """Ctrl-C in the search and SIGTERM in a training, side by side, as separate programs from their first line on."""
    cases = {signal.SIGINT: "search/state.safetensors", signal.SIGTERM: "models/searched/seed-0"}
    processes = {
        number: subprocess.Popen(
            [*CONSOLE, "run", "tiny.yaml", "--out", f"run {number}", "--set", "seed=0", "--no-ui"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for number in cases
    }
    for number, process in processes.items():
        place = tmp_path / f"run {number}" / cases[number]
        wait_for(place.exists, lambda process=process: process.poll() is None)
        process.send_signal(number)
        process.send_signal(number)  # an impatient second one must not spoil the ending
    for number, process in processes.items():
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 130, err
        assert out == "" and "Traceback" not in err
        command = re.search(r"The state is saved; continue with\n  (autoseg run .*--resume)$", err, re.MULTILINE)
        assert command is not None, err
        words = shlex.split(command[1])
        expected = f"autoseg run tiny.yaml --out 'run {number}' --set seed=0 --set ui.enabled=false --resume"
        assert words == shlex.split(expected)
        run = tmp_path / f"run {number}"
        assert "ended by Interrupted" in (run / "log.txt").read_text() and not (run / "comparison.json").exists()
        assert_whole(run)
        again = server.start(*words[1:], cwd=tmp_path)
        assert again.wait() == 0, again.output
        assert comparison_of(run) == comparison_of(tiny_folder)


def test_workers_end_with_a_killed_parent_and_the_run_resumes(
    server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["run", experiment, "--set", "compute.workers=2", "--out", run]
    child = server.start(*arguments)
    assert wait_for((run / "models/unet/seed-0").exists, child.alive), child.output
    assert len(session_members(child.pid)) >= 4  # with fork server and two workers
    assert child.kill() == -signal.SIGKILL
    killed_at = time.monotonic()
    wait_for(lambda: not session_members(child.pid), every=0.05)
    assert time.monotonic() - killed_at < 10
    assert_whole(run)
    child = server.start(*arguments, "--resume")
    wait_for(lambda: len(session_members(child.pid)) > 1, child.alive)
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C in a terminal, while the fork server still imports
    assert child.wait() == 130
    assert "Traceback" not in child.output and "KeyboardInterrupt" not in child.output
    child = server.start(*arguments, "--resume")
    assert child.wait() == 0, child.output
    assert comparison_of(run) == comparison_of(tiny_folder)
    wait_for(lambda: not session_members(child.pid), every=0.05)


def test_a_folder_cannot_be_used_twice_at_a_time(
    server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = server.start("run", experiment, "--out", run)
    assert wait_for((run / "plan.json").exists, first.alive)
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the others have tried
    half_written = run / ".architecture.json.abc.part"  # as it may have while it writes
    half_written.touch()
    for resume in ([], ["--resume"]):
        assert main(["run", str(experiment), "--out", str(run), *resume]) == 2
        message = capsys.readouterr().err
        assert f"{run}: another process is working in this run folder\n  -> wait for it, or stop it" in message
    assert half_written.exists()
    half_written.unlink()
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0, first.output
    assert comparison_of(run) == comparison_of(tiny_folder)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run on own images that was interrupted before its search: the experiment file and the run folder."""
    rng = np.random.default_rng(0)
    for index in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + index : 20, 6:18] = 1
        image = (60 + 90 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
        for kind, picture in (("images", image), ("masks", mask)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "data" / kind / f"p{index}.png"), picture)
    file = write_experiment(tmp_path / "own.yaml", data={"path": "data"}, repeats=1)

    def interrupt(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as cut:
        cut.setattr("autoseg.experiment._do_jobs", interrupt)
        assert main(["run", str(file), "--out", str(tmp_path / "run")]) == 130
    return file, tmp_path / "run"


def test_resume_with_other_settings_is_refused(started: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, run = started
    before = {path: path.read_bytes() for path in run.iterdir() if path.name not in (".lock", "log.txt")}
    changes = ["--set", "train.epochs=3", "--set", "baselines.0.options.width=8", "--set", "space.options.width=8"]
    assert main(["run", str(file), "--out", str(run), "--resume", *changes]) == 2
    message = capsys.readouterr().err
    assert "3 problems to mend" in message
    assert f"{run / 'config.yaml'}: 'train.epochs' is 3, but the run was started with 2" in message
    assert "'baselines[0].options.width' is 8, but the run was started with 4" in message
    assert "'space.options.width' is 8, but the run was started with 4" in message
    assert "-> resume with the same settings, or start anew with --out" in message
    assert {path: path.read_bytes() for path in before} == before


def test_resume_names_the_preset_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    presets = {"long": {"repeats": 3, "train": {"epochs": 9}}, "same": {}}
    file = write_experiment(tmp_path / "own.yaml", presets=presets)
    monkeypatch.setattr("autoseg.experiment._do_jobs", lambda *_: (_ for _ in ()).throw(Interrupted))
    for begun, now, said in (
        ("long", "same", "with --preset long, and is resumed with --preset same\n  -> resume it with --preset long"),
        ("long", None, "with --preset long, and is resumed without a preset\n  -> resume it with --preset long"),
        (None, "long", "without a preset, and is resumed with --preset long\n  -> resume it without a preset"),
    ):
        run = tmp_path / f"run-{begun}-{now}"
        command = ["run", str(file), "--out", str(run)]
        assert main([*command, *(["--preset", begun] if begun else [])]) == 130
        assert json.loads((run / "environment.json").read_text())["preset"] == begun
        capsys.readouterr()
        assert main([*command, "--resume", *(["--preset", now] if now else [])]) == 2
        message = capsys.readouterr().err
        assert f"{run / 'environment.json'}: the run was started {said}, or start anew with --out" in message
        assert "train.epochs" not in message
    assert main([*command, "--resume", "--preset", "same"]) == 130  # another name, the same settings
    capsys.readouterr()
    assert main([*command, "--resume", "--set", "train.epochs=3"]) == 2
    assert "'train.epochs' is 3, but the run was started with" in capsys.readouterr().err


def test_resume_with_other_processes_is_allowed(started: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file, run = started
    monkeypatch.setattr("autoseg.experiment._do_jobs", lambda *_: (_ for _ in ()).throw(Interrupted))
    assert main(["run", str(file), "--out", str(run), "--resume", "--no-ui", "--set", "compute.precision=32"]) == 130


def test_an_older_run_learns_what_its_data_hold(started: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when it is resumed; not in every training."""
    file, run = started
    plan = json.loads((run / "plan.json").read_text())
    facts = plan.pop("data")
    assert facts["hash"] == json.loads((run / "environment.json").read_text())["data_hash"]
    (run / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr("autoseg.experiment._do_jobs", lambda *_: (_ for _ in ()).throw(Interrupted))
    assert main(["run", str(file), "--out", str(run), "--resume", "--no-ui"]) == 130
    assert json.loads((run / "plan.json").read_text())["data"] == facts


def test_resume_with_changed_data_is_refused(started: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, run = started
    mask = file.parent / "data" / "masks" / "p3.png"
    picture = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    picture[31, 31] = 1 - picture[31, 31]
    cv2.imwrite(str(mask), picture)
    assert main(["run", str(file), "--out", str(run), "--resume"]) == 2
    message = capsys.readouterr().err
    assert "data: the images or masks have changed since the run was started" in message
    assert "start anew with --out" in message and "Traceback" not in message


def test_resume_where_nothing_was_started_starts(started: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the first seconds leaves no run folder, or one without a configuration."""
    file, run = started
    (run / "config.yaml").unlink()
    (run / "plan.json").unlink()
    (run / "environment.json").unlink()
    monkeypatch.setattr("autoseg.experiment._do_jobs", lambda *_: (_ for _ in ()).throw(Interrupted))
    for folder in (run, run.parent / "never-made"):
        assert main(["run", str(file), "--out", str(folder), "--resume"]) == 130
        assert (folder / "plan.json").exists()


def test_a_torn_journal_line_is_cut_off_when_the_run_goes_on(
    server: Server, experiment: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """As after a power loss: half a line in the journal and half a file that was never renamed."""
    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run)
    for path in (run / "architecture.json", run / "comparison.json", run / "search" / "found.json"):
        path.unlink()
    shutil.rmtree(run / "models" / "searched")
    journal = run / "search" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:40])
    (run / ".architecture.json.xyz.part").write_text('{"space": "ed')
    child: Child = server.start("run", experiment, "--out", run, "--resume")
    assert child.wait() == 0, child.output
    assert comparison_of(run) == comparison_of(tiny_folder)
    assert [json.loads(line)["kind"] for line in journal.read_text().splitlines()] == ["epoch"] * 2 + ["candidate"] * 2
    assert not list(run.rglob("*.part"))
    assert all((run / f"models/searched/seed-{seed}/test.json").exists() for seed in SEEDS) and len(MODELS) == 3
