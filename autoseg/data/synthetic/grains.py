"""Where the grains of a synthetic ceramic lie: classes, sizes, painter's order, and the truth of each grain."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoseg.data.synthetic.shapes import Bend, Outline, Window, cylinder_shape, lath_shape

BACKGROUND, LATH, CYLINDER = 0, 1, 2
P_NO_LATH = 0.045
"""Share of crops without a lath: 601 of 629 crops of the ED-NAS paper hold one (table 2)."""
P_NO_CYLINDER = 0.010
"""Share of crops without a cylinder: 623 of 629 crops of the ED-NAS paper hold one (table 2)."""
MAX_OCCLUSION = 0.25
MIN_INSIDE = 0.6
"""A grain is placed only where at least this share of its area lies in the image."""
MARGIN = 8.0
"""Pixels kept around a grain, beyond its groove, for the shadow it casts."""


@dataclass(frozen=True)
class GrainTruth:
    """What is known exactly about one grain.

    Attributes:
        label: Value in the instance map, from 1, in painter's order.
        class_index: 1 lath, 2 cylinder.
        centre: ``(x, y)`` in pixels; the first pixel has its centre at (0, 0).
        radius: Equal-area radius of a cylinder, its groove included, in pixels; None for a lath.
        length: Length of a lath, its groove included, in pixels; None for a cylinder.
        width: Largest width of a lath, its groove included, in pixels; None for a cylinder.
        angle: Direction of the long axis against the x axis in radians, 0 to pi (image y points down).
        groove: Width of the boundary groove taken off all around, in pixels.
        analytic_area: Exact area without the groove in square pixels, also of parts hidden or cut off.
        visible_area: Pixels of the grain in the mask.
        complete: True when nothing hides the grain and it does not touch the image border.
    """

    label: int
    class_index: int
    centre: tuple[float, float]
    radius: float | None
    length: float | None
    width: float | None
    angle: float
    groove: float
    analytic_area: float
    visible_area: int
    complete: bool


@dataclass(frozen=True)
class Grain:
    """A grain to be placed: class, outline and the sizes it was drawn with."""

    class_index: int
    outline: Outline
    groove: float
    radius: float | None = None
    length: float | None = None
    width: float | None = None


@dataclass(frozen=True)
class Placed:
    """A grain in the image, with its signed distance (negative inside) in ``window``."""

    grain: Grain
    window: Window
    distance: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """All grains of one image.

    Attributes:
        instances: ``(size, size)`` uint16, 0 for background.
        placed: Grains in painter's order; the last one lies on top.
        truth: One record per grain, in the same order.
    """

    instances: npt.NDArray[np.uint16]
    placed: list[Placed]
    truth: list[GrainTruth]


def draw_classes(rng: np.random.Generator, scene: bool) -> list[int]:
    """Classes of the grains of one image, in painter's order.

    A crop holds two or three grains and misses a class as often as the crops of the ED-NAS paper do;
    a scene holds 20 to 60 grains, half of them laths on average.

    Example:
        >>> draw_classes(np.random.default_rng(0), scene=False)
        [1, 1, 2]
    """
    if scene:
        return [LATH if lath else CYLINDER for lath in rng.random(int(rng.integers(20, 61))) < 0.5]
    count = int(rng.integers(2, 4))
    lot = rng.random()
    if lot < P_NO_LATH:
        return [CYLINDER] * count
    if lot < P_NO_LATH + P_NO_CYLINDER:
        return [LATH] * count
    third = LATH if rng.random() < 0.5 else CYLINDER
    return [int(c) for c in rng.permutation([LATH, CYLINDER, third][:count])]


def draw_grain(rng: np.random.Generator, class_index: int, size: int, unit: float) -> Grain:
    """One grain with random size, form and place.

    Args:
        rng: Source of randomness.
        class_index: 1 lath, 2 cylinder.
        size: Side of the image in pixels.
        unit: Side of a crop that would hold two or three such grains; all lengths are shares of it.
    """
    groove = rng.uniform(1, 3) * min(1.0, unit / 128)
    centre = (float(rng.uniform(0.0, size - 1)), float(rng.uniform(0.0, size - 1)))
    angle = float(rng.uniform(0, np.pi))
    phase = tuple(rng.uniform(0, 2 * np.pi, 2))
    if class_index == CYLINDER:
        radius = float(rng.uniform(0.12, 0.22) * unit)
        amplitude = tuple(rng.uniform(0.0, 0.04, 2) * radius)
        wavenumber = tuple(2 * np.pi / (rng.uniform(0.9, 1.6, 2) * radius))
        outline = Outline(cylinder_shape(rng, radius, groove), centre, angle, Bend(amplitude, wavenumber, phase))
        return Grain(CYLINDER, outline, groove, radius=radius)
    length, width = float(rng.uniform(0.45, 0.80) * unit), float(rng.uniform(0.10, 0.20) * unit)
    groove = min(groove, 0.2 * width)
    amplitude = (0.0, float(rng.uniform(0.0, 0.02) * length))
    wavenumber = (0.0, float(2 * np.pi / (rng.uniform(0.9, 2.0) * length)))
    outline = Outline(lath_shape(rng, length, width, groove), centre, angle, Bend(amplitude, wavenumber, phase))
    return Grain(LATH, outline, groove, length=length, width=width)


def place_grains(rng: np.random.Generator, classes: Sequence[int], size: int, unit: float) -> Layout:
    """Place grains one over the other so that at most a quarter of each one is hidden by later ones.

    A crowded image is started again with slightly smaller grains, so the number of grains and their
    classes are always those asked for.
    """
    for restart in itertools.count():
        layout = _try_layout(rng, classes, size, unit * 0.97**restart)
        if layout is not None:
            return layout
    raise AssertionError("unreachable")


def _try_layout(rng: np.random.Generator, classes: Sequence[int], size: int, unit: float) -> Layout | None:
    instances = np.zeros((size, size), np.uint16)
    placed: list[Placed] = []
    full = np.zeros(len(classes) + 1, np.int64)
    visible = np.zeros(len(classes) + 1, np.int64)
    for label, class_index in enumerate(classes, start=1):
        for _ in range(40):
            grain = draw_grain(rng, class_index, size, unit)
            window = grain.outline.window(size, size, grain.groove + MARGIN)
            distance = grain.outline.shape.distance(*grain.outline.frame(window))
            inside = distance < 0
            pixels = int(np.count_nonzero(inside))
            if pixels < max(1.0, MIN_INSIDE * grain.outline.area):
                continue
            under = instances[window]
            hidden = np.bincount(under[distance < grain.groove], minlength=len(full))
            hidden[0] = 0
            if np.all(visible - hidden >= (1 - MAX_OCCLUSION) * full):
                break
        else:
            return None
        under[distance < grain.groove] = 0
        under[inside] = label
        visible -= hidden
        full[label] = visible[label] = pixels
        placed.append(Placed(grain, window, distance))
    return Layout(instances, placed, _truth(instances, placed, full, visible))


def _truth(
    instances: npt.NDArray[np.uint16],
    placed: Sequence[Placed],
    full: npt.NDArray[np.int64],
    visible: npt.NDArray[np.int64],
) -> list[GrainTruth]:
    border = np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])
    cut = set(np.unique(border).tolist())
    return [
        GrainTruth(
            label=label,
            class_index=item.grain.class_index,
            centre=item.grain.outline.centre,
            radius=item.grain.radius,
            length=item.grain.length,
            width=item.grain.width,
            angle=item.grain.outline.angle,
            groove=item.grain.groove,
            analytic_area=item.grain.outline.area,
            visible_area=int(visible[label]),
            complete=bool(visible[label] == full[label] and label not in cut),
        )
        for label, item in enumerate(placed, start=1)
    ]
