from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from public_data import write_isbi2012

from autoseg.data.base import SPLITS
from autoseg.data.camvid import camvid
from autoseg.data.isbi2012 import isbi2012
from autoseg.data.pets import pets
from autoseg.errors import UserError


def _write_stacks(root: Path, count: int = 30, imagej: bool = False) -> Path:
    label = np.full((count, 32, 32), 255, np.uint8)
    label[:, :, 4:6] = 0
    volume = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], label.shape)
    root.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(root / "train-volume.tif", np.ascontiguousarray(volume), imagej=imagej)
    tifffile.imwrite(root / "train-labels.tif", label, imagej=imagej)
    return root


def test_blocks_of_consecutive_sections(tmp_path: Path) -> None:
    data = isbi2012(path=write_isbi2012(tmp_path))
    assert [len(data.split(split)) for split in SPLITS] == [21, 3, 6]
    greys = [int(image[0, 0]) for split in SPLITS for image, _ in data.split(split)]
    assert greys == list(range(30))  # 10.png comes after 9.png
    assert (data.info.classes, data.info.channels) == (("membrane", "cell"), 1)
    assert (data.info.pixel_size, data.info.pixel_unit) == (4.0, "nm")
    image, mask = data.val[0]
    assert image.dtype == mask.dtype == np.uint8 and mask.shape == (32, 32)
    assert (mask[:, 4:6] == 0).all() and mask.sum() == 32 * 30
    assert data.notes[0].endswith("in its order: 21 train, 3 val, 6 test.")


