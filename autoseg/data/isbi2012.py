"""The data set ``isbi2012``: membranes in 30 consecutive sections of a fly's nerve cord (ssTEM)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from autoseg.data.base import SPLITS, DatasetInfo, Image, Mask, SegmentationData
from autoseg.data.description import read_description
from autoseg.data.images import read_image, read_mask
from autoseg.data.lazy import LazySplit
from autoseg.data.pairing import FLAT, find_pairs, list_some, missing_folder, pair_splits
from autoseg.data.sources import SOURCES, missing, place_of
from autoseg.errors import Problem, UserError, raise_if

CLASSES = ("membrane", "cell")
COLORS = ((230, 159, 0), (86, 180, 233))
VOLUME, LABELS = "train-volume.tif", "train-labels.tif"
_WHITE = 255


@dataclass(frozen=True)
class Section:
    """One section: two files, the place in them where they are stacks, and what the values of the mask mean."""

    name: str
    image: Path
    mask: Path
    page: int | None = None
    membrane: int = 0
    cell: tuple[int, ...] = (_WHITE,)


def isbi2012(*, path: Path | None = None) -> SegmentationData:
    """Open the labelled sections of the ISBI 2012 EM segmentation challenge: white is cell, black is membrane.

    Neighbouring sections look alike, so the stack is cut into three blocks and not shuffled: of 30 sections the
    first 21 are train, the next 3 val, the last 6 test. The challenge's own test labels are not public.

    Three layouts are known: the stacks ``train-volume.tif`` and ``train-labels.tif`` of the challenge; folders
    ``image`` and ``label`` with numbered files (``0.png``, ``1.png``, ...); and ``images/<split>`` with
    ``masks/<split>``, whose division is kept, with masks of 0 (membrane) and 1 (cell) or 255 (cell). There a file
    ``dataset.yaml`` may name the classes in the other order.

    Args:
        path: The folder; by default where ``autoseg fetch isbi2012`` puts it.

    Raises:
        UserError: The data are not there, or all problems of the files together.

    Source: Cardona et al. 2010; Arganda-Carreras et al. 2015. A pixel has 4 nm, a section 50 nm.

    Example:
        >>> isbi2012(path=Path("nowhere"))
        Traceback (most recent call last):
            ...
        autoseg.errors.UserError: nowhere: the data set 'isbi2012' is not here
          -> autoseg fetch isbi2012 ...
    """
    root = place_of("isbi2012", path)
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _opened(*_divided(root))
    if (root / VOLUME).is_file() or (root / LABELS).is_file():
        sections = _stacked(root / VOLUME, root / LABELS)
    elif (root / "image").is_dir() or (root / "label").is_dir():
        sections = _numbered(root / "image", root / "label")
    else:
        raise UserError(missing("isbi2012", root))
    raise_if([*_too_few(sections, root), *_problems(sections)])
    val, test = max(1, round(0.1 * len(sections))), max(1, round(0.2 * len(sections)))
    train = len(sections) - val - test
    blocks = sections[:train], sections[train : train + val], sections[train + val :]
    counts = ", ".join(f"{len(block)} {split}" for split, block in zip(SPLITS, blocks, strict=True))
    notes = [f"Neighbouring sections look alike, so the stack was cut into blocks in its order: {counts}."]
    return _opened(blocks, notes)


def _opened(blocks: Sequence[list[Section]], notes: list[str]) -> SegmentationData:
    """The data set from the sections of train, val and test."""
    licence = SOURCES["isbi2012"].licence
    info = DatasetInfo("isbi2012", 1, CLASSES, COLORS, pixel_size=4.0, pixel_unit="nm", licence=licence)
    train, val, test = (LazySplit([section.name for section in block], block, _read) for block in blocks)
    return SegmentationData(info, train, val, test, notes)


def _divided(root: Path) -> tuple[list[list[Section]], list[str]]:
    """The sections of split folders, and notes."""
    pairing = find_pairs(root / "images", root / "masks")
    absent = [root / "images" / split for split in SPLITS if split not in pairing.parts]
    membrane, cell = _meaning(root / "dataset.yaml")
    blocks = [
        [Section(p.name, p.image, p.mask, None, membrane, cell) for p in pairing.parts.get(s, [])] for s in SPLITS
    ]
    problems = _problems([section for block in blocks for section in block])
    raise_if([*pairing.problems, *map(missing_folder, absent), *problems])
    return blocks, pairing.notes


def _meaning(file: Path) -> tuple[int, tuple[int, ...]]:
    """The mask value of membrane, and those of cell, as ``dataset.yaml`` has them if there is one."""
    names = read_description(file).classes if file.is_file() else None
    membranes = [index for index, name in enumerate(names or CLASSES) if "membrane" in name.lower()]
    if len(membranes) != 1 or len(names or CLASSES) != 2:
        fix = "name two, such as classes: [membrane, cell]"
        raise UserError(Problem(f"the classes are {list_some(names or CLASSES)}", f"{file}, classes", fix))
    return (0, (1, _WHITE)) if membranes == [0] else (1, (0,))


def _stacked(volume: Path, labels: Path) -> list[Section]:
    """The sections of two stacks."""
    problems: list[Problem] = []
    depths = []
    for path in (volume, labels):
        try:
            depths.append(len(_stack(path)))
        except UserError as error:
            problems += error.problems
    if len(set(depths)) > 1:
        what = f"the stacks hold {depths[0]} and {depths[1]} sections"
        problems.append(Problem(what, f"{volume}, {labels}", "put both files of the challenge there again"))
    raise_if(problems)
    return [Section(f"section-{page:02d}", volume, labels, page) for page in range(depths[0])]


def _numbered(images: Path, labels: Path) -> list[Section]:
    """The sections of two folders, in the order of their numbers."""
    pairing = pair_splits({FLAT: (images, labels)})
    nameless = [pair.image.name for pair in pairing.parts[FLAT] if not re.search(r"\d", pair.name)]
    if nameless:
        what = f"files without a number in their name: {list_some(nameless)}"
        pairing.problems.append(Problem(what, str(images), "number the files in the order of the sections"))
    raise_if(pairing.problems)
    pairs = sorted(pairing.parts[FLAT], key=lambda pair: int(re.findall(r"\d+", pair.name)[-1]))
    return [Section(pair.name, pair.image, pair.mask) for pair in pairs]


def _too_few(sections: list[Section], root: Path) -> list[Problem]:
    fix = "at least 3 are needed, one for each of train, val and test"
    return [Problem(f"only {len(sections)} section(s)", str(root), fix)] if len(sections) < 3 else []


def _problems(sections: list[Section]) -> list[Problem]:
    """Sections that cannot be used."""
    problems: list[Problem] = []
    for section in sections:
        place = str(section.mask) if section.page is None else f"{section.mask}, section {section.page}"
        try:
            image, label = _raw(section)
        except UserError as error:
            problems += error.problems
            continue
        if image.ndim != 2 or image.shape != label.shape:
            what = f"image of shape {image.shape} with a label of shape {label.shape}"
            problems.append(Problem(what, place, "both are (height, width), grey and of one size"))
        values = np.unique(label).tolist()
        if not {section.membrane, *section.cell}.issuperset(values):
            what = f"label values {list_some([str(value) for value in values])}"
            cell = " or ".join(str(value) for value in section.cell)
            problems.append(Problem(what, place, f"a label holds {section.membrane} (membrane) and {cell} (cell) only"))
    return problems


def _read(section: Section) -> tuple[Image, Mask]:
    image, label = _raw(section)
    return image, np.isin(label, section.cell).astype(np.uint8)


def _raw(section: Section) -> tuple[Image, npt.NDArray[np.generic]]:
    """Image and label as they are in the files."""
    if section.page is None:
        return read_image(section.image), read_mask(section.mask)
    return _stack(section.image)[section.page], _stack(section.mask)[section.page]


def _stack(path: Path) -> npt.NDArray[np.generic]:
    """All sections of a TIFF stack, ``(sections, H, W)``."""
    fix = "put the file of the challenge there again"
    try:
        stack: npt.NDArray[np.generic] = tifffile.imread(path)
    except FileNotFoundError as error:
        raise UserError(Problem("no such file", str(path), fix)) from error
    except Exception as error:  # decoders raise anything on damaged bytes
        raise UserError(Problem("file cannot be decoded", str(path), fix)) from error
    if stack.ndim != 3:
        raise UserError(Problem(f"an array of shape {stack.shape} is no stack of sections", str(path), fix))
    return stack
