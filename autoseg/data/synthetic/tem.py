"""Synthetic TEM images of core-shell nanoparticles: the data set ``synthetic-tem``, after the DS-U-Net paper.

Dark metal cores of about 1.85 nm in grey silica shells on a bright film. Cores are the foreground; the shells
around them, the low contrast of small cores and cores that touch are the difficulties the paper names. Grey
follows from the path of the beam through silica and metal (Beer-Lambert), and about a tenth of the pixels are core.
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
from autoseg.data.synthetic.drawn import DrawnSplit, divide, option_problems, pixel_fractions, range_problem
from autoseg.data.synthetic.imaging import Array, band_noise, expose, smooth_noise
from autoseg.data.synthetic.particles import MEAN_DIAMETER, Core, CoreTruth, place_cores, raster_cores
from autoseg.errors import Problem, raise_if

CLASSES = ("background", "nanoparticle")
BACKGROUND_GREY = 0.80


@dataclass(frozen=True)
class TemLook:
    """Ranges from which the look of one image is drawn; grey values are 0..1.

    Attributes:
        shell: Grey of the shell beside a core of mean size.
        core: Grey in the middle of a core of mean size.
        speckle: Standard deviation of the speckle of the film.
        blur: Standard deviation of the point spread function in pixels.
        dose: Electrons per pixel at grey value 1.
    """

    shell: tuple[float, float]
    core: tuple[float, float]
    speckle: tuple[float, float]
    blur: tuple[float, float]
    dose: tuple[float, float]


DIFFICULTIES = {
    "easy": TemLook(shell=(0.68, 0.74), core=(0.12, 0.22), speckle=(0.01, 0.02), blur=(0.7, 1.0), dose=(200, 400)),
    "paper": TemLook(shell=(0.55, 0.68), core=(0.15, 0.35), speckle=(0.03, 0.05), blur=(0.8, 1.5), dose=(40, 150)),
    "hard": TemLook(shell=(0.50, 0.60), core=(0.25, 0.36), speckle=(0.04, 0.06), blur=(1.0, 1.6), dose=(15, 15)),
}


@dataclass(frozen=True)
class TemImage:
    """One synthetic TEM image with its truth.

    Attributes:
        image: ``(size, size)`` float32 grey values, 0..1.
        mask: ``(size, size)`` uint8: 0 background (shells too), 1 nanoparticle core.
        instances: ``(size, size)`` uint16: 0 background, else ``CoreTruth.label``.
        cores: One record per visible core.
        pixel_size: Nanometres per pixel.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    cores: list[CoreTruth]
    pixel_size: float

    def statistics_truth(self) -> dict[str, Any]:
        """True statistics of this image; see :func:`particle_statistics`."""
        return particle_statistics([self])


def draw_tem(
    size: int = 256,
    seed: int = 0,
    index: int = 0,
    *,
    difficulty: str = "paper",
    pixel_size: float = 0.12,
    touching: float = 0.15,
    ellipticity: float = 1.15,
) -> TemImage:
    """Draw one TEM image; the same arguments always give the same one.

    The cores do not depend on ``difficulty``, so the same masks can be had in every difficulty.

    Args:
        size: Side of the square image in pixels.
        seed: Seed of the data set.
        index: Number of the image in the data set.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``.
        pixel_size: Nanometres per pixel, 0.05 to 0.5; a larger field holds more cores.
        touching: Share of the cores that lie in touching pairs or triples, 0..1.
        ellipticity: Largest ratio of the axes of a core, 1 to 2.

    Raises:
        UserError: An argument is out of range.

    Example:
        >>> drawn = draw_tem(64, seed=0, index=3)
        >>> drawn.image.shape, drawn.image.dtype.name, np.unique(drawn.mask).tolist()
        ((64, 64), 'float32', [0, 1])
    """
    raise_if(_problems(3, size, seed, index, difficulty, pixel_size, touching, ellipticity))
    rng = np.random.default_rng([seed, index])
    cores = place_cores(rng, size, pixel_size, touching, ellipticity)
    instances, truth = raster_cores(cores, size, pixel_size)

    look = DIFFICULTIES[difficulty]
    grey = _transmit(rng, cores, size, look, 1 / pixel_size)
    dose = float(rng.uniform(*look.dose))
    image = expose(rng, grey, blur=float(rng.uniform(*look.blur)), dose=dose, read_noise=0.01)
    return TemImage(image, (instances > 0).astype(np.uint8), instances, truth, pixel_size)


def particle_statistics(images: Iterable[TemImage]) -> dict[str, Any]:
    """True particle statistics pooled over ``images``.

    Returns:
        ``pixel_fraction`` (share of pixels per class name) and, for ``nanoparticle``, the number of visible
        ``particles``, of ``complete`` ones (not at the border), of ``touching`` ones, and the mean ``diameter_nm``,
        its standard deviation ``diameter_sd_nm`` and the mean ``area_nm2`` of the complete ones, None without any.
        Leaving out cut particles makes the mean a little too small, since large ones are cut more often:
        ``diameter_unbiased_nm`` weights each with 1 / (W - D)(H - D) instead (Miles and Lantuejoul).

    Example:
        >>> found = particle_statistics([draw_tem(128, index=i) for i in range(2)])["nanoparticle"]
        >>> found["particles"] > found["complete"] > 0, 1.5 < found["diameter_nm"] < 2.2
        (True, True)
    """
    masks, diameters, weights = [], [], []
    particles = touching = 0
    for drawn in images:
        masks.append(drawn.mask)
        members = np.bincount([core.cluster for core in drawn.cores], minlength=1)
        particles += len(drawn.cores)
        touching += int(members[members > 1].sum())
        complete = np.array([core.diameter_nm for core in drawn.cores if not core.border])
        height, width = (side * drawn.pixel_size for side in drawn.mask.shape)
        diameters.append(complete)
        weights.append(1 / ((width - complete) * (height - complete)))
    diameter = np.concatenate([*diameters, np.empty(0)])
    some = len(diameter) > 0
    return {
        "pixel_fraction": pixel_fractions(masks, CLASSES),
        "nanoparticle": {
            "particles": particles,
            "complete": len(diameter),
            "touching": touching,
            "diameter_nm": float(diameter.mean()) if some else None,
            "diameter_sd_nm": float(diameter.std()) if some else None,
            "diameter_unbiased_nm": float(np.average(diameter, weights=np.concatenate(weights))) if some else None,
            "area_nm2": float((np.pi / 4 * diameter**2).mean()) if some else None,
        },
    }


