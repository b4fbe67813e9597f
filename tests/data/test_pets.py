from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage
from public_data import PET_BREEDS, write_pets

from autoseg.data.base import SPLITS
from autoseg.data.pets import pets, stratified
from autoseg.data.sources import SOURCES
from autoseg.errors import UserError


def _breeds(names: list[str]) -> Counter[str]:
    return Counter(name.rpartition("_")[0] for name in names)


def test_the_same_images_as_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import OxfordIIITPet

    write_pets(tmp_path)
    data = pets(path=tmp_path)
    theirs = {split: OxfordIIITPet(tmp_path, split, "segmentation") for split in ("trainval", "test")}
    files = {split: [path.stem for path in found._images] for split, found in theirs.items()}
    assert sorted([*data.train.names, *data.val.names]) == sorted(files["trainval"])
    assert sorted(data.test.names) == sorted(files["test"])
    for name, (image, mask) in zip(data.test.names, data.test, strict=True):
        picture, trimap = theirs["test"][files["test"].index(name)]
        assert np.array_equal(image, np.asarray(picture))
        assert np.array_equal(mask, np.isin(np.asarray(trimap), (1, 3)))


def test_trimaps_become_two_classes(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = pets(path=tmp_path)
    assert (data.info.name, data.info.channels, data.info.classes) == ("pets", 3, ("background", "pet"))
    mask = data.test[0][1]
    assert mask.dtype == np.uint8 and mask.shape == (40, 50)
    assert np.bincount(mask.ravel()).tolist() == [40 * 50 - 24 * 24, 24 * 24]
    ignored = pets(path=tmp_path, border="ignore")
    counts = np.bincount(ignored.test[0][1].ravel(), minlength=256)
    assert (counts[0], counts[1], counts[255]) == (40 * 50 - 24 * 24, 20 * 20, 24 * 24 - 20 * 20)
    assert ignored.info.ignore_index == 255 and "do not count" in ignored.notes[-1]


def test_the_folder_itself_may_be_given_and_images_shrink(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = pets(path=tmp_path / "oxford-iiit-pet", size=25)
    image, mask = data.train[0]
    assert image.shape == (20, 25, 3) and mask.shape == (20, 25) and set(np.unique(mask)) == {0, 1}
    assert np.array_equal(pickle.loads(pickle.dumps(data.train))[0][1], mask)


def test_val_is_taken_breed_by_breed(tmp_path: Path) -> None:
    write_pets(tmp_path, each=8)
    data = pets(path=tmp_path, val_fraction=0.25)
    assert [len(data.split(split)) for split in SPLITS] == [18, 6, 24]
    assert _breeds(list(data.val.names)) == dict.fromkeys(PET_BREEDS, 2)
    assert not set(data.val.names) & set(data.train.names)
    assert data.val.names == sorted(data.val.names)
    assert pets(path=tmp_path, val_fraction=0.25).val.names == data.val.names
    assert pets(path=tmp_path, val_fraction=0.25, seed=1).val.names != data.val.names
    assert pets(path=tmp_path, val_fraction=0.25, seed=1).test.names == data.test.names
    assert data.notes[0].endswith("with seed 0: 18 train, 6 val, 24 test.")


def test_fewer_images_of_all_breeds(tmp_path: Path) -> None:
    write_pets(tmp_path, each=8)
    data = pets(path=tmp_path, count=24, val_fraction=0.25)
    assert [len(data.split(split)) for split in SPLITS] == [9, 3, 12]
    assert _breeds([*data.train.names, *data.val.names]) == dict.fromkeys(PET_BREEDS, 4)
    assert _breeds(list(data.test.names)) == dict.fromkeys(PET_BREEDS, 4)
    assert len(pets(path=tmp_path, count=1000).test) == 24
    assert [len(pets(path=tmp_path, count=3).split(split)) for split in SPLITS] == [1, 1, 1]


def test_breeds_of_different_size_keep_their_share() -> None:
    names = [f"big_{i}" for i in range(30)] + [f"small_one_{i}" for i in range(10)]
    assert _breeds(stratified(names, seed=3)[:20]) == {"big": 15, "small_one": 5}
    assert sorted(stratified(names, seed=3)) == sorted(names)


def test_the_official_counts_are_those_of_the_default_options() -> None:
    trainval = [f"breed{i % 37}_{i}" for i in range(3680)]
    kept = round(0.15 * len(trainval))
    counts = SOURCES["pets"].counts
    assert (len(trainval) - kept, kept, 3669) == (counts["train"], counts["val"], counts["test"])


def test_pictures_that_are_no_rgb_jpeg(tmp_path: Path) -> None:
    """The official archive holds grey images, and other formats under the name .jpg."""
    folder = write_pets(tmp_path) / "oxford-iiit-pet" / "images"
    for index, picture in enumerate((PillowImage.new("L", (50, 40), 9), PillowImage.new("P", (50, 40)))):
        picture.save(folder / f"beagle_{index + 1}.jpg", format=("PNG", "GIF")[index])
    data = pets(path=tmp_path)
    assert {image.shape for split in SPLITS for image, _ in data.split(split)} == {(40, 50, 3)}


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    folder = write_pets(tmp_path) / "oxford-iiit-pet"
    (folder / "images" / "beagle_1.jpg").unlink()
    (folder / "images" / "beagle_2.jpg").write_bytes(b"<html>")
    trimaps = folder / "annotations" / "trimaps"
    cv2.imwrite(str(trimaps / "Bengal_1.png"), np.full((40, 50), 4, np.uint8))
    cv2.imwrite(str(trimaps / "Bengal_5.png"), np.full((40, 49), 1, np.uint8))
    with pytest.raises(UserError) as caught:
        pets(path=tmp_path)
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "beagle_1.jpg: no such file" in text and "beagle_2.jpg: file cannot be decoded" in text
    assert "Bengal_1.png: trimap values 4" in text and "Bengal_5.jpg: image and trimap differ in size" in text


def test_lists_that_are_wrong_or_missing(tmp_path: Path) -> None:
    annotations = write_pets(tmp_path) / "oxford-iiit-pet" / "annotations"
    (annotations / "trainval.txt").write_text("Bengal_1 1 1 1\nBengal_2 1 1\nBengal 3 x 1 1\n")
    (annotations / "test.txt").unlink()
    with pytest.raises(UserError) as caught:
        pets(path=tmp_path)
    assert "trainval.txt: no image name with three numbers in line 2, 3" in str(caught.value)
    assert "test.txt: the list cannot be read: No such file" in str(caught.value)


def test_options_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        pets(path=write_pets(tmp_path), border="dog", size=2, count=1, val_fraction=1.0)  # type: ignore[arg-type]
    assert [problem.where for problem in caught.value.problems] == ["size", "border", "count", "val_fraction"]


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"the data set 'pets' is not here\n  -> autoseg fetch pets"):
            pets(path=path)
