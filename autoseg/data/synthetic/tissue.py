"""The geometry of a synthetic stack of tissue sections: cells, the membranes between them, and how both change.

Cells are the Voronoi cells of points that wander from section to section. A smooth warp makes their borders
curved. Distances are corrected for the warp, so that a membrane has the same width everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from autoseg.data.synthetic.imaging import Array, smooth_noise

Points = npt.NDArray[np.float64]

CELLS = (45, 100)
"""Cells in 512 x 512 pixels, from and to."""
WIDTH = (5.0, 9.0)
"""Width of a membrane in pixels."""
WALK = 2.0
"""Distance in pixels that a cell moves from one section to the next (root mean square)."""
SHIFT = 2.0
"""Largest error of alignment of a section along each axis in pixels."""
WARP = (10.0, 18.0)
"""Largest displacement by the warp in pixels."""
WARP_SCALE = 24.0
"""Standard deviation of the filter behind the warp in pixels."""
WRIGGLE, WRIGGLE_SCALE = 1.5, 8.0
"""Standard deviation of a finer warp in pixels, and of the filter behind it."""
MARGIN = 100
"""Pixels around the image that hold cells too."""
RIVALS = 4
ROUNDING = 1.5
"""Pixels by which the corners of cells are rounded."""


@dataclass(frozen=True)
class Organelle:
    """A mitochondrion of a cell: an ellipse that stays at its place in the cell through the stack.

    Attributes:
        cell: Number of the cell.
        offset: Centre, seen from the point of the cell, in pixels.
        half_axes: Long and short half axis in pixels.
        angle: Direction of the long axis in radians.
    """

    cell: int
    offset: tuple[float, float]
    half_axes: tuple[float, float]
    angle: float


@dataclass(frozen=True)
class Lots:
    """Numbers 0..1 drawn once for a stack: whatever is the same in all of its sections is decided by them.

    Attributes:
        shade: ``(cells,)``: how bright a cell is among the others.
        organelle: ``(cells,)``: a cell shows its organelle where this is below the share wanted.
        patch: ``(cells,)``: likewise for dark patches.
        fade: ``(cells, cells)``, used with the smaller number first: likewise for gaps in the stain of a membrane.
    """

    shade: Points
    organelle: Points
    patch: Points
    fade: Points


@dataclass(frozen=True)
class Section:
    """One section through the tissue; all arrays are ``(size, size)``.

    Attributes:
        cells: int64 number of the cell at each pixel, the same through the whole stack.
        rivals: int64 number of the nearest other cell.
        depth: Distance to the middle of the nearest membrane in pixels.
        middle: Same with sharp corners: zero exactly on the border of two cells.
        x: Column of each pixel before the warp, in the frame of ``points``.
        y: Row of each pixel before the warp.
        points: ``(cells, 2)`` points (x, y) of the cells in this section.
    """

    cells: npt.NDArray[np.int64]
    rivals: npt.NDArray[np.int64]
    depth: Array
    middle: Array
    x: Array
    y: Array
    points: Points


class Tissue:
    """A block of tissue that can be cut into sections; the same numbers always give the same block.

    Args:
        size: Side of the sections in pixels.
        seed: Seed of the data set.
        stack: Number of the block.

    Attributes:
        width: Width of all membranes in pixels.

    Example:
        >>> tissue = Tissue(64, seed=0, stack=0)
        >>> first, tenth = tissue.cut(0), tissue.cut(9)
        >>> first.depth.shape, bool(np.mean(first.cells == tenth.cells) > 0.5)
        ((64, 64), True)
    """

    def __init__(self, size: int, seed: int, stack: int) -> None:
        self._size, self._key = size, (seed, stack)
        rng = np.random.default_rng([seed, stack, 0])
        self.width = float(rng.uniform(*WIDTH))
        side = size + 2 * MARGIN
        count = round(float(rng.uniform(*CELLS)) * (side / 512) ** 2)
        self._points = _relax(_scatter(rng, count, side), side)
        warp = np.float32(rng.uniform(*WARP) / 2.5)  # the largest of a field is 2.5 standard deviations
        self._fields = [
            warp * smooth_noise(rng, (size, size), WARP_SCALE)
            + np.float32(WRIGGLE) * smooth_noise(rng, (size, size), WRIGGLE_SCALE)
            for _ in range(4)
        ]

    @cached_property
    def organelles(self) -> list[Organelle]:
        """One organelle for each cell; the look of a section decides which ones are shown."""
        rng = np.random.default_rng([*self._key, 1])
        neighbour = cKDTree(self._points).query(self._points, k=2)[0][:, 1]
        result = []
        for cell, reach in enumerate(neighbour / 2):
            long = float(reach * rng.uniform(0.35, 0.60))
            direction, away = rng.uniform(0, 2 * np.pi), float(reach * rng.uniform(0, 0.4))
            offset = (away * float(np.cos(direction)), away * float(np.sin(direction)))
            axes = (long, long * float(rng.uniform(0.45, 0.75)))
            result.append(Organelle(cell, offset, axes, float(rng.uniform(0, np.pi))))
        return result

    @cached_property
    def lots(self) -> Lots:
        """What the stain decides once for the whole stack."""
        rng = np.random.default_rng([*self._key, 4])
        cells = len(self._points)
        return Lots(rng.random(cells), rng.random(cells), rng.random(cells), rng.random((cells, cells)))

    def cut(self, section: int, *, warped: bool = True) -> Section:
        """Cut one section.

        Args:
            section: Number of the section in the stack, from 0.
            warped: False leaves out the warp and the error of alignment: all borders are straight.
        """
        rng = np.random.default_rng([*self._key, 2])
        steps = rng.normal(0, WALK / np.sqrt(2), (section, *self._points.shape))
        points = self._points + steps.sum(axis=0)
        ux, uy = self._displacement(section) if warped else np.zeros((2, self._size, self._size), np.float32)
        pixels = np.arange(self._size, dtype=np.float32)
        x, y = pixels + ux, pixels[:, None] + uy

        apart, order = cKDTree(points).query(np.stack([x, y], axis=-1), k=RIVALS + 1)
        ux_y, ux_x = np.gradient(ux)
        uy_y, uy_x = np.gradient(uy)
        own, own_squared = points.astype(np.float32)[order[..., 0]], apart[..., 0] ** 2
        distances = []
        for rank in range(1, RIVALS + 1):
            to_rival = points.astype(np.float32)[order[..., rank]] - own
            length = np.hypot(to_rival[..., 0], to_rival[..., 1])
            nx, ny = to_rival[..., 0] / length, to_rival[..., 1] / length
            stretch = np.hypot(nx * (1 + ux_x) + ny * uy_x, nx * ux_y + ny * (1 + uy_y))
            distances.append((apart[..., rank] ** 2 - own_squared) / (2 * length) / stretch)
        rival = np.array(distances, np.float32)
        middle = rival.min(axis=0)
        rounded = middle - ROUNDING * np.log(np.exp((middle - rival) / ROUNDING).sum(axis=0))
        nearest = 1 + rival.argmin(axis=0)
        rivals = np.take_along_axis(order, nearest[..., None], axis=-1)[..., 0]
        return Section(order[..., 0], rivals, rounded, middle, x, y, points)

    def _displacement(self, section: int) -> tuple[Array, Array]:
        """The warp of a section, which turns slowly from one pair of fields into another, and its alignment error."""
        rng = np.random.default_rng([*self._key, 3, section])
        shift = rng.uniform(-SHIFT, SHIFT, 2).astype(np.float32)
        turn = 0.08 * section
        a, b, c, d = self._fields
        old, new = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        return old * a + new * b + shift[0], old * c + new * d + shift[1]


def _scatter(rng: np.random.Generator, count: int, side: int) -> Points:
    """Points in a square around the image, denser in some parts than in others."""
    candidates = rng.uniform(0, side, (8 * count, 2))
    density = np.exp(1.1 * smooth_noise(rng, (side // 4 + 1, side // 4 + 1), 12))
    columns, rows = (candidates // 4).astype(int).T
    weight = density[rows, columns].astype(np.float64)
    return np.asarray(rng.choice(candidates, count, replace=False, p=weight / weight.sum()) - MARGIN)


def _relax(points: Points, side: int) -> Points:
    """Two rounds of Lloyd's method on a grid of 4 pixels: each point moves to the middle of its cell."""
    along = np.arange(-MARGIN, side - MARGIN, 4.0) + 2
    grid = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    for _ in range(2):
        owner = cKDTree(points).query(grid)[1]
        share = np.bincount(owner, minlength=len(points))
        middle = np.stack([np.bincount(owner, grid[:, axis], len(points)) for axis in (0, 1)], axis=1)
        points = np.where(share[:, None] > 0, middle / np.maximum(share, 1)[:, None], points)
    return points
