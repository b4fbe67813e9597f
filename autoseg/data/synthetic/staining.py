"""How a synthetic tissue section looks in the microscope: stained membranes, cell plasm, and what lies in the cells.

Mitochondria, vesicles and dark patches are as dark as membranes but are part of the cell in the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.data.synthetic.imaging import Array, smooth_noise
from autoseg.data.synthetic.tissue import Organelle, Section, Tissue


@dataclass(frozen=True)
class Stain:
    """Ranges from which the look of one section is drawn; grey values are 0..1.

    Attributes:
        plasm: Grey of the cell plasm.
        membrane: Grey in the middle of a membrane.
        texture: Standard deviation of the fine grain of the plasm.
        faded: Share of the membranes with a gap in the stain; the mask has no gap there.
        organelles: Share of the cells that show a mitochondrion.
        patches: Share of the cells with a dark patch at their membrane.
        vesicles: Vesicles per 1000 square pixels of plasm.
        dose: Electrons per pixel at grey value 1.
    """

    plasm: tuple[float, float]
    membrane: tuple[float, float]
    texture: float
    faded: float
    organelles: float
    patches: float
    vesicles: float
    dose: tuple[float, float]


def stain(rng: np.random.Generator, tissue: Tissue, section: Section, look: Stain) -> Array:
    """Grey values of a section, without blur and noise.

    Args:
        rng: Source of randomness for everything that differs between the sections of a stack.
        tissue: The block, which knows what differs between its cells.
        section: The section cut from it.
        look: Ranges to draw from.

    Returns:
        ``(size, size)`` float32, mostly within 0..1.
    """
    shape = (section.depth.shape[0], section.depth.shape[1])
    lots = tissue.lots
    plasm, dark = rng.uniform(*look.plasm), rng.uniform(*look.membrane)
    grey = plasm + (0.08 * (lots.shade - 0.5)).astype(np.float32)[section.cells]
    grey += 0.025 * smooth_noise(rng, shape, 12) + np.float32(look.texture) * smooth_noise(rng, shape, 1.3)

    inside = section.depth - np.float32(tissue.width / 2)  # pixels into the cell
    for organelle in tissue.organelles:
        if lots.organelle[organelle.cell] < look.organelles:
            _paint_organelle(grey, section, organelle, inside, plasm)
    grey -= _vesicles(rng, inside, look.vesicles)
    grey -= _patches(rng, section, inside, lots.patch < look.patches, plasm - dark)

    stained = np.exp(np.float32(-np.log(2)) * np.abs(2 * section.depth / np.float32(tissue.width)) ** 3)
    a, b = section.cells, section.rivals
    lot = lots.fade[np.minimum(a, b), np.maximum(a, b)]
    x, y = ((section.points[a, axis] + section.points[b, axis]) / 2 for axis in (0, 1))
    away = (section.x - x) ** 2 + (section.y - y) ** 2
    stained *= 1 - np.where(lot < look.faded, 0.9 * np.exp(-away / (2 * 8.0**2)), 0)
    grey += stained * (dark + 0.03 * smooth_noise(rng, shape, 3) - grey)
    return np.asarray(grey * rng.uniform(0.9, 1.1), np.float32)


def _paint_organelle(grey: Array, section: Section, organelle: Organelle, inside: Array, plasm: float) -> None:
    """Paint a mitochondrion, cut where its cell ends: a dark rim around grey stripes."""
    x, y = section.points[organelle.cell] + organelle.offset
    dx, dy = section.x - np.float32(x), section.y - np.float32(y)
    long, short = organelle.half_axes
    rows, columns = np.nonzero((np.abs(dx) < long + 2) & (np.abs(dy) < long + 2))
    if len(rows) == 0:
        return
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    dx, dy = dx[window], dy[window]
    cos, sin = np.float32(np.cos(organelle.angle)), np.float32(np.sin(organelle.angle))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    inward = np.minimum((1 - np.hypot(u / long, v / short)) * short, inside[window] - 2)
    inward = np.where(section.cells[window] == organelle.cell, inward, -1)
    cover = np.clip(inward + 0.5, 0, 1)
    stripes = 0.09 * np.sin(np.float32(2 * np.pi / 5) * u + 0.5 * np.sin(v / 4))
    colour = np.float32(plasm - 0.22) + stripes - 0.16 * np.exp(-((inward / 1.5) ** 2))
    grey[window] += cover * (colour - grey[window])


def _vesicles(rng: np.random.Generator, inside: Array, density: float) -> Array:
    """Darkness of small rings (2 to 4 pixels in radius) scattered in the cells."""
    rows, columns = np.nonzero(inside > 4)
    darkness = np.zeros(inside.shape, np.float32)
    if len(rows) == 0:
        return darkness
    ring = np.hypot(*np.mgrid[-6:7, -6:7]).astype(np.float32)
    for radius in (2.0, 3.0, 4.0):
        chosen = rng.integers(0, len(rows), rng.poisson(len(rows) * density / 3000))
        dots = np.zeros(inside.shape, np.float32)
        dots[rows[chosen], columns[chosen]] = rng.uniform(0.10, 0.35, len(chosen))
        darkness += cv2.filter2D(dots, -1, np.exp(-(((ring - (radius - 1)) / 1.0) ** 2)))
    return np.where(inside > 0, darkness, 0)


def _patches(
    rng: np.random.Generator, section: Section, inside: Array, chosen: npt.NDArray[np.bool_], amount: float
) -> Array:
    """Darkness of soft patches that lean on a membrane from inside a cell, one for each chosen cell."""
    darkness = np.zeros(inside.shape, np.float32)
    leaning = (inside > 0) & (inside < 2) & chosen[section.cells]
    rows, columns = np.nonzero(leaning)
    cells = section.cells[rows, columns]
    height, width = inside.shape
    for cell in np.unique(cells):
        pick = int(rng.choice(np.flatnonzero(cells == cell)))
        radius = float(rng.uniform(4, 9))
        y, x = int(rows[pick]), int(columns[pick])
        reach = int(1.6 * radius) + 1
        window = slice(max(0, y - reach), min(height, y + reach)), slice(max(0, x - reach), min(width, x + reach))
        dy, dx = np.mgrid[window].astype(np.float32)
        blob = np.exp(-((((dx - x) ** 2 + (dy - y) ** 2) / np.float32(radius**2)) ** 2))
        own = (section.cells[window] == cell) & (inside[window] > 0)
        darkness[window] += np.where(own, np.float32(amount * rng.uniform(0.5, 0.9)) * blob, 0)
    return darkness
