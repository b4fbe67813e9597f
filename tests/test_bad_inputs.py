"""Bad input: exit code 2, the file or key, the cure, everything at once; and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from fake_distribution import install

from autoseg.cli import main

pytestmark = pytest.mark.usefixtures("one_core")
Refused = Callable[..., str]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Six images with masks of two classes, and an experiment file beside them."""
    rng = np.random.default_rng(0)
    for index in range(6):
        mask = np.zeros((32, 40), np.uint8)
        mask[4 + index : 20, 6:18] = 1
        image = (60 + 90 * mask + rng.integers(0, 20, mask.shape)).astype(np.uint8)
        for kind, picture in (("images", image), ("masks", mask)):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "own" / kind / f"p{index}.png"), picture)
    write(tmp_path, {"data": {"path": "own"}})
    return tmp_path / "own"


def write(folder: Path, experiment: object) -> Path:
    (folder / "my.yaml").write_text(experiment if isinstance(experiment, str) else yaml.safe_dump(experiment))
    return folder / "my.yaml"


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run my.yaml, which must be refused; returns the message."""

    def run(*arguments: str, problems: int = 1, out: Path = tmp_path / "out") -> str:
        existed = sorted(out.rglob("*")) if out.exists() else None
        code = main(["run", str(tmp_path / "my.yaml"), "--out", str(out), *arguments])
        captured = capsys.readouterr()
        assert code == 2, captured.err
        assert captured.out == "" and "Traceback" not in captured.err
        head = f"autoseg: {problems} problem{'s' if problems > 1 else ''} to mend\n"
        assert head in captured.err, captured.err
        message = captured.err.partition(head)[2]
        assert message.count("\n  -> ") == problems, f"a problem without a cure: {message}"
        assert (sorted(out.rglob("*")) if out.exists() else None) == existed, "something was written"
        return message

    return run


def test_missing_folder(own: Path, refused: Refused) -> None:
    write(own.parent, {"data": {"path": "elsewhere"}})
    assert f"{own.parent / 'elsewhere'}: folder does not exist\n  -> check the path" in refused()


def test_missing_masks_folder(own: Path, refused: Refused) -> None:
    (own / "masks").rename(own / "labels")
    assert f"{own / 'masks'}: folder does not exist\n  -> " in refused()


def test_image_without_mask(own: Path, refused: Refused) -> None:
    (own / "masks" / "p3.png").rename(own / "masks" / "p3_mask.png")
    message = refused(problems=2)
    assert f"{own / 'images'}: 1 image without a mask: p3.png" in message
    assert "rename p3_mask.png to p3.png" in message
    assert f"{own / 'masks'}: 1 mask without an image: p3_mask.png" in message


def test_sizes_that_differ(own: Path, refused: Refused) -> None:
    cv2.imwrite(str(own / "masks" / "p2.png"), np.eye(16, dtype=np.uint8))
    message = refused()
    assert f"{own / 'images' / 'p2.png'}: image is 40x32 but its mask {own / 'masks' / 'p2.png'} is 16x16" in message
    assert "give both the same size" in message


def test_mask_values_outside_the_classes(own: Path, refused: Refused) -> None:
    write(own.parent, {"data": {"path": "own", "classes": ["matrix", "crack"]}})
    mask = np.zeros((32, 40), np.uint8)
    mask[:2, :3] = 7
    mask[9, 9] = 1
    cv2.imwrite(str(own / "masks" / "p4.png"), mask)
    message = refused()
    assert f"{own / 'masks' / 'p4.png'}: mask values outside the 2 classes: 7 (6 px)" in message
    assert "use 0 to 1 for the classes and 255 for pixels to ignore" in message


def test_mask_saved_as_jpeg(own: Path, refused: Refused) -> None:
    mask = cv2.imread(str(own / "masks" / "p1.png"), cv2.IMREAD_UNCHANGED)
    (own / "masks" / "p1.png").unlink()
    cv2.imwrite(str(own / "masks" / "p1.jpg"), mask * 255)
    message = refused()
    assert f"{own / 'masks' / 'p1.jpg'}: mask is stored as JPEG, which changes class indices" in message
    assert "as an 8-bit single-channel PNG" in message


def test_jpeg_mask_that_is_called_png(own: Path, refused: Refused) -> None:
    mask = cv2.imread(str(own / "masks" / "p1.png"), cv2.IMREAD_UNCHANGED)
    (own / "masks" / "p1.png").write_bytes(cv2.imencode(".jpg", mask * 255)[1].tobytes())
    assert "p1.png: mask is stored as JPEG" in refused()


def test_mask_in_colour(own: Path, refused: Refused) -> None:
    colours = np.zeros((32, 40, 3), np.uint8)
    colours[5:9, 5:9] = (0, 159, 230)
    cv2.imwrite(str(own / "masks" / "p5.png"), colours)
    message = refused()
    assert f"{own / 'masks' / 'p5.png'}: mask is in colour where class indices are due\n  -> convert each" in message


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize(("keep", "what"), [(0, "no image, or its first bytes are damaged"), (90, "")])
def test_unreadable_or_truncated_file(own: Path, refused: Refused, kind: str, keep: int, what: str) -> None:
    path = own / kind / "p0.png"
    path.write_bytes(path.read_bytes()[:keep])
    message = refused()
    assert f"{path}: " in message and what in message
    assert "it may be cut short or damaged" in message


def test_empty_split(own: Path, refused: Refused) -> None:
    for kind in ("images", "masks"):
        for split in ("train", "val", "test"):
            (own / kind / split).mkdir()
        for index in range(6):
            (own / kind / f"p{index}.png").rename(own / kind / ("train" if index < 4 else "test") / f"p{index}.png")
    message = refused()
    assert f"{own / 'images' / 'val'}: no images\n  -> put images there" in message
    assert "or remove the folder val" in message


PLUGIN = '''
import dataclasses
from autoseg.data.synthetic.ceramic import synthetic_ceramic

def hollow(*, full: bool = False):
    """A data set without test images, or one whose disk is gone."""
    if full:
        raise FileNotFoundError("no disk at /mnt/microscope")
    data = synthetic_ceramic(count=12, size=32)
    return dataclasses.replace(data, val=[], test=[])
'''


def test_data_set_of_a_plugin_with_empty_splits_or_an_error_of_its_own(
    own: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(
        own.parent / "site", groups={"autoseg.datasets": {"hollow": "hollowset:hollow"}}, modules={"hollowset": PLUGIN}
    )
    monkeypatch.syspath_prepend(str(site))
    write(own.parent, {"data": "hollow"})
    message = refused(problems=2)
    assert "data: the val split is empty\n  -> give it at least one image" in message
    assert "data: the test split is empty" in message
    for extra, problems in (([], 1), (["--set", "repeats=0"], 2)):
        message = refused("--set", "data.options.full=true", *extra, problems=problems)
        assert "data: no disk at /mnt/microscope\n  -> change its options" in message


def test_folder_of_files_that_are_no_images(own: Path, refused: Refused) -> None:
    for path in (own / "images").iterdir():
        path.rename(path.with_suffix(".dm4"))
    message = refused()
    assert f"{own / 'images'}: no images" in message and "found only 6 .dm4 files, convert those" in message


def test_fewer_than_three_images(own: Path, refused: Refused) -> None:
    for index in range(2, 6):
        for kind in ("images", "masks"):
            (own / kind / f"p{index}.png").unlink()
    message = refused()
    assert f"{own / 'images'}: only 2 image(s) with a mask\n  -> at least 3 images with masks are needed" in message


def test_one_class_only(own: Path, refused: Refused) -> None:
    for path in (own / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 40), np.uint8))
    assert "masks: all masks together hold only class 0\n  -> give masks with at least two classes" in refused()


@pytest.mark.parametrize(
    ("key", "name", "cure"),
    [
        ("space", "ednass", "did you mean 'ednas'?"),
        ("strategy", "ensa", "did you mean 'enas'?"),
        ("data", "synthetic-ceramics", "did you mean 'synthetic-ceramic'?"),
    ],
)
def test_unknown_name(own: Path, refused: Refused, key: str, name: str, cure: str) -> None:
    write(own.parent, {"data": {"path": "own"}, key: name})
    message = refused()
    assert f"{own.parent / 'my.yaml'}, line " in message and f"called '{name}'" in message and cure in message


def test_wrong_types_and_unknown_keys_with_their_lines(own: Path, refused: Refused) -> None:
    file = write(
        own.parent,
        "data: {path: own}\nrepeats: many\ntrain:\n  epochs: 1.5\n  los: dice\nbudgt: 3h\nbaselines: [unet, unet]\n",
    )
    message = refused(problems=5)
    assert f"{file}, line 2, repeats: this is not a whole number (got 'many')" in message
    assert f"{file}, line 4, train.epochs: this is not a whole number (got 1.5)" in message
    assert f"{file}, line 5, train.los: " in message and "did you mean 'loss'?" in message
    assert f"{file}, line 6, budgt: unknown key 'budgt'\n  -> did you mean 'budget'?" in message
    assert f"{file}, line 7, baselines[1]: 2 baselines are called 'unet'" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "my.yaml: the file is empty"),
        ("data: {path: own\n", "line 2, column 1: not valid YAML"),
        ("\tdata: x\n", "indent with spaces"),
        ("- data\n", "my.yaml: the file has no keys at its top level"),
        ("train: {epochs: 3}\n", "data: 'data' is missing"),
        ("data: {path: own}\ndata: {path: own}\n", "line 2, data: the key 'data' appears twice (first on line 1)"),
    ],
)
def test_file_that_is_no_experiment(own: Path, refused: Refused, text: str, message: str) -> None:
    write(own.parent, text)
    assert message in refused()


def test_file_that_is_not_there(own: Path, refused: Refused) -> None:
    (own.parent / "my.yaml").unlink()
    assert f"{own.parent / 'my.yaml'}: there is no such file\n  -> check the path" in refused()


def test_everything_at_once(own: Path, refused: Refused) -> None:
    """Problems of the file, of the data and of a plugin's options come out together."""
    file = write(own.parent, {"data": {"path": "own"}, "repeats": 0, "space": "ednass", "train": {"loss": "dicee"}})
    (own / "masks" / "p0.png").unlink()
    cv2.imwrite(str(own / "masks" / "p2.png"), np.eye(16, dtype=np.uint8))
    (own / "images" / "p1.png").write_bytes(b"")
    message = refused("--set", "train.batch=none", problems=7)
    for place in (f"{file}, line", "--set train.batch=none", f"{own / 'images'}: 1 image", "p1.png: ", "p2.png: "):
        assert place in message
    assert "did you mean 'ednas'?" in message and "did you mean 'dice'?" in message and "repeats" in message


