"""From a split to training batches: normalisation, decoded images kept in memory, random patches.

Images stay in the dtype of the file until the moment a batch is made. Every batch is a pure function of
``(seed, epoch, step)``: training that resumes at any step sees exactly what it would have seen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autoseg.data.augment import Augment
from autoseg.data.base import Image, Mask, Split
from autoseg.data.memory import available_memory
from autoseg.errors import Problem, UserError, raise_if

IGNORE = 255
"""Value in the targets of every batch that marks pixels to leave out of the loss."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of the training images, in the units of the file.

    Example:
        >>> half = Normalisation(mean=(100.0,), std=(50.0,))
        >>> half.apply(np.array([[100, 150]], np.uint8)).tolist()
        [[[0.0, 1.0]]]
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_split(cls, split: Split, channels: int) -> Normalisation:
        """Measure all pixels of a split, which should be the training split and no other.

        The images are read one after the other and merged exactly, so 16-bit and float images lose nothing.
        A channel that never varies gets a standard deviation of 1.

        Args:
            split: The training split.
            channels: Channels every image must have.

        Raises:
            UserError: The split is empty, or an image has another number of channels.
        """
        if not len(split):
            raise UserError(Problem("there is no training image to measure", "data", "give at least one"))
        count, mean, spread = 0, np.zeros(channels), np.zeros(channels)
        for index, (image, _) in enumerate(split):
            pixels = _with_channels(image, channels, split.names[index]).reshape(-1, channels)
            own_mean = pixels.mean(axis=0, dtype=np.float64)
            own_spread = pixels.var(axis=0, dtype=np.float64) * len(pixels)
            total = count + len(pixels)
            spread += own_spread + (own_mean - mean) ** 2 * (count * len(pixels) / total)
            mean += (own_mean - mean) * (len(pixels) / total)
            count = total
        std = np.sqrt(spread / count)
        return cls(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Normalisation:
        """Read what :meth:`to_json` gave.

        Example:
            >>> Normalisation.from_json({"mean": [1.0], "std": [2.0]})
            Normalisation(mean=(1.0,), std=(2.0,))
        """
        return cls(tuple(float(m) for m in data["mean"]), tuple(float(s) for s in data["std"]))

    def to_json(self) -> dict[str, list[float]]:
        """``{"mean": [...], "std": [...]}``, one number per channel."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def apply(self, image: Image) -> torch.Tensor:
        """``(H, W)`` or ``(H, W, C)`` in file units as a float32 tensor ``(C, H, W)``.

        Raises:
            UserError: The image has another number of channels.
        """
        pixels = _with_channels(image, len(self.mean), "image")
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        scaled = (pixels.astype(np.float32) - mean) / std
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))


class RamCache:
    """A split that keeps what it has read, in the dtype of the file, as long as memory allows.

    Each item is read once, when first asked for. When one more would be too much it is handed through
    instead and read again next time. Kept arrays are read-only.

    Args:
        split: The split to read from.
        max_bytes: Most bytes to keep; by default as much as leaves free half of the memory that is free now,
            however many caches (and others) share it.

    Attributes:
        held_bytes: Bytes kept so far.

    Example:
        >>> from autoseg.data.synthetic.ceramic import CeramicSplit
        >>> cache = RamCache(CeramicSplit(range(2), size=32))
        >>> cache[0][0] is cache[0][0], cache.held_bytes  # 32 * 32 grey values and as many classes
        (True, 2048)
    """

    def __init__(self, split: Split, max_bytes: int | None = None) -> None:
        self.names: Sequence[str] = split.names
        self.held_bytes = 0
        self._split = split
        self._max_bytes = max_bytes
        self._leave_free = available_memory() // 2
        self._items: dict[int, tuple[Image, Mask]] = {}
        self._full = False

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        index = range(len(self))[index]
        if index in self._items:
            return self._items[index]
        image, mask = self._split[index]
        size = image.nbytes + mask.nbytes
        if not self._fits(size):
            if not self._full:
                log.info("kept %d of %d images in memory; the others are read anew", len(self._items), len(self))
                self._full = True
            return image, mask
        item = _read_only(image), _read_only(mask)
        self._items[index] = item
        self.held_bytes += size
        return item

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return (self[i] for i in range(len(self)))

    def _fits(self, size: int) -> bool:
        if self._max_bytes is None:
            return available_memory() - size >= self._leave_free
        return self.held_bytes + size <= self._max_bytes

    def __getattr__(self, name: str) -> Any:
        """Whatever else the split offers, for example ``truth``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._split, name)


