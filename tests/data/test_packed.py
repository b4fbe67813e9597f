from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from autoseg.data.base import SPLITS, DatasetInfo, SegmentationData, default_colors
from autoseg.data.packed import INDEX, pack, read_packed
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.environment import data_hash
from autoseg.errors import UserError
from autoseg.runfolder import read_json, write_json


class Listed:
    """A split from arrays in memory."""

    def __init__(self, items: list[tuple[np.ndarray, np.ndarray]], prefix: str) -> None:
        self.names = [f"{prefix}ä {i}" for i in range(len(items))]
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.items[index]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.items)


def mixed() -> SegmentationData:
    """Images of every type and of different sizes, also not contiguous and in the other byte order."""
    rng = np.random.default_rng(0)

    def mask(*shape: int) -> np.ndarray:
        return rng.integers(0, 3, shape).astype(np.uint8)

    train = [
        (rng.integers(0, 65536, (5, 7, 3)).astype(np.uint16), mask(5, 7)),
        (rng.normal(size=(4, 4, 3)).astype(np.float32), mask(4, 4)),
        (rng.integers(0, 256, (9, 2, 3)).astype(np.uint8), mask(9, 2)),
        (rng.integers(0, 65536, (5, 7, 3)).astype(np.uint16)[::-1, ::2], mask(5, 7)[:, ::2]),
    ]
    val = [(rng.integers(0, 65536, (3, 3, 3)).astype(">u2"), mask(3, 3))]
    test = [(rng.normal(size=(1, 8, 3)).astype(np.float32), mask(1, 8))]
    info = DatasetInfo("mixed", 3, ("a", "b", "c"), default_colors(3), ignore_index=9, pixel_size=0.5, pixel_unit="nm")
    return SegmentationData(info, Listed(train, "t"), Listed(val, "v"), Listed(test, "x"), ["one note", "two"])


def test_a_round_trip_changes_nothing(tmp_path: Path) -> None:
    data = mixed()
    again = read_packed(pack(data, tmp_path / "new" / "packed"))
    assert again.info == data.info
    assert again.notes == ["one note", "two"]
    for name in SPLITS:
        before, after = data.split(name), again.split(name)
        assert after.names == before.names and len(after) == len(before)
        for (image, mask), (image2, mask2) in zip(before, after, strict=True):
            np.testing.assert_array_equal(image2, image)
            np.testing.assert_array_equal(mask2, mask)
            assert (image2.dtype, mask2.dtype) == (image.dtype.newbyteorder("="), np.uint8)
    assert again.train[-1][0].shape == (5, 4, 3)
    with pytest.raises(IndexError):
        again.train[4]


def test_the_hash_of_the_data_stays(tmp_path: Path) -> None:
    data = synthetic_ceramic(count=8, size=32)
    assert data_hash(read_packed(pack(data, tmp_path))) == data_hash(data)


def test_it_is_mapped_and_read_only_and_without_pickles(tmp_path: Path) -> None:
    split = read_packed(pack(mixed(), tmp_path)).train
    image = split[0][0]
    assert isinstance(image.base, np.memmap) or isinstance(getattr(image.base, "base", None), np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 1
    files = sorted(tmp_path.glob("*.npy"))
    assert [file.name for file in files if file.name.startswith("train")] == [
        "train-0-uint16.npy", "train-1-uint8.npy", "train-2-float32.npy",
    ]  # fmt: skip
    sizes = {file.name: len(np.load(file, allow_pickle=False)) for file in files}
    assert sizes["train-0-uint16.npy"] == 5 * 7 * 3 + 5 * 4 * 3
    assert sizes["train-1-uint8.npy"] == 5 * 7 + 4 * 4 + (9 * 2 * 3 + 9 * 2) + 5 * 4


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        read_packed(tmp_path)
    pack(mixed(), tmp_path)
    file = tmp_path / "train-0-uint16.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-2])
    with pytest.raises(UserError, match="damaged"):
        read_packed(tmp_path)
    file.write_bytes(whole)
    index = read_json(tmp_path / INDEX)
    write_json(tmp_path / INDEX, {**index, "format": 99})
    with pytest.raises(UserError, match="format 99 is not known"):
        read_packed(tmp_path)
    index["splits"]["train"]["items"][3][0][1] = 150  # starts too late for its size
    write_json(tmp_path / INDEX, index)
    with pytest.raises(UserError, match=r"train-0-uint16\.npy is too short"):
        read_packed(tmp_path)


def test_a_pack_that_failed_is_not_taken_for_whole(tmp_path: Path) -> None:
    pack(mixed(), tmp_path)
    broken = mixed()
    broken.test = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        pack(broken, tmp_path)
    assert not (tmp_path / INDEX).exists()


def test_thousands_of_small_images_open_at_once(tmp_path: Path) -> None:
    items = [(np.full((16, 16), i % 251, np.uint8), np.zeros((16, 16), np.uint8)) for i in range(5000)]
    info = DatasetInfo("many", 1, ("a", "b"), default_colors(2))
    data = SegmentationData(info, Listed(items, "t"), Listed(items[:1], "v"), Listed(items[:1], "x"))
    began = time.perf_counter()
    pack(data, tmp_path)
    packed = time.perf_counter()
    again = read_packed(tmp_path)
    opened = time.perf_counter()
    assert int(again.train[4999][0][3, 3]) == 4999 % 251
    assert packed - began < 3 and opened - packed < 1.5, (packed - began, opened - packed)
    assert len(list(tmp_path.iterdir())) == 4