def test_options_that_do_not_fit_and_bad_data_at_once(own: Path, refused: Refused) -> None:
    """What only shows when the plugins are tried."""
    strategy = {"name": "enas", "options": {"rewards": 3, "rewards_per_update": 2, "epochs": 0}}
    write(own.parent, {"data": {"path": "own"}, "strategy": strategy, "compute": {"device": "cpu", "precision": 16}})
    (own / "masks" / "p0.png").unlink()
    (own.parent / "out").mkdir()
    (own.parent / "out" / "thesis.docx").touch()
    message = refused(problems=5)
    assert f"{own.parent / 'out'}: the output folder holds files that are not a run" in message
    assert "compute.precision: precision 16 needs a GPU" in message
    assert "option epochs: must be 1 or more" in message and "must divide rewards (3)" in message
    assert "1 image without a mask: p0.png" in message


SPACES = '''
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from torch import nn

class Net(ModelSpace):
    """One operation is chosen, and some of three inputs."""
    chosen, layers = 1, 1
    size_divisor = 1
    def __init__(self, in_channels: int, num_classes: int, *, width: int = 4):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 1)
        self.ops = nn.ModuleList(
            LayerChoice({"a": nn.ReLU(), "b": nn.SiLU(), "c": nn.GELU()}, label=f"op{i}") for i in range(self.layers)
        )
        self.pick = InputChoice(3, n_chosen=self.chosen, label="pick")
        self.head = nn.Conv2d(width, num_classes, 1)
    def forward(self, x):
        x = self.stem(x)
        for op in self.ops:
            x = op(x)
        return self.head(self.pick([x, x, x]))

class Two(Net):
    chosen = 2

class Huge(Net):
    layers = 40
'''


