"""What a microscope or camera does to a picture: texture, blur, shot noise and charging.

All functions work on float32 arrays with grey values in 0..1 and draw from the generator given.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Gaussian-filtered white noise with standard deviation about one.

    Wide filters are computed on a coarse grid and enlarged, so the cost does not grow with ``sigma``.

    Args:
        rng: Source of the noise.
        shape: ``(height, width)``.
        sigma: Standard deviation of the filter in pixels.

    Returns:
        ``(height, width)`` float32 with mean about zero.

    Example:
        >>> texture = smooth_noise(np.random.default_rng(0), (64, 64), 8.0)
        >>> texture.shape, bool(abs(texture[1:] - texture[:-1]).max() < 0.5)
        ((64, 64), True)
    """
    step = max(1.0, sigma / 2)
    border = 4  # cells beyond the image, so that its edges look like its middle
    coarse = tuple(int(np.ceil(side / step)) + 2 * border for side in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma / step)[border:-border, border:-border]
    smooth = smooth * np.float32(2 * np.sqrt(np.pi) * sigma / step)  # the filter leaves 1 / (2 sqrt(pi) sigma)
    if step == 1.0:
        return np.asarray(smooth, np.float32)
    return np.asarray(cv2.resize(smooth, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def band_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Noise with neither slow nor very fast parts, standard deviation about one: the speckle of amorphous films.

    White noise filtered with ``sigma`` less the same noise filtered with ``2 sigma``.

    Args:
        rng: Source of the noise.
        shape: ``(height, width)``.
        sigma: Standard deviation of the finer filter in pixels.

    Returns:
        ``(height, width)`` float32 with mean about zero.

    Example:
        >>> speckle = band_noise(np.random.default_rng(0), (128, 128), 1.5)
        >>> round(float(speckle.std()), 1), abs(float(speckle.mean())) < 0.02
        (1.0, True)
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    band = cv2.GaussianBlur(noise, (0, 0), sigma) - cv2.GaussianBlur(noise, (0, 0), 2 * sigma)
    # Variance left over: (1/4 + 1/16 - 1/5) / (pi sigma^2), from the overlaps of the two Gaussians.
    return np.asarray(band * np.float32(sigma * np.sqrt(np.pi / 0.1125)), np.float32)


def brushed_noise(rng: np.random.Generator, shape: tuple[int, int], along: float, across: float, angle: float) -> Array:
    """Noise drawn out in one direction, standard deviation about one: brushed or ground metal.

    Args:
        rng: Source of the noise.
        shape: ``(height, width)``.
        along: Standard deviation of the filter along the brush in pixels.
        across: Same across the brush.
        angle: Direction of the brush against the x axis in radians.

    Returns:
        ``(height, width)`` float32 with mean about zero.

    Example:
        >>> brushed = brushed_noise(np.random.default_rng(0), (96, 96), 8, 1, 0.0)
        >>> bool(np.diff(brushed, axis=0).std() > 4 * np.diff(brushed, axis=1).std())  # along x it changes slowly
        True
    """
    height, width = shape
    side = int(np.ceil(np.hypot(height, width))) + 4
    noise = rng.standard_normal((side, side), dtype=np.float32)
    scale = np.float32(2 * np.sqrt(np.pi * along * across))  # the filter leaves the inverse
    drawn_out = scale * cv2.GaussianBlur(noise, (0, 0), sigmaX=along, sigmaY=across)
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), -float(np.degrees(angle)), 1.0)
    turn = turn - np.array([[0, 0, (side - width) / 2], [0, 0, (side - height) / 2]])
    return np.asarray(cv2.warpAffine(drawn_out, turn, (width, height), flags=cv2.INTER_CUBIC), np.float32)


def charging_streaks(rng: np.random.Generator, shape: tuple[int, int], amplitude: float) -> Array:
    """Grey values to add for charging: one to four bands of scan lines that jump and fade along the line.

    Example:
        >>> streaks = charging_streaks(np.random.default_rng(0), (32, 32), 0.1)
        >>> bool((streaks == 0).any() and abs(streaks).max() <= 0.1)
        True
    """
    height, width = shape
    streaks = np.zeros(shape, np.float32)
    x = np.arange(width, dtype=np.float32)
    for _ in range(int(rng.integers(1, 5))):
        row, lines = int(rng.integers(0, height)), int(rng.integers(1, 4))
        start, fade = rng.uniform(-0.3, 0.8) * width, rng.uniform(0.15, 0.6) * width
        sign = 1.0 if rng.random() < 0.7 else -1.0
        profile = np.where(x >= start, np.exp(-(x - start) / fade), 0.0)
        streaks[row : row + lines] = sign * amplitude * rng.uniform(0.4, 1.0) * profile
    return streaks


def expose(rng: np.random.Generator, image: Array, *, blur: float, dose: float | None, read_noise: float) -> Array:
    """Take the picture: blur by the beam, count electrons, add the noise of the amplifier.

    Args:
        rng: Source of the noise.
        image: ``(H, W)`` true grey values, 0..1.
        blur: Standard deviation of the point spread function in pixels.
        dose: Mean electrons per pixel at grey value 1; fewer means more noise, None means no shot noise.
        read_noise: Standard deviation of the added noise in grey values.

    Returns:
        ``(H, W)`` float32, clipped to 0..1.

    Example:
        >>> flat = np.full((64, 64), 0.36, np.float32)
        >>> taken = expose(np.random.default_rng(0), flat, blur=1, dose=100, read_noise=0.01)
        >>> round(float(taken.mean()), 2), round(float(taken.std()), 2)  # sqrt(0.36 / 100) = 0.06
        (0.36, 0.06)
    """
    sharp = np.clip(cv2.GaussianBlur(image, (0, 0), blur), 0, 1)
    counted = sharp if dose is None else rng.poisson(sharp * dose).astype(np.float32) / np.float32(dose)
    noisy = counted + np.float32(read_noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(noisy, 0, 1, out=noisy)


def quantise(image: Array) -> npt.NDArray[np.uint8]:
    """Grey values 0..1 as uint8 0..255, rounded.

    Example:
        >>> quantise(np.array([0.0, 0.5, 1.0], np.float32)).tolist()
        [0, 128, 255]
    """
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
