"""How a synthetic ceramic looks in the microscope before the picture is taken: grey of matrix, grooves and grains."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from autoseg.data.synthetic.grains import LATH, Layout, Placed
from autoseg.data.synthetic.imaging import Array, smooth_noise


@dataclass(frozen=True)
class Look:
    """Ranges from which the look of one image is drawn; grey values are 0..1.

    Attributes:
        contrast: Mean grey of the grains above the background.
        uneven: Factor on everything that varies inside a grain.
        groove: Depth of the dark boundary groove below the background.
        blur: Standard deviation of the point spread function in pixels.
        dose: Electrons per pixel at grey value 1.
        charging: Probability of charging streaks.
    """

    contrast: tuple[float, float]
    uneven: float
    groove: tuple[float, float]
    blur: tuple[float, float]
    dose: tuple[float, float]
    charging: float


def shade(rng: np.random.Generator, layout: Layout, look: Look, unit: float) -> Array:
    """Grey values of a layout, without blur and noise.

    Args:
        rng: Source of randomness.
        layout: The grains.
        look: Ranges to draw from.
        unit: Side of a crop that would hold two or three such grains, in pixels; sets the scale of texture.

    Returns:
        ``(size, size)`` float32, mostly within 0..1.
    """
    size = layout.instances.shape[0]
    shape = (size, size)
    contrast = rng.uniform(*look.contrast)
    background = rng.uniform(max(0.25, 0.35 - contrast), min(0.45, 0.60 - contrast))
    image = background + 0.025 * smooth_noise(rng, shape, unit / 8) + 0.025 * smooth_noise(rng, shape, unit / 50)
    pores = np.clip(smooth_noise(rng, shape, unit / 40) - 1.6, 0, 1)
    image -= 0.12 * pores
    fading = np.clip(0.75 + 0.4 * smooth_noise(rng, shape, unit / 10), 0.1, 1.2)
    groove = image - np.float32(rng.uniform(*look.groove)) * fading
    detector = rng.uniform(0, 2 * np.pi)
    for item in layout.placed:
        base = background + contrast * rng.uniform(0.7, 1.3)
        _paint(rng, image, groove, item, base, look.uneven, detector, unit)
    return np.asarray(image + 0.012 * smooth_noise(rng, shape, max(1.0, unit / 100)), np.float32)


def _paint(
    rng: np.random.Generator,
    image: Array,
    groove: Array,
    item: Placed,
    base: float,
    uneven: float,
    detector: float,
    unit: float,
) -> None:
    """Paint one grain and its groove over what is already there, in place."""
    window, distance = item.window, item.distance
    under = image[window]
    shadow = 1 - 0.12 * np.exp(-np.maximum(distance - item.grain.groove, 0) / np.float32(0.03 * unit))
    trench = np.clip(0.5 - (distance - item.grain.groove) / 1.5, 0, 1)
    cover = np.clip(0.5 - distance, 0, 1)
    under *= shadow
    under += trench * (groove[window] - under)
    under += cover * (_grain_grey(rng, item, base, uneven, detector, unit) - under)


def _grain_grey(
    rng: np.random.Generator, item: Placed, base: float, uneven: float, detector: float, unit: float
) -> Array:
    """Grey of one grain: base, ramp, slow and fine noise, bright edge, and growth stripes on laths."""
    outline, distance = item.grain.outline, item.distance
    u, v = outline.frame(item.window)
    direction = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(direction) * u + np.sin(direction) * v) / np.float32(2 * outline.shape.reach)
    grey = base + np.float32(rng.uniform(0, 0.15) * uneven) * ramp
    grey += np.float32(0.04 * uneven) * smooth_noise(rng, (distance.shape[0], distance.shape[1]), unit / 8)

    tau = rng.uniform(2, 4) * min(1.0, unit / 128)
    across = cv2.Sobel(distance, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(distance, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    facing = 0.6 + 0.4 * (np.float32(np.cos(detector)) * across + np.float32(np.sin(detector)) * down)
    grey += np.float32(rng.uniform(0.05, 0.20)) * facing * np.exp(np.minimum(distance, 0) / np.float32(tau))

    if item.grain.class_index == LATH:
        period = rng.uniform(0.03, 0.06) * unit
        wander = 0.6 * smooth_noise(rng, (distance.shape[0], distance.shape[1]), unit / 10)
        stripes = np.sin(2 * np.pi / np.float32(period) * v + np.float32(rng.uniform(0, 6.3)) + wander)
        grey += np.float32(rng.uniform(0.03, 0.06) * min(1.0, uneven)) * stripes
    return np.asarray(grey, np.float32)
