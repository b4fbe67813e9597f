"""Trials from the fork server: what NNI starts is a relay, and both live and end together.

These are real processes. Starting the fork server takes some seconds, once for the whole file.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stand_in
from stand_in import StandIn, Started, alive, until

from autoseg.nnibridge import forks as module
from autoseg.nnibridge.forks import Imported, TrialForks


class Heard(list[tuple[int, str, str, Any]]):
    """What trials have said."""

    def __call__(self, *message: Any) -> None:
        self.append(message)

    def kinds(self) -> list[str]:
        return [kind for _, _, kind, _ in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def make(tmp_path: Path, heard: Heard) -> Iterator[Callable[..., TrialForks]]:
    """Makes TrialForks with some work and stops them in the end."""
    made: list[TrialForks] = []

    def make(work: Any, **options: Any) -> TrialForks:
        made.append(TrialForks(tmp_path / "run", 2, heard, work=work, **options))
        return made[-1]

    yield make
    for forks in made:
        forks.stop()


@pytest.fixture
def manager() -> Iterator[StandIn]:
    with StandIn({}) as manager:
        yield manager


Make = Callable[..., TrialForks]


def pid_told(heard: Heard) -> int:
    assert until(lambda: heard)
    return int(heard[0][3][1][0])


def test_a_trial_has_the_streams_and_variables_that_nni_gave_its_relay(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path
) -> None:
    forks = make(stand_in.show)
    trials = [
        Started(forks.command, manager.environment(tmp_path / str(i), i), CUDA_VISIBLE_DEVICES=str(i), HOME="/nowhere")
        for i in (3, 4)
    ]
    assert [trial.wait() for trial in trials] == [7, 7]
    for i, trial in zip((3, 4), trials, strict=True):
        assert trial.stdout == f"out trial{i} {i} {os.environ['HOME']}\n"
        assert trial.stderr == "err 2 run\n"
    assert sorted(message[:3] for message in heard) == [(3, "trial3", "done"), (4, "trial4", "done")]
    pids = {message[3]["pid"] for message in heard}
    assert len(pids) == 2 and os.getpid() not in pids
    assert {message[3]["cwd"] for message in heard} == {os.getcwd()}  # paths mean the same as in this process


def test_messages_carry_the_number_of_the_parameters(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path
) -> None:
    trial = Started(make(stand_in.tell).command, manager.environment(tmp_path / "out"))
    assert trial.wait() == 0
    assert heard == [(5, "trial3", "progress", ("note", ("hello",))), (5, "trial3", "done", {})]


@pytest.mark.parametrize(
    ("work", "code", "reason"),
    [
        (stand_in.die, 137, "its process was killed, most likely because memory ran out"),
        (stand_in.crash, 1, "its process ended with exit code 1"),
    ],
)
def test_a_trial_that_dies_without_a_word_is_lost(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path, work: Any, code: int, reason: str
) -> None:
    trial = Started(make(work).command, manager.environment(tmp_path / "out"))
    assert trial.wait() == code
    assert heard == [(3, "trial3", "lost", reason)]
    assert ("ZeroDivisionError: at once" in trial.stderr) == (work is stand_in.crash)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("work", [stand_in.sleep, stand_in.chatter])
def test_a_signal_to_the_relay_ends_the_trial(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path, work: Any, number: signal.Signals
) -> None:
    trial = Started(make(work).command, manager.environment(tmp_path / "out"))
    pid = pid_told(heard)
    trial.process.send_signal(number)
    assert trial.wait() == (-9 if number == signal.SIGKILL else 128 + signal.SIGTERM)
    assert until(lambda: not alive(pid), 2)
    assert until(lambda: heard[-1] == (3, "trial3", "cancelled", "its process ended by signal SIGTERM"))


def test_a_trial_that_does_not_listen_is_killed(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 0.3)
    trial = Started(make(stand_in.stubborn).command, manager.environment(tmp_path / "out"))
    pid = pid_told(heard)
    trial.process.send_signal(signal.SIGTERM)
    assert trial.wait() == 128 + signal.SIGKILL
    assert not alive(pid)
    assert heard.kinds() == ["progress", "cancelled"]


def test_a_trial_ends_with_nnis_manager(make: Make, manager: StandIn, heard: Heard, tmp_path: Path) -> None:
    shell = Started(make(stand_in.sleep).command + "; true", manager.environment(tmp_path / "out"))  # it stays
    pid = pid_told(heard)
    shell.process.kill()
    assert until(lambda: not alive(pid), 5)
    assert until(lambda: heard.kinds() == ["progress", "cancelled"])


def test_stop_ends_all_trials_and_takes_no_more(make: Make, manager: StandIn, heard: Heard, tmp_path: Path) -> None:
    forks = make(stand_in.sleep)
    socket = Path(forks.command.split()[-1])
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600 and stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    trials = [Started(forks.command, manager.environment(tmp_path / str(i), i)) for i in range(2)]
    assert until(lambda: len(heard) == 2)
    pids = [message[3][1][0] for message in heard]
    forks.stop()
    forks.stop()
    assert [alive(pid) for pid in pids] == [False, False]
    assert [trial.wait() for trial in trials] == [143, 143]
    assert not socket.parent.exists()
    late = Started(forks.command, manager.environment(tmp_path / "late"))
    assert late.wait() == 1
    assert late.stderr.startswith("the main process of autoseg does not answer")


def test_trials_side_by_side_never_have_the_same_gpus(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path
) -> None:
    forks = make(stand_in.hold_gpus, groups=["2,5", "GPU-7,GPU-9"])
    (tmp_path / "run").mkdir(exist_ok=True)

    def trial(number: int) -> Started:
        return Started(forks.command, manager.environment(tmp_path / str(number), number), CUDA_VISIBLE_DEVICES="0")

    def gpus() -> dict[int, str]:
        return {number: content for number, _, kind, content in heard if kind == "gpus"}

    trials = [trial(0)]
    assert until(lambda: gpus() == {0: "2,5"})
    trials += [trial(1)]
    assert until(lambda: gpus() == {0: "2,5", 1: "GPU-7,GPU-9"})
    waiting, ended = trial(2), trial(3)
    time.sleep(0.5)
    assert len(heard) == 2  # there is nothing left for a third
    ended.process.send_signal(signal.SIGTERM)
    assert ended.wait() == 143
    assert heard[-1] == (3, "trial3", "cancelled", "it was ended while it waited for a GPU")
    trials[1].process.send_signal(signal.SIGKILL)  # what was its is free when its process has ended, not before
    assert until(lambda: gpus().get(2) == "GPU-7,GPU-9")
    assert [kind for number, _, kind, _ in heard if number != 3][-2:] == ["cancelled", "gpus"]
    (tmp_path / "run" / "go").touch()
    assert [trials[0].wait(), waiting.wait()] == [0, 0]
    again = trial(4)
    assert again.wait() == 0 and gpus()[4] == "2,5"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for that of a socket, wherever the test runner has its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_a_long_path_of_the_run_is_no_hindrance(heard: Heard, short: Path, tmp_path: Path, manager: StandIn) -> None:
    for name, inside in (("r", True), ("r" * 100, False)):
        run = short / name
        run.mkdir()
        forks = TrialForks(run, 1, heard, work=stand_in.tell)
        try:
            socket = Path(forks.command.split()[-1])
            assert (socket.parent.parent == run / "nni") == inside
            assert socket.parent.name.startswith(f"autoseg-trials-{os.getpid()}-")
            assert Started(forks.command, manager.environment(tmp_path / f"out{len(name)}")).wait() == 0
        finally:
            forks.stop()
        assert list((run / "nni").iterdir()) == []


def test_a_trial_that_was_done_before_is_shown_without_a_process(
    make: Make, manager: StandIn, heard: Heard, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = Imported({"default": 0.5, "code": "E=[0]"}, [{"default": 0.25}, {"default": 0.5, "loss": float("inf")}])
    forks = make(stand_in.crash, imported=lambda request: found if request.sequence_id == 3 else None)
    trial = Started(forks.command, manager.environment(tmp_path / "out"))
    assert trial.wait() == 0
    assert heard == []
    assert manager.values("PERIODICAL") == [{"default": 0.25}, {"default": 0.5}]
    assert manager.values("FINAL") == [{"default": 0.5, "code": "E=[0]"}]
    assert {(m["parameter_id"], m["trial_job_id"]) for m in manager.metrics} == {(3, "trial3")}
    assert [m["sequence"] for m in manager.metrics] == [0, 1, 0]
    assert Started(forks.command, manager.environment(tmp_path / "other", 4)).wait() == 1  # that one has a process
    assert capfd.readouterr().out == ""  # which belongs to the command


def test_a_callback_that_fails_does_not_stop_the_trial(manager: StandIn, tmp_path: Path) -> None:
    def fail(*message: Any) -> None:
        raise RuntimeError("not understood")

    forks = TrialForks(tmp_path / "run", 1, fail, work=stand_in.tell)
    try:
        assert Started(forks.command, manager.environment(tmp_path / "out")).wait() == 0
    finally:
        forks.stop()


MAIN = """
import os, sys, time
from pathlib import Path
from autoseg import processes
processes.warm_up()
sys.path.insert(0, sys.argv[1])
import stand_in
from autoseg.nnibridge.forks import TrialForks

forks = TrialForks(Path(sys.argv[2]), 1, lambda *message: print(message[3][1][0], flush=True), work=stand_in.sleep)
print(forks.command, flush=True)
time.sleep(60)
"""


def test_everything_ends_with_the_main_process(manager: StandIn, short: Path, tmp_path: Path) -> None:
    here = str(Path(stand_in.__file__).parent)
    run = short / "run"
    run.mkdir()
    with subprocess.Popen([sys.executable, "-c", MAIN, here, str(run)], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        trial = Started(main.stdout.readline(), manager.environment(tmp_path / "out"))
        pid = int(main.stdout.readline())
        assert alive(pid)
        main.kill()
        assert trial.process.wait(5) == 1
        assert until(lambda: not alive(pid), 5)
    left = [folder.name for folder in (run / "nni").iterdir()]
    assert [name.rpartition("-")[0] for name in left] == [f"autoseg-trials-{main.pid}"]
    forks = TrialForks(run, 1, lambda *message: None)
    assert not (run / "nni" / left[0]).exists() and len(list((run / "nni").iterdir())) == 1
    forks.stop()
