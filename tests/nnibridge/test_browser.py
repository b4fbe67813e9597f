"""What a person sees on NNI's page of a run, in a real browser: while it runs, afterwards, and after a kill.

Two runs go side by side: a multi-trial search whose finalists train until they are killed, and a one-shot search
with two seeds that runs to its end. Everything on the page is compared with the files of the run folder.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import WebPage, browser

from autoseg.nnibridge.page import read_page
from autoseg.nnibridge.serve import served
from autoseg.runfolder import RunFolder, read_json

DATA = {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}}
SPACE = {"name": "ednas", "options": {"width": 4, "layers": 2, "blocks": 2}}
ENAS = {"epochs": 3, "rewards": 2, "rewards_per_update": 2, "candidates": 1}
UNET = {"name": "unet", "options": {"width": 4}}
COMMON = {"data": DATA, "space": SPACE, "repeats": 1, "compute": {"device": "cpu", "workers": 2}}
LONG = {  # is killed
    "name": "multi-trial",
    "strategy": {"name": "random", "options": {"trials": 4, "epochs": 2}},
    "train": {"epochs": 5000, "batch": 4},
    "baselines": [UNET, "random"],
}
SHORT = {
    "name": "one-shot",
    "strategy": {"name": "enas", "repeats": 2, "options": ENAS},
    "train": {"epochs": 4, "batch": 4},
    "baselines": [UNET],
}
PATIENCE = 300.0  # seconds; a machine may be busy


def until(found: Callable[[], Any], run: subprocess.Popen[str] | None = None) -> Any:
    """Wait until something is there; the run must not end meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, "nothing happens"
        assert run is None or run.poll() is None, run.communicate()[0]
        time.sleep(0.2)
    return value


def begin(folder: Path, experiment: dict[str, Any]) -> subprocess.Popen[str]:
    """Start ``autoseg run`` for an experiment; its run folder is ``run`` in the folder."""
    file = folder / "experiment.yaml"
    file.write_text(json.dumps({**COMMON, **experiment}))
    return autoseg("run", str(file), "--out", str(folder / "run"))


