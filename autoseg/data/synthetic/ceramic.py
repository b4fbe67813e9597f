"""Synthetic ceramic micrographs: the data set ``synthetic-ceramic``, after the ED-NAS paper.

Scanning electron micrographs of a polycrystal with lath-shaped and cylindrical grains. As in the
paper's set a crop holds two or three grains, 4.5 % of the crops hold no lath and 1 % no cylinder, and
the difficulties are those it names: uneven grey inside grains, low contrast, varied size, blurred edges.
Nothing is stored: image ``index`` is drawn when asked for and depends on ``(seed, index)`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from autoseg.data.base import DatasetInfo, SegmentationData, default_colors
from autoseg.data.synthetic.drawn import DrawnSplit, divide, option_problems
from autoseg.data.synthetic.grains import BACKGROUND, GrainTruth, draw_classes, place_grains
from autoseg.data.synthetic.imaging import charging_streaks, expose
from autoseg.data.synthetic.shading import Look, shade
from autoseg.errors import Problem, raise_if

CLASSES = ("background", "lath", "cylinder")
DIFFICULTIES = {
    "easy": Look(contrast=(0.20, 0.35), uneven=0.5, groove=(0.10, 0.16), blur=(0.7, 1.0), dose=(200, 400), charging=0),
    "paper": Look(contrast=(0.05, 0.20), uneven=1, groove=(0.06, 0.14), blur=(0.7, 1.5), dose=(50, 200), charging=0.3),
    "hard": Look(contrast=(0.03, 0.10), uneven=1.3, groove=(0.04, 0.09), blur=(1.0, 1.8), dose=(40, 90), charging=0.6),
}


@dataclass(frozen=True)
class CeramicImage:
    """One synthetic micrograph with its truth.

    Attributes:
        image: ``(size, size)`` float32 grey values, 0..1.
        mask: ``(size, size)`` uint8: 0 background, 1 lath, 2 cylinder.
        instances: ``(size, size)`` uint16: 0 background, else ``GrainTruth.label``.
        grains: One record per grain, in painter's order (the last lies on top).
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    grains: list[GrainTruth]

    def statistics_truth(self) -> dict[str, Any]:
        """True statistics of this image; see :func:`grain_statistics`."""
        return grain_statistics([self])


def draw_ceramic(
    size: int = 128, seed: int = 0, index: int = 0, *, difficulty: str = "paper", scene: bool = False
) -> CeramicImage:
    """Draw one micrograph; the same arguments always give the same one.

    The grains depend on ``(size, seed, index, scene)`` only, so the same masks can be had in every difficulty.

    Args:
        size: Side of the square image in pixels.
        seed: Seed of the data set.
        index: Number of the image in the data set.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``.
        scene: Draw a whole field of 20 to 60 grains instead of a crop with two or three.

    Raises:
        UserError: An argument is out of range.

    Example:
        >>> drawn = draw_ceramic(64, seed=0, index=3)
        >>> drawn.image.shape, drawn.image.dtype.name, np.unique(drawn.mask).tolist()
        ((64, 64), 'float32', [0, 1, 2])
    """
    raise_if(_problems(size=size, seed=seed, difficulty=difficulty, scene=scene, index=index))
    rng = np.random.default_rng([seed, index])
    classes = draw_classes(rng, scene)
    unit = size * float(np.sqrt(4.5 / len(classes))) if scene else float(size)
    layout = place_grains(rng, classes, size, unit)

    look = DIFFICULTIES[difficulty]
    grey = shade(rng, layout, look, unit)
    if rng.random() < look.charging:
        grey += charging_streaks(rng, grey.shape, float(rng.uniform(0.08, 0.20)))
    image = expose(rng, grey, blur=float(rng.uniform(*look.blur)), dose=float(rng.uniform(*look.dose)), read_noise=0.01)

    lookup = np.array([BACKGROUND, *(grain.class_index for grain in layout.truth)], np.uint8)
    return CeramicImage(image, lookup[layout.instances], layout.instances, layout.truth)


