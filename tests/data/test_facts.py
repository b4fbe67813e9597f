"""Facts of a data set against numbers counted by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from autoseg.data.base import DatasetInfo, Image, Mask, SegmentationData
from autoseg.data.description import read_description
from autoseg.data.facts import data_facts
from autoseg.data.folder import folder
from autoseg.environment import data_hash


class Images:
    """A split in memory."""

    def __init__(self, *items: tuple[Image, Mask]) -> None:
        self.items = items
        self.names: Sequence[str] = [str(number) for number in range(len(items))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        return self.items[index]

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return iter(self.items)


def image(height: int, width: int, low: int, high: int, values: list[int]) -> tuple[Image, Mask]:
    picture = np.full((height, width), low, np.uint16)
    picture[0, 0] = high
    mask = np.zeros((height, width), np.uint8)
    mask.flat[: len(values)] = values
    return picture, mask


def test_counts_sizes_intensities_and_shares() -> None:
    info = DatasetInfo("steel", 1, ("matrix", "crack", "pore"), ((0, 0, 0),) * 3, 255, 0.5, "um", "CC0")
    train = Images(image(2, 5, 100, 900, [1, 1, 255, 255]), image(4, 3, 50, 70, [1]))
    test = Images(image(2, 2, 7, 7, [255, 255, 255, 255]))
    found = data_facts(SegmentationData(info, train, test, test, ["a note"]))
    assert found["splits"]["train"] == {
        "images": 2,
        "sizes": [[2, 3], [4, 5]],
        "dtype": "uint16",
        "values": [50.0, 900.0],
        "class_shares": [17 / 20, 3 / 20, 0.0],
    }
    assert found["splits"]["test"]["class_shares"] == [None, None, None]
    assert (found["licence"], found["pixel_size"], found["notes"]) == ("CC0", 0.5, ["a note"])


def test_the_hash_comes_from_the_same_pass() -> None:
    read: list[int] = []

    class Counted(Images):
        def __getitem__(self, index: int) -> tuple[Image, Mask]:
            read.append(index)
            return super().__getitem__(index)

    info = DatasetInfo("steel", 1, ("matrix", "crack"), ((0, 0, 0),) * 2)
    train, other = Counted(image(2, 5, 100, 900, [1]), image(4, 3, 50, 70, [1])), Images(image(2, 2, 7, 7, [1]))
    data = SegmentationData(info, train, other, other)
    found = data_facts(data)
    assert read == [0, 1]
    assert found["hash"] == data_hash(data)


def test_the_licence_of_a_folder_is_in_its_description(tmp_path: Path) -> None:
    for number in range(5):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"{number}.png"), np.eye(8, dtype=np.uint8))
    (tmp_path / "dataset.yaml").write_text("classes: [matrix, crack]\nlicence: CC BY 4.0, A. Author\n")
    assert read_description(tmp_path / "dataset.yaml").licence == "CC BY 4.0, A. Author"
    data = folder(path=tmp_path)
    assert data_facts(data)["licence"] == "CC BY 4.0, A. Author"
