"""Every command once: exit code, results on standard output, messages on standard error."""

from __future__ import annotations

import errno
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fake_distribution import install
from tiny_experiment import EXPERIMENT, MODELS, write_experiment

from autoseg import __version__
from autoseg.cli import main
from autoseg.errors import AutosegError, Interrupted, UserError
from autoseg.terminal.guard import guarded

pytestmark = pytest.mark.usefixtures("one_core")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return run


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "field 1.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (41, 60), np.uint8))
    return path


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"autoseg {__version__}\n", "")


def test_help_names_every_command(call: Call) -> None:
    code, out, err = call("--help")
    assert code == 0 and err == ""
    names = "run check plan list show report train test predict compare audit ui trial doctor"
    for command in names.split():
        assert re.search(rf"^  {command} ", out, re.MULTILINE), command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["run"], "Missing argument 'FILE'"),
        (["run", "a.yaml", "--fast"], "No such option: --fast"),
        (["train", "a.yaml"], "Missing option '--model'"),
        (["predict", "run", "a.png"], "Missing option '--out'"),
    ],
)
def test_wrong_usage(call: Call, arguments: list[str], message: str) -> None:
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and message in err and "Usage: autoseg" in err


def test_run_in_a_new_folder_of_the_working_directory(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path / "short.yaml", baselines=[], repeats=1, name="quick")
    code, out, err = call("run", "short.yaml", "--device", "cpu", "--set", "train.epochs=1", "--no-ui")
    assert code == 0, err
    assert (tmp_path / "runs" / "quick" / "report.html").exists()
    assert "searched" in out and "mIoU %" in out and "report:" not in out
    assert "report: runs/quick/report.html" in err and "9 train, 1 val, 2 test" in err
    assert "searched, seed 0: best validation mIoU" in err
    config = (tmp_path / "runs" / "quick" / "config.yaml").read_text()
    assert "device: cpu" in config and "enabled: false" in config


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["plan"]])
def test_plan_and_dry_run_print_the_plan_and_write_nothing(
    call: Call, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(command[0], experiment, *command[1:], "--set", "repeats=3")
    assert code == 0, err
    assert "train unet" in out and "3 seeds of 2 epochs" in out and "whole run" in out
    assert "patch 32: images are 32 px" in out
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_preset_is_put_over_the_file_before_the_settings(call: Call, experiment: Path) -> None:
    write_experiment(experiment, presets={"long": {"repeats": 3, "train": {"epochs": 9}}})
    code, out, err = call("plan", experiment, "--preset", "long", "--set", "train.epochs=4")
    assert code == 0 and "3 seeds of 4 epochs" in out, err
    for command in (["run"], ["plan"], ["check"], ["train", "--model", "unet"]):
        code, _, err = call(command[0], experiment, *command[1:], "--preset", "lnog")
        assert code == 2 and "did you mean 'long'?" in err


def test_plan_with_a_budget_gives_lengths_in_time(call: Call, experiment: Path) -> None:
    code, out, err = call("plan", experiment, "--budget", "2min")
    assert code == 0, err
    total = re.search(r"whole run .*?(\d+) min(?: (\d+) s)?$", out, re.MULTILINE)
    assert total is not None, out
    assert 90 <= 60 * int(total[1]) + int(total[2] or 0) <= 126
    assert "epochs" not in out.partition("whole run")[0]


def test_options_alone_belong_to_the_default_plugins(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text("data: {dataset: synthetic-ceramic, options: {count: 12, size: 32}}\nbaselines: []\n")
    settings = ["space.options.width=4", "strategy.options.epochs=1", "train.loss.options.smoth=0.5"]
    code, out, err = call("plan", file, *[word for text in settings for word in ("--set", text)])
    assert code == 2 and "1 problem to mend" in err and "did you mean 'dice.smooth'?" in err
    code, out, err = call("plan", file, *[word for text in settings[:2] for word in ("--set", text)])
    assert code == 0 and "enas over ednas" in out, err


def test_the_budget_begins_with_the_command(call: Call, experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch takes seconds of it."""
    clock = iter([1000.0])
    elapsed = []

    def plan(prepared: Any, seconds: float) -> Any:
        elapsed.append(seconds)
        raise UserError("enough")

    monkeypatch.setattr("autoseg.cli.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("autoseg.experiment.time", SimpleNamespace(monotonic=lambda: 1007.5))
    monkeypatch.setattr("autoseg.experiment.make_plan", plan)
    assert call("plan", experiment)[0] == 2 and elapsed == [7.5]


def test_check(call: Call, experiment: Path, tmp_path: Path) -> None:
    code, out, err = call("check", experiment)
    assert (code, err) == (0, "")
    assert "train: 9 images\nval: 1 images\ntest: 2 images" in out and "no problems found" in out
    code, out, err = call("check", experiment, "--set", "train.epoch=3", "--set", "data.options.cuont=3")
    assert code == 2 and out == ""
    assert "2 problems to mend" in err and "did you mean 'epochs'?" in err and "did you mean 'count'?" in err
    code, out, err = call("check", tmp_path / "nowhere")
    assert code == 2 and "nowhere: there is no such file" in err
    code, out, err = call("check", tmp_path)
    assert code == 2 and out == "" and f"{tmp_path / 'images'}: folder does not exist" in err


def test_check_a_folder(call: Call, tmp_path: Path) -> None:
    for index in range(5):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{index}.png"), np.eye(16, dtype=np.uint8))
    code, out, err = call("check", tmp_path)
    assert (code, err) == (0, "")
    assert "train: 3 images" in out and "classes: class-0, class-1" in out
    assert "note: The images were divided image by image with seed 0: 3 train, 1 val, 1 test." in out


def test_list(call: Call) -> None:
    code, out, err = call("list")
    assert (code, err) == (0, "")
    rows = [line.split()[:2] for line in out.splitlines()]
    expected = [["ednas", "space"], ["enas", "strategy"], ["folder", "dataset"], ["unet", "model"], ["dice", "loss"]]
    assert all(row in rows for row in expected)
    code, out, _ = call("list", "losses")
    assert code == 0 and "ce+dice" in out and "unet" not in out
    code, out, err = call("list", "losses", "--json")
    listed = json.loads(out)
    assert [row["name"] for row in listed if row["distribution"] == "autoseg"][:4] == [
        "*+*",
        "ce",
        "dice",
        "dice-squared",
    ]
    assert set(listed[0]) == {"name", "kind", "description", "distribution", "error"} and listed[0]["error"] is None
    code, out, err = call("list", "looses")
    assert code == 2 and out == "" and "did you mean 'loss'?" in err


def test_list_writes_families_out_for_a_pattern(call: Call) -> None:
    code, out, err = call("list", "models", "fpn-resnet1*")
    assert (code, err) == (0, "")
    assert {"fpn-resnet18", "fpn-resnet10t"} <= {line.split()[0] for line in out.splitlines()} and "unet" not in out
    assert out.count("Feature pyramid network") == 1
    code, out, _ = call("list", "models", "fpn-resnet18", "--json")
    assert [(row["name"], row["error"]) for row in json.loads(out)] == [("fpn-resnet18", None)]
    code, out, _ = call("list", "models", "zzz*")
    assert (code, out.strip()) == (0, "no plugin's name matches 'zzz*'")
    code, out, _ = call("list", "models")
    assert "fpn-*" in out and "fpn-resnet18 " not in out and "All of a family: autoseg list model 'upernet-*'" in out


def test_a_broken_plugin_is_listed_with_its_reason(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    site = install(
        tmp_path / "site",
        groups={"autoseg.models": {"broken-net": "brokenplugs:Net", "fine-net": "brokenplugs_fine:Net"}},
        modules={
            "brokenplugs": "import a_module_that_is_not_there\n",
            "brokenplugs_fine": "def Net(in_channels, num_classes):\n    '''Works.'''\n",
        },
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    code, out, err = call("list", "models")
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("broken-net"))
    assert "does not load: ModuleNotFoundError" in line and "fake-plugs" in line
    assert any(line.split()[:3] == ["fine-net", "model", "Works."] for line in out.splitlines())
    assert any(line.split()[:2] == ["unet", "model"] for line in out.splitlines())
    rows = {row["name"]: row["error"] for row in json.loads(call("list", "models", "--json")[1])}
    assert "a_module_that_is_not_there" in rows["broken-net"] and rows["fine-net"] is rows["unet"] is None
    code, out, err = call("doctor")
    assert code == 2 and "1 problem to mend" in err and "broken-net" in err and "install the missing module" in err


def test_doctor(call: Call) -> None:
    code, out, err = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    problems = [check for check in checks.values() if check["status"] == "problem"]
    assert code == (2 if problems else 0) and all(check["fix"] in err for check in problems)
    assert checks["python"]["found"].startswith(sys.version.split()[0])
    assert {check["status"] for check in checks.values()} <= {"ok", "warning", "problem"}


def test_show(call: Call, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # in a narrow terminal the table breaks its lines
    comparison = json.loads((tiny_folder / "comparison.json").read_text())
    code, out, err = call("show", tiny_folder)
    assert (code, err) == (0, "")
    assert comparison["verdict"]["text"] in out
    scores = [(model["miou"], name) for name, model in comparison["models"].items()]
    assert [line.split()[0] for line in out.splitlines()[2:5]] == [name for _, name in sorted(scores, reverse=True)]
    assert f"{100 * max(scores)[0]:.1f}" in out
    code, out, _ = call("show", tiny_folder, "--json")
    assert code == 0 and json.loads(out) == comparison
    code, out, err = call("show", tmp_path)
    assert code == 2 and out == "" and f"{tmp_path / 'comparison.json'}: is missing" in err


def test_compare(call: Call, tiny_folder: Path, tmp_path: Path) -> None:
    code, out, err = call("compare", tiny_folder, "--out", tmp_path / "pages")
    assert (code, err) == (0, f"page: {tmp_path / 'pages' / 'compare.html'}\n")
    assert all(name in out for name in MODELS) and "No Friedman test" in out
    code, printed, _ = call("compare", tiny_folder, "--json")
    assert code == 0 and json.loads(printed) == json.loads((tmp_path / "pages" / "compare.json").read_text())
    assert list(json.loads(printed)["runs"]) == [tiny_folder.name]
    code, out, err = call("compare", tiny_folder, "--out", "/proc/x")
    assert (code, out) == (2, "") and "/proc/x: the comparison cannot be written there" in err
    code, out, err = call("compare", tiny_folder, tiny_folder, tiny_folder / "nothing")
    assert (code, out) == (2, "")
    assert "the run is given 2 times" in err and f"{tiny_folder / 'nothing'}: there is no such run folder" in err


def test_report_is_written_again(call: Call, tiny_folder: Path) -> None:
    page, comparison = tiny_folder / "report.html", tiny_folder / "comparison.json"
    verdict = json.loads(comparison.read_text())["verdict"]
    page.unlink()
    comparison.unlink()
    code, out, err = call("report", tiny_folder)
    assert (code, out, err) == (0, f"{page}\n", "")
    assert page.stat().st_size > 20_000 and json.loads(comparison.read_text())["verdict"] == verdict


def test_report_without_the_data(call: Call, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    folder.mkdir()
    for name in ("config.yaml", "architecture.json", "comparison.json", "environment.json", "plan.json"):
        (folder / name).write_text((tiny_folder / name).read_text())
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("count: 12", "count: 1"))
    code, out, err = call("report", folder)
    assert (code, out) == (0, f"{folder / 'report.html'}\n")
    assert "note: the data set cannot be read, so the report has no pictures of it" in err


def test_train_a_model(call: Call, experiment: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "one"
    code, out, err = call("train", experiment, "--model", "unet", "--out", out_folder, "--set", "train.epochs=1")
    assert code == 0, err
    result = json.loads(out)
    assert result["model"] == "unet" and result["seed"] == 0 and 0 <= result["miou"] <= 1
    test = json.loads((out_folder / "models/unet/seed-0/test.json").read_text())
    assert test["miou"] == result["miou"]
    assert f"model: {out_folder / 'models/unet/seed-0'}" in err
    card = json.loads((out_folder / "models/unet/seed-0/model.json").read_text())["card"]
    assert card["test"]["miou"] == test["miou"] and card["model"]["flops"] > 0 and card["comparison"] is None
    assert "unet, seed 0" in (out_folder / "models/unet/seed-0/card.html").read_text()


def test_train_says_what_it_chose(call: Call, experiment: Path, tmp_path: Path) -> None:
    settings = ["--set", "train.epochs=1", "--set", "train.loss=weighted-ce"]
    code, _, err = call("train", experiment, "--model", "unet", "--out", tmp_path / "one", *settings)
    assert code == 0, err
    assert re.search(r"note: loss weighted-ce: (beta|weight) .*, from the training pixels", " ".join(err.split()))


def test_train_with_a_budget_and_no_epochs_takes_the_budget(call: Call, experiment: Path, tmp_path: Path) -> None:
    settings = ["--set", "train.epochs=null", "--set", "budget=2s"]
    code, _, err = call("train", experiment, "--model", "unet", "--out", tmp_path / "one", *settings)
    assert code == 0, err
    model = json.loads((tmp_path / "one/models/unet/seed-0/model.json").read_text())
    assert model["training"]["recipe"]["seconds"] == 2 and model["training"]["recipe"]["epochs"] is None


def test_train_an_architecture_gives_what_the_run_got(
    call: Call, experiment: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    found = tiny_folder / "architecture.json"
    code, out, err = call("train", experiment, "--model", found, "--out", tmp_path / "again")
    assert code == 0, err
    first = json.loads((tiny_folder / "comparison.json").read_text())["models"]["searched"]["seeds"][0]
    result = json.loads(out)
    assert result["model"] == "architecture"
    assert {key: result[key] for key in ("miou", "dice", "accuracy")} == {
        key: first[key] for key in ("miou", "dice", "accuracy")
    }


def test_train_refuses_what_it_cannot_train(call: Call, experiment: Path, tiny_folder: Path, tmp_path: Path) -> None:
    code, out, err = call("train", experiment, "--model", "unett", "--out", tmp_path / "one")
    assert code == 2 and out == "" and "did you mean 'unet'?" in err
    code, _, err = call("train", experiment, "--model", tmp_path / "none.json", "--out", tmp_path / "one")
    assert code == 2 and "none.json: cannot be read" in err
    code, _, err = call("train", experiment, "--model", "unet", "--out", tiny_folder)
    assert code == 2 and "the output folder is already used by a run" in err
    assert not (tmp_path / "one").exists()


def test_test_scores_on_another_data_set(call: Call, experiment: Path, tiny_folder: Path) -> None:
    code, out, err = call("test", tiny_folder / "models/unet/seed-0", "--data", experiment, "--device", "cpu")
    assert (code, err) == (0, "")
    result = json.loads(out)
    seeds = json.loads((tiny_folder / "comparison.json").read_text())["models"]["unet"]["seeds"]
    assert result["miou"] == seeds[0]["miou"] and (result["split"], result["images"]) == ("test", 2)
    code, out, _ = call("test", tiny_folder, "--data", experiment, "--set", "data.options.seed=5")
    assert code == 0 and json.loads(out)["miou"] != seeds[0]["miou"]
    file = write_experiment(experiment.parent / "presets.yaml", presets={"other": {"data": {"options": {"seed": 5}}}})
    code, again, err = call("test", tiny_folder, "--data", file, "--preset", "other")
    assert code == 0 and json.loads(again)["miou"] == json.loads(out)["miou"], err


def test_test_refuses_data_of_another_kind(call: Call, tiny_folder: Path, tmp_path: Path) -> None:
    for index in range(4):
        for kind, shape in (("images", (16, 16, 3)), ("masks", (16, 16))):
            (tmp_path / "rgb" / kind).mkdir(parents=True, exist_ok=True)
            array = np.random.default_rng(index).integers(0, 2, shape, np.uint8)
            cv2.imwrite(str(tmp_path / "rgb" / kind / f"{index}.png"), array)
    other = write_experiment(tmp_path / "rgb.yaml", data={"path": "rgb"})
    code, out, err = call("test", tiny_folder, "--data", other)
    assert code == 2 and out == ""
    assert f"{other}: the data have 3 channel(s) and 2 classes, the model 1 and 3" in err


def test_predict(call: Call, tiny_folder: Path, picture: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "masks"
    code, out, err = call("predict", tiny_folder, picture, "--out", out_folder)
    assert (code, err) == (0, "")
    files = [out_folder / "field 1.png", out_folder / "field 1_overlay.png"]
    assert out.splitlines() == [str(path) for path in files]
    mask, overlay = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files)
    assert mask.shape == (41, 60) and mask.max() <= 2 and overlay.shape == (41, 60, 3)


def test_predict_does_the_good_images_and_names_the_bad(
    call: Call, tiny_folder: Path, picture: Path, tmp_path: Path
) -> None:
    cut, colour = tmp_path / "cut.png", tmp_path / "colour.png"
    cut.write_bytes(picture.read_bytes()[:500])
    cv2.imwrite(str(colour), np.zeros((20, 20, 3), np.uint8))
    code, out, err = call("predict", tiny_folder, cut, colour, picture, "--out", tmp_path / "masks")
    assert code == 2 and "2 problems to mend" in err
    assert f"{cut}: " in err and f"{colour}: " in err and "1 channel(s)" in err
    assert (tmp_path / "masks" / "field 1.png").exists()
    code, out, err = call("predict", tiny_folder, tmp_path / "no.png", picture, picture, "--out", tmp_path / "other")
    assert code == 2 and out == "" and "no.png: there is no such file" in err
    assert "several images are called 'field 1'" in err and not (tmp_path / "other").exists()


def test_predict_needs_a_model_and_a_folder_to_write(
    call: Call, tiny_folder: Path, picture: Path, tmp_path: Path
) -> None:
    code, _, err = call("predict", tmp_path, picture, "--out", tmp_path / "masks")
    assert code == 2 and "holds no trained model" in err
    code, _, err = call("predict", tiny_folder, picture, "--out", picture / "masks")
    assert code == 2 and "1 problem to mend" in err and str(picture) in err and "choose another path" in err


def test_a_device_that_is_not_there(call: Call, experiment: Path, tmp_path: Path) -> None:
    code, _, err = call("run", experiment, "--device", "cuda:99", "--out", tmp_path / "run")
    assert code == 2 and "compute.device: device 'cuda:99' is not there" in err and "use auto or cpu" in err
    assert not (tmp_path / "run").exists()


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_an_internal_error_is_one_line_and_a_file(
    call: Call, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("autoseg.terminal.commands.run", raising(RuntimeError("tensors\nfell over")))
    code, out, err = call("plan", experiment)
    assert code == 1 and out == ""
    match = re.fullmatch(r"autoseg: internal error: RuntimeError: tensors \(please report it with (.*)\)\n", err)
    assert match is not None, err
    report = Path(match[1])
    assert report.parent == tmp_path
    assert "Traceback" in report.read_text() and "fell over" in report.read_text()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 2, "/data/x: No space left on device\n  -> free"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), 2, "/data/x: Permission denied\n  -> choose"),
        (OSError(errno.EIO, "Input/output error"), 1, "internal error: OSError: [Errno 5] Input/output error"),
        (AutosegError("unet, seed 0: its process was killed"), 1, "autoseg: unet, seed 0: its process was killed ("),
        (Interrupted("Go on."), 130, "autoseg: interrupted. Go on.\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_every_ending_has_its_exit_code(
    call: Call, experiment: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    monkeypatch.setattr("autoseg.terminal.commands.run", raising(error))
    found, out, err = call("plan", experiment)
    assert (found, out) == (code, "") and message in err


def test_a_second_signal_does_not_disturb_the_ending_but_a_later_one_counts(
    call: Call, experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("autoseg.terminal.guard.time.monotonic", lambda: clock[0])
    caught = []

    def stubborn(*_: Any, **__: Any) -> None:
        for _ in range(3):
            try:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)
            except Interrupted:
                caught.append(clock[0])
            clock[0] += 2
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("autoseg.terminal.commands.run", stubborn)
    assert call("plan", experiment)[0] == 0  # the last one came within the patience of the one before
    assert caught == [100.0, 104.0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


class KilledWhileItDies:
    """The exception of the signal is raised in a destructor, where Python drops it."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dropped_interruption_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.terminal.guard._PATIENCE", 0.2)
    reached = []

    def app(arguments: list[str], prog_name: str) -> None:
        KilledWhileItDies()
        reached.append("dropped")
        try:
            time.sleep(30)
        finally:
            time.sleep(0.5)  # an ending longer than the patience is not disturbed
            reached.append("ended")

    began = time.monotonic()
    assert guarded(app, []) == 130
    assert reached == ["dropped", "ended"] and time.monotonic() - began < 5


def test_the_experiment_of_these_tests_is_not_changed_by_them(experiment: Path) -> None:
    assert json.loads(experiment.read_text()) == EXPERIMENT
