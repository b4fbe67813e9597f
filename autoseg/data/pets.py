"""The data set ``pets``: Oxford-IIIT Pet, a pet or not for each pixel, in the layout that torchvision downloads."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image as PillowImage

from autoseg.data.base import DatasetInfo, Image, Mask, SegmentationData, default_colors
from autoseg.data.images import read_mask
from autoseg.data.lazy import LazySplit, shrink, size_problems
from autoseg.data.pairing import Pair, list_some
from autoseg.data.sources import SOURCES, missing, place_of
from autoseg.errors import Problem, UserError, raise_if

CLASSES = ("background", "pet")
PET, BACKGROUND, BORDER = 1, 2, 3
"""Values of a trimap."""
IGNORE = 255
_FOLDER = "oxford-iiit-pet"


def pets(
    *,
    path: Path | None = None,
    border: Literal["pet", "ignore"] = "pet",
    size: int | None = None,
    count: int | None = None,
    val_fraction: float = 0.15,
    seed: int = 0,
) -> SegmentationData:
    """Open Oxford-IIIT Pet with two classes; the official test images, and val taken from trainval breed by breed.

    The folder is laid out as ``torchvision.datasets.OxfordIIITPet`` does it: ``oxford-iiit-pet/images/*.jpg``,
    ``oxford-iiit-pet/annotations/trimaps/*.png`` and ``annotations/trainval.txt`` and ``test.txt``.

    Args:
        path: The folder that holds ``oxford-iiit-pet``, or that one; by default where ``autoseg fetch pets`` puts it.
        border: What the unsure pixels around a pet are: ``"pet"``, or ``"ignore"``: they do not count.
        size: Longer side in pixels to which images and masks are scaled down, such as 128 (the files have about 500).
        count: How many images to use, of all breeds in proportion; all 7349 unless given.
        val_fraction: Share of the trainval images that is kept for val, above 0 and below 1.
        seed: Chooses the images of val, and those of a smaller ``count``.

    Raises:
        UserError: The data are not there, or all problems of the options and the files together.

    Source: Parkhi et al., "Cats and Dogs", CVPR 2012.

    Example:
        >>> pets(path=Path("nowhere"))
        Traceback (most recent call last):
            ...
        autoseg.errors.UserError: nowhere: the data set 'pets' is not here
          -> autoseg fetch pets ...
    """
    raise_if(_option_problems(border, size, count, val_fraction))
    place = place_of("pets", path)
    root = place if (place / "annotations").is_dir() else place / _FOLDER
    if not (root / "annotations").is_dir():
        raise UserError(missing("pets", place))
    problems: list[Problem] = []
    trainval, test = (_listed(root, name, problems) for name in ("trainval", "test"))
    raise_if(problems)
    if count is not None and count < len(trainval) + len(test):
        share = round(count * len(trainval) / (len(trainval) + len(test)))
        trainval = stratified(trainval, seed)[: max(2, share)]
        test = stratified(test, seed)[: max(1, count - share)]
    ordered = stratified(trainval, seed)
    kept = min(max(1, round(val_fraction * len(ordered))), len(ordered) - 1)
    parts = {"train": ordered[kept:], "val": ordered[:kept], "test": test}
    raise_if(_file_problems(root, [name for names in parts.values() for name in names]))
    read = partial(_read, border=border, size=size)
    train, val, test_split = (_split(root, sorted(names), read) for names in parts.values())
    notes = [
        f"val was taken from trainval breed by breed with seed {seed}: {len(train)} train, {len(val)} val, "
        f"{len(test_split)} test."
    ]
    notes += ["The unsure pixels around the pets do not count."] if border == "ignore" else []
    info = DatasetInfo("pets", 3, CLASSES, default_colors(len(CLASSES)), IGNORE, licence=SOURCES["pets"].licence)
    return SegmentationData(info, train, val, test_split, notes)


def stratified(names: Sequence[str], seed: int) -> list[str]:
    """Order image names so that every first part holds all breeds in proportion.

    Args:
        names: Such as ``"Abyssinian_100"``; what is before the last underscore is the breed.
        seed: Another seed gives another order.

    Example:
        >>> cats = stratified([f"{breed}_{i}" for breed in ("Bengal", "Sphynx") for i in range(10)], seed=0)
        >>> sorted(name.split("_")[0] for name in cats[:4])
        ['Bengal', 'Bengal', 'Sphynx', 'Sphynx']
    """
    shuffled = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    sizes = Counter(name.rpartition("_")[0] for name in names)
    seen: Counter[str] = Counter()
    place: dict[str, float] = {}
    for name in shuffled:
        breed = name.rpartition("_")[0]
        place[name] = (seen[breed] + 0.5) / sizes[breed]
        seen[breed] += 1
    return sorted(shuffled, key=place.__getitem__)


def _option_problems(border: str, size: int | None, count: int | None, val_fraction: float) -> list[Problem]:
    problems = size_problems(size)
    if border not in ("pet", "ignore"):
        problems.append(Problem(f"border is {border!r}", "border", "choose pet or ignore"))
    if count is not None and count < 3:
        problems.append(Problem(f"count is {count}", "count", "use at least 3 images"))
    if not 0 < val_fraction < 1:
        problems.append(Problem(f"val_fraction is {val_fraction}", "val_fraction", "choose a share such as 0.15"))
    return problems


def _listed(root: Path, name: str, problems: list[Problem]) -> list[str]:
    """Image names of a list such as trainval.txt; each line is a name and three numbers."""
    file = root / "annotations" / f"{name}.txt"
    fix = f"unpack annotations.tar.gz into {root} again"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        problems.append(Problem(f"the list cannot be read: {reason}", str(file), fix))
        return []
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    wrong = [str(number) for number, row in rows if len(row) != 4 or not all(word.isdigit() for word in row[1:])]
    if wrong:
        what = f"no image name with three numbers in line {list_some(wrong)}"
        problems.append(Problem(what, str(file), fix))
        return []
    needed = 2 if name == "trainval" else 1
    if len(rows) < needed:
        problems.append(Problem(f"{len(rows)} images are listed, at least {needed} are needed", str(file), fix))
    return [row[0] for _, row in rows]


def _file_problems(root: Path, names: Sequence[str]) -> list[Problem]:
    """Images or trimaps that are missing, damaged, of different size, or with values that are none of a trimap."""
    groups: dict[tuple[str, str], list[str]] = {}
    pairs = [_pair(root, name) for name in names]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for found in pool.map(_pair_problems, pairs):
            for problem in found:
                groups.setdefault((problem.what, problem.fix), []).append(problem.where)
    return [Problem(what, list_some(where), fix) for (what, fix), where in groups.items()]


def _pair_problems(pair: Pair) -> list[Problem]:
    problems: list[Problem] = []
    image = mask = None
    try:
        image = _read_rgb(pair.image)
    except UserError as error:
        problems += error.problems
    try:
        mask = read_mask(pair.mask)
    except UserError as error:
        problems += error.problems
    if mask is not None and (strange := sorted(set(np.unique(mask).tolist()) - {PET, BACKGROUND, BORDER})):
        what = f"trimap values {list_some([str(value) for value in strange])}"
        problems.append(Problem(what, str(pair.mask), "a trimap holds 1 (pet), 2 (background) and 3 (border)"))
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        problems.append(Problem("image and trimap differ in size", str(pair.image), "unpack both archives again"))
    return problems


def _pair(root: Path, name: str) -> Pair:
    return Pair(name, root / "images" / f"{name}.jpg", root / "annotations" / "trimaps" / f"{name}.png")


def _split(root: Path, names: Sequence[str], read: partial[tuple[Image, Mask]]) -> LazySplit[Pair]:
    return LazySplit(names, [_pair(root, name) for name in names], read)


def _read(pair: Pair, border: str, size: int | None) -> tuple[Image, Mask]:
    trimap = read_mask(pair.mask)
    mask = (trimap == PET).astype(np.uint8)
    mask[trimap == BORDER] = PET if border == "pet" else IGNORE
    return shrink(_read_rgb(pair.image), mask, size)


def _read_rgb(path: Path) -> Image:
    """Any picture as RGB: some files called .jpg are other formats, or grey, in the official archive."""
    try:
        with PillowImage.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(Problem("no such file", str(path), "unpack images.tar.gz again")) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(Problem("file cannot be decoded", str(path), "unpack images.tar.gz again")) from error