@pytest.mark.parametrize("imagej", [False, True])
def test_stacks_give_the_same(tmp_path: Path, imagej: bool) -> None:
    files = isbi2012(path=write_isbi2012(tmp_path / "files"))
    stacks = isbi2012(path=_write_stacks(tmp_path / "stacks", imagej=imagej))
    for split in SPLITS:
        for (image, mask), (other, other_mask) in zip(files.split(split), stacks.split(split), strict=True):
            assert np.array_equal(image, other) and np.array_equal(mask, other_mask)
    assert stacks.test.names[-1] == "section-29"
    assert np.array_equal(pickle.loads(pickle.dumps(stacks.val))[2][0], stacks.val[2][0])


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    write_isbi2012(tmp_path)
    cv2.imwrite(str(tmp_path / "label" / "3.png"), np.full((32, 32), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "image" / "9.png"), np.zeros((32, 30), np.uint8))
    (tmp_path / "image" / "12.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        isbi2012(path=tmp_path)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "3.png: label values 7" in text and "(32, 30) with a label of shape (32, 32)" in text and "12.png" in text


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    write_isbi2012(tmp_path)
    (tmp_path / "label" / "5.png").unlink()
    cv2.imwrite(str(tmp_path / "image" / "extra.png"), np.zeros((32, 32), np.uint8))
    cv2.imwrite(str(tmp_path / "label" / "extra.png"), np.zeros((32, 32), np.uint8))
    with pytest.raises(UserError) as caught:
        isbi2012(path=tmp_path)
    assert "1 image without a mask: 5.png" in str(caught.value)
    assert "files without a number in their name: extra.png" in str(caught.value)
    with pytest.raises(UserError, match=r"only 2 section\(s\)"):
        isbi2012(path=write_isbi2012(tmp_path / "few", count=2))


def test_stacks_that_do_not_fit(tmp_path: Path) -> None:
    root = _write_stacks(tmp_path / "a")
    tifffile.imwrite(root / "train-labels.tif", np.zeros((29, 32, 32), np.uint8))
    with pytest.raises(UserError, match="the stacks hold 30 and 29 sections"):
        isbi2012(path=root)
    (root / "train-volume.tif").write_bytes(b"no picture at all")
    (root / "train-labels.tif").unlink()
    with pytest.raises(UserError) as caught:
        isbi2012(path=root)
    assert "train-volume.tif: file cannot be decoded" in str(caught.value)
    assert "train-labels.tif: no such file" in str(caught.value)


def _write_canonical(root: Path, cell: int) -> Path:
    """The layout of autoseg: 4, 1 and 2 sections, cell written as 1 or as 255."""
    for split, count in zip(SPLITS, (4, 1, 2), strict=True):
        write_isbi2012(root / split, count)
        for kind, folder in (("image", "images"), ("label", "masks")):
            (root / folder / split).mkdir(parents=True)
            for file in (root / split / kind).iterdir():
                pixels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
                pixels = np.where(pixels == 255, cell, 0) if kind == "label" else pixels
                cv2.imwrite(str(root / folder / split / f"{split}_{file.name}"), pixels.astype(np.uint8))
        shutil.rmtree(root / split)
    return root


@pytest.mark.parametrize("cell", [1, 255])
def test_the_division_of_split_folders_is_kept(tmp_path: Path, cell: int) -> None:
    data = isbi2012(path=_write_canonical(tmp_path, cell))
    assert [len(data.split(split)) for split in SPLITS] == [4, 1, 2]
    assert list(data.test.names) == ["test_0", "test_1"] and data.notes == []
    assert int(data.test[1][0][0, 0]) == 1
    mask = data.test[1][1]
    assert (mask[:, 4:6] == 0).all() and mask.sum() == 32 * 30 and data.info.pixel_size == 4.0


def test_the_classes_of_split_folders_may_be_named_in_the_other_order(tmp_path: Path) -> None:
    root = _write_canonical(tmp_path / "own", 1)
    file = root / "dataset.yaml"
    file.write_text("classes: [cell_interior, membrane]\n")
    data = isbi2012(path=root)
    assert (data.test[1][1][:, 4:6] == 1).all() and data.info.classes == ("membrane", "cell")
    file.write_text("classes: [cell, wall]\n")
    with pytest.raises(UserError, match=r"dataset.yaml, classes: the classes are cell, wall"):
        isbi2012(path=root)


def test_prepared_sections_of_the_challenge() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "isbi2012_em"
    if not root.is_dir():
        pytest.skip("the prepared ISBI 2012 sections are not beside this checkout")
    data = isbi2012(path=root)
    assert [len(data.split(split)) for split in SPLITS] == [21, 3, 6]
    assert np.mean([mask.mean() for _, mask in data.train]) == pytest.approx(0.78, abs=0.01)  # most of it is cell


def test_split_folders_that_do_not_fit(tmp_path: Path) -> None:
    _write_canonical(tmp_path, 1)
    shutil.rmtree(tmp_path / "images" / "val")
    shutil.rmtree(tmp_path / "masks" / "val")
    cv2.imwrite(str(tmp_path / "masks" / "test" / "test_0.png"), np.full((32, 32), 2, np.uint8))
    with pytest.raises(UserError) as caught:
        isbi2012(path=tmp_path)
    text = str(caught.value)
    assert f"{tmp_path / 'images' / 'val'}: folder does not exist" in text
    assert "test_0.png: label values 2\n  -> a label holds 0 (membrane) and 1 or 255 (cell) only" in text


def test_a_folder_of_another_layout_is_told_what_it_should_hold(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    expected = {
        isbi2012: "train-volume.tif with train-labels.tif; image with label; or images/SPLIT with masks/SPLIT",
        camvid: "train, val, test with trainannot, valannot, testannot; or images/SPLIT with masks/SPLIT",
        pets: "images with annotations (trimaps, trainval.txt, test.txt), also inside oxford-iiit-pet",
    }
    for open_data, layouts in expected.items():
        with pytest.raises(UserError) as caught:
            open_data(path=tmp_path)
        told = f"the data set '{open_data.__name__}' is not here: a folder of it holds {layouts}"
        assert caught.value.problems[0].what == told


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        isbi2012(path=tmp_path)
    assert "autoseg fetch isbi2012" in str(caught.value)
    assert "--set data=synthetic-membranes" in str(caught.value)
