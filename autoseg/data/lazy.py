"""A split whose items are read when they are asked for, and the scaling that public data sets offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import cv2
import numpy as np

from autoseg.data.base import Image, Mask
from autoseg.errors import Problem

_Item = TypeVar("_Item")


class LazySplit(Generic[_Item]):
    """A sequence of ``(image, mask)``, as :class:`autoseg.data.base.Split`.

    Args:
        names: One unique name for each item.
        items: What each item is read from, such as two paths.
        read: Reads one item.

    Example:
        >>> split = LazySplit(["a"], [7], lambda value: (np.full((1, 2), value), np.zeros((1, 2), np.uint8)))
        >>> split.names, len(split), split[0][0].tolist()
        (['a'], 1, [[7, 7]])
    """

    def __init__(
        self, names: Sequence[str], items: Sequence[_Item], read: Callable[[_Item], tuple[Image, Mask]]
    ) -> None:
        self.names: Sequence[str] = list(names)
        self._items, self._read = list(items), read

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        return self._read(self._items[index])

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return (self[index] for index in range(len(self)))


def shrink(image: Image, mask: Mask, size: int | None) -> tuple[Image, Mask]:
    """Scale an image and its mask down until the longer side is ``size``; never up.

    Pixels of the image are averages over areas, classes are those at the nearest pixel.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        mask: ``(H, W)``.
        size: Longer side in pixels, or None to leave both as they are.

    Example:
        >>> image, mask = shrink(np.arange(16, dtype=np.uint8).reshape(4, 4), np.eye(4, dtype=np.uint8), 2)
        >>> image.tolist(), mask.shape
        ([[3, 5], [11, 13]], (2, 2))
    """
    height, width = mask.shape
    if size is None or max(height, width) <= size:
        return image, mask
    scale = size / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    smaller: Image = cv2.resize(cast(Any, image), sides, interpolation=cv2.INTER_AREA)
    return smaller, cv2.resize(mask, sides, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False)


def size_problems(size: int | None) -> list[Problem]:
    """What is wrong with an option ``size``."""
    fix = "give the longer side in pixels, 16 or more"
    return [Problem(f"size is {size}", "size", fix)] if size is not None and size < 16 else []