def synthetic_tem(
    *,
    count: int = 128,
    size: int = 256,
    difficulty: str = "paper",
    seed: int = 0,
    pixel_size: float = 0.12,
    touching: float = 0.15,
    ellipticity: float = 1.15,
) -> SegmentationData:
    """The data set plugin ``synthetic-tem``: drawn TEM images split 7:1:2.

    128 images of 256 pixels are as many as the paper has. It splits them 8:2 and has no test set; here there is one.

    Args:
        count: Number of images, at least 3.
        size: Side of the square images in pixels, at least 32.
        difficulty: ``"easy"``, ``"paper"`` or ``"hard"``: contrast of core against shell, speckle and dose.
        seed: Seed; another seed gives other images.
        pixel_size: Nanometres per pixel, 0.05 to 0.5.
        touching: Share of the cores that lie in touching pairs or triples, 0..1.
        ellipticity: Largest ratio of the axes of a core, 1 to 2.

    Raises:
        UserError: One or more options are out of range; all of them are reported.

    Example:
        >>> data = synthetic_tem(count=10, size=64)
        >>> data.info.classes, data.info.pixel_size, len(data.train), len(data.val), len(data.test)
        (('background', 'nanoparticle'), 0.12, 7, 1, 2)
    """
    raise_if(_problems(count, size, seed, 0, difficulty, pixel_size, touching, ellipticity))
    draw = partial(
        draw_tem,
        size,
        seed,
        difficulty=difficulty,
        pixel_size=pixel_size,
        touching=touching,
        ellipticity=ellipticity,
    )
    train, val, test = (DrawnSplit("tem", indices, draw, particle_statistics) for indices in divide(count))
    colors = default_colors(len(CLASSES))
    return SegmentationData(
        info=DatasetInfo(
            "synthetic-tem", channels=1, classes=CLASSES, colors=colors, pixel_size=pixel_size, pixel_unit="nm"
        ),
        train=train,
        val=val,
        test=test,
        notes=[
            f"Synthetic TEM images, difficulty {difficulty!r}, seed {seed}: made by formula, not by a microscope.",
            f"Split by number, 7:1:2: {len(train)} train, {len(val)} validation, {len(test)} test.",
        ],
    )


def _transmit(rng: np.random.Generator, cores: Sequence[Core], size: int, look: TemLook, per_nm: float) -> Array:
    """Grey values of the beam behind the film, the silica and the cores, without blur and noise."""
    shape = (size, size)
    silica = np.zeros(shape, np.float32)  # path lengths in pixels
    metal = np.zeros(shape, np.float32)
    for core in cores:
        outline = core.outline
        window = outline.window(size, size, core.shell)
        u, v = outline.frame(window)
        (a, b), around = core.half_axes, core.diameter / 2 + core.shell
        inside = np.sqrt(np.maximum(1 - (u / a) ** 2 - (v / b) ** 2, 0))
        ball = 2 * np.sqrt(np.maximum(around**2 - u * u - v * v, 0))
        silica[window] = np.maximum(silica[window], ball)  # neighbouring shells have grown together
        metal[window] += np.float32(core.diameter * rng.uniform(0.85, 1.15)) * inside  # cores differ by orientation

    # A core of mean size in a shell of 2 nm: paths beside the core and through its middle.
    radius, around = MEAN_DIAMETER / 2 * per_nm, (MEAN_DIAMETER / 2 + 2) * per_nm
    shell, core_grey = rng.uniform(*look.shell), rng.uniform(*look.core)
    in_silica = np.log(BACKGROUND_GREY / shell) / (2 * np.sqrt(around**2 - radius**2))
    in_metal = (np.log(BACKGROUND_GREY / core_grey) - in_silica * 2 * around) / (2 * radius)
    silica *= 1 + 0.08 * smooth_noise(rng, shape, 0.6 * per_nm)  # uneven shells

    across, down = rng.uniform(-0.05, 0.05, 2)
    along = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    film = BACKGROUND_GREY + np.float32(across) * along + np.float32(down) * along[:, None]
    film += np.float32(rng.uniform(*look.speckle)) * band_noise(rng, shape, float(rng.uniform(1, 2)))
    return np.asarray(film * np.exp(-np.float32(in_silica) * silica - np.float32(in_metal) * metal), np.float32)


def _problems(
    count: int,
    size: int,
    seed: int,
    index: int,
    difficulty: str,
    pixel_size: float,
    touching: float,
    ellipticity: float,
) -> list[Problem]:
    return [
        *option_problems(
            DIFFICULTIES, size=size, smallest=32, seed=seed, difficulty=difficulty, count=count, index=index
        ),
        *range_problem("pixel_size", pixel_size, 0.05, 0.5),
        *range_problem("touching", touching, 0, 1),
        *range_problem("ellipticity", ellipticity, 1, 2),
    ]
