"""Outlines of grains with an exact area: ellipses and rounded polygons, placed, turned and bent.

A shape is described by its signed distance in its own frame (pixels, negative inside), so that the
mask, the groove around it and the brightness near its edge all come from one function. Bending is
done with shears, which keep the area, so the analytic area stays true for irregular grains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Window = tuple[slice, slice]


class Shape(Protocol):
    """A closed outline in its own frame, centred near the origin."""

    @property
    def area(self) -> float:
        """Enclosed area in square pixels."""

    @property
    def reach(self) -> float:
        """Largest distance of the outline from the origin in pixels."""

    def distance(self, u: Array, v: Array) -> Array:
        """Signed distance to the outline in pixels, negative inside."""


@dataclass(frozen=True)
class Ellipse:
    """An ellipse with half axes ``a`` (along u) and ``b`` (along v), in pixels.

    Example:
        >>> round(Ellipse(2.0, 1.0).area, 3)
        6.283
    """

    a: float
    b: float

    @property
    def area(self) -> float:
        """Enclosed area in square pixels."""
        return float(np.pi * self.a * self.b)

    @property
    def reach(self) -> float:
        """The longer half axis."""
        return max(self.a, self.b)

    def distance(self, u: Array, v: Array) -> Array:
        """Signed distance, exact to first order: zero on the outline, slope one there."""
        level = np.hypot(u / self.a, v / self.b)
        slope = np.hypot(u / self.a**2, v / self.b**2)
        tiny = 1e-6  # at the centre both vanish; their ratio tends to the half axis
        return (level - 1) * (level + tiny * min(self.a, self.b)) / (slope + tiny)


@dataclass(frozen=True)
class RoundedPolygon:
    """A convex polygon grown by a disc, which rounds its corners.

    Attributes:
        core: ``(n, 2)`` corners (u, v) in the order of rising angle.
        radius: Radius of the disc in pixels.

    Example:
        >>> square = RoundedPolygon(np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]), 1.0)
        >>> round(square.area - np.pi, 6)  # 2x2 core, four 2x1 sides, and one whole disc
        12.0
    """

    core: npt.NDArray[np.float64]
    radius: float

    @property
    def area(self) -> float:
        """Enclosed area in square pixels (Steiner: core + sides + disc)."""
        sides = np.linalg.norm(np.roll(self.core, -1, axis=0) - self.core, axis=1).sum()
        return float(polygon_area(self.core) + sides * self.radius + np.pi * self.radius**2)

    @property
    def reach(self) -> float:
        """Distance of the farthest corner, plus the radius."""
        return float(np.linalg.norm(self.core, axis=1).max() + self.radius)

    def distance(self, u: Array, v: Array) -> Array:
        """Signed distance in pixels; exact outside the core, a lower bound of the depth inside it."""
        corners = np.asarray(self.core, np.float32)
        inside = np.full(u.shape, -np.inf, np.float32)
        outside = np.full(u.shape, np.inf, np.float32)
        for (u0, v0), (u1, v1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            length = np.hypot(u1 - u0, v1 - v0)  # float32, like everything here
            eu, ev = (u1 - u0) / length, (v1 - v0) / length
            du, dv = u - u0, v - v0
            across = du * ev - dv * eu
            along = du * eu + dv * ev
            beyond = along - np.clip(along, 0, length)
            np.maximum(inside, across, out=inside)
            np.minimum(outside, across * across + beyond * beyond, out=outside)
        return np.where(inside > 0, np.sqrt(outside), inside) - np.float32(self.radius)


@dataclass(frozen=True)
class Bend:
    """Two sine shears, ``u += a0 sin(k0 v + p0)`` then ``v += a1 sin(k1 u + p1)``; the area is kept.

    Attributes:
        amplitude: ``(a0, a1)`` in pixels.
        wavenumber: ``(k0, k1)`` in radians per pixel.
        phase: ``(p0, p1)`` in radians.
    """

    amplitude: tuple[float, float]
    wavenumber: tuple[float, float]
    phase: tuple[float, float]

    def __call__(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Bent coordinates."""
        (a0, a1), (k0, k1), (p0, p1) = self.amplitude, self.wavenumber, self.phase
        u = u + np.float32(a0) * np.sin(np.float32(k0) * v + np.float32(p0))
        v = v + np.float32(a1) * np.sin(np.float32(k1) * u + np.float32(p1))
        return u, v


