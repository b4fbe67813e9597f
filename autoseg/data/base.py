"""What a data set is: the contract that every ``autoseg.datasets`` plugin fulfils.

A data set plugin is a callable ``(**options) -> SegmentationData``. Each split is a sequence of
``(image, mask)`` pairs of numpy arrays in the dtype of the file: nothing is scaled or converted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.generic]
"""``(H, W)`` or ``(H, W, C)``; uint8, uint16 or float32, in the units of the file."""
Mask = npt.NDArray[np.uint8]
"""``(H, W)`` class indices; ``DatasetInfo.ignore_index`` marks pixels that never count."""

SPLITS = ("train", "val", "test")


@runtime_checkable
class Split(Protocol):
    """A sequence of ``(image, mask)`` with a unique ``names[i]`` (a file stem) for each item."""

    names: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image, Mask]: ...

    def __iter__(self) -> Iterator[tuple[Image, Mask]]: ...


@dataclass(frozen=True)
class DatasetInfo:
    """What is in the images.

    Attributes:
        name: Short name of the data set.
        channels: Image channels (1 for grey).
        classes: Class names; the index is the mask value.
        colors: One RGB triple (0..255) per class, for pictures.
        ignore_index: Mask value of pixels to leave out of training and scoring.
        pixel_size: Edge length of a pixel in ``pixel_unit``, or None when unknown.
        pixel_unit: ``"nm"``, ``"um"``, ... or None.
        licence: The terms under which the images may be used, in the words of their source; None when not stated.
    """

    name: str
    channels: int
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int = 255
    pixel_size: float | None = None
    pixel_unit: str | None = None
    licence: str | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)


@dataclass
class SegmentationData:
    """A whole data set: its description and its three splits.

    Attributes:
        notes: Sentences worth telling the user (how the split was made, what was converted).
    """

    info: DatasetInfo
    train: Split
    val: Split
    test: Split
    notes: list[str] = field(default_factory=list)

    def split(self, name: str) -> Split:
        """The split called ``name`` (``train``, ``val`` or ``test``)."""
        if name not in SPLITS:
            raise KeyError(name)
        split: Split = getattr(self, name)
        return split


DEFAULT_COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (148, 103, 189), (140, 86, 75), (227, 119, 194), (127, 127, 127),
)  # fmt: skip
"""Background black, then the colour-blind safe palette of Okabe and Ito, then five more."""


def default_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` RGB triples, repeating after twelve.

    Example:
        >>> default_colors(2)
        ((0, 0, 0), (230, 159, 0))
    """
    return tuple(DEFAULT_COLORS[i % len(DEFAULT_COLORS)] for i in range(count))
