"""Where the cores of a synthetic TEM image lie: sizes, clusters, the instance map, and the truth of each core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoseg.data.synthetic.shapes import Bend, Ellipse, Outline

MEAN_DIAMETER, SD_DIAMETER = 1.85, 0.30
"""Nanometres: 97 % of such cores have 1.2 to 2.5 nm, as measured in the paper."""
MIN_DIAMETER, MAX_DIAMETER = 1.0, 2.8
MEAN_CORES = 40
REFERENCE_FIELD = 256 * 0.12
"""Side in nanometres of the field that holds ``MEAN_CORES`` cores on average, the cut ones among them."""
GAP = 2.0
"""Pixels between cores that do not touch, so that they never share a component."""
CLOSEST = 0.85
"""Smallest distance of two touching cores, as a share of the distance at which they just touch."""
STRAIGHT = Bend((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


@dataclass(frozen=True)
class Core:
    """A core to be drawn.

    Attributes:
        centre: ``(x, y)`` in pixels; it may lie outside the image by up to half the largest diameter.
        diameter: Diameter of the disc of the same area, in pixels.
        ratio: Long axis over short axis.
        angle: Direction of the long axis against the x axis in radians.
        shell: Thickness of the shell around it, in pixels.
        cluster: Number of the group; cores of one group touch.
    """

    centre: tuple[float, float]
    diameter: float
    ratio: float
    angle: float
    shell: float
    cluster: int

    @property
    def half_axes(self) -> tuple[float, float]:
        """Long and short half axis in pixels."""
        stretch = float(np.sqrt(self.ratio))
        return self.diameter / 2 * stretch, self.diameter / 2 / stretch

    @property
    def outline(self) -> Outline:
        """The core in the image."""
        return Outline(Ellipse(*self.half_axes), self.centre, self.angle, STRAIGHT)

    def radius_towards(self, direction: float) -> float:
        """Distance from the centre to the edge in a direction (radians), in pixels."""
        a, b = self.half_axes
        turn = direction - self.angle
        return float(1 / np.hypot(np.cos(turn) / a, np.sin(turn) / b))


@dataclass(frozen=True)
class CoreTruth:
    """What is known exactly about one core of which something is visible.

    Attributes:
        label: Value in the instance map, from 1.
        centre: ``(x, y)`` in pixels; the first pixel has its centre at (0, 0).
        diameter_nm: Diameter of the disc of the same area, of the whole core.
        ratio: Long axis over short axis.
        angle: Direction of the long axis against the x axis in radians.
        shell_nm: Thickness of the shell.
        area_nm2: Area of the whole core, also of what the border cuts off.
        pixels: Pixels of the core in the instance map; where two cores overlap each has its half.
        border: True when a pixel of the core lies in the first or last row or column.
        cluster: Cores with the same number touch or overlap.
    """

    label: int
    centre: tuple[float, float]
    diameter_nm: float
    ratio: float
    angle: float
    shell_nm: float
    area_nm2: float
    pixels: int
    border: bool
    cluster: int


def draw_diameters(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Diameters in nanometres: a normal distribution cut off at both ends.

    Example:
        >>> drawn = draw_diameters(np.random.default_rng(0), 10000)
        >>> bool(drawn.min() >= 1.0 and drawn.max() <= 2.8), round(float(drawn.mean()), 2)
        (True, 1.85)
    """
    drawn = rng.normal(MEAN_DIAMETER, SD_DIAMETER, count)
    while np.any(wrong := (drawn < MIN_DIAMETER) | (drawn > MAX_DIAMETER)):
        drawn[wrong] = rng.normal(MEAN_DIAMETER, SD_DIAMETER, int(wrong.sum()))
    return drawn


def place_cores(
    rng: np.random.Generator, size: int, pixel_size: float, touching: float, ellipticity: float
) -> list[Core]:
    """Cores all over an image and a fixed margin around it, so that the border cuts some.

    The margin is half the largest diameter for all of them: with a margin that grew with the core, large cores
    would be too rare near the border. A core for which no free place is found is left out.

    Args:
        rng: Source of randomness.
        size: Side of the image in pixels.
        pixel_size: Nanometres per pixel.
        touching: Share of the cores that lie in pairs or triples, 0..1.
        ellipticity: Largest ratio of the axes, 1 or more.
    """
    margin = MAX_DIAMETER / 2 / pixel_size
    field = (size * pixel_size + MAX_DIAMETER) / (REFERENCE_FIELD + MAX_DIAMETER)
    diameters = draw_diameters(rng, int(rng.poisson(MEAN_CORES * field**2))) / pixel_size
    cores: list[Core] = []
    used = cluster = 0
    while used < len(diameters):
        grouped = rng.random() < _group_probability(touching)
        members = 1 if not grouped else 2 if rng.random() < 0.7 else 3
        group = diameters[used : used + members]
        used += len(group)
        for _ in range(200):
            placed = _draw_group(rng, group, (-margin, size - 1 + margin), pixel_size, ellipticity, cluster)
            if placed and _is_free(placed, cores):
                cores += placed
                cluster += 1
                break
    return cores


