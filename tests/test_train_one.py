"""Which network ``autoseg train FILE --model NAME`` trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import write_experiment

from autoseg.errors import UserError
from autoseg.terminal.commands import train_one

pytestmark = pytest.mark.usefixtures("one_core")
BASELINES = [
    {"name": "unet", "as": "small", "options": {"width": 4, "depth": 2}},
    {"name": "unet", "as": "flat", "options": {"width": 4, "depth": 1}},
    {"name": "enet", "options": {"width": 4}},
    "random",
]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "tiny.yaml", baselines=BASELINES)


@pytest.mark.parametrize(
    ("given", "label", "model", "options"),
    [("flat", "flat", "unet", {"width": 4, "depth": 1}), ("enet", "enet", "enet", {"width": 4})],
)
def test_options_and_label_come_from_the_baselines_of_the_file(
    experiment: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: str,
    label: str,
    model: str,
    options: Any,
) -> None:
    result = train_one(experiment, given, tmp_path / "out", None, ["train.epochs=1"])
    assert result["model"] == label
    description = json.loads((tmp_path / "out" / "models" / label / "seed-0" / "model.json").read_text())
    spec = description["build"]
    assert (spec["label"], spec["model"], spec["options"]) == (label, model, options)
    said = " ".join(capsys.readouterr().err.split())
    assert f"note: {label}, as among the baselines" in said and "width=4" in said


def refusal(experiment: Path, model: str, out: Path) -> str:
    with pytest.raises(UserError) as error:
        train_one(experiment, model, out, None, [])
    assert not out.exists()
    return str(error.value)


def test_names_that_say_too_little_are_refused(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "2 baselines are a unet\n  -> give the label: 'small' or 'flat'" in refusal(experiment, "unet", out)
    assert "'random' is the control of a run" in refusal(experiment, "random", out)
    assert "'fpn-*' is a family\n  -> name a member such as fpn-resnet18" in refusal(experiment, "fpn-*", out)
    assert "'autoseg:fpn-*' is a family" in refusal(experiment, "autoseg:fpn-*", out)
    assert "did you mean 'fpn-resnet18'?" in refusal(experiment, "fpn-resnet81", out)


def test_a_family_among_the_baselines_of_a_file(tmp_path: Path) -> None:
    file = write_experiment(tmp_path / "tiny.yaml", baselines=["fpn-*"])
    text = refusal(file, "unet", tmp_path / "out")
    assert "tiny.yaml" in text and "'fpn-*' is a family" in text
