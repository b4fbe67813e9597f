"""Synthetic stacks of tissue sections: the data set ``synthetic-membranes``, after ISBI 2012 as AutoSegNet uses it.

Dark membranes between the cells of nervous tissue in serial-section transmission electron micrographs. Sections
of one stack resemble each other, so whole stacks come into one split. Gaps in the stain, mitochondria, vesicles and
dark patches are the difficulties. Nothing is stored: image ``index`` is section ``index % sections`` of stack
``index // sections``, drawn when asked for, and depends on ``(seed, index, sections)`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.data.base import DatasetInfo, SegmentationData
from autoseg.data.synthetic.drawn import DrawnSplit, divide, is_whole, option_problems, pixel_fractions
from autoseg.data.synthetic.imaging import expose
from autoseg.data.synthetic.staining import Stain, stain
from autoseg.data.synthetic.tissue import Section, Tissue
from autoseg.errors import Problem, raise_if

CLASSES = ("membrane", "cell")
PIXEL_SIZE = 4.0
"""Nanometres per pixel, as in ISBI 2012."""
DIFFICULTIES = {
    "easy": Stain(
        plasm=(0.64, 0.72), membrane=(0.18, 0.26), texture=0.02, faded=0, organelles=0, patches=0, vesicles=0.5,
        dose=(150, 300),
    ),
    "paper": Stain(
        plasm=(0.60, 0.72), membrane=(0.20, 0.35), texture=0.05, faded=0.1, organelles=0.3, patches=0.2, vesicles=6,
        dose=(60, 150),
    ),
    "hard": Stain(
        plasm=(0.55, 0.65), membrane=(0.30, 0.42), texture=0.07, faded=0.3, organelles=0.6, patches=0.5, vesicles=8,
        dose=(30, 60),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class CellTruth:
    """What is known about one piece of a cell in a section.

    Attributes:
        label: Value in the instance map, from 1.
        cell: Number of the cell in its stack, the same in all sections; a cell that the image border cuts can
            show up in two pieces.
        pixels: Pixels of the piece.
        border: True when a pixel of it lies in the first or last row or column.
    """

    label: int
    cell: int
    pixels: int
    border: bool


@dataclass(frozen=True)
class MembranesImage:
    """One synthetic section with its truth.

    Attributes:
        image: ``(size, size)`` float32 grey values, 0..1.
        mask: ``(size, size)`` uint8: 0 membrane, 1 cell.
        instances: ``(size, size)`` uint16: 0 membrane, else ``CellTruth.label``.
        cells: One record per piece of a cell.
        stack: Number of the stack.
        section: Number of the section in its stack.
        width: Width of the membranes in pixels.
        length: Total length of the middle lines of the membranes in pixels.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    cells: list[CellTruth]
    stack: int
    section: int
    width: float
    length: float

    def statistics_truth(self) -> dict[str, Any]:
        """True statistics of this section; see :func:`membrane_statistics`."""
        return membrane_statistics([self])


def draw_membranes(
    size: int = 128, seed: int = 0, index: int = 0, *, difficulty: str = "paper", sections: int = 4
) -> MembranesImage:
    """Draw one section; the same arguments always give the same one.

    The mask does not depend on ``difficulty``, so the same masks can be had in every difficulty.

    Args:
        size: Side of the square image in pixels.
        seed: Seed of the data set.
        index: Number of the image in the data set.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``.
        sections: Sections per stack.

    Raises:
        UserError: An argument is out of range.

    Example:
        >>> drawn = draw_membranes(64, seed=0, index=7)
        >>> drawn.image.shape, np.unique(drawn.mask).tolist(), drawn.stack, drawn.section
        ((64, 64), [0, 1], 1, 3)
    """
    raise_if(_problems(3 * sections if is_whole(sections) else 3, size, seed, index, difficulty, sections))
    number, depth = divmod(index, sections)
    tissue = Tissue(size, seed, number)
    section = tissue.cut(depth)
    mask = (section.depth >= tissue.width / 2).astype(np.uint8)
    instances, cells = _pieces(mask, section)

    look = DIFFICULTIES[difficulty]
    rng = np.random.default_rng([seed, number, 5, depth])
    grey = stain(rng, tissue, section, look)
    image = expose(rng, grey, blur=1.0, dose=float(rng.uniform(*look.dose)), read_noise=0.01)
    length = float(np.count_nonzero(section.middle < 1)) / 2  # pixels less than one from a line, per unit of length
    return MembranesImage(image, mask, instances, cells, number, depth, tissue.width, length)