def raster_cores(cores: Sequence[Core], size: int, pixel_size: float) -> tuple[npt.NDArray[np.uint16], list[CoreTruth]]:
    """The instance map of an image and the truth of the cores visible in it.

    Args:
        cores: Cores in any order; those without a pixel in the image get no label.
        size: Side of the image in pixels.
        pixel_size: Nanometres per pixel.

    Returns:
        ``(size, size)`` uint16 with 0 for background, and one record per label.

    Example:
        >>> core = Core((10.0, 10.0), diameter=8.0, ratio=1.0, angle=0.0, shell=10.0, cluster=0)
        >>> labels, truth = raster_cores([core], 32, 0.25)
        >>> int(labels.sum()) == truth[0].pixels, truth[0].diameter_nm, round(truth[0].area_nm2, 4)
        (True, 2.0, 3.1416)
    """
    instances = np.zeros((size, size), np.uint16)
    nearest = np.zeros((size, size), np.float32)
    visible: list[Core] = []
    for core in cores:
        outline = core.outline
        window = outline.window(size, size, 1.0)
        distance = outline.shape.distance(*outline.frame(window))
        if not np.any(distance < 0):
            continue
        visible.append(core)
        own = distance < nearest[window]
        instances[window][own] = len(visible)
        nearest[window][own] = distance[own]
    pixels = np.bincount(instances.ravel(), minlength=len(visible) + 1)
    border = set(np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]]).tolist())
    truth = [
        CoreTruth(
            label=label,
            centre=core.centre,
            diameter_nm=core.diameter * pixel_size,
            ratio=core.ratio,
            angle=core.angle,
            shell_nm=core.shell * pixel_size,
            area_nm2=float(np.pi / 4 * (core.diameter * pixel_size) ** 2),
            pixels=int(pixels[label]),
            border=label in border,
            cluster=core.cluster,
        )
        for label, core in enumerate(visible, start=1)
    ]
    return instances, truth


def _group_probability(touching: float) -> float:
    """Probability that the next core starts a group, for a wanted share of cores in groups of 2.3 on average."""
    return touching / (2.3 - 1.3 * touching)


def _draw_group(
    rng: np.random.Generator,
    diameters: Sequence[float] | npt.NDArray[np.float64],
    field: tuple[float, float],
    pixel_size: float,
    ellipticity: float,
    cluster: int,
) -> list[Core] | None:
    """The first core anywhere in the field, each other one beside an earlier one; None when they overlap too much."""
    group: list[Core] = []
    for diameter in diameters:
        form = {
            "diameter": float(diameter),
            "ratio": float(rng.uniform(1, ellipticity)),
            "angle": float(rng.uniform(0, np.pi)),
            "shell": float(rng.uniform(1, 3) / pixel_size),
        }
        x, y = (float(value) for value in rng.uniform(*field, 2))
        core = Core((x, y), cluster=cluster, **form)
        if group:
            beside = group[int(rng.integers(len(group)))]
            direction = float(rng.uniform(0, 2 * np.pi))
            reach = beside.radius_towards(direction) + core.radius_towards(direction)
            apart = reach * float(rng.uniform(CLOSEST, 1.0))
            centre = beside.centre[0] + apart * np.cos(direction), beside.centre[1] + apart * np.sin(direction)
            core = Core((float(centre[0]), float(centre[1])), cluster=cluster, **form)
            if any(_overlaps_too_much(core, other) for other in group if other is not beside):
                return None
        group.append(core)
    return group


def _overlaps_too_much(one: Core, other: Core) -> bool:
    x, y = other.centre[0] - one.centre[0], other.centre[1] - one.centre[1]
    direction = float(np.arctan2(y, x))
    return float(np.hypot(x, y)) < CLOSEST * (one.radius_towards(direction) + other.radius_towards(direction))


def _is_free(group: Sequence[Core], cores: Sequence[Core]) -> bool:
    """Whether a group keeps its distance from all cores of other groups."""
    if not cores:
        return True
    centres = np.array([core.centre for core in cores])
    reaches = np.array([core.half_axes[0] for core in cores])
    return all(np.all(np.hypot(*(centres - core.centre).T) >= reaches + core.half_axes[0] + GAP) for core in group)
