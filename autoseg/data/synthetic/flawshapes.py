"""Flaws of a synthetic surface: scratches, pits and stains, each with its mask, its softness and its truth."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.data.synthetic.imaging import Array, smooth_noise

KINDS = ("scratch", "pit", "stain")
SCRATCH_WIDTH = (1.5, 4.0)
PIT_RADIUS = (3.0, 14.0)
STAIN_RADIUS = (10.0, 24.0)
SCRATCH_LENGTH = (0.4, 1.0)
"""Shares of the side of the image."""


@dataclass(frozen=True)
class Flaw:
    """A flaw before it is painted.

    Attributes:
        kind: ``"scratch"``, ``"pit"`` or ``"stain"``.
        cover: ``(size, size)`` float32 share of its contrast that each pixel shows, 0..1; the flaw is where it is
            at least one half.
        length: Length of a scratch along its line, else the largest extent, in pixels.
        width: Width of a scratch, else the diameter of the disc of the same area, in pixels.
    """

    kind: str
    cover: Array
    length: float
    width: float

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """``(size, size)``: the pixels of the flaw."""
        return np.asarray(self.cover >= 0.5)


def draw_flaw(rng: np.random.Generator, kind: str, size: int) -> Flaw:
    """A flaw of a kind with random form and place; at least half of it lies in the image.

    Args:
        rng: Source of randomness.
        kind: ``"scratch"``, ``"pit"`` or ``"stain"``.
        size: Side of the image in pixels.

    Example:
        >>> pit = draw_flaw(np.random.default_rng(0), "pit", 160)
        >>> 3 <= pit.width / 2 <= 15, bool(pit.mask.sum() > 20)
        (True, True)
    """
    return {"scratch": _scratch, "pit": _pit, "stain": _stain}[kind](rng, size)


def _scratch(rng: np.random.Generator, size: int) -> Flaw:
    """A line whose direction wanders, as thick as a random width, its edge jagged by a pixel."""
    steps = int(rng.uniform(*SCRATCH_LENGTH) * size)
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.03, steps)) * (rng.random() < 0.8)
    path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    path += rng.uniform(0.15, 0.85, 2) * size - path.mean(axis=0)
    width = float(rng.uniform(*SCRATCH_WIDTH))
    fine = 16  # OpenCV draws at sixteenths of a pixel
    line = np.full((size, size), 255, np.uint8)
    cv2.polylines(line, [np.rint(path * fine).astype(np.int32)], False, 0, 1, cv2.LINE_8, 4)
    away = cv2.distanceTransform(line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    jagged = np.clip(0.5 * smooth_noise(rng, (size, size), 1.0), -1, 1)
    taper = 0.7 * smooth_noise(rng, (size, size), 12)
    cover = np.clip(0.5 + width / 2 - away + np.maximum(jagged + 0.3 * taper, 0.5 - width / 2), 0, 1)
    inside = np.all((path >= 0) & (path <= size - 1), axis=1)
    return Flaw("scratch", np.asarray(cover, np.float32), float(inside.sum()), width)


def _pit(rng: np.random.Generator, size: int) -> Flaw:
    """A blob whose radius is a sum of harmonics, its edge jagged and sharp."""
    radius = float(min(rng.uniform(*PIT_RADIUS), size / 6))
    away, direction = _polar(rng, size, radius)
    edge = radius * _harmonics(rng, direction, strength=0.25)
    jagged = np.clip(0.5 * smooth_noise(rng, (size, size), 1.0), -1, 1)
    cover = np.clip(0.5 + edge - away + jagged * np.float32(min(1.0, radius / 6)), 0, 1)
    return _blob("pit", cover)


def _stain(rng: np.random.Generator, size: int) -> Flaw:
    """A blob with a soft edge; its outline is where half of the stain is left."""
    radius = float(min(rng.uniform(*STAIN_RADIUS), size / 6))
    away, direction = _polar(rng, size, radius)
    stretch = rng.uniform(0.55, 1.0)
    turn = rng.uniform(0, np.pi)
    away = away * np.hypot(np.cos(direction - turn), np.sin(direction - turn) / np.float32(stretch))
    edge = radius * _harmonics(rng, direction, strength=0.2)
    softness = np.float32(rng.uniform(1.5, 3.5))
    cover = 1 / (1 + np.exp(np.clip((away - edge) / softness, -30, 30)))
    return _blob("stain", cover)


def _blob(kind: str, cover: Array) -> Flaw:
    mask = cover >= 0.5
    rows, columns = np.nonzero(mask)
    extent = float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)) if len(rows) else 0.0
    return Flaw(kind, np.asarray(cover, np.float32), extent, float(2 * np.sqrt(mask.sum() / np.pi)))


def _polar(rng: np.random.Generator, size: int, radius: float) -> tuple[Array, Array]:
    """Distance and direction of each pixel from a random centre at least a radius away from the border."""
    low = min(radius, (size - 1) / 2)
    x, y = rng.uniform(low, size - 1 - low, 2).astype(np.float32)
    along = np.arange(size, dtype=np.float32)
    dx, dy = along - x, (along - y)[:, None]
    return np.hypot(dx, dy), np.arctan2(dy, dx)


def _harmonics(rng: np.random.Generator, direction: Array, strength: float) -> Array:
    """Relative radius in each direction: one plus 3 to 9 harmonics that get weaker with their number."""
    result = np.ones_like(direction)
    for number in range(1, int(rng.integers(3, 10)) + 1):
        phase = rng.uniform(0, 2 * np.pi)
        weight = strength * rng.normal() / (number + 1)
        result += np.float32(weight) * np.cos(number * direction + np.float32(phase))
    return np.maximum(result, np.float32(0.3))
