"""What is in a data set, in numbers: what a model that was trained on it has seen, and has not."""

from __future__ import annotations

from typing import Any

import numpy as np

from autoseg.data.base import SPLITS, SegmentationData, Split


def data_facts(data: SegmentationData, hash_of_data: str) -> dict[str, Any]:
    """Counts, sizes, intensities and classes of every split.

    Every image is read once.

    Args:
        data: A data set.
        hash_of_data: From :func:`autoseg.environment.data_hash`.

    Returns:
        Plain values: ``name``, ``hash``, ``channels``, ``classes``, ``pixel_size``, ``pixel_unit``, ``licence``,
        ``notes`` and ``splits``; each split has ``images``, ``sizes`` (least and greatest ``[height, width]``, each
        side by itself, pixels), ``dtype``, ``values`` (least and greatest intensity, in units of the file) and
        ``class_shares`` (of the counted pixels, 0..1; None for each class where no pixel counts).

    Example:
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> found = data_facts(synthetic_ceramic(count=10, size=32), "5f1d")
        >>> found["splits"]["train"]["images"], found["splits"]["test"]["sizes"], found["channels"]
        (7, [[32, 32], [32, 32]], 1)
    """
    info = data.info
    return {
        "name": info.name,
        "hash": hash_of_data,
        "channels": info.channels,
        "classes": list(info.classes),
        "pixel_size": info.pixel_size,
        "pixel_unit": info.pixel_unit,
        "licence": info.licence,
        "notes": list(data.notes),
        "splits": {name: _split_facts(data.split(name), info.num_classes, info.ignore_index) for name in SPLITS},
    }


def _split_facts(split: Split, classes: int, ignore_index: int) -> dict[str, Any]:
    counts = np.zeros(256, np.int64)
    sizes, kinds, ends = [], [], []
    for index in range(len(split)):
        image, mask = split[index]
        counts += np.bincount(np.asarray(mask, np.uint8).ravel(), minlength=256)
        sizes.append(mask.shape[:2])
        kinds.append(image.dtype.name)
        ends.append((float(image.min()), float(image.max())))
    counts[ignore_index] = 0
    total = int(counts[:classes].sum())
    heights, widths = zip(*sizes, strict=True) if sizes else ((0,), (0,))
    return {
        "images": len(split),
        "sizes": [[int(pick(heights)), int(pick(widths))] for pick in (min, max)],
        "dtype": ", ".join(dict.fromkeys(kinds)),
        "values": [min(low for low, _ in ends), max(high for _, high in ends)] if ends else None,
        "class_shares": [int(n) / total if total else None for n in counts[:classes]],
    }