def grain_statistics(images: Iterable[CeramicImage]) -> dict[str, Any]:
    """True grain statistics pooled over ``images``.

    Returns:
        ``pixel_fraction`` (share of pixels per class name) and, for ``lath`` and ``cylinder``, the number of
        ``grains``, the number of ``complete`` ones (neither hidden nor cut), and the mean ``area`` (square pixels)
        and ``equivalent_diameter`` (pixels) of the complete ones from their analytic areas, None without any.

    Example:
        >>> truth = grain_statistics([draw_ceramic(64, index=3)])
        >>> truth["lath"]["grains"] + truth["cylinder"]["grains"], round(sum(truth["pixel_fraction"].values()), 6)
        (3, 1.0)
    """
    pixels = np.zeros(len(CLASSES), np.int64)
    grains: list[GrainTruth] = []
    for drawn in images:
        pixels += np.bincount(drawn.mask.ravel(), minlength=len(CLASSES))
        grains += drawn.grains
    total = max(1, int(pixels.sum()))
    result: dict[str, Any] = {"pixel_fraction": {n: int(p) / total for n, p in zip(CLASSES, pixels, strict=True)}}
    for class_index, name in enumerate(CLASSES[1:], start=1):
        of_class = [grain for grain in grains if grain.class_index == class_index]
        areas = np.array([grain.analytic_area for grain in of_class if grain.complete])
        result[name] = {
            "grains": len(of_class),
            "complete": len(areas),
            "area": float(areas.mean()) if len(areas) else None,
            "equivalent_diameter": float(np.sqrt(4 * areas / np.pi).mean()) if len(areas) else None,
        }
    return result


class CeramicSplit(DrawnSplit[CeramicImage]):
    """A sequence of ``(image, mask)`` drawn on demand: ``(size, size)`` uint8 grey 0..255 and uint8 classes.

    Args:
        indices: Numbers of the images of this split in the data set.
        size: Side of the images in pixels.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``.
        seed: Seed of the data set.
        scene: Whole fields instead of crops.

    Example:
        >>> split = CeramicSplit(range(12, 14), size=64)
        >>> list(split.names), split[0][0].dtype.name, len(split.truth(0).grains)
        (['ceramic-00012', 'ceramic-00013'], 'uint8', 3)
    """

    def __init__(
        self, indices: Sequence[int], *, size: int = 128, difficulty: str = "paper", seed: int = 0, scene: bool = False
    ) -> None:
        draw = partial(draw_ceramic, size, seed, difficulty=difficulty, scene=scene)
        super().__init__("ceramic", indices, draw, grain_statistics)


def synthetic_ceramic(
    *, count: int = 120, size: int = 128, difficulty: str = "paper", seed: int = 0, scene: bool = False
) -> SegmentationData:
    """The data set plugin ``synthetic-ceramic``: drawn micrographs split 7:1:2 as in the ED-NAS paper.

    629 images, the size of the paper's set, give 440 for training, 63 for validation and 126 for testing.

    Args:
        count: Number of images, at least 3.
        size: Side of the square images in pixels, at least 32 (128 for scenes).
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``: contrast, noise, unevenness and charging.
        seed: Seed; another seed gives other images.
        scene: Whole fields of 20 to 60 grains instead of crops with two or three.

    Raises:
        UserError: One or more options are out of range; all of them are reported.

    Example:
        >>> data = synthetic_ceramic(count=10, size=64)
        >>> data.info.classes, len(data.train), len(data.val), len(data.test)
        (('background', 'lath', 'cylinder'), 7, 1, 2)
    """
    raise_if(_problems(count=count, size=size, seed=seed, difficulty=difficulty, scene=scene))
    train, val, test = (
        CeramicSplit(indices, size=size, difficulty=difficulty, seed=seed, scene=scene) for indices in divide(count)
    )
    return SegmentationData(
        info=DatasetInfo("synthetic-ceramic", channels=1, classes=CLASSES, colors=default_colors(len(CLASSES))),
        train=train,
        val=val,
        test=test,
        notes=[
            f"Synthetic micrographs, difficulty {difficulty!r}, seed {seed}: made by formula, not by a microscope.",
            f"Split by number, 7:1:2 as in the ED-NAS paper: {len(train)} train, {len(val)} validation, "
            f"{len(test)} test.",
        ],
    )


def _problems(*, size: int, seed: int, difficulty: str, scene: bool, count: int = 3, index: int = 0) -> list[Problem]:
    problems = option_problems(
        DIFFICULTIES,
        size=size,
        smallest=128 if scene is True else 32,
        seed=seed,
        difficulty=difficulty,
        count=count,
        index=index,
    )
    if not isinstance(scene, bool):
        problems.append(Problem(f"scene is {scene!r}", "data.options.scene", "use true or false"))
    return problems
