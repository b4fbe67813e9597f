"""Worker processes: the same results as one process, and a clear word however one of them ends.

These are real processes. Starting the fork server takes some seconds, once for the whole file.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoseg import workers as module
from autoseg.comparison import compare
from autoseg.conduct import Conductor, search_jobs, training_jobs
from autoseg.config import load_config
from autoseg.crew import Alone, JobFailed
from autoseg.errors import Interrupted, UserError
from autoseg.job import Job
from autoseg.jobs import do_job, run_job
from autoseg.plan import Plan, infer_recipe
from autoseg.prepare import prepare
from autoseg.progress import Forwarded, Progress
from autoseg.runfolder import RunFolder, read_json, write_json, write_text
from autoseg.workers import Workers, _ToParent, how_it_ended, take_message

EXPERIMENT: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"blocks": 2, "layers": 2, "width": 4}},
    "strategy": {"name": "enas", "options": {"epochs": 1, "rewards": 2, "rewards_per_update": 2, "candidates": 1}},
    "train": {"epochs": 3, "batch": 4},
    "baselines": [{"name": "unet", "options": {"width": 4, "depth": 2}}, "random"],
    "repeats": 1,
    "compute": {"device": "cpu"},
    "ui": {"enabled": False},
}
UNET, RANDOM = Job("training", "unet"), Job("training", "random")

WITHOUT_A_GUARD = """
import multiprocessing, sys
from pathlib import Path
from autoseg.job import Job
from autoseg.progress import Progress
from autoseg.workers import Workers

class Told(Progress):
    begun = 0

    def begin(self, label, total, unit=""):
        self.begun += 1
        if self.begun == 3:  # the first folder's one, the third folder's two
            print("pids", *[child.pid for child in multiprocessing.active_children()], flush=True)

