"""How a synthetic component surface looks before the picture is taken: the finish of the metal, and painted flaws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoseg.data.synthetic.flawshapes import Flaw
from autoseg.data.synthetic.imaging import Array, brushed_noise, smooth_noise


@dataclass(frozen=True)
class Finish:
    """Ranges from which the look of one image is drawn; grey values are 0..1.

    Attributes:
        contrast: Grey of a flaw above or below the surface.
        brushed: Standard deviation of the brushed texture.
        ramp: Largest difference of the illumination across the image.
        discontinuous: Probability that a stretch of a flaw has almost no contrast; the mask has no gap there.
        blur: Standard deviation of the point spread function in pixels.
        noise: Standard deviation of the noise of the camera.
    """

    contrast: tuple[float, float]
    brushed: tuple[float, float]
    ramp: float
    discontinuous: float
    blur: tuple[float, float]
    noise: tuple[float, float]


def draw_surface(rng: np.random.Generator, size: int, finish: Finish) -> Array:
    """Grey values of a surface without flaws: brushed, unevenly lit, some with rings of a turning tool.

    Args:
        rng: Source of randomness.
        size: Side of the image in pixels.
        finish: Ranges to draw from.

    Returns:
        ``(size, size)`` float32, mostly within 0.2..0.9.
    """
    shape = (size, size)
    along = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    direction, steep = rng.uniform(0, 2 * np.pi), rng.uniform(0, finish.ramp)
    ramp = np.float32(np.cos(direction)) * along + np.float32(np.sin(direction)) * along[:, None]
    grey = np.float32(rng.uniform(0.45, 0.65)) + np.float32(steep) * ramp
    texture = np.float32(rng.uniform(*finish.brushed))
    grey += texture * brushed_noise(rng, shape, 8.0, 1.0, float(rng.uniform(0, np.pi)))
    grey += 0.4 * texture * smooth_noise(rng, shape, size / 10)
    if rng.random() < 0.3:
        x, y = rng.uniform(-1.5, 2.5, 2) * size
        pixels = np.arange(size, dtype=np.float32)
        away = np.hypot(pixels - np.float32(x), (pixels - np.float32(y))[:, None])
        rings = np.sin(np.float32(2 * np.pi / rng.uniform(4, 9)) * away + smooth_noise(rng, shape, 20))
        grey += 0.6 * texture * rings
    return np.asarray(grey, np.float32)


def paint_flaw(rng: np.random.Generator, grey: Array, flaw: Flaw, contrast: float, discontinuous: bool) -> None:
    """Paint a flaw over a surface, in place.

    Args:
        rng: Source of randomness.
        grey: ``(size, size)`` grey values to change.
        flaw: What to paint.
        contrast: Grey of the flaw above (or, negative, below) the surface.
        discontinuous: Leave a tenth of the contrast along a random stretch of a third of the flaw.
    """
    rows, columns = np.nonzero(flaw.cover > 0.01)
    window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    cover = flaw.cover[window]
    uneven = 1 + 0.12 * smooth_noise(rng, (cover.shape[0], cover.shape[1]), 4)
    if discontinuous:
        height, width = cover.shape
        across, down = width / np.hypot(width, height), height / np.hypot(width, height)
        down *= 1 if np.corrcoef(rows, columns)[0, 1] >= 0 else -1  # along the diagonal that the flaw follows
        position = np.float32(across) * np.arange(width, dtype=np.float32)
        position = position + np.float32(down) * np.arange(height, dtype=np.float32)[:, None]
        position += 1.5 * smooth_noise(rng, (height, width), 4)
        low, high = np.quantile(position[cover >= 0.5], np.array([0.0, 0.35]) + rng.uniform(0.05, 0.6))
        inside = np.clip(np.minimum(position - low, high - position) / 4 + 0.5, 0, 1)
        uneven *= 1 - 0.9 * inside
    grey[window] += np.float32(contrast) * cover * uneven
