from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image as PillowImage

from autoseg.data.base import SPLITS, Split, default_colors
from autoseg.data.description import parse_pixel_size, read_description
from autoseg.data.folder import folder
from autoseg.errors import UserError

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data"
REAL_SETS = (
    "alumina_pt_stem", "camvid", "crackforest", "drive_retina", "grain316l", "isbi2012_em", "kolektor_sdd",
    "nasa_superalloy", "neu_seg", "uhcs_spheroidite",
)  # fmt: skip


def _pair(root: Path, name: str, number: int, suffix: str = ".png") -> None:
    """An image whose pixels all have the value ``number``, and a mask of classes 0, 1 and 2."""
    image = np.full((4, 6), number, np.uint8)
    for kind, pixels in (("images", image), ("masks", (np.arange(24) % 3).reshape(4, 6).astype(np.uint8))):
        path = root / kind / f"{name}{suffix if kind == 'images' else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        PillowImage.fromarray(pixels).save(path)


def test_flat_folder(tmp_path: Path) -> None:
    for number in range(20):
        _pair(tmp_path, f"i{number:02d}", number, suffix=".bmp" if number % 2 else ".png")
    data = folder(path=tmp_path)
    assert [len(data.split(split)) for split in SPLITS] == [13, 3, 4]
    assert data.info.name == tmp_path.name
    assert (data.info.channels, data.info.classes) == (1, ("class-0", "class-1", "class-2"))
    assert (data.info.colors, data.info.ignore_index) == (default_colors(3), 255)
    assert (data.info.pixel_size, data.info.pixel_unit) == (None, None)
    assert data.notes == ["The images were divided image by image with seed 0: 13 train, 3 val, 4 test."]
    names = [name for split in SPLITS for name in data.split(split).names]
    assert sorted(names) == [f"i{number:02d}" for number in range(20)]
    for split in SPLITS:
        part = data.split(split)
        assert isinstance(part, Split)
        for name, (image, mask) in zip(part.names, part, strict=True):
            assert image.dtype == np.uint8 and np.all(image == int(name[1:]))
            assert mask.dtype == np.uint8 and mask.shape == (4, 6) and mask[0, :4].tolist() == [0, 1, 2, 0]


def test_seed_and_fractions(tmp_path: Path) -> None:
    for number in range(20):
        _pair(tmp_path, f"i{number:02d}", number)
    first = folder(path=tmp_path, seed=1, val_fraction=0.3, test_fraction=0.4)
    assert [len(first.split(split)) for split in SPLITS] == [6, 6, 8]
    again = folder(images=tmp_path / "images", masks=tmp_path / "masks", seed=1, val_fraction=0.3, test_fraction=0.4)
    assert again.test.names == first.test.names
    assert folder(path=tmp_path, seed=2, val_fraction=0.3, test_fraction=0.4).test.names != first.test.names


@pytest.mark.parametrize("seed", range(6))
def test_groups_never_straddle(tmp_path: Path, seed: int) -> None:
    for number in range(18):
        _pair(tmp_path, f"steel{number % 6}_{number}", number)
    data = folder(path=tmp_path, groups=r"^(steel\d+)_", seed=seed)
    specimens = [{name.split("_")[0] for name in data.split(split).names} for split in SPLITS]
    assert sum(len(found) for found in specimens) == 6 == len(set.union(*specimens))
    assert "by whole groups" in data.notes[0]


def test_split_folders(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 2), ("test", 3), ("test_ood", 1)):
        for number in range(count):
            _pair(tmp_path, f"{split}/{split}{number}", number)
    data = folder(path=tmp_path)
    assert data.train.names == [f"train{number}" for number in range(5)]
    assert [len(data.val), len(data.test)] == [2, 3]
    assert np.all(data.test[2][0] == 2)
    assert len(data.notes) == 1 and "left out: test_ood" in data.notes[0]


def test_stems_that_occur_in_two_splits(tmp_path: Path) -> None:
    for split in SPLITS:
        _pair(tmp_path, f"{split}/001", 1)
    data = folder(path=tmp_path)
    assert [data.split(split).names for split in SPLITS] == [["train_001"], ["val_001"], ["test_001"]]


def test_missing_splits_are_taken_from_train(tmp_path: Path) -> None:
    for number in range(20):
        _pair(tmp_path, f"train/s{number // 4}_{number}", number)
    _pair(tmp_path, "test/t0", 1)
    data = folder(path=tmp_path, groups=r"^([a-z]\d+)")
    assert [len(data.split(split)) for split in SPLITS] == [16, 4, 1]
    assert {name.split("_")[0] for name in data.train.names}.isdisjoint(name.split("_")[0] for name in data.val.names)
    assert data.notes == [
        "There is no folder val: taken from train by whole groups with seed 0: 16 train, 4 val, 1 test."
    ]


def test_only_train_present(tmp_path: Path) -> None:
    for number in range(10):
        _pair(tmp_path, f"train/{number}", number)
    data = folder(path=tmp_path)
    assert [len(data.split(split)) for split in SPLITS] == [6, 2, 2]


