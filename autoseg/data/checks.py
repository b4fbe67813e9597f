"""Checking a whole data set before anything is trained: every file decoded once, every problem reported together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from autoseg.data.images import read_image, read_mask
from autoseg.data.pairing import Pair, list_some
from autoseg.errors import Problem, UserError

_SHOWN = 10


@dataclass(frozen=True)
class Facts:
    """What one decoded pair looks like.

    Attributes:
        size: Height and width of the image, in pixels.
        mask_size: Height and width of the mask.
        channels: Channels of the image (1 for grey).
        dtype: ``"uint8"``, ``"uint16"`` or ``"float32"``.
        values: Pixel count of each mask value that occurs.
    """

    size: tuple[int, int]
    mask_size: tuple[int, int]
    channels: int
    dtype: str
    values: dict[int, int]


@dataclass(frozen=True)
class Checked:
    """Outcome of :func:`check_pairs`.

    Attributes:
        facts: Facts of each pair that could be decoded, by name.
        channels: Channels that all images have (0 when nothing could be decoded).
        num_classes: Number of classes, given or found.
        binary: True when masks of 0 and 255 stand for classes 0 and 1.
        problems: Everything that stands in the way of training.
        notes: Sentences worth telling the user.
    """

    facts: dict[str, Facts]
    channels: int
    num_classes: int
    binary: bool
    problems: list[Problem]
    notes: list[str]


def inspect_pair(pair: Pair) -> Facts:
    """Decode one image and its mask.

    Raises:
        UserError: The image or the mask cannot be used; both are reported together.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pair = Pair("a", Path(folder) / "a.npy", Path(folder) / "mask.npy")
        ...     np.save(pair.image, np.zeros((2, 3), np.uint16))
        ...     np.save(pair.mask, np.array([[0, 0, 2], [0, 2, 255]], np.uint8))
        ...     facts = inspect_pair(pair)
        >>> facts.size, facts.channels, facts.dtype, facts.values
        ((2, 3), 1, 'uint16', {0: 3, 2: 2, 255: 1})
    """
    problems: list[Problem] = []
    arrays = []
    for read, path in ((read_image, pair.image), (read_mask, pair.mask)):
        try:
            arrays.append(read(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    image, mask = arrays
    counts = np.bincount(mask.ravel(), minlength=256)
    return Facts(
        size=(image.shape[0], image.shape[1]),
        mask_size=(mask.shape[0], mask.shape[1]),
        channels=1 if image.ndim == 2 else image.shape[2],
        dtype=image.dtype.name,
        values={int(value): int(counts[value]) for value in np.flatnonzero(counts)},
    )


def check_pairs(
    pairs: Sequence[Pair], *, classes: Sequence[str] | None, ignore_index: int, ignore_stated: bool = False
) -> Checked:
    """Decode all pairs in threads and find everything that would break or spoil training.

    Without ``classes`` the classes are the mask values 0 to the largest. A set whose masks hold only 0 and 255 is
    read as classes 0 and 1, unless ``classes`` has other than two names or ``ignore_stated`` says that 255 is ignored.

    Args:
        pairs: The files.
        classes: Class names, or None to find the number of classes in the masks.
        ignore_index: Mask value of pixels that do not count.
        ignore_stated: Whether the user wrote ``ignore_index`` down (in ``dataset.yaml``).

    Returns:
        Facts, classes, problems and notes; nothing is raised here, so that the caller can add its own problems.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pair = Pair("a", Path(folder) / "a.npy", Path(folder) / "mask.npy")
        ...     np.save(pair.image, np.zeros((1, 3), np.uint8))
        ...     np.save(pair.mask, np.array([[0, 1, 7]], np.uint8))
        ...     checked = check_pairs([pair], classes=["matrix", "crack"], ignore_index=255)
        >>> [problem.what for problem in checked.problems]
        ['mask values outside the 2 classes: 7 (1 px)']
    """
    facts: dict[str, Facts] = {}
    broken: list[Problem] = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for pair, outcome in zip(pairs, pool.map(_inspect_or_problems, pairs), strict=True):
            if isinstance(outcome, Facts):
                facts[pair.name] = outcome
            else:
                broken += outcome
    problems = _grouped(broken)
    known = [pair for pair in pairs if pair.name in facts]
    problems += _image_problems(known, facts)
    totals: Counter[int] = Counter()
    for fact in facts.values():
        totals.update(fact.values)

    notes: list[str] = []
    says_otherwise = (classes is not None and len(classes) != 2) or (ignore_stated and ignore_index == 255)
    binary = set(totals) - ({ignore_index} - {255}) == {0, 255} and ignore_index > 1 and not says_otherwise
    if binary:
        notes.append("The masks hold only 0 and 255; 255 is read as class 1, so no pixel is ignored by that value.")
    present = {0, 1} if binary else set(totals) - {ignore_index}
    num_classes = len(classes) if classes is not None else max(present, default=0) + 1
    if totals:
        problems += _class_problems(present, num_classes, classes, totals, ignore_index)
    if not binary:
        problems += _value_problems(known, facts, num_classes, ignore_index)
    ignored = 0 if binary and ignore_index == 255 else totals[ignore_index]
    if ignored:
        notes.append(
            f"{ignored / totals.total():.1%} of the mask pixels have the value {ignore_index} and do not count."
        )
    channels = Counter(fact.channels for fact in facts.values())
    common = channels.most_common(1)[0][0] if channels else 0
    return Checked(facts, common, num_classes, binary, problems, notes)


def absent_classes(
    splits: Mapping[str, Sequence[Pair]], checked: Checked, classes: Sequence[str], ignore_index: int
) -> list[str]:
    """Notes about classes of which a split has no pixel: they cannot be learned, or scored, there."""
    notes = []
    for split, pairs in splits.items():
        seen = {value for pair in pairs for value in checked.facts[pair.name].values}
        seen = {1 if value == 255 else value for value in seen} if checked.binary else seen - {ignore_index}
        absent = [name for index, name in enumerate(classes) if index not in seen]
        if absent:
            effect = "they cannot be learned" if split == "train" else "they cannot be scored there"
            notes.append(f"No {split} mask has a pixel of: {list_some(absent)}; {effect}.")
    return notes


def _inspect_or_problems(pair: Pair) -> Facts | list[Problem]:
    try:
        return inspect_pair(pair)
    except UserError as error:
        return list(error.problems)


def _grouped(problems: Sequence[Problem]) -> list[Problem]:
    """Put problems that differ only in the file together, so that 500 bad masks are one report."""
    files: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        files.setdefault((problem.what, problem.fix), []).append(problem.where)
    return _capped([Problem(what, list_some(where), fix) for (what, fix), where in files.items()], "unreadable files")


def _capped(problems: list[Problem], kind: str) -> list[Problem]:
    """The first ten problems of one kind, and one that counts the rest."""
    more = len(problems) - _SHOWN
    return problems if more <= 0 else [*problems[:_SHOWN], Problem(f"and {more} more {kind}", "", "as above")]


def _image_problems(pairs: Sequence[Pair], facts: Mapping[str, Facts]) -> list[Problem]:
    """Sizes that differ within a pair, channels or pixel types that differ between images."""
    sizes = []
    for pair in pairs:
        (height, width), (mask_height, mask_width) = facts[pair.name].size, facts[pair.name].mask_size
        if (height, width) != (mask_height, mask_width):
            what = f"image is {width}x{height} but its mask {pair.mask} is {mask_width}x{mask_height} (width x height)"
            fix = (
                "give both the same size (scale masks without interpolation); apply an EXIF rotation to the image file"
            )
            sizes.append(Problem(what, str(pair.image), fix))
    problems = _capped(sizes, "pairs of different size")
    colours = {1: "grey", 3: "RGB"}
    for kind, values, fix in (
        (
            "channels",
            [colours.get(facts[pair.name].channels, f"{facts[pair.name].channels} channels") for pair in pairs],
            "save all images as grey, or all as RGB",
        ),
        (
            "pixel types",
            [facts[pair.name].dtype for pair in pairs],
            "save all images with one pixel type and one grey scale",
        ),
    ):
        counts = Counter(values).most_common()
        if len(counts) > 1:
            rare = counts[-1][0]
            names = [str(pair.image) for pair, value in zip(pairs, values, strict=True) if value == rare]
            what = f"mixed {kind}: " + ", ".join(f"{count} {value}" for value, count in counts)
            problems.append(Problem(what, f"{rare}: {list_some(names)}", fix))
    return problems


def _class_problems(
    present: set[int], num_classes: int, classes: Sequence[str] | None, totals: Counter[int], ignore_index: int
) -> list[Problem]:
    """Masks that hold one class only, or values that are no consecutive class indices."""
    usable = sorted(value for value in present if value < num_classes)
    if len(usable) < 2:
        what = f"all masks together hold only class {usable[0]}" if usable else "the masks hold no class at all"
        fix = "give masks with at least two classes"
        if totals[255] and ignore_index == 255:
            fix = "255 means 'ignore' here: save class indices such as 1 instead"
            fix += "; for two classes saved as 0 and 255, name two classes and no ignore_index in dataset.yaml"
        return [Problem(what, "masks", fix)]
    if classes is None and num_classes > 2 * len(usable):
        values = list_some([str(value) for value in usable])
        fix = (
            f"save consecutive class indices 0 to {len(usable) - 1}, or list all {num_classes} classes under 'classes'"
        )
        return [Problem(f"mask values {values} leave most class indices unused", "masks", fix)]
    return []


def _value_problems(
    pairs: Sequence[Pair], facts: Mapping[str, Facts], num_classes: int, ignore_index: int
) -> list[Problem]:
    """Mask values that are neither a class nor the ignore value."""
    fix = f"use 0 to {num_classes - 1} for the classes and {ignore_index} for pixels to ignore, or name more classes"
    if num_classes in (seen := {value for fact in facts.values() for value in fact.values}) and 0 not in seen:
        fix = "the first class is 0, not 1: subtract 1 from all class indices"
    problems = []
    for pair in pairs:
        outside = {
            value: count
            for value, count in facts[pair.name].values.items()
            if value >= num_classes and value != ignore_index
        }
        if outside:
            shown = list_some([f"{value} ({count} px)" for value, count in outside.items()])
            problems.append(Problem(f"mask values outside the {num_classes} classes: {shown}", str(pair.mask), fix))
    return _capped(problems, "masks with values outside the classes")
