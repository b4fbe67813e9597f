"""The data set ``camvid``: road scenes with 11 classes and void, in the layout of SegNet or in that of autoseg."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from autoseg.data.base import SPLITS, DatasetInfo, Image, Mask, SegmentationData
from autoseg.data.checks import Checked, absent_classes, check_pairs
from autoseg.data.images import read_image, read_mask
from autoseg.data.lazy import LazySplit, shrink, size_problems
from autoseg.data.pairing import Pair, Pairing, find_pairs, missing_folder, pair_splits
from autoseg.data.sources import SOURCES, missing, place_of
from autoseg.errors import UserError, raise_if

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"
)  # fmt: skip
COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
"""The colours in which SegNet draws the classes."""
VOID, IGNORE = len(CLASSES), 255


def camvid(*, path: Path | None = None, size: int | None = None) -> SegmentationData:
    """Open CamVid, 11 classes and void, with the official division into 367, 101 and 233 frames.

    Two layouts are known. That of the SegNet tutorial (also inside a folder ``CamVid``): ``train``, ``val`` and
    ``test`` with the images, ``trainannot``, ``valannot`` and ``testannot`` with the masks; lists such as
    ``train.txt`` are not read. And ``images/<split>`` with ``masks/<split>``. Mask values are 0 to 10 for the
    classes; 11 and 255 are void and do not count.

    Args:
        path: The folder; by default where ``autoseg fetch camvid`` puts it.
        size: Longer side in pixels to which images and masks are scaled down (480 in the SegNet version).

    Raises:
        UserError: The data are not there, or all problems of the files together.

    Source: Brostow et al. 2009; the classes are those of Badrinarayanan et al. 2017.

    Example:
        >>> camvid(path=Path("nowhere"))
        Traceback (most recent call last):
            ...
        autoseg.errors.UserError: nowhere: the data set 'camvid' is not here
          -> autoseg fetch camvid ...
    """
    raise_if(size_problems(size))
    root = place_of("camvid", path)
    pairing = _pairs(root)
    splits = {split: pairing.parts.get(split, []) for split in SPLITS}
    pairs = [pair for part in splits.values() for pair in part]
    checked = check_pairs(pairs, classes=(*CLASSES, "void"), ignore_index=IGNORE)
    raise_if([*pairing.problems, *(checked.problems if pairs else [])])
    notes = [*pairing.notes, *_void_note(checked), *absent_classes(splits, checked, CLASSES, IGNORE)]
    info = DatasetInfo("camvid", checked.channels, CLASSES, COLORS, IGNORE, licence=SOURCES["camvid"].licence)
    read = partial(_read, size=size)
    train, val, test = (LazySplit([pair.name for pair in splits[s]], splits[s], read) for s in SPLITS)
    return SegmentationData(info, train, val, test, notes)


def _pairs(root: Path) -> Pairing:
    """The frames of each split, whichever layout is found."""
    if (root / "images").is_dir() and (root / "masks").is_dir():
        pairing = find_pairs(root / "images", root / "masks")
        absent = [root / "images" / split for split in SPLITS if split not in pairing.parts]
        pairing.problems += [missing_folder(folder) for folder in absent]
        return pairing
    for folder in (root, root / "CamVid"):
        if (folder / "train").is_dir():
            return pair_splits({split: (folder / split, folder / f"{split}annot") for split in SPLITS})
    raise UserError(missing("camvid", root))


def _void_note(checked: Checked) -> list[str]:
    totals = np.zeros(256, np.int64)
    for facts in checked.facts.values():
        for value, count in facts.values.items():
            totals[value] += count
    void = int(totals[VOID] + totals[IGNORE])
    return [f"{void / int(totals.sum()):.1%} of the mask pixels are void and do not count."] if void else []


def _read(pair: Pair, size: int | None) -> tuple[Image, Mask]:
    mask = read_mask(pair.mask)
    return shrink(read_image(pair.image), np.where(mask == VOID, np.uint8(IGNORE), mask), size)