@dataclass(frozen=True)
class Outline:
    """A shape placed in an image: pixel (row y, column x) has its centre at the point (x, y).

    Attributes:
        shape: The shape in its own frame.
        centre: ``(x, y)`` in pixels.
        angle: Rotation of the u axis against the x axis in radians (image y points down).
        bend: Area-keeping irregularity.
    """

    shape: Shape
    centre: tuple[float, float]
    angle: float
    bend: Bend

    @property
    def area(self) -> float:
        """Analytic area in square pixels, also where the image border cuts the grain."""
        return self.shape.area

    def window(self, height: int, width: int, margin: float) -> Window:
        """The part of an image that the outline, grown by ``margin`` pixels, can touch."""
        reach = self.shape.reach + sum(self.bend.amplitude) + margin
        (x, y) = self.centre
        rows = slice(max(0, int(y - reach)), max(0, min(height, int(y + reach) + 2)))
        columns = slice(max(0, int(x - reach)), max(0, min(width, int(x + reach) + 2)))
        return rows, columns

    def frame(self, window: Window) -> tuple[Array, Array]:
        """Own coordinates ``(u, v)`` of the pixels of ``window``; u runs along the length."""
        rows, columns = window
        dx = np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(self.centre[0])
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(self.centre[1])
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return self.bend(cos * dx + sin * dy, cos * dy - sin * dx)


def polygon_area(corners: npt.NDArray[np.float64]) -> float:
    """Area of a polygon with corners in the order of rising angle (shoelace formula).

    Example:
        >>> polygon_area(np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]))
        6.0
    """
    u, v = corners.T
    return float(0.5 * (u * np.roll(v, -1) - np.roll(u, -1) * v).sum())


def inset(corners: npt.NDArray[np.float64], depth: float) -> npt.NDArray[np.float64]:
    """Move every side of a convex polygon inwards by ``depth`` (no side may vanish).

    Example:
        >>> inset(np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]]), 1.0).tolist()
        [[1.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 3.0]]
    """
    side = np.roll(corners, -1, axis=0) - corners
    normal = np.stack([-side[:, 1], side[:, 0]], axis=1) / np.linalg.norm(side, axis=1, keepdims=True)
    level = (normal * corners).sum(axis=1) + depth
    before, level_before = np.roll(normal, 1, axis=0), np.roll(level, 1)
    cross = before[:, 0] * normal[:, 1] - before[:, 1] * normal[:, 0]
    u = (level_before * normal[:, 1] - level * before[:, 1]) / cross
    v = (level * before[:, 0] - level_before * normal[:, 0]) / cross
    return np.stack([u, v], axis=1)


def cylinder_shape(rng: np.random.Generator, radius: float, groove: float) -> Shape:
    """Cross-section of a rod: an ellipse or an irregular rounded hexagon of area pi radius^2, less the groove.

    Args:
        rng: Source of the axis ratio (0.85 to 1) and of the corners.
        radius: Equal-area radius of the grain including its groove, in pixels.
        groove: Width taken off all around, in pixels.
    """
    ratio = float(np.sqrt(rng.uniform(0.85, 1.0)))
    if rng.random() < 0.5:
        return Ellipse(radius / ratio - groove, radius * ratio - groove)
    angles = np.arange(6) * np.pi / 3 + rng.uniform(-0.14, 0.14, 6)
    corners = np.stack([np.cos(angles) / ratio, np.sin(angles) * ratio], axis=1)
    corners *= radius * np.sqrt(np.pi / polygon_area(corners))
    rounding = rng.uniform(0.1, 0.25) * radius
    return RoundedPolygon(inset(corners, groove + rounding), rounding)


def lath_shape(rng: np.random.Generator, length: float, width: float, groove: float) -> Shape:
    """A lath: a rounded bar with slightly slanted ends, tapered in half of the cases, less the groove.

    Args:
        rng: Source of the taper (up to 15 %) and of the slant of the ends.
        length: Length including the groove, in pixels.
        width: Largest width including the groove, in pixels; the groove may take up to a fifth of it on each side.
        groove: Width taken off all around, in pixels.
    """
    taper = rng.uniform(0.0, 0.15) if rng.random() < 0.5 else 0.0
    slant = rng.uniform(-0.2, 0.2, 2) * width
    half, wide, narrow = length / 2, width / 2, width / 2 * (1 - taper)
    corners = np.array(
        [[-half - slant[0], -wide], [half - slant[1], -narrow], [half + slant[1], narrow], [-half + slant[0], wide]]
    )
    rounding = rng.uniform(0.1, 0.25) * (width - 2 * groove)
    return RoundedPolygon(inset(corners, groove + rounding), rounding)