@pytest.fixture
def spaces(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces of another distribution: ``two`` decides in another way than one of many, ``huge`` is huge."""
    points = {"autoseg.spaces": {"two": "oddspaces:Two", "huge": "oddspaces:Huge"}}
    site = install(own.parent / "site", "odd-spaces", groups=points, modules={"oddspaces": SPACES})
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("spaces")
def test_strategy_that_cannot_finish_a_space(own: Path, refused: Refused) -> None:
    """The strategies that can are named."""
    write(own.parent, {"data": {"path": "own"}, "space": "huge", "strategy": "grid"})
    message = refused()
    what = "strategy: the strategy 'grid' cannot search the space 'huge': a grid of 3.65e+19 architectures is never"
    assert what in message
    cure = message.partition("\n  -> use one of ")[2].splitlines()[0].split(", ")
    assert {"darts", "gumbel-darts", "proxyless", "enas", "random-oneshot", "oneshot-evolution"} < set(cure)
    assert {"rl", "random", "tpe", "evolution"} < set(cure) and "grid" not in cure
    write(own.parent, {"data": {"path": "own"}, "space": "huge", "strategy": cure[0]})
    assert main(["plan", str(own.parent / "my.yaml")]) == 0


@pytest.mark.usefixtures("spaces")
@pytest.mark.parametrize("strategy", ["enas", "darts", "oneshot-evolution", "random"])
def test_space_that_no_strategy_can_search(own: Path, refused: Refused, strategy: str) -> None:
    write(own.parent, {"data": {"path": "own"}, "space": "two", "strategy": strategy})
    message = refused()
    assert f"strategy: the strategy '{strategy}' cannot search the space 'two': decision 'pick' is a " in message
    assert "only one-of-many choices are supported\n  -> use another space" in message


def test_limits_of_the_objective(own: Path, refused: Refused) -> None:
    file = write(own.parent, "data: {path: own}\nobjective:\n  max_params: lots\n  max_latency_ms: -1\n")
    message = refused(problems=2)
    assert f"{file}, line 3, objective.max_params: must be a number above 0, such as 500k, 2M or 1.5G" in message
    assert f"{file}, line 4, objective.max_latency_ms: must be greater than 0" in message


def test_name_of_the_search_taken_by_a_baseline(own: Path, refused: Refused) -> None:
    write(own.parent, {"data": {"path": "own"}, "baselines": [{"name": "unet", "as": "searched"}]})
    assert "baselines: the name 'searched' is taken by the search's result\n  -> use another 'as'" in refused()


def test_output_folder_that_cannot_be_written(own: Path, refused: Refused) -> None:
    (own.parent / "file").touch()
    assert f"{own.parent / 'file'}: is a file, not a folder" in refused(out=own.parent / "file")
    message = refused(out=own.parent / "file" / "run")
    assert f"{own.parent / 'file' / 'run'}: the output folder cannot be written (Not a directory)" in message
    assert "choose another with --out" in message


def test_output_folder_that_is_used(own: Path, refused: Refused, tiny_folder: Path) -> None:
    before = {path: path.read_bytes() for path in tiny_folder.rglob("*") if path.is_file()}
    message = refused(out=tiny_folder)
    assert f"{tiny_folder}: the output folder is already used by a run\n  -> add --resume to continue it" in message
    assert {path: path.read_bytes() for path in tiny_folder.rglob("*") if path.is_file()} == before


def test_the_console_script_says_it_too(own: Path) -> None:
    """Once as a program: streams and exit code are the same as in this process."""
    (own / "masks" / "p3.png").unlink()
    done = subprocess.run(
        [sys.executable, "-c", "from autoseg.cli import main; main()", "check", "own"],
        capture_output=True,
        text=True,
        cwd=own.parent,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "1 image without a mask: p3.png" in done.stderr and "Traceback" not in done.stderr