print("script", flush=True)
progress = Told()
unet = Job("training", "unet")
short = Workers(1, Path(sys.argv[1]), 1, progress)
print("done", short.submit(unet).result()["miou"] >= 0, flush=True)
short.stop()
silent = Workers(1, Path(sys.argv[2]), 1, progress)
silent._idle[0][0].send(unet)
long = Workers(2, Path(sys.argv[3]), 1, progress)
long.submit(unet)
long.submit(Job("training", "random")).result()
"""


def make_folder(path: Path, epochs: int = 3, searched: bool = True) -> RunFolder:
    """A run folder with configuration and plan, and an architecture so that no search is needed."""
    config = load_config({**EXPERIMENT, "train": {**EXPERIMENT["train"], "epochs": epochs}})
    prepared = prepare(config)
    folder = RunFolder(path)
    folder.open(resume=False)
    recipe, _ = infer_recipe(config, prepared.data)
    labels = [spec.label for spec in prepared.specs(prepared.control)]
    write_text(folder.config, config.to_yaml())
    write_json(
        folder.plan, Plan(recipe, None, labels, [0], workers=2, control=dict(prepared.control.choices)).to_json()
    )
    if searched:
        write_json(folder.architecture, prepared.control.to_json())
    return folder


class Events(Progress):
    """Notes who began and ended when; may do something at the first word of a job."""

    def __init__(self, at_begin: Callable[[], None] | None = None) -> None:
        self.events: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.at_begin = at_begin

    def begin(self, label: str, total: float, unit: str = "") -> None:
        self.events.append(("begin", label))
        if self.at_begin:
            self.at_begin()

    def end(self, label: str, text: str = "") -> None:
        self.events.append(("end", label))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def pool() -> Iterator[Callable[..., Workers]]:
    """Makes worker pools and stops them in the end."""
    made: list[Workers] = []

    def make(folder: RunFolder, count: int = 1, progress: Progress | None = None) -> Workers:
        made.append(Workers(count, folder.path, 1, progress or Events()))
        return made[-1]

    yield make
    for workers in made:
        workers.stop()


def processes(workers: Workers) -> list[Any]:
    return list(workers._processes)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder, Events, list[Job]]:
    """One experiment done by two workers side by side, and one job after the other in this process."""
    base = tmp_path_factory.mktemp("folders")
    parallel, serial = (make_folder(base / name, searched=False) for name in ("parallel", "serial"))
    plan, config = Plan.from_json(read_json(parallel.plan)), load_config(parallel.config)
    prepared, progress = prepare(config).with_threads(1), Events()
    workers = Workers(2, parallel.path, 1, progress)
    try:
        Conductor(parallel, prepared, plan, workers, progress).run()
    finally:
        workers.stop()
    alone = Alone(lambda job, shown: do_job(job, serial, prepared, plan, shown), Progress())
    Conductor(serial, prepared, plan, alone, Progress()).run()
    return parallel, serial, progress, [*search_jobs(plan), *training_jobs(plan)]


Folders = tuple[RunFolder, RunFolder, Events, list[Job]]


def test_the_search_and_the_trainings_go_side_by_side(folders: Folders) -> None:
    parallel, serial, progress, jobs = folders
    assert {str(job) for job in jobs} == {"the search", "searched, seed 0", "unet, seed 0", "random, seed 0"}
    assert all(job.done(parallel) and job.done(serial) for job in jobs)
    order = [event for event in progress.events if event[1] != "candidates"]
    assert order.index(("begin", "unet, seed 0")) < order.index(("end", "search"))
    assert order.index(("begin", "searched, seed 0")) > order.index(("end", "search"))
    open_now, most = 0, 0
    for kind, _ in order:
        open_now += 1 if kind == "begin" else -1
        most = max(most, open_now)
    assert most == 2 and open_now == 0


def without(value: Any, *keys: str) -> Any:
    return {key: entry for key, entry in value.items() if key not in keys}


def test_workers_give_the_same_bits_as_one_process(folders: Folders) -> None:
    parallel, serial, *_ = folders
    found = [without(read_json(folder.architecture), "search_seconds") for folder in (parallel, serial)]
    assert found[0] == found[1]
    clocks = ("seconds", "cpu_seconds")
    journals = [[without(json.loads(line), *clocks) for line in folder.journal.open()] for folder in folders[:2]]
    assert journals[0] == journals[1] and len(journals[0]) >= 2
    for label in ("searched", "unet", "random"):
        places = [folder.model(label, 0) for folder in (parallel, serial)]
        tests = [without(read_json(place / "test.json"), "train_seconds") for place in places]
        assert tests[0] == tests[1] and len(tests[0]["images"]) == 2
        weights = [(place / "weights.safetensors").read_bytes() for place in places]
        assert weights[0] == weights[1] and len(weights[0]) > 10_000
        histories = [list(csv.DictReader((place / "history.csv").open())) for place in places]
        rows = [[without(row, "seconds") for row in history] for history in histories]
        assert rows[0] == rows[1] and len(rows[0]) == 3
        pictures = [{p.name: p.read_bytes() for p in (place / "predictions").iterdir()} for place in places]
        assert pictures[0] == pictures[1] and len(pictures[0]) == 2


def test_no_worker_outlives_the_pool(folders: Folders) -> None:
    assert multiprocessing.active_children() == []


def test_the_message_of_a_failed_job_is_its_own(
    tmp_path: Path, pool: Callable[..., Workers], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path)
    folder.models.mkdir()
    (folder.models / "unet").touch()
    with pytest.raises(JobFailed) as caught:
        pool(folder).submit(UNET).result()
    text = str(caught.value)
    assert text.startswith("unet, seed 0 failed: ") and "NotADirectoryError" in text and "\n" not in text
    assert "Traceback" in caplog.text and "train_and_test" in caplog.text  # for the log of the run
    assert "Traceback" in caught.value.log and "train_and_test" in caught.value.log


def test_what_the_user_can_mend_arrives_as_that(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    folder = make_folder(tmp_path)
    state = write_text(folder.model("unet", 0) / "state.safetensors", "damaged")
    workers = pool(folder)
    with pytest.raises(UserError) as caught:
        workers.submit(UNET).result()
    (problem,) = caught.value.problems
    assert problem.where == str(state) and "is not a state file" in problem.what and "delete it" in problem.fix
    state.unlink()
    workers.submit(UNET).result()  # the worker lives on
    assert UNET.done(folder)


def test_a_killed_worker_hints_at_memory(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    folder = make_folder(tmp_path, epochs=100_000)
    progress = Events(lambda: os.kill(processes(workers)[-1].pid, signal.SIGKILL))
    workers = pool(folder, progress=progress)
    with pytest.raises(
        JobFailed, match=r"unet, seed 0: its process was killed.*memory.*resume.*compute\.workers.*train\.batch"
    ):
        workers.submit(UNET).result()
    assert progress.events == [("begin", "unet, seed 0")] * 3  # it was tried three times
    assert sum("it is tried again" in note for note in progress.notes) == 2


def test_a_job_whose_process_was_lost_once_is_done_by_another(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    folder = make_folder(tmp_path)

    def kill_the_first() -> None:
        if len(progress.events) == 1:
            os.kill(processes(workers)[0].pid, signal.SIGKILL)

    progress = Events(kill_the_first)
    workers = pool(folder, progress=progress)
    assert workers.submit(UNET).result()["miou"] >= 0
    assert UNET.done(folder) and len(progress.notes) == 1


def test_a_worker_that_was_killed_while_it_was_idle(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    folder = make_folder(tmp_path)
    workers = pool(folder)
    (process,) = processes(workers)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    workers.submit(UNET).result()
    assert UNET.done(folder)


class Refusing(Events):
    """Its logger or screen is broken from the first epoch on."""

    def update(self, label: str, done: float, text: str = "") -> None:
        raise OSError("the screen is gone")


def test_an_exception_of_ours_is_not_taken_for_the_end_of_the_worker(
    tmp_path: Path, pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, told = pool(make_folder(tmp_path, epochs=100_000)), Refusing()
    monkeypatch.setattr(workers, "progress", told)
    (first,) = processes(workers)
    with pytest.raises(JobFailed, match=r"^unet, seed 0 failed: OSError: the screen is gone$"):
        workers.submit(UNET).result(60)
    assert not first.is_alive()  # it would go on training
    assert told.notes == []  # it was not tried again
    assert workers.submit(Job("training", "nothing of the kind")).exception(60) is not None  # a new worker answers
    assert [process.is_alive() for process in processes(workers)] == [True]


def test_a_worker_that_closes_its_pipe_and_lives_on_is_killed_before_its_job_is_tried_again(
    tmp_path: Path, pool: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DYING", 0.2)
    monkeypatch.setattr(module, "_work", mute)
    workers = pool(make_folder(tmp_path))
    with pytest.raises(JobFailed, match="its process was killed"):
        workers.submit(UNET).result(60)
    assert processes(workers) == []


def mute(connection: Any, *_: Any) -> None:
    """A worker that takes its job, and then only has its pipe closed."""
    connection.recv()
    connection.close()
    time.sleep(60)


def named(connection: Any, path: str, threads: int, gpus: str | None) -> None:
    """A worker whose jobs tell its GPUs; "die" ends it."""
    module.processes.end_with_parent()
    while True:
        job = connection.recv()
        if job.label == "die" and (Path(path) / "once").exists():
            (Path(path) / "once").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        connection.send(("done", {"gpus": gpus}))


def test_workers_side_by_side_never_have_the_same_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_work", named)
    (tmp_path / "once").touch()
    told = Events()
    workers = Workers(2, tmp_path, 1, told, ["2,5", "GPU-7,GPU-9"])
    try:
        for labels in (("a", "b"), ("die", "c"), ("d", "e")):  # one is replaced, and takes over what it had
            futures = [workers.submit(Job("training", label)) for label in labels]
            assert sorted(future.result(60)["gpus"] for future in futures) == ["2,5", "GPU-7,GPU-9"]
    finally:
        workers.stop()
    assert len(told.notes) == 1 and "was killed" in told.notes[0]


def test_the_gpus_of_a_worker_are_set_before_its_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    for quiet in ("signal.signal", "autoseg.processes.end_with_parent", "autoseg.workers.to_parent"):
        monkeypatch.setattr(quiet, lambda *_: None)
    for gpus, seen in ((None, "2,3"), ("3", "3")):
        ours, theirs = multiprocessing.Pipe()
        ours.close()
        module._work(theirs, ".", 1, gpus)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize("kind", [EOFError, BrokenPipeError, ConnectionResetError])
def test_a_broken_pipe_of_the_job_is_the_failure_of_the_job(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> None:
        raise kind("image-7.npy ends too early")

    monkeypatch.setattr(module, "run_job", run)
    sent: list[tuple[str, Any]] = []
    module.serve(lambda *message: sent.append(message), UNET, tmp_path, 1, Progress())
    ((what, (message, trace)),) = sent
    assert what == "failed" and message == f"unet, seed 0 failed: {kind.__name__}: image-7.npy ends too early"
    assert "Traceback" in trace


def test_a_parent_that_is_gone_ends_whatever_the_job_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = multiprocessing.Pipe()
    went_on: list[int] = []

    def run(job: Job, path: Path, threads: int, progress: Progress) -> dict[str, Any]:
        ours.close()
        try:
            progress.note("is anybody there?")
        except Exception:
            went_on.append(1)
        return {}

    monkeypatch.setattr(module, "run_job", run)
    library = logging.getLogger("autoseg")
    before = (library.handlers[:], library.level, library.propagate)
    ours.send(UNET)
    try:
        send = module.to_parent(theirs)
        progress = Forwarded(lambda method, arguments: send("progress", (method, arguments)))
        with pytest.raises(module._ParentGone):
            module.serve(send, theirs.recv(), tmp_path, 1, progress)
    finally:
        library.handlers, library.level, library.propagate = before
    assert went_on == []


def test_other_endings() -> None:
    assert how_it_ended(-signal.SIGSEGV) == ("its process ended by signal SIGSEGV", "")
    assert how_it_ended(3) == ("its process ended with exit code 3", "")
    assert "was killed" in how_it_ended(-signal.SIGKILL)[0]


def test_waiting_jobs_start_in_the_order_of_their_rank() -> None:
    order: list[str] = []
    crew = Alone(lambda job, shown: order.append(job.label) or {}, Progress())  # type: ignore[func-returns-value]
    crew.slots = 0
    for label, rank in (("b", 2), ("c", 2), ("a", 1), ("search", -1)):
        crew.submit(Job("training", label), rank)
    crew.slots = 1
    crew.submit(Job("training", "d"), 3).result()
    assert order == ["search", "a", "b", "c", "d"]


def test_a_training_that_fails_does_not_end_the_others(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    folder = make_folder(tmp_path)
    folder.models.mkdir()
    (folder.models / "unet").touch()  # where a folder should be
    plan, prepared = Plan.from_json(read_json(folder.plan)), prepare(load_config(folder.config)).with_threads(1)
    progress = Events()
    Conductor(folder, prepared, plan, pool(folder, progress=progress), progress).run()
    assert folder.model("searched", 0).joinpath("test.json").exists()
    assert folder.model("random", 0).joinpath("test.json").exists()
    (failure,) = read_json(folder.failures)
    assert failure["job"] == "unet, seed 0" and "NotADirectoryError" in failure["message"]
    assert "Traceback" in failure["log"]
    assert [note for note in progress.notes if "unet, seed 0 failed: NotADirectoryError" in note]
    (folder.models / "unet").unlink()
    comparison = compare(folder, plan.models, plan.seeds)
    assert list(comparison["models"]) == ["searched", "random"]
    assert "Left out because its training failed: unet." in comparison["verdict"]["text"]


def test_stopping_ends_busy_workers_at_once(tmp_path: Path, pool: Callable[..., Workers]) -> None:
    both = threading.Event()
    progress = Events(lambda: both.set() if len(progress.events) == 2 else None)
    workers = pool(make_folder(tmp_path, epochs=100_000), 2, progress)
    futures = [workers.submit(job) for job in (UNET, RANDOM)]
    assert both.wait(60)
    found = processes(workers)
    began = time.monotonic()
    workers.stop()
    assert time.monotonic() - began < 5
    assert not any(process.is_alive() for process in found)
    assert not any(future.done() for future in futures)
    workers.stop()  # again does no harm


def test_jobs_that_were_cut_continue(tmp_path: Path, folders: Folders, pool: Callable[..., Workers]) -> None:
    """The state of a training that another process began is taken up by a worker; the bits are the same."""

    class Cut(Progress):
        def update(self, label: str, done: float, text: str = "") -> None:
            if done > 1:
                raise Interrupted

    folder = make_folder(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        from autoseg import jobs
        from autoseg.train.trainer import train_network

        patch.setattr(jobs, "train_network", lambda *a, **o: train_network(*a, **o, save_every=0.0))
        with pytest.raises(Interrupted):
            run_job(UNET, folder.path, 1, Cut())
    assert (folder.model("unet", 0) / "state.safetensors").exists()
    pool(folder).submit(UNET).result()
    whole = folders[0].model("unet", 0)
    for name in ("weights.safetensors", "predictions/" + next((whole / "predictions").iterdir()).name):
        assert (folder.model("unet", 0) / name).read_bytes() == (whole / name).read_bytes()
    assert not (folder.model("unet", 0) / "state.safetensors").exists()


def test_the_log_of_a_worker_reaches_the_parent(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = multiprocessing.Pipe()
    logger = logging.Logger("autoseg.train.module")
    logger.addHandler(_ToParent(lambda kind, content: theirs.send((kind, content))))
    logger.warning("a step was left out (%d in a row)", 3)
    with caplog.at_level(logging.INFO, logger="autoseg"):
        assert take_message(UNET, Progress(), *ours.recv()) is None
    (record,) = [r for r in caplog.records if r.name == "autoseg.train.module"]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "unet, seed 0: a step was left out (3 in a row)"


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A script that uses workers and has no ``if __name__ == "__main__"``."""
    base = tmp_path_factory.mktemp("script")
    short, silent = make_folder(base / "short"), make_folder(base / "silent")
    write_text(silent.config, silent.config.read_text().replace("count: 12", "count: 1000000"))  # minutes to prepare
    long = make_folder(base / "long", epochs=100_000)
    path = base / "without_a_guard.py"
    path.write_text(WITHOUT_A_GUARD)
    command = [sys.executable, str(path), *(str(folder.path) for folder in (short, silent, long))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
    shutil.rmtree(base)


def test_a_script_needs_no_guard(script: subprocess.Popen[str]) -> None:
    assert script.stdout is not None
    assert [script.stdout.readline(), script.stdout.readline()] == ["script\n", "done True\n"]


def test_when_the_parent_is_killed_its_workers_end(script: subprocess.Popen[str]) -> None:
    assert script.stdout is not None
    word, *pids = script.stdout.readline().split()
    assert word == "pids" and len(pids) == 3  # one has nothing to report that could tell it that nobody listens
    assert all(alive(int(pid)) for pid in pids)
    script.kill()
    script.wait()
    end = time.monotonic() + 10
    while any(alive(int(pid)) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(alive(int(pid)) for pid in pids)
