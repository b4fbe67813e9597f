"""The example files load, run, and say what is missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from public_data import write_camvid, write_isbi2012, write_pets
from tiny_experiment import EXPERIMENT
from torch import nn

import autoseg
from autoseg import registry
from autoseg.cli import main
from autoseg.config import ExperimentConfig, load_config
from autoseg.errors import UserError
from autoseg.prepare import prepare
from autoseg.search.control import random_architecture

pytestmark = pytest.mark.usefixtures("one_core")
FOLDER = Path(__file__).parent.parent / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
PUBLIC = {"pets": write_pets, "camvid": write_camvid}
BASELINES = {
    "camvid": ["unet", "segnet", "enet"],
    "ceramic": ["unet", "segnet"],
    "folder": ["unet", "segnet"],
    "industrial": ["unet", "pspnet"],
    "membranes": ["unet", "pspnet"],
    "pets": ["unet", "fpn", "unetplusplus"],
    "tem": ["ds-unet", "unet"],
}
PAPER = {  # what the papers state: search epochs, training epochs, learning rate, and baselines of their tables
    "camvid": (300, 200, 1e-3, ["unet"]),
    "ceramic": (300, 150, 4e-5, ["segnet", "deeplabv3", "fcn-16s", "enet", "unet", "erfnet", "ed-nas-n4"]),
    "industrial": (200, 300, 0.5, ["unet", "pspnet-resnet34"]),
    "membranes": (200, 300, 0.5, ["unet", "pspnet-resnet34"]),
    "pets": (
        300, 200, 1e-3,
        ["unet", "fpn-resnet34", "deeplabv3-resnet34", "unetplusplus-resnet34", "setr-pup-vit_base_patch16_224"],
    ),
    "tem": (None, 100, 1e-3, ["ds-unet", "unet"]),
}  # fmt: skip
# Of the paper presets: options of the data, width of the space; batch and patch of the search (None: the training's),
# batch and patch of the training.
SIZES: dict[str, tuple[dict[str, object], int, tuple[int | None, int | None], tuple[int, int]]] = {
    "camvid": ({}, 64, (8, 128), (8, 128)),
    "ceramic": ({"count": 629, "size": 128, "difficulty": "paper"}, 32, (1, 128), (2, 128)),
    "industrial": ({"count": 117, "size": 160}, 32, (None, 32), (8, 160)),
    "membranes": ({}, 64, (None, 64), (8, 512)),
    "pets": ({"size": 256, "border": "pet"}, 64, (8, 128), (8, 128)),
    "tem": ({"count": 128, "size": 256}, 8, (None, 64), (8, 256)),
}
SEARCHES = {
    "autosegnet": {"epochs": 1, "rewards": 4, "rewards_per_update": 2, "candidates": 1},
    "darts": {"epochs": 2, "tuning": 0.5, "candidates": 1},
    "enas": {**EXPERIMENT["strategy"]["options"], "epochs": 1},
}
SPACES = {"autosegnet": {"width": 2, "input_size": 32}, "ednas": {"width": 4, "layers": 2, "blocks": 2}}
QUICK = [
    "budget=null",
    "train.epochs=1",
    "train.batch=4",
    "train.patch=32",
    'baselines=[{"name": "unet", "options": {"width": 4}}, "random"]',
    "repeats=1",
    "compute={workers: 1, device: cpu}",
]


def _quick(file: Path) -> list[str]:
    """Overrides that make the smallest run of an example, with its own data set, space and strategy."""
    config = load_config(file)
    settings = [*QUICK, f"strategy.options={json.dumps(SEARCHES[config.strategy.name])}", "strategy.patch=32"]
    settings.append(f"space.options={json.dumps(SPACES.get(config.space.name, {'width': 4, 'nodes': 1}))}")
    if config.train.space_options:
        settings.append("train.space_options={input_size: 32}")
    if config.data.dataset.startswith("synthetic"):
        settings.append("data.options={count: 12, size: 32}")
    return settings


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_example_is_valid_and_named_after_its_file(file: Path) -> None:
    config = load_config(file)
    assert config.name == file.stem
    assert [baseline.label for baseline in config.baselines] == [*BASELINES[file.stem], "random"]
    assert f"autoseg run examples/{file.name}" in file.read_text()
    assert config.budget == (None if file.stem == "ceramic" else 600)  # 10 minutes; ceramic's epochs take 4


@pytest.mark.parametrize("name", PAPER)
def test_the_preset_of_the_paper(name: str) -> None:
    config = load_config(FOLDER / f"{name}.yaml", preset="paper")
    search, epochs, rate, baselines = PAPER[name]
    assert config.budget is None and config.train.seconds is None
    assert config.strategy.options.get("epochs") == search
    assert (config.train.epochs, config.train.lr) == (epochs, rate)
    assert [baseline.label for baseline in config.baselines] == [*baselines, "random"]


@pytest.mark.parametrize("name", PAPER)
def test_the_sizes_of_the_preset_of_the_paper(name: str) -> None:
    config = load_config(FOLDER / f"{name}.yaml", preset="paper")
    options, width, searching, training = SIZES[name]
    assert config.data.options == options and config.space.options["width"] == width
    assert (config.strategy.batch, config.strategy.patch) == searching
    assert (config.train.batch, config.train.patch) == training


@pytest.mark.parametrize("name", PAPER)
def test_the_networks_of_the_preset_of_the_paper_can_be_built(name: str) -> None:
    """Large ones on the meta device, which has shapes and no numbers; of the space a random network."""
    config = load_config(FOLDER / f"{name}.yaml", preset="paper")
    channels, classes = {"camvid": (3, 11), "pets": (3, 2), "ceramic": (1, 3)}.get(name, (1, 2))
    registry.load("strategy", config.strategy.name)(**config.strategy.options)
    registry.load("loss", config.train.loss.name)(**config.train.loss.options)
    for baseline in config.baselines:
        if baseline.name != "random":
            with torch.device("meta" if baseline.name.startswith(("setr", "unet")) else "cpu"):
                network = registry.load("model", baseline.name)(channels, classes, **baseline.options)
            assert sum(parameter.numel() for parameter in network.parameters()) > 1e5, baseline.name
    with torch.device("meta"):
        (found,) = _random_networks(config, channels, classes, 1)
    assert next(found.parameters()).is_meta


def test_random_networks_for_membranes_straddle_the_size_of_the_papers() -> None:
    """41.93 M parameters at 512 pixels; with a width of 32 the largest of all would have 28 M."""
    config = load_config(FOLDER / "membranes.yaml", preset="paper")
    with torch.device("meta"):
        counts = [sum(p.numel() for p in network.parameters()) for network in _random_networks(config, 1, 2, 5)]
    assert min(counts) < 30e6 < 41.93e6 < 50e6 < max(counts)


def _random_networks(config: ExperimentConfig, channels: int, classes: int, count: int) -> list[nn.Module]:
    """Networks of the space, as the final training builds them."""
    space = registry.load("space", config.space.name)(channels, classes, **config.space.options)
    named = (config.space.name, config.space.options)
    drawn = [random_architecture(*named, space, seed) for seed in range(count)]
    return [architecture.build(channels, classes, **config.train.space_options) for architecture in drawn]


def test_all_examples_are_named() -> None:
    assert {file.stem for file in FILES} == set(BASELINES) == set(SIZES) | {"folder"} == {*PAPER, "folder"}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_every_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path / "data"))
    if name in PUBLIC:
        PUBLIC[name](tmp_path / "data" / name)
    file = FOLDER / f"{name}.yaml"
    run = autoseg.run(file, out=tmp_path / "run", overrides=_quick(file))
    assert run is not None and (run.folder / "report.html").exists()
    assert list(run.comparison["models"]) == ["searched", "unet", "random"]


@pytest.mark.parametrize("name", sorted(PAPER))
def test_every_network_of_an_example_can_be_built(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path))
    if name in PUBLIC:
        PUBLIC[name](tmp_path / name)
    small = [] if name in PUBLIC else ["data.options.count=12", "data.options.size=32"]
    prepared = prepare(load_config(FOLDER / f"{name}.yaml", [*small, "compute.device=cpu"]))
    assert [spec.label for spec in prepared.baselines] == [*BASELINES[name], "random"]


@pytest.mark.parametrize("name", ["pets", "camvid", "membranes"])
def test_missing_data_say_how_to_get_them_and_what_to_do_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path))
    paper = ["--preset", "paper"] if name == "membranes" else []
    dataset = "isbi2012" if name == "membranes" else name
    assert main(["check", str(FOLDER / f"{name}.yaml"), *paper]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / dataset}: the data set '{dataset}' is not here\n  -> autoseg fetch {dataset} (from " in told
    stand_in = "synthetic-membranes" if name == "membranes" else "synthetic-ceramic"
    assert f"--set data={stand_in}" in told
    assert main(["check", str(FOLDER / f"{name}.yaml"), *paper, "--set", f"data={stand_in}"]) == 0


def test_membranes_of_the_challenge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path))
    write_isbi2012(tmp_path / "isbi2012")
    assert main(["check", str(FOLDER / "membranes.yaml"), "--set", "data=isbi2012"]) == 0
    assert main(["check", str(FOLDER / "membranes.yaml"), "--preset", "paper"]) == 0


@pytest.mark.parametrize("name", ["industrial", "membranes"])
def test_without_the_controller_the_message_leads_to_the_line_that_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = registry.plugins
    monkeypatch.setattr(
        registry, "plugins", lambda kind=None: [p for p in installed(kind) if p.distribution == "autoseg"]
    )
    file = FOLDER / f"{name}.yaml"
    with pytest.raises(UserError, match="there is no strategy called 'autosegnet'") as caught:
        load_config(file)
    place = re.search(r"line (\d+), strategy.name", caught.value.problems[0].where)
    assert place is not None
    assert "pip install ./plugins/autosegnet-controller" in file.read_text().splitlines()[int(place[1]) - 1]


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
    settings = [word for text in _quick(FOLDER / "folder.yaml") for word in ("--set", text)]
    code = main(["run", "examples/folder.yaml", "--set", "data.options.path=../pictures", *settings, "--out", "run"])
    assert code == 0, capsys.readouterr().err
    comparison = json.loads(Path("run/comparison.json").read_text())
    assert list(comparison["models"]) == ["searched", "unet", "random"]
    assert f"path: {project / 'pictures'}" in Path("run/config.yaml").read_text()


@pytest.mark.parametrize("key", ["data.path", "data.options.path"])
def test_folder_says_which_folder_is_missing(project: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    assert main(["run", "examples/folder.yaml"]) == 2
    missing = project / "clone" / "examples" / "my-images"
    assert f"{missing}: folder does not exist\n  -> check the path" in capsys.readouterr().err
    assert main(["plan", "examples/folder.yaml", "--set", f"{key}=../pictuers"]) == 2
    assert f"{project / 'pictuers'}: folder does not exist" in capsys.readouterr().err
    assert not (project / "clone" / "runs" / "folder").exists()