def test_dataset_yaml_and_overriding_options(tmp_path: Path) -> None:
    for number in range(5):
        _pair(tmp_path, str(number), number)
    (tmp_path / "dataset.yaml").write_text(
        "name: steel\nlicence: none\nclasses:\n"
        "- {index: 1, name: pore, color: [1, 2, 3]}\n- {index: 0, name: matrix, color: [9, 9, 9]}\n"
        "ignore_index: 2\npixel_size: 0.5um\n"
    )
    data = folder(path=tmp_path)
    assert (data.info.name, data.info.classes, data.info.colors) == (
        "steel",
        ("matrix", "pore"),
        ((9, 9, 9), (1, 2, 3)),
    )
    assert (data.info.ignore_index, data.info.pixel_size, data.info.pixel_unit) == (2, 0.5, "um")
    assert "33.3% of the mask pixels have the value 2 and do not count." in data.notes
    other = folder(path=tmp_path, classes=["a", "b", "c", "d"], pixel_size="0.12 nm", ignore_index=200)
    assert (other.info.classes, other.info.colors) == (("a", "b", "c", "d"), default_colors(4))
    assert (other.info.ignore_index, other.info.pixel_size, other.info.pixel_unit) == (200, 0.12, "nm")
    assert "No train mask has a pixel of: d; they cannot be learned." in other.notes


def test_sixteen_bit_images_stay_sixteen_bit(tmp_path: Path) -> None:
    for number in range(3):
        _pair(tmp_path, str(number), number)
        (tmp_path / "images" / f"{number}.png").unlink()
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", np.full((4, 6), 1000 * (number + 1), np.uint16))
    values = {int(image.max()) for split in SPLITS for image, _ in folder(path=tmp_path).split(split)}
    assert values == {1000, 2000, 3000}


def test_items_are_read_on_access_and_splits_can_be_sent_to_workers(tmp_path: Path) -> None:
    for number in range(4):
        _pair(tmp_path, str(number), number)
    data = folder(path=tmp_path)
    copy = pickle.loads(pickle.dumps(data.train))
    assert np.array_equal(copy[-1][0], data.train[len(data.train) - 1][0])
    with pytest.raises(IndexError):
        data.train[len(data.train)]
    (tmp_path / "images" / f"{data.test.names[0]}.png").unlink()
    with pytest.raises(UserError, match="no such file"):
        data.test[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.12nm", (0.12, "nm")),
        (" 3 µm", (3.0, "um")),
        ("3μm", (3.0, "um")),
        ("1e-3mm", (0.001, "mm")),
        ("1 px", (1.0, "px")),
    ],
)
def test_pixel_size(text: str, expected: tuple[float, str]) -> None:
    assert parse_pixel_size(text) == expected


@pytest.mark.parametrize("text", ["12", "nm", "0nm", "-1nm", "1 inch", "", "1e999nm", "1.2.3um"])
def test_bad_pixel_size(text: str) -> None:
    with pytest.raises(UserError, match=r"for example 0.12nm"):
        parse_pixel_size(text)


def test_description_problems_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text("classes: [{index: 0, name: a}, {index: 2, name: a}]\npixel_size: 5\n")
    with pytest.raises(UserError) as caught:
        read_description(path)
    assert [problem.what for problem in caught.value.problems] == [
        "class indices are [0, 2]",
        "two classes have the same name",
        "'5' is no pixel size",
    ]
    path.write_text("pixel_size: 5\npixel_unit: nm\n")
    assert read_description(path).pixel_size == 5.0
    path.write_text("classes: [a\n")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        read_description(path)
    path.write_text("- a\n")
    with pytest.raises(UserError, match=r"dataset.yaml"):
        read_description(path)


@pytest.mark.parametrize("name", REAL_SETS)
def test_real_sets(name: str) -> None:
    root = REAL / name
    if not root.is_dir():
        pytest.skip(f"real data set {name} is not on this machine (looked for shared/data/{name} beside the project)")
    description = yaml.safe_load((root / "dataset.yaml").read_text(encoding="utf-8"))
    data = folder(path=root)
    assert {split: len(data.split(split)) for split in SPLITS} == {
        split: description["counts"][split] for split in SPLITS
    }
    assert data.info.classes == tuple(entry["name"] for entry in description["classes"])
    assert data.info.colors == tuple(tuple(entry["color"]) for entry in description["classes"])
    assert data.info.name == name and data.info.ignore_index == 255
    image, mask = data.train[0]
    assert image.shape[:2] == mask.shape and image.dtype == np.uint8
    assert set(np.unique(mask)) <= {*range(data.info.num_classes), 255}


def test_counts_of_two_real_sets_by_hand() -> None:
    if not REAL.is_dir():
        pytest.skip("the real data sets (shared/data beside the project) are not on this machine")
    superalloy, membranes = folder(path=REAL / "nasa_superalloy"), folder(path=REAL / "isbi2012_em")
    assert [len(superalloy.split(split)) for split in SPLITS] == [10, 4, 4]
    assert any("test_ood" in note for note in superalloy.notes)
    assert [len(membranes.split(split)) for split in SPLITS] == [21, 3, 6]
    assert membranes.train[0][0].shape == (512, 512) and membranes.info.channels == 1
