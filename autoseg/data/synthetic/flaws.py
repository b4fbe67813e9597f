"""Synthetic component surfaces with flaws: the data set ``synthetic-flaws``, after the industrial set of AutoSegNet.

Brushed or turned metal with one to three scratches, pits or stains, brighter or darker than the surface. Low
contrast, jagged and soft edges, and stretches where a flaw has hardly any contrast are the difficulties. Nothing is
stored: image ``index`` is drawn when asked for and depends on ``(seed, index)`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.data.base import DatasetInfo, SegmentationData, default_colors
from autoseg.data.synthetic.drawn import DrawnSplit, divide, is_whole, option_problems, pixel_fractions
from autoseg.data.synthetic.flawshapes import KINDS, Flaw, draw_flaw
from autoseg.data.synthetic.imaging import expose
from autoseg.data.synthetic.surface import Finish, draw_surface, paint_flaw
from autoseg.errors import Problem, raise_if

CLASSES = ("background", "flaw")
DIFFICULTIES = {
    "easy": Finish(
        contrast=(0.25, 0.40), brushed=(0.01, 0.03), ramp=0.1, discontinuous=0, blur=(0.6, 0.8), noise=(0.005, 0.01)
    ),
    "paper": Finish(
        contrast=(0.12, 0.35), brushed=(0.03, 0.06), ramp=0.2, discontinuous=0.2, blur=(0.6, 1.0), noise=(0.01, 0.03)
    ),
    "hard": Finish(
        contrast=(0.10, 0.20), brushed=(0.045, 0.065), ramp=0.3, discontinuous=0.5, blur=(0.8, 1.2), noise=(0.02, 0.04)
    ),
}


@dataclass(frozen=True)
class FlawTruth:
    """What is known exactly about one flaw.

    Attributes:
        label: Value in the instance map, from 1.
        kind: ``"scratch"``, ``"pit"`` or ``"stain"``.
        area: Pixels of the flaw in the mask.
        length: Length of a scratch along its line in pixels; largest extent of a pit or stain.
        width: Mean width of a scratch in pixels; diameter of the disc of the same area of a pit or stain.
        contrast: Grey of the flaw above (or, negative, below) the surface.
        discontinuous: True where a stretch of the flaw has a tenth of its contrast.
        border: True when a pixel of the flaw lies in the first or last row or column.
    """

    label: int
    kind: str
    area: int
    length: float
    width: float
    contrast: float
    discontinuous: bool
    border: bool


@dataclass(frozen=True)
class FlawsImage:
    """One synthetic surface, or one crop of it, with its truth.

    Attributes:
        image: ``(size, size)`` float32 grey values, 0..1.
        mask: ``(size, size)`` uint8: 0 background, 1 flaw.
        instances: ``(size, size)`` uint16: 0 background, else ``FlawTruth.label``.
        flaws: One record per flaw; in a crop only of those visible, with the labels, lengths and widths they have
            in the whole image but the area and border of the crop.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    flaws: list[FlawTruth]

    def statistics_truth(self) -> dict[str, Any]:
        """True statistics of this image; see :func:`flaw_statistics`."""
        return flaw_statistics([self])