class PatchLoader:
    """Training batches of random square patches: an iterable of ``(x, y)``.

    ``x`` is ``(N, C, patch, patch)`` float32, normalised; ``y`` is ``(N, patch, patch)`` int64 with 255 where nothing
    counts. Images are drawn in random order, each in proportion to its area; the order runs on from epoch to epoch, so
    this holds for any number of steps. All batches are full. Construction reads every item once for its size: give a
    :class:`RamCache` when reading is slow.

    Args:
        split: The training split.
        channels: Channels every image must have.
        patch: Side of the patches in pixels.
        batch_size: Patches in a batch.
        normalisation: From the training split.
        augment: Changes to make; :meth:`Augment.none` for plain crops.
        seed: Seed of everything random.
        ignore_index: Value in the masks of the split that marks pixels to leave out.
        steps: Batches in an epoch; by default enough to cover the area of the split once.

    Attributes:
        epoch: The epoch that the next iteration gives; see :meth:`set_epoch`.
        pass_share: Passes over the split that an epoch makes: 1 unless ``steps`` is given.

    Raises:
        UserError: An argument or an item of the split does not fit; all problems are reported.

    Example:
        >>> from autoseg.data.synthetic.ceramic import CeramicSplit
        >>> loader = PatchLoader(CeramicSplit(range(4), size=64), channels=1, patch=32, batch_size=2,
        ...     normalisation=Normalisation((90.0,), (20.0,)), augment=Augment(), seed=0)
        >>> len(loader), [tuple(t.shape) for t in next(iter(loader))]
        (8, [(2, 1, 32, 32), (2, 32, 32)])
    """

    def __init__(
        self,
        split: Split,
        *,
        channels: int,
        patch: int,
        batch_size: int,
        normalisation: Normalisation,
        augment: Augment,
        seed: int,
        ignore_index: int = IGNORE,
        steps: int | None = None,
    ) -> None:
        problems = [
            Problem(f"{name} is {value}", f"train.{name}", f"use {low} or more")
            for name, value, low in (("patch", patch, 1), ("batch_size", batch_size, 1), ("seed", seed, 0))
            if value < low
        ]
        if steps is not None and steps < 1:
            problems.append(Problem(f"steps is {steps}", "train.steps", "use 1 or more"))
        if not 0 <= ignore_index <= 255:
            problems.append(Problem(f"ignore_index is {ignore_index}", "data.ignore_index", "use 0 to 255"))
        if len(normalisation.mean) != channels:
            have = len(normalisation.mean)
            problems.append(Problem(f"{channels} channels but the normalisation has {have}", "", "measure it again"))
        if not len(split):
            problems.append(Problem("there is no training image", "data", "give at least one"))
        raise_if(problems)
        self._split, self._channels, self._patch, self._batch_size = split, channels, patch, batch_size
        self._normalisation, self._augment = normalisation, augment
        self._seed, self._ignore_index = seed, ignore_index
        self._tickets = self._draw_tickets()
        self._steps = steps or math.ceil(len(self._tickets) / batch_size)
        self.pass_share = steps * batch_size / len(self._tickets) if steps else 1.0
        self._pass: tuple[int, npt.NDArray[np.int64]] = (-1, self._tickets)
        self.epoch = 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        epoch = self.epoch  # read at the first next(), not when the iterator is made
        for step in range(self._steps):
            yield self.batch(epoch, step)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterations started from now on give."""
        self.epoch = epoch

    def batch(self, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch ``step`` of ``epoch``; the same arguments always give the same bits."""
        rng = np.random.default_rng([self._seed, 1, epoch, step])
        first = (epoch * self._steps + step) * self._batch_size
        images, masks = [], []
        for ticket in range(first, first + self._batch_size):
            image, mask = self._split[self._item(ticket)]
            image, mask = self._augment.patch(image, mask, self._patch, rng, self._ignore_index)
            images.append(self._normalisation.apply(image))
            masks.append(mask)
        x = self._augment.intensity(torch.stack(images), rng)
        y = torch.from_numpy(np.stack(masks).astype(np.int64))
        if self._ignore_index != IGNORE:
            y[y == self._ignore_index] = IGNORE
        return x, y

    def _draw_tickets(self) -> npt.NDArray[np.int64]:
        """Item numbers, each repeated in proportion to its area in patches."""
        problems, repeats = [], []
        for index, (image, mask) in enumerate(self._split):
            name = self._split.names[index]
            if image.shape[:2] != mask.shape:
                what = f"the image is {image.shape[:2]} but its mask is {mask.shape} (rows, columns)"
                problems.append(Problem(what, name, "give both the same size"))
            try:
                _with_channels(image, self._channels, name)
            except UserError as error:
                problems += error.problems
            repeats.append(max(1, round(image.shape[0] * image.shape[1] / self._patch**2)))
        raise_if(problems)
        return np.repeat(np.arange(len(repeats)), repeats)

    def _item(self, ticket: int) -> int:
        """Item number of a ticket: the tickets are shuffled anew for every pass through all of them."""
        number, place = divmod(ticket, len(self._tickets))
        if self._pass[0] != number:
            self._pass = number, np.random.default_rng([self._seed, 0, number]).permutation(self._tickets)
        return int(self._pass[1][place])


def _with_channels(image: Image, channels: int, name: str) -> Image:
    """``(H, W, channels)`` view of an image, or a complaint."""
    view = image[..., None] if image.ndim == 2 else image
    if view.ndim != 3 or view.shape[2] != channels:
        what = f"the image has shape {image.shape}, but {channels} channel(s) are expected"
        raise UserError(Problem(what, name, "convert the images to the same number of channels"))
    return view


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    kept = np.ascontiguousarray(array).view()
    kept.flags.writeable = False
    return kept