def autoseg(*arguments: str) -> subprocess.Popen[str]:
    """Start the command line program."""
    return subprocess.Popen(
        [sys.executable, "-m", "autoseg", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@contextmanager
def ended(run: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The process is gone at the end, whatever happens."""
    with run:
        try:
            yield run
        finally:
            run.kill()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@dataclass(frozen=True)
class Runs:
    """Both runs: their folders and processes."""

    long: Path
    short: Path
    killed: subprocess.Popen[str]
    finishing: subprocess.Popen[str]


@pytest.fixture(scope="module")
def runs(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    long, short = (tmp_path_factory.mktemp(name) for name in ("long", "short"))
    with ended(begin(long, LONG)) as killed, ended(begin(short, SHORT)) as finishing:
        yield Runs(long / "run", short / "run", killed, finishing)


@pytest.fixture(scope="module")
def finished(runs: Runs) -> Path:
    """The run folder of the run that has come to its end."""
    said = runs.finishing.communicate(timeout=PATIENCE)[0]
    assert runs.finishing.returncode == 0, said
    return runs.short


def test_the_page_of_a_running_experiment(chromium: Any, runs: Runs) -> None:
    folder, run = runs.long, runs.killed
    page = WebPage(chromium, until(lambda: read_page(folder / "nni"), run).url)
    until(lambda: statuses(page).get("searched") == statuses(page).get("unet") == "RUNNING", run)
    seen = page.overview()
    assert "multi-trial" in seen and "RUNNING" in seen
    trials = page.trials()
    rows = page.table(len(trials))
    journal = [json.loads(line) for line in (folder / "search" / "journal.jsonl").read_text().splitlines()]
    candidates = {row["number"]: row for row in journal if row["kind"] == "candidate"}
    assert sorted(candidates) == [0, 1, 2, 3]
    for trial in trials.values():
        if (told := trial["parameters"])["kind"] == "candidate":
            row, expected = rows[trial["sequenceId"]], candidates[told["number"]]
            assert told["code"] == expected["code"]
            assert (row["status"], row["latestAccuracy"]) == ("SUCCEEDED", f"{rounded(expected['miou'])} (FINAL)")
    number = numbers(page)["searched"]
    shown, code = page.parameters(number), read_json(folder / "architecture.json")["code"]
    assert code.startswith("E=[") and "] D=[" in code
    assert all(text in shown for text in (code, '"training"', '"searched"'))
    assert page.intermediate_keys(number)[:2] == ["default", "loss"]
    assert page.complaints() == []


def test_a_trial_that_is_cancelled_in_the_page_ends_alone(chromium: Any, runs: Runs) -> None:
    folder, run = runs.long, runs.killed
    page = WebPage(chromium, until(lambda: read_page(folder / "nni"), run).url)
    until(lambda: statuses(page).get("searched") == statuses(page).get("unet") == "RUNNING", run)
    number = numbers(page)["unet"]
    page.table(number + 1)
    page.cancel(number)
    failures = folder / "failures.json"
    until(failures.exists, run)
    assert [(failure["job"], "cancelled" in failure["message"]) for failure in read_json(failures)] == [
        ("unet, seed 0", True)
    ]
    until(lambda: statuses(page)["unet"] == "USER_CANCELED", run)
    until(lambda: statuses(page).get("random") == "RUNNING", run)  # has got the place
    assert statuses(page)["searched"] == "RUNNING"


def test_a_run_that_was_killed_can_be_looked_at(chromium: Any, runs: Runs) -> None:
    folder, run = runs.long, runs.killed
    page = WebPage(chromium, until(lambda: read_page(folder / "nni"), run).url)
    until(lambda: statuses(page).get("searched") == "RUNNING", run)
    before = numbers(page)
    run.send_signal(signal.SIGKILL)
    run.wait(20)
    until(lambda: read_page(folder / "nni") is None)  # NNI's manager ends with its parent
    with shown(folder) as url:
        page = WebPage(chromium, url)
        assert "VIEWED" in page.overview()
        assert numbers(page).items() >= before.items()
        rows = page.table(len(before))
        for name, number in before.items():
            candidate, status = name.startswith("candidate"), rows[number]["status"]
            assert status in (("SUCCEEDED",) if candidate else ("SYS_CANCELED", "USER_CANCELED", "FAILED"))
        assert page.complaints() == []


def test_the_page_of_a_finished_run(chromium: Any, finished: Path) -> None:
    with shown(finished) as url:
        page = WebPage(chromium, url)
        check_finished(page, finished, exact=False)
        page.tab("Intermediate result")
        until(lambda: page.coloured(".intermediate-graph canvas") > 200)
        keys = page.intermediate_keys(numbers(page)["search, seed 0"])
        assert keys[:2] == ["default", "loss"] and "entropy" in keys
        probabilities = [key for key in keys if key.startswith("p(")]
        assert len(probabilities) == len(read_json(finished / "architecture.json")["choices"])
        page.choose_key("entropy")
        assert page.complaints() == []


def test_a_run_without_a_page_gets_one_from_its_results(chromium: Any, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("nni"))  # as autoseg run --no-ui leaves it
    with served(RunFolder(folder)) as (url, _):
        page = WebPage(chromium, url)
        check_finished(page, folder, exact=True)
        assert page.complaints() == []


def check_finished(page: WebPage, run: Path, *, exact: bool) -> None:
    """All four jobs of the one-shot run are there, with the results of the run folder."""
    trials = {name_of(trial): trial for trial in page.trials().values()}
    assert sorted(trials) == ["search, seed 0", "search, seed 1", "searched", "unet"]
    rows = page.table(4)
    for label in ("searched", "unet"):
        trial, test = trials[label], read_json(run / "models" / label / "seed-0" / "test.json")
        row = rows[trial["sequenceId"]]
        assert (row["status"], row["latestAccuracy"]) == ("SUCCEEDED", f"{rounded(test['val_miou'])} (FINAL)")
        assert (trial["final"]["default"], trial["final"]["params"]) == (test["val_miou"], test["params"])
        curve = [(point["default"], point["loss"]) for point in page.curve(trial["trialJobId"])]
        expected = history(run, label)
        if not exact:  # while a run is going on, epochs of less than 0.2 s may be left out, but not the last
            expected = [point for point in expected if point in curve] + expected[-1:] * (expected[-1] not in curve)
        assert curve == expected
    for number in (0, 1):
        trial = trials[f"search, seed {number}"]
        found = read_json(RunFolder(run).search_of(number, number) / "found.json")
        row = rows[trial["sequenceId"]]
        assert (row["status"], row["latestAccuracy"]) == ("SUCCEEDED", f"{rounded(found['miou'])} (FINAL)")
        assert (trial["final"]["code"], trial["parameters"]["kind"]) == (found["code"], "search")
    text, code = page.parameters(trials["searched"]["sequenceId"]), read_json(run / "architecture.json")["code"]
    assert all(part in text for part in (code, '"training"', '"searched"'))


def history(run: Path, label: str) -> list[tuple[float, float]]:
    """Latest validation mIoU and loss of every epoch of a training."""
    with (run / "models" / label / "seed-0" / "history.csv").open(newline="") as file:
        return [(float(row["val_miou"]), float(row["loss"])) for row in csv.DictReader(file)]


def rounded(value: float) -> str:
    """A metric as the list of the page writes it."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def name_of(trial: dict[str, Any]) -> str:
    told = trial["parameters"]
    return str(told.get("label") or f"{told['kind']} {told['number']}")


def numbers(page: WebPage) -> dict[str, int]:
    return {name_of(trial): number for number, trial in page.trials().items()}


def statuses(page: WebPage) -> dict[str, str]:
    return {name_of(trial): trial["status"] for trial in page.trials().values()}


@contextmanager
def shown(run: Path) -> Iterator[str]:
    """``autoseg ui`` at work, until Ctrl-C; the address of the page."""
    with ended(autoseg("ui", str(run))) as program:
        yield until(lambda: read_page(run / "nni"), program).url
        program.send_signal(signal.SIGINT)
        said = program.communicate(timeout=20)[0]
        assert program.returncode == 0, said
