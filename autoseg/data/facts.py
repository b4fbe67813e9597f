"""What is in a data set, in numbers: what a model that was trained on it has seen, and has not."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np

from autoseg.data.base import SPLITS, Image, Mask, SegmentationData


class Hash(Protocol):
    """What hashlib's constructors return."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Count these bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far."""


def add_to_hash(digest: Hash, split: str, name: str, image: Image, mask: Mask) -> None:
    """Count one image and its mask in the hash of a data set: names, shapes, types and values.

    Args:
        digest: Such as ``hashlib.sha256()``.
        split: Name of the split.
        name: Name of the image.
        image: ``(H, W)`` or ``(H, W, C)``.
        mask: ``(H, W)``.
    """
    digest.update(f"{split}/{name}/{image.shape}/{image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(mask).data)


def data_facts(data: SegmentationData) -> dict[str, Any]:
    """Counts, sizes, intensities and classes of every split, and the hash of all.

    Every image is read once.

    Args:
        data: A data set.

    Returns:
        Plain values: ``name``, ``hash`` (that of :func:`autoseg.environment.data_hash`), ``channels``, ``classes``,
        ``pixel_size``, ``pixel_unit``, ``licence``, ``notes`` and ``splits``; each split has ``images``, ``sizes``
        (least and greatest ``[height, width]``, each side by itself, pixels), ``dtype``, ``values`` (least and
        greatest intensity, in units of the file) and ``class_shares`` (of the counted pixels, 0..1; None for each
        class where no pixel counts).

    Example:
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> found = data_facts(synthetic_ceramic(count=10, size=32))
        >>> found["splits"]["train"]["images"], found["splits"]["test"]["sizes"], found["channels"]
        (7, [[32, 32], [32, 32]], 1)
    """
    info, digest = data.info, hashlib.sha256()
    splits = {name: _split_facts(name, data, digest) for name in SPLITS}
    return {
        "name": info.name,
        "hash": digest.hexdigest(),
        "channels": info.channels,
        "classes": list(info.classes),
        "pixel_size": info.pixel_size,
        "pixel_unit": info.pixel_unit,
        "licence": info.licence,
        "notes": list(data.notes),
        "splits": splits,
    }


def _split_facts(name: str, data: SegmentationData, digest: Hash) -> dict[str, Any]:
    split, classes = data.split(name), data.info.num_classes
    counts = np.zeros(256, np.int64)
    sizes, kinds, ends = [], [], []
    for index, item in enumerate(split.names):
        image, mask = split[index]
        add_to_hash(digest, name, item, image, mask)
        counts += np.bincount(np.asarray(mask, np.uint8).ravel(), minlength=256)
        sizes.append(mask.shape[:2])
        kinds.append(image.dtype.name)
        ends.append((float(image.min()), float(image.max())))
    counts[data.info.ignore_index] = 0
    total = int(counts[:classes].sum())
    heights, widths = zip(*sizes, strict=True) if sizes else ((0,), (0,))
    return {
        "images": len(split),
        "sizes": [[int(pick(heights)), int(pick(widths))] for pick in (min, max)],
        "dtype": ", ".join(dict.fromkeys(kinds)),
        "values": [min(low for low, _ in ends), max(high for _, high in ends)] if ends else None,
        "class_shares": [int(n) / total if total else None for n in counts[:classes]],
    }
