"""What all synthetic worlds share: a split whose images are drawn when asked for, its division, and option checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from autoseg.data.synthetic.imaging import quantise
from autoseg.errors import Problem, did_you_mean


class DrawnImage(Protocol):
    """A synthetic image with its truth; each world adds an instance map and a table of what it drew."""

    @property
    def image(self) -> npt.NDArray[np.float32]:
        """``(H, W)`` grey values, 0..1."""

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """``(H, W)`` class indices."""


Drawn = TypeVar("Drawn", bound=DrawnImage)


class DrawnSplit(Generic[Drawn]):
    """A sequence of ``(image, mask)`` drawn on demand: ``(H, W)`` uint8 grey 0..255 and uint8 classes.

    Args:
        world: Name of the world; item names are the world and the number of the image.
        indices: Numbers of the images of this split in the data set.
        draw: Draws the image with a given number, always the same one.
        statistics: Pools the true statistics of images.
    """

    def __init__(
        self,
        world: str,
        indices: Sequence[int],
        draw: Callable[[int], Drawn],
        statistics: Callable[[Iterable[Drawn]], dict[str, Any]],
    ) -> None:
        self._indices, self._draw, self._statistics = indices, draw, statistics
        self.names: Sequence[str] = [f"{world}-{index:05d}" for index in indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        drawn = self.truth(index)
        return quantise(drawn.image), drawn.mask

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        return (self[i] for i in range(len(self)))

    def truth(self, index: int) -> Drawn:
        """Item ``index`` with everything known about it; ``image`` is before rounding to uint8."""
        return self._draw(self._indices[index])

    def statistics_truth(self) -> dict[str, Any]:
        """True statistics of the whole split."""
        return self._statistics(self.truth(i) for i in range(len(self)))


def divide(count: int) -> tuple[range, range, range]:
    """Numbers of the training, validation and test images, 7:1:2 and none of them empty.

    Example:
        >>> divide(10)
        (range(0, 7), range(7, 8), range(8, 10))
    """
    val, test = max(1, round(count * 0.1)), max(1, round(count * 0.2))
    train = count - val - test
    return range(train), range(train, train + val), range(train + val, count)


def pixel_fractions(masks: Iterable[npt.NDArray[np.uint8]], classes: Sequence[str]) -> dict[str, float]:
    """Share of the pixels of all masks in each class.

    Example:
        >>> pixel_fractions([np.array([[0, 1], [1, 1]], np.uint8)], ("rest", "crack"))
        {'rest': 0.25, 'crack': 0.75}
    """
    pixels = np.zeros(len(classes), np.int64)
    for mask in masks:
        pixels += np.bincount(mask.ravel(), minlength=len(classes))
    total = max(1, int(pixels.sum()))
    return {name: int(part) / total for name, part in zip(classes, pixels, strict=True)}


def option_problems(
    difficulties: Mapping[str, object],
    *,
    size: int,
    smallest: int,
    seed: int,
    difficulty: str,
    count: int = 3,
    fewest: int = 3,
    index: int = 0,
) -> list[Problem]:
    """Problems with the options that every world has.

    Args:
        difficulties: The known difficulties.
        size: Side of the square images in pixels.
        smallest: Smallest ``size`` of this world.
        seed: Seed of the data set.
        difficulty: Name of the difficulty.
        count: Number of images.
        fewest: Smallest ``count`` of this world.
        index: Number of an image in the data set.

    Example:
        >>> found = option_problems({"easy": 1}, size=16, smallest=32, seed=-1, difficulty="easy")
        >>> [problem.what for problem in found]
        ['size is 16', 'seed is -1']
    """
    problems = []
    if not is_whole(count) or count < fewest:
        fix = f"use a whole number of {fewest} or more"
        problems.append(Problem(f"count is {count!r}", "data.options.count", fix))
    if not is_whole(size) or size < smallest:
        fix = f"use a whole number of {smallest} pixels or more"
        problems.append(Problem(f"size is {size!r}", "data.options.size", fix))
    if not is_whole(seed) or seed < 0:
        problems.append(Problem(f"seed is {seed!r}", "data.options.seed", "use a whole number of 0 or more"))
    if not is_whole(index) or index < 0:
        problems.append(Problem(f"index is {index!r}", "the number of an image", "use a whole number of 0 or more"))
    if not isinstance(difficulty, str) or difficulty not in difficulties:
        fix = did_you_mean(difficulty, difficulties)
        problems.append(Problem(f"unknown difficulty {difficulty!r}", "data.options.difficulty", fix))
    return problems


def range_problem(key: str, value: object, low: float, high: float) -> list[Problem]:
    r"""The problem with a number that must lie in ``low..high``, or none.

    Example:
        >>> [str(problem) for problem in range_problem("touching", 1.5, 0, 1)]
        ['data.options.touching: touching is 1.5\n  -> use a number from 0 to 1']
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if number and low <= float(value) <= high:  # type: ignore[arg-type]
        return []
    return [Problem(f"{key} is {value!r}", f"data.options.{key}", f"use a number from {low:g} to {high:g}")]


def is_whole(value: object) -> bool:
    """Whether a value is a whole number (true and false are none)."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
