"""A split that counts how often its items are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from autoseg.data.base import Image, Mask


class Pairs:
    """A split over a list that counts how often each item is read."""

    def __init__(self, items: list[tuple[Image, Mask]]) -> None:
        self.items = items
        self.names: Sequence[str] = [f"item-{i}" for i in range(len(items))]
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        self.reads[index] += 1
        return self.items[index]

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return (self[i] for i in range(len(self)))


def flat(value: int, height: int = 16, width: int = 16) -> tuple[Image, Mask]:
    return np.full((height, width), value, np.uint8), np.zeros((height, width), np.uint8)