def draw_flaws(
    size: int = 160, seed: int = 0, index: int = 0, *, difficulty: str = "paper", crop: int | None = None
) -> FlawsImage:
    """Draw one surface, or one crop of one; the same arguments always give the same one.

    The mask does not depend on ``difficulty``, so the same masks can be had in every difficulty.

    Args:
        size: Side of the square image in pixels.
        seed: Seed of the data set.
        index: Number of the image in the data set; with ``crop`` the number of the crop, counted row by row in
            each image and on through the images.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``.
        crop: Side of the crops in pixels; None for whole images.

    Raises:
        UserError: An argument is out of range.

    Example:
        >>> whole, part = draw_flaws(64, seed=0, index=1), draw_flaws(64, seed=0, index=5, crop=32)
        >>> bool(np.array_equal(part.mask, whole.mask[:32, 32:]))  # 4 crops per image: number 5 is image 1, crop 1
        True
    """
    raise_if(_problems(3, size, seed, index, difficulty, crop))
    if crop is None:
        return _draw(size, seed, index, difficulty)
    number, place = divmod(index, (size // crop) ** 2)
    row, column = divmod(place, size // crop)
    window = slice(row * crop, (row + 1) * crop), slice(column * crop, (column + 1) * crop)
    return _cut(_draw_cached(size, seed, number, difficulty), window)


def flaw_statistics(images: Iterable[FlawsImage]) -> dict[str, Any]:
    """True statistics pooled over ``images``.

    Returns:
        ``pixel_fraction`` (share of pixels per class name) and, for each kind of flaw, its number ``flaws``, the
        mean ``area`` in square pixels, ``length`` and ``width`` in pixels, and absolute ``contrast``; None without any.

    Example:
        >>> found = flaw_statistics([draw_flaws(index=i) for i in range(4)])
        >>> sorted(found), 4 <= sum(found[kind]["flaws"] for kind in KINDS) <= 12
        (['pit', 'pixel_fraction', 'scratch', 'stain'], True)
    """
    masks, flaws = [], []
    for drawn in images:
        masks.append(drawn.mask)
        flaws += drawn.flaws
    result: dict[str, Any] = {"pixel_fraction": pixel_fractions(masks, CLASSES)}
    for kind in KINDS:
        of_kind = [flaw for flaw in flaws if flaw.kind == kind]
        table = np.array([(flaw.area, flaw.length, flaw.width, abs(flaw.contrast)) for flaw in of_kind])
        means = table.mean(axis=0).tolist() if of_kind else [None] * 4
        result[kind] = {
            "flaws": len(of_kind),
            **dict(zip(("area", "length", "width", "contrast"), means, strict=True)),
        }
    return result


def synthetic_flaws(
    *, count: int = 117, size: int = 160, difficulty: str = "paper", seed: int = 0, crop: int | None = None
) -> SegmentationData:
    """The data set plugin ``synthetic-flaws``: drawn surfaces split 7:1:2.

    117 images of 160 pixels are as many as the paper has; ``crop: 32`` gives its 2925 crops (before augmentation).

    Args:
        count: Number of whole images, at least 3.
        size: Side of the square images in pixels, at least 32.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``: contrast, texture, discontinuities and noise.
        seed: Seed; another seed gives other images.
        crop: Side of square crops into which each image is divided, 8 up to ``size``; None for whole images.
            All crops of an image come into one split; what is left over at the right and the bottom is not used.

    Raises:
        UserError: One or more options are out of range; all of them are reported.

    Example:
        >>> data = synthetic_flaws(count=10, size=64, crop=32)
        >>> data.info.classes, len(data.train), len(data.val), len(data.test)
        (('background', 'flaw'), 28, 4, 8)
    """
    raise_if(_problems(count, size, seed, 0, difficulty, crop))
    each = 1 if crop is None else (size // crop) ** 2
    draw = partial(draw_flaws, size, seed, difficulty=difficulty, crop=crop)
    parts = (range(part.start * each, part.stop * each) for part in divide(count))
    train, val, test = (DrawnSplit("flaws", indices, draw, flaw_statistics) for indices in parts)
    cropped = "" if crop is None else f", each divided into {each} crops of {crop} pixels,"
    return SegmentationData(
        info=DatasetInfo("synthetic-flaws", channels=1, classes=CLASSES, colors=default_colors(len(CLASSES))),
        train=train,
        val=val,
        test=test,
        notes=[
            f"Synthetic surfaces, difficulty {difficulty!r}, seed {seed}: made by formula, not by a camera.",
            f"{count} images{cropped} split by image, 7:1:2: {len(train)} train, {len(val)} validation, "
            f"{len(test)} test.",
        ],
    )


def _draw(size: int, seed: int, index: int, difficulty: str) -> FlawsImage:
    rng = np.random.default_rng([seed, index])
    instances = np.zeros((size, size), np.uint16)
    flaws: list[Flaw] = []
    wanted = int(rng.integers(1, 4))
    while len(flaws) < wanted:
        flaw = draw_flaw(rng, KINDS[int(rng.integers(len(KINDS)))], size)
        near = cv2.dilate(flaw.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        if not np.any(instances[near]) and flaw.mask.any():
            flaws.append(flaw)
            instances[flaw.mask] = len(flaws)
    signs = rng.choice([-1.0, 1.0], wanted)
    strengths, breaks = rng.random(wanted), rng.random(wanted)

    finish = DIFFICULTIES[difficulty]
    low, high = finish.contrast
    contrasts = [float(value) for value in signs * (low + (high - low) * strengths)]
    broken = [bool(lot < finish.discontinuous) for lot in breaks]
    grey = draw_surface(rng, size, finish)
    for flaw, contrast, discontinuous in zip(flaws, contrasts, broken, strict=True):
        paint_flaw(rng, grey, flaw, contrast, discontinuous)
    blur, noise = float(rng.uniform(*finish.blur)), float(rng.uniform(*finish.noise))
    image = expose(rng, grey, blur=blur, dose=None, read_noise=noise)

    truth = [
        FlawTruth(label, flaw.kind, 0, flaw.length, flaw.width, contrast, discontinuous, False)
        for label, (flaw, contrast, discontinuous) in enumerate(zip(flaws, contrasts, broken, strict=True), start=1)
    ]
    return FlawsImage(image, (instances > 0).astype(np.uint8), instances, _measured(instances, truth))


_draw_cached = lru_cache(maxsize=2)(_draw)
"""The crops of an image are mostly asked for one after the other; each gets copies."""


def _cut(whole: FlawsImage, window: tuple[slice, slice]) -> FlawsImage:
    instances = whole.instances[window].copy()
    return FlawsImage(
        whole.image[window].copy(), whole.mask[window].copy(), instances, _measured(instances, whole.flaws)
    )


def _measured(instances: npt.NDArray[np.uint16], flaws: Iterable[FlawTruth]) -> list[FlawTruth]:
    """The flaws visible in an instance map, with their area and border there."""
    border = set(np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]]).tolist())
    measured = [
        replace(flaw, area=int(np.count_nonzero(instances == flaw.label)), border=flaw.label in border)
        for flaw in flaws
    ]
    return [flaw for flaw in measured if flaw.area > 0]


def _problems(count: int, size: int, seed: int, index: int, difficulty: str, crop: int | None) -> list[Problem]:
    problems = option_problems(
        DIFFICULTIES, size=size, smallest=32, seed=seed, difficulty=difficulty, count=count, index=index
    )
    largest = size if is_whole(size) else 32
    if crop is not None and not (is_whole(crop) and 8 <= crop <= largest):
        fix = f"use a whole number of pixels from 8 to {largest}, or leave it out for whole images"
        problems.append(Problem(f"crop is {crop!r}", "data.options.crop", fix))
    return problems
