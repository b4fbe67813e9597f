"""A trial of somebody else's NNI experiment: parameters in, figures and files out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nni.runtime import trial_command_channel
from tiny_experiment import EXPERIMENT, write_experiment

from autoseg import trial_command
from autoseg.cli import main
from autoseg.errors import UserError
from autoseg.search.architecture import Architecture
from autoseg.spaces import EDNAS
from autoseg.train.cost import count_parameters
from autoseg.train.modelfile import ModelFile
from autoseg.trial_command import parameter_settings, run_trial_command, score_model

pytestmark = pytest.mark.usefixtures("one_core")


class Manager:
    """The end of NNI's report channel: gives parameters, keeps what is reported."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters, self.reports = parameters, list[tuple[str, int | None, str, int, Any]]()

    def receive_parameter(self) -> dict[str, Any]:
        return {"parameter_id": 3, "parameters": self.parameters}

    def send_metric(self, type: str, parameter_id: int | None, trial_job_id: str, sequence: int, value: Any) -> None:
        self.reports.append((type, parameter_id, trial_job_id, sequence, value))

    def of(self, kind: str) -> list[Any]:
        return [report for report in self.reports if report[0] == kind]


class Unreadable:
    """A test split that says how long it is and nothing else."""

    names = ("secret",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("the test split was read")


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As in a process that NNI has started; returns the output folder. The test split cannot be read."""
    output = tmp_path / "output"
    output.mkdir()
    for name, value in {"PLATFORM": "local", "TRIAL_JOB_ID": "abcde", "OUTPUT_DIR": str(output)}.items():
        monkeypatch.setenv(f"NNI_{name}", value)
    prepare = trial_command.prepare

    def without_test(config: Any) -> Any:
        prepared = prepare(config)
        return replace(prepared, data=replace(prepared.data, test=Unreadable()))

    monkeypatch.setattr(trial_command, "prepare", without_test)
    return output


def connect(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Manager:
    monkeypatch.setattr(trial_command_channel, "_channel", manager)
    return manager


def test_parameters_become_settings_and_the_trial_leaves_its_results(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"strategy.name": "random-oneshot", "space.options.width": 3, "train.lr": 1e-05, "train.loss": "dice"}
    manager = connect(Manager(asked), monkeypatch)
    options = {"epochs": 1, "candidates": 2}
    file = write_experiment(tmp_path / "a.yaml", strategy={"name": "enas", "options": options})
    result = run_trial_command(file, ["train.lr=0.5", "train.epochs=3"])

    written = (inside / "config.yaml").read_text()
    assert "name: random-oneshot" in written and "lr: 1.0e-05" in written and "epochs: 3" in written
    found = json.loads((inside / "architecture.json").read_text())
    assert found["parameters"] == asked and found["kwargs"]["width"] == 3
    network = Architecture.from_json(found).build(1, 3)
    with (inside / "models/searched/seed-0/history.csv").open() as file_:
        scores = [float(row["val_miou"]) for row in csv.DictReader(file_)]
    assert len(scores) == 3
    assert (result["default"], result["params"]) == (max(scores), count_parameters(network))
    _, trained = ModelFile.load(inside / "models/searched/seed-0")
    assert count_parameters(trained) == result["params"]
    assert not list(inside.rglob("test.json")) and not list(inside.glob("models/**/state*"))

    assert {report[1:3] for report in manager.reports} == {(3, "abcde")}
    curve = manager.of("PERIODICAL")
    assert [report[3] for report in curve] == list(range(len(curve))) and curve
    assert curve[-1][4]["default"] == pytest.approx(scores[-1]) and curve[-1][4]["loss"] > 0
    assert manager.of("FINAL") == [("FINAL", 3, "abcde", 0, {k: v for k, v in result.items() if k != "folder"})]
    assert result["code"].startswith("E=[") and Path(result["folder"]) == inside


def test_reports_of_the_search_itself_do_not_reach_nni(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A multi-trial search reports a final result of every candidate, on a channel of its own."""
    manager = connect(Manager({"strategy": {"_name": "random", "trials": 2, "epochs": 1}}), monkeypatch)
    result = run_trial_command(write_experiment(tmp_path / "a.yaml"))
    rows = [json.loads(line) for line in (inside / "search/journal.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert [report[4]["default"] for report in manager.of("FINAL")] == [result["default"]]
    assert trial_command_channel.get_default_trial_command_channel() is manager


def test_all_wrong_parameters_are_told_at_once(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"lr": 0.1, "sapce.options.width": 4, "repeats": 3, "train.lr": 20, "space.options.widht": 4}
    manager = connect(Manager(wrong), monkeypatch)
    with pytest.raises(UserError) as error:
        run_trial_command(write_experiment(tmp_path / "a.yaml"))
    told = {problem.where: problem for problem in error.value.problems}
    assert len(told) == 5
    assert told["parameter 'lr'"].fix == "write train.lr"
    assert told["parameter 'sapce.options.width'"].fix == "did you mean 'space'?"
    assert told["parameter 'repeats'"].what == "is not a setting of a trial"
    assert "parameter train.lr=20" in told
    assert told["parameter space.options.widht=4"].fix == "did you mean 'width'?"
    assert manager.reports == [] and not list(inside.iterdir())


def test_settings_keep_small_numbers_and_nested_choices() -> None:
    asked = {"train.lr": 1e-07, "train.augment": False, "space": {"_name": "ednas", "width": 4}}
    assert parameter_settings(asked) == [
        "train.lr=1e-07",
        "train.augment=false",
        'space={"name": "ednas", "options": {"width": 4}}',
    ]


def test_outside_nni_the_command_prints_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NNI_PLATFORM", raising=False)
    write_experiment(tmp_path / "a.yaml", name="small")
    (tmp_path / "runs" / "small-trial-1").mkdir(parents=True)
    assert main(["trial", "a.yaml", "--set", "train.epochs=1", "--set", "strategy.options.epochs=1"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert result["folder"] == "runs/small-trial-2" and 0 <= result["default"] <= 1
    assert "without runtime" not in err and not [w for w in recwarn if "without runtime" in str(w.message)]
    assert main(["trial", "a.yaml", "--set", "train.epochs=none"]) == 2


def test_a_network_of_nnis_is_trained_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = connect(Manager({}), monkeypatch)
    space = EDNAS(1, 3, **EXPERIMENT["space"]["options"])
    network = space.random()  # a frozen space
    before = [value.clone() for value in network.parameters()]
    score = score_model(network, str(write_experiment(tmp_path / "a.yaml")), ["train.epochs=3"])
    final = {"default": score, "params": count_parameters(network)}
    assert [report[4] for report in manager.of("FINAL")] == [final] and 0 <= score <= 1
    assert [report[3] for report in manager.of("PERIODICAL")] == [0, 1, 2]
    assert max(report[4]["default"] for report in manager.of("PERIODICAL")) == pytest.approx(score)
    assert any(not (old == new).all() for old, new in zip(before, network.parameters(), strict=True))


def test_importing_the_spaces_is_cheap_and_names_are_checked() -> None:
    code = """
import sys
import autoseg.spaces as spaces
assert not {"torch", "nni"} & set(sys.modules)
assert spaces.AutoSegNet.__name__ == "AutoSegNet" and spaces.EDNAS.__module__ == "autoseg.spaces.ednas"
assert sys.modules["gym"].__name__ == "gymnasium"
try:
    spaces.Ednas
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stderr, done.stdout.strip()) == ("", "module 'autoseg.spaces' has no attribute 'Ednas'")
