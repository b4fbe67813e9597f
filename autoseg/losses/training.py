"""Options that a loss takes from the training split, where the user gave none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from autoseg import registry
from autoseg.data.base import SegmentationData, Split
from autoseg.errors import Problem, UserError


def class_fractions(split: Split, num_classes: int, ignore_index: int) -> list[float]:
    """The share of each class in the pixels of a split that count.

    Args:
        split: Images and masks; each mask is read once.
        num_classes: Number of classes.
        ignore_index: Mask value of pixels that do not count.

    Returns:
        One number per class; their sum is 1.

    Raises:
        UserError: No pixel counts.

    Example:
        >>> from autoseg.data.synthetic.ceramic import CeramicSplit
        >>> background, lath, cylinder = class_fractions(CeramicSplit(range(4), size=32), 3, 255)
        >>> round(background + lath + cylinder, 6)
        1.0
    """
    counts = np.zeros(256, np.int64)
    for _, mask in split:
        counts += np.bincount(mask.ravel(), minlength=256)
    counts[ignore_index] = 0
    total = int(counts[:num_classes].sum())
    if total == 0:
        what, fix = "no pixel of the training images is labelled", "check the training masks"
        raise UserError(Problem(what, "data", fix))
    return [int(count) / total for count in counts[:num_classes]]


def needs_training(loss: Any) -> bool:
    """Whether a loss plugin has the hook ``from_training``.

    Example:
        >>> needs_training(registry.load("loss", "ce"))
        False
    """
    return callable(getattr(loss, "from_training", None))


def completed(name: str, given: Mapping[str, Any], data: SegmentationData) -> tuple[dict[str, Any], list[str]]:
    """The options of a loss, those that the user left out taken from the training split.

    Args:
        name: A registered loss, or a sum of them.
        given: Options that the user gave; they are kept. An option that is None counts as left out.
        data: The data set; its training masks are read once where the loss has the hook.

    Returns:
        All options, and a sentence for what was added, or none.

    Raises:
        UserError: There is no such loss, or the options cannot be taken from these masks.

    Example:
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> completed("dice", {"smooth": 0.5}, synthetic_ceramic(count=6, size=32))
        ({'smooth': 0.5}, [])
    """
    loss = registry.load("loss", name)
    if not needs_training(loss):
        return dict(given), []
    fractions = class_fractions(data.train, data.info.num_classes, data.info.ignore_index)
    try:
        found = loss.from_training(fractions)
    except UserError:
        loss(**given)  # what was given may be enough; else what is missing is the news
        return dict(given), []
    options = _merged(found, given)
    before = dict(_leaves(given))
    added = [f"{key} {_shown(value)}" for key, value in _leaves(options) if before.get(key) is None is not value]
    shares = ", ".join(f"{label} {share:.1%}" for label, share in zip(data.info.classes, fractions, strict=True))
    return options, [f"loss {name}: {', '.join(added)}, from the training pixels ({shares})"] if added else []


def _merged(found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, completed by what was found, in sections too."""
    merged = dict(given)
    for key, value in found.items():
        own = given.get(key)
        if isinstance(value, Mapping) and (own is None or isinstance(own, Mapping)):
            merged[key] = _merged(value, own or {})
        elif own is None:
            merged[key] = value
    return merged


def _leaves(options: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Every option that is no section, under its dotted key."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
