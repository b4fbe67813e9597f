"""Tiny folders in the layouts of public data sets, drawn from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

PET_BREEDS = ("Abyssinian", "Bengal", "beagle")


def _write(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_camvid(
    root: Path, counts: tuple[int, int, int] = (6, 2, 2), size: tuple[int, int] = (36, 48), *, canonical: bool = False
) -> Path:
    """CamVid in SegNet's layout (void 11) or in autoseg's (void 255): stripes of all classes, each brighter.

    The first column of every mask is void.
    """
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        folders = (f"images/{split}", f"masks/{split}") if canonical else (split, f"{split}annot")
        for index in range(count):
            mask = np.tile(np.arange(size[0]) * 11 // size[0], (size[1], 1)).T.astype(np.uint8)
            image = (20 * mask[..., None] + rng.integers(0, 15, (*size, 3))).astype(np.uint8)
            mask[:, 0] = 255 if canonical else 11
            for folder, pixels in zip(folders, (image, mask), strict=True):
                _write(root / folder / f"{split}_{index:03d}.png", pixels)
    return root


def write_pets(root: Path, each: int = 4, size: tuple[int, int] = (40, 50)) -> Path:
    """Oxford-IIIT Pet: ``each`` images of three breeds in both lists; a pet of 20x20 pixels with a border of 2."""
    rng = np.random.default_rng(0)
    folder = root / "oxford-iiit-pet"
    for part, name in enumerate(("trainval", "test")):
        lines = []
        for number, breed in enumerate(PET_BREEDS, 1):
            for index in range(each):
                stem = f"{breed}_{part * each + index + 1}"
                trimap = np.full(size, 2, np.uint8)
                trimap[8:32, 8:32], trimap[10:30, 10:30] = 3, 1
                image = np.where((trimap == 1)[..., None], 200, 40) + rng.integers(0, 20, (*size, 3))
                _write(folder / "images" / f"{stem}.jpg", image.astype(np.uint8))
                _write(folder / "annotations" / "trimaps" / f"{stem}.png", trimap)
                lines.append(f"{stem} {number} {1 if breed[0].isupper() else 2} {number}")
        (folder / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_isbi2012(root: Path, count: int = 30, size: int = 32) -> Path:
    """ISBI 2012 as folders of numbered files: section ``i`` is grey ``i``, its membrane two columns wide."""
    for index in range(count):
        label = np.full((size, size), 255, np.uint8)
        label[:, 4:6] = 0
        _write(root / "image" / f"{index}.png", np.full((size, size), index, np.uint8))
        _write(root / "label" / f"{index}.png", label)
    return root
