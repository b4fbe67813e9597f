"""The example files load, run, and say what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_experiment import EXPERIMENT

import autoseg
from autoseg.cli import main
from autoseg.config import load_config

pytestmark = pytest.mark.usefixtures("one_core")
FOLDER = Path(__file__).parent.parent / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
QUICK = [
    "space.options.width=4",
    "space.options.layers=2",
    "space.options.blocks=2",
    f"strategy.options={json.dumps(EXPERIMENT['strategy']['options'])}",
    "strategy.options.epochs=1",
    "train.epochs=1",
    "baselines.0.options.width=4",
    "baselines.1.options.width=4",
    "repeats=1",
    "compute.workers=1",
    "compute.device=cpu",
]


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_example_is_valid_and_named_after_its_file(file: Path) -> None:
    config = load_config(file)
    assert config.name == file.stem
    assert [baseline.label for baseline in config.baselines] == ["unet", "segnet", "random"]
    assert f"autoseg run examples/{file.name}" in file.read_text()


def test_there_are_the_two_examples_of_the_readme() -> None:
    assert {file.name for file in FILES} >= {"ceramic.yaml", "folder.yaml"}


def test_ceramic_runs(tmp_path: Path) -> None:
    run = autoseg.run(
        FOLDER / "ceramic.yaml",
        out=tmp_path / "run",
        overrides=[*QUICK, "data.options.count=12", "data.options.size=32"],
    )
    assert run is not None and (run.folder / "report.html").exists()
    assert list(run.comparison["models"]) == ["searched", "unet", "segnet", "random"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images beside a folder of examples, as in a clone."""
    rng = np.random.default_rng(0)
    for index in range(6):
        mask = np.zeros((32, 32), np.uint8)
        mask[4 + index : 20, 6:18] = 1
        image = (60 + 90 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
        for kind, picture in (("images", image), ("masks", mask)):
            (tmp_path / "pictures" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "pictures" / kind / f"p{index}.png"), picture)
    shutil.copytree(FOLDER, tmp_path / "clone" / "examples")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path


def test_folder_runs_on_a_folder_given_from_the_working_directory(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for text in (*QUICK[:5], *QUICK[6:]) for word in ("--set", text)]
    file = project / "clone" / "examples" / "folder.yaml"
    file.write_text(file.read_text().replace("budget: 10min\n", "").replace("train:\n", "train:\n  epochs: 1\n"))
    code = main(["run", "examples/folder.yaml", "--set", "data.options.path=../pictures", *settings, "--out", "run"])
    assert code == 0, capsys.readouterr().err
    comparison = json.loads(Path("run/comparison.json").read_text())
    assert list(comparison["models"]) == ["searched", "unet", "segnet", "random"]
    assert f"path: {project / 'pictures'}" in Path("run/config.yaml").read_text()


@pytest.mark.parametrize("key", ["data.path", "data.options.path"])
def test_folder_says_which_folder_is_missing(project: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert main(["run", "examples/folder.yaml"]) == 2
    missing = project / "clone" / "examples" / "my-images"
    assert f"{missing}: folder does not exist\n  -> check the path" in capsys.readouterr().err
    assert main(["plan", "examples/folder.yaml", "--set", f"{key}=../pictuers"]) == 2
    assert f"{project / 'pictuers'}: folder does not exist" in capsys.readouterr().err
    assert not (project / "clone" / "runs" / "folder").exists()
