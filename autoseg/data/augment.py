"""Random changes to training patches: place, scale, flips and right-angle turns, brightness, contrast, noise.

Geometry works on arrays in the dtype of the file. Images are resized bilinearly, masks by nearest
neighbour only, so no class value is ever invented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from autoseg.data.base import Image, Mask
from autoseg.errors import Problem, raise_if

_RESIZABLE = (np.uint8, np.uint16, np.float32)


@dataclass(frozen=True)
class Augment:
    """What may happen to a training patch; every field is a plain number, so it can stand in an experiment file.

    Attributes:
        flips: Mirror left-right in half of the patches.
        rotations: Turn by 0, 90, 180 or 270 degrees; with ``flips`` this gives all eight orientations.
        scale: Smallest and largest magnification; drawn evenly on a log scale.
        brightness: Largest shift of the grey values, in standard deviations of the training images.
        contrast: Largest relative change of the contrast about the training mean (0.2 means 0.8 to 1.2).
        noise: Largest standard deviation of added Gaussian noise, in standard deviations of the training images.

    Raises:
        UserError: A value is out of range; all of them are reported.

    Example:
        >>> Augment(scale=(0.5, 2.0)).scale
        (0.5, 2.0)
        >>> Augment.none().flips
        False
    """

    flips: bool = True
    rotations: bool = True
    scale: tuple[float, float] = (0.8, 1.25)
    brightness: float = 0.2
    contrast: float = 0.2
    noise: float = 0.1

    def __post_init__(self) -> None:
        problems = []
        for name in ("flips", "rotations"):
            if not isinstance(getattr(self, name), bool):
                problems.append(Problem(f"{name} is {getattr(self, name)!r}", f"augment.{name}", "use true or false"))
        scale = self.scale
        if not (isinstance(scale, (tuple, list)) and len(scale) == 2 and all(map(_is_number, scale))):
            problems.append(
                Problem(f"scale is {scale!r}", "augment.scale", "give two numbers, for example [0.8, 1.25]")
            )
        elif not 0.1 <= scale[0] <= scale[1] <= 10:
            fix = "give the smaller one first, both from 0.1 to 10"
            problems.append(Problem(f"scale is {scale!r}", "augment.scale", fix))
        else:
            object.__setattr__(self, "scale", (float(scale[0]), float(scale[1])))
        for name, largest in (("brightness", math.inf), ("contrast", 1.0), ("noise", math.inf)):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= largest):
                fix = "use a number of 0 or more" if largest == math.inf else f"use a number from 0 to {largest:g}"
                problems.append(Problem(f"{name} is {value!r}", f"augment.{name}", fix))
        raise_if(problems)

    @classmethod
    def none(cls) -> Augment:
        """Change nothing: patches are plain random crops."""
        return cls(flips=False, rotations=False, scale=(1.0, 1.0), brightness=0.0, contrast=0.0, noise=0.0)

    def patch(
        self, image: Image, mask: Mask, size: int, rng: np.random.Generator, ignore_index: int = 255
    ) -> tuple[Image, Mask]:
        """Cut one random square patch and change its geometry.

        Args:
            image: ``(H, W)`` or ``(H, W, C)``.
            mask: ``(H, W)`` class indices.
            size: Side of the patch in pixels.
            rng: Source of all randomness; takes the same number of draws whatever the image.
            ignore_index: Mask value for pixels outside the image.

        Returns:
            ``(size, size[, C])`` in the dtype of ``image`` (types that cannot be resized exactly come as float32),
            and ``(size, size)`` in the dtype of ``mask``.

        Example:
            >>> grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
            >>> image, mask = Augment().patch(grey, grey % 3, 4, np.random.default_rng(0))
            >>> image.shape, mask.shape, set(mask.flat) <= {0, 1, 2, 255}
            ((4, 4), (4, 4), True)
        """
        scale_lot, row_lot, column_lot, flip_lot, turn_lot = rng.random(5)
        low, high = self.scale
        side = max(1, round(size / (low * (high / low) ** scale_lot)))
        top, left = _start(image.shape[0], side, row_lot), _start(image.shape[1], side, column_lot)
        image, mask = crop(image, mask, top, left, side, ignore_index)
        if side != size:
            image, mask = resize(image, mask, size)
        if self.flips and flip_lot < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        if self.rotations:
            turns = int(turn_lot * 4)
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
        return image, mask

    def intensity(self, batch: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Change brightness, contrast and noise of a normalised batch, each patch by its own amount.

        Args:
            batch: ``(N, C, H, W)`` float32, mean 0 and standard deviation 1 over the training images; changed in place.
            rng: Source of all randomness.
        """
        factor, shift, spread = rng.uniform(-1, 1, (3, len(batch), 1, 1, 1)).astype(np.float32)
        if self.contrast:
            batch *= torch.from_numpy(1 + self.contrast * factor)
        if self.brightness:
            batch += torch.from_numpy(self.brightness * shift)
        if self.noise:
            noise = torch.from_numpy(rng.standard_normal(tuple(batch.shape), dtype=np.float32))
            batch += noise * torch.from_numpy(self.noise * np.abs(spread))
        return batch


def crop(image: Image, mask: Mask, top: int, left: int, side: int, ignore_index: int = 255) -> tuple[Image, Mask]:
    """Cut a square; outside the image the picture is mirrored and the mask is ``ignore_index``.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        mask: ``(H, W)``.
        top: First row, may be negative.
        left: First column, may be negative.
        side: Rows and columns to cut.
        ignore_index: Mask value for pixels outside the image.

    Example:
        >>> grey = np.array([[1, 2], [3, 4]], np.uint8)
        >>> image, mask = crop(grey, grey, -1, 0, 3)
        >>> image.tolist(), mask.tolist()
        ([[3, 4, 3], [1, 2, 1], [3, 4, 3]], [[255, 255, 255], [1, 2, 255], [3, 4, 255]])
    """
    height, width = mask.shape
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        window = slice(top, top + side), slice(left, left + side)
        return image[window], mask[window]
    rows, columns = np.arange(top, top + side), np.arange(left, left + side)
    grid = np.ix_(_mirror(rows, height), _mirror(columns, width))
    padded = mask[grid]
    padded[(rows < 0) | (rows >= height)] = ignore_index
    padded[:, (columns < 0) | (columns >= width)] = ignore_index
    return image[grid], padded


def resize(image: Image, mask: Mask, size: int) -> tuple[Image, Mask]:
    """Resize to ``(size, size)``: the image bilinearly, the mask by nearest neighbour on the same pixel centres.

    Example:
        >>> image, mask = resize(np.array([[0, 100]] * 2, np.uint8), np.array([[0, 2]] * 2, np.uint8), 4)
        >>> image[0].tolist(), mask[0].tolist()
        ([0, 25, 75, 100], [0, 0, 2, 2])
    """
    if image.dtype not in _RESIZABLE:
        image = image.astype(np.float32)
    resized = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=cv2.INTER_LINEAR)
    nearest = cv2.resize(np.ascontiguousarray(mask), (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.reshape(size, size, *image.shape[2:]), np.asarray(nearest, mask.dtype)


def _start(length: int, side: int, lot: float) -> int:
    """First pixel of a crop: anywhere inside; a shorter image lies anywhere inside the crop."""
    low, high = sorted((0, length - side))
    return low + int(lot * (high - low + 1))


def _mirror(positions: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Reflect positions into 0..length-1 without repeating the border pixel."""
    if length == 1:
        return np.zeros_like(positions)
    return (length - 1) - np.abs((length - 1) - positions % (2 * length - 2))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