def membrane_statistics(images: Iterable[MembranesImage]) -> dict[str, Any]:
    """True statistics pooled over ``images``.

    Returns:
        ``pixel_fraction`` (share of pixels per class name); for ``membrane`` the total ``length`` in pixels and the
        mean ``width`` in pixels; for ``cell`` the number of ``pieces``, of ``complete`` ones (not at the border),
        and the mean ``area`` of the complete ones in square pixels, None without any.

    Example:
        >>> found = membrane_statistics([draw_membranes(64)])
        >>> 5 <= found["membrane"]["width"] <= 9, found["cell"]["pieces"] > found["cell"]["complete"]
        (True, True)
    """
    masks, lengths, widths, complete = [], [], [], []
    pieces = 0
    for drawn in images:
        masks.append(drawn.mask)
        lengths.append(drawn.length)
        widths.append(drawn.width)
        pieces += len(drawn.cells)
        complete += [cell.pixels for cell in drawn.cells if not cell.border]
    return {
        "pixel_fraction": pixel_fractions(masks, CLASSES),
        "membrane": {"length": float(np.sum(lengths)), "width": float(np.mean(widths)) if widths else None},
        "cell": {
            "pieces": pieces,
            "complete": len(complete),
            "area": float(np.mean(complete)) if complete else None,
        },
    }


def synthetic_membranes(
    *, count: int = 120, size: int = 128, difficulty: str = "paper", seed: int = 0, sections: int = 4
) -> SegmentationData:
    """The data set plugin ``synthetic-membranes``: drawn sections, whole stacks split 7:1:2.

    A stack of ISBI 2012 has 30 sections of 512 pixels.

    Args:
        count: Number of images, more than two stacks.
        size: Side of the square images in pixels, at least 32.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``: contrast, gaps in the stain, what lies in the cells, noise.
        seed: Seed; another seed gives other images.
        sections: Sections per stack; the last stack may have fewer.

    Raises:
        UserError: One or more options are out of range; all of them are reported.

    Example:
        >>> data = synthetic_membranes(count=40, size=64)
        >>> data.info.classes, data.info.pixel_size, len(data.train), len(data.val), len(data.test)
        (('membrane', 'cell'), 4.0, 28, 4, 8)
    """
    raise_if(_problems(count, size, seed, 0, difficulty, sections))
    stacks = -(-count // sections)
    draw = partial(draw_membranes, size, seed, difficulty=difficulty, sections=sections)
    parts = (range(part.start * sections, min(part.stop * sections, count)) for part in divide(stacks))
    train, val, test = (DrawnSplit("membranes", indices, draw, membrane_statistics) for indices in parts)
    colors = ((230, 159, 0), (86, 180, 233))
    return SegmentationData(
        info=DatasetInfo(
            "synthetic-membranes", channels=1, classes=CLASSES, colors=colors, pixel_size=PIXEL_SIZE, pixel_unit="nm"
        ),
        train=train,
        val=val,
        test=test,
        notes=[
            f"Synthetic sections, difficulty {difficulty!r}, seed {seed}: made by formula, not by a microscope.",
            f"{stacks} stacks of {sections} sections; whole stacks split 7:1:2, so that no section of a stack in "
            f"training is a twin of one in testing: {len(train)} train, {len(val)} validation, {len(test)} test.",
        ],
    )


def _pieces(mask: npt.NDArray[np.uint8], section: Section) -> tuple[npt.NDArray[np.uint16], list[CellTruth]]:
    """The instance map, connected pieces of cells, and one record for each."""
    count, labels, measured, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    height, width = mask.shape
    cells = []
    for label in range(1, count):
        left, top, wide, high, pixels = (int(value) for value in measured[label])
        border = left == 0 or top == 0 or left + wide == width or top + high == height
        column = int(np.argmax(labels[top] == label))
        cells.append(CellTruth(label, int(section.cells[top, column]), pixels, border))
    return labels.astype(np.uint16), cells


def _problems(count: int, size: int, seed: int, index: int, difficulty: str, sections: int) -> list[Problem]:
    whole = is_whole(sections) and sections >= 1
    problems = option_problems(
        DIFFICULTIES,
        size=size,
        smallest=32,
        seed=seed,
        difficulty=difficulty,
        count=count,
        fewest=2 * sections + 1 if whole else 3,
        index=index,
    )
    if not whole:
        fix = "use a whole number of 1 or more"
        problems.append(Problem(f"sections is {sections!r}", "data.options.sections", fix))
    return problems
