from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from public_data import write_isbi2012

from autoseg.data.base import SPLITS
from autoseg.data.isbi2012 import isbi2012
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


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        isbi2012(path=tmp_path)
    assert "autoseg fetch isbi2012" in str(caught.value)
    assert "--set data=synthetic-membranes" in str(caught.value)
