"""The data set ``folder``: a user's own images and masks, checked as a whole and read on access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from autoseg.data.base import SPLITS, DatasetInfo, Image, Mask, SegmentationData, default_colors
from autoseg.data.checks import absent_classes, check_pairs
from autoseg.data.description import Description, parse_pixel_size, read_description
from autoseg.data.images import read_image, read_mask
from autoseg.data.pairing import FLAT, Pair, find_pairs, list_some, missing_folder
from autoseg.data.splits import group_ids, make_splits
from autoseg.errors import Problem, UserError, raise_if

_DEFAULT_IGNORE = 255
_T = TypeVar("_T")


class FolderSplit:
    """Pairs of files, decoded when they are asked for.

    Args:
        pairs: The files of this split.
        binary: Give class 1 where the mask file holds 255.

    Attributes:
        names: One unique name for each item.
        pairs: The files, in the same order.
    """

    def __init__(self, pairs: Sequence[Pair], *, binary: bool = False) -> None:
        self.pairs = list(pairs)
        self.names: Sequence[str] = [pair.name for pair in self.pairs]
        self._binary = binary

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        pair = self.pairs[index]
        mask = read_mask(pair.mask)
        if self._binary:
            mask = np.where(mask == 255, np.uint8(1), mask)
        return read_image(pair.image), mask

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return (self[index] for index in range(len(self)))


def folder(
    *,
    path: Path | None = None,
    images: Path | None = None,
    masks: Path | None = None,
    classes: list[str] | None = None,
    groups: str | None = None,
    pixel_size: str | None = None,
    ignore_index: int = _DEFAULT_IGNORE,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> SegmentationData:
    """Open a folder of images and masks as a data set.

    Files are paired by stem. With sub-folders ``train``, ``val`` and ``test`` in both folders those are the splits,
    and a missing val or test is taken from train; otherwise all images are divided. A file ``dataset.yaml`` beside
    the image folder may name classes, colours, ignore value and pixel size; options go before it.

    Args:
        path: Folder that holds ``images/``, ``masks/`` and perhaps ``dataset.yaml``.
        images: Folder of images, when ``path`` is not given.
        masks: Folder of masks, when ``path`` is not given.
        classes: Class names; the index is the mask value. Without them (and without ``dataset.yaml``) the classes are
            the values found, and masks of only 0 and 255 are taken as classes 0 and 1.
        groups: Regular expression searched in each stem; its first bracket, or the whole match, names the group (such
            as the specimen). Images of one group never come into different splits.
        pixel_size: Edge length of a pixel with its unit, such as ``0.12nm``.
        ignore_index: Mask value of pixels that do not count, 0..255.
        val_fraction: Share of the images for val where the folders do not say.
        test_fraction: Share of the images for test where the folders do not say.
        seed: Chooses how images are divided where the folders do not say.

    Returns:
        The data set with lazy splits, and notes on all that was decided here.

    Raises:
        UserError: All problems of the options, the folders and the files together.

    Example:
        >>> import cv2, tempfile
        >>> tree = tempfile.TemporaryDirectory()
        >>> for name in "abcde":
        ...     for kind in ("images", "masks"):
        ...         (Path(tree.name) / kind).mkdir(exist_ok=True)
        ...         _ = cv2.imwrite(f"{tree.name}/{kind}/{name}.png", np.eye(8, dtype=np.uint8))
        >>> data = folder(path=Path(tree.name), classes=["matrix", "crack"])
        >>> len(data.train), len(data.val), len(data.test), data.info.classes
        (3, 1, 1, ('matrix', 'crack'))
        >>> tree.cleanup()
    """
    problems = _option_problems(classes, ignore_index)
    roots = _gather(problems, _roots, path, images, masks)
    size_unit = _gather(problems, parse_pixel_size, pixel_size) if pixel_size is not None else None
    if roots is None:
        raise UserError(problems)
    image_root, mask_root = roots
    described = image_root.parent / "dataset.yaml"
    description = (_gather(problems, read_description, described) if described.is_file() else None) or Description()
    size, unit = size_unit or (description.pixel_size, description.pixel_unit)
    names = tuple(classes) if classes is not None else description.classes
    ignore, ignore_stated = ignore_index, False
    if ignore_index == _DEFAULT_IGNORE and description.ignore_index is not None:
        ignore, ignore_stated = description.ignore_index, True

    pairing = find_pairs(image_root, mask_root)
    problems += pairing.problems
    notes, pairs = list(pairing.notes), [pair for part in pairing.parts.values() for pair in part]
    splits: dict[str, list[Pair]] | None = None
    if 0 < len(pairs) < len(SPLITS):
        fix = "at least 3 images with masks are needed, one for each of train, val and test"
        problems.append(Problem(f"only {len(pairs)} image(s) with a mask", str(image_root), fix))
    elif pairing.parts.get(FLAT) or pairing.parts.get("train"):
        splits = _gather(problems, _divide, pairing.parts, groups, val_fraction, test_fraction, seed, notes)
    checked = check_pairs(pairs, classes=names, ignore_index=ignore, ignore_stated=ignore_stated)
    problems += checked.problems
    if problems or splits is None:
        raise UserError(problems)

    names = names or tuple(f"class-{index}" for index in range(checked.num_classes))
    notes += [*checked.notes, *absent_classes(splits, checked, names, ignore)]
    colors = (
        description.colors
        if description.colors and len(description.colors) == len(names)
        else default_colors(len(names))
    )
    info = DatasetInfo(
        name=description.name or image_root.resolve().parent.name,
        channels=checked.channels,
        classes=names,
        colors=colors,
        ignore_index=ignore,
        pixel_size=size,
        pixel_unit=unit,
        licence=description.licence,
    )
    train, val, test = (FolderSplit(splits[split], binary=checked.binary) for split in SPLITS)
    return SegmentationData(info, train, val, test, notes)


def _gather(problems: list[Problem], call: Callable[..., _T], *arguments: Any) -> _T | None:
    """Call a function; when it finds problems, keep them and go on, so that all are reported together."""
    try:
        return call(*arguments)
    except UserError as error:
        problems += error.problems
        return None


def _option_problems(classes: Sequence[str] | None, ignore_index: int) -> list[Problem]:
    problems = []
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        problems.append(Problem(f"classes are {list(classes)}", "classes", "give at least two different names"))
    if not 0 <= ignore_index <= 255:
        problems.append(Problem(f"ignore_index is {ignore_index}", "ignore_index", "choose a mask value from 0 to 255"))
    return problems


def _roots(path: Path | None, images: Path | None, masks: Path | None) -> tuple[Path, Path]:
    """The folders of images and masks, which exist."""
    if (path is None) != (images is not None and masks is not None) or (path is not None and (images or masks)):
        fix = "give either path (with images/ and masks/ in it), or both images and masks"
        raise UserError(Problem("it is not clear where the images and masks are", "data", fix))
    if path is not None:
        root = Path(path).expanduser()
        if not root.is_dir():
            raise UserError(missing_folder(root))
        roots = (root / "images", root / "masks")
    else:
        roots = (Path(str(images)).expanduser(), Path(str(masks)).expanduser())
    raise_if([missing_folder(root) for root in roots if not root.is_dir()])
    return roots


def _divide(
    parts: dict[str, list[Pair]],
    groups: str | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    notes: list[str],
) -> dict[str, list[Pair]]:
    """Complete the splits: divide a flat folder, or take missing splits from train."""
    pairs = [pair for part in parts.values() for pair in part]
    group_of = {pair: pair.name for pair in pairs}
    problems: list[Problem] = []
    if groups is not None:
        ids = _gather(problems, group_ids, [pair.image.stem for pair in pairs], groups)
        group_of = dict(zip(pairs, ids, strict=True)) if ids is not None else group_of
        problems += _straddling(parts, group_of)
    source = FLAT if FLAT in parts else "train"
    missing = [split for split in ("val", "test") if split not in parts]
    shares = {"val": val_fraction, "test": test_fraction}
    for split in missing:
        if not shares[split] > 0:
            what = f"{split}_fraction is {shares[split]}, but {split} must hold at least one image"
            problems.append(Problem(what, f"{split}_fraction", "choose a share above 0, such as 0.2"))
    raise_if(problems)
    splits = {split: parts.get(split, []) for split in SPLITS}
    if not missing:
        return splits
    made = make_splits(
        [pair.name for pair in parts[source]],
        None if groups is None else [group_of[pair] for pair in parts[source]],
        shares["val"] if "val" in missing else 0.0,
        shares["test"] if "test" in missing else 0.0,
        seed,
    )
    for split in ("train", *missing):
        splits[split] = [parts[source][index] for index in made[split]]
    how = "by whole groups" if groups is not None else "image by image"
    counts = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    if source == FLAT:
        notes.append(f"The images were divided {how} with seed {seed}: {counts}.")
    else:
        notes.append(
            f"There is no folder {' and no folder '.join(missing)}: taken from train {how} with seed {seed}: {counts}."
        )
    return splits


def _straddling(parts: dict[str, list[Pair]], group_of: dict[Pair, str]) -> list[Problem]:
    """Groups that the user's own split folders tear apart."""
    places: dict[str, set[str]] = {}
    for split, pairs in parts.items():
        for pair in pairs:
            places.setdefault(group_of[pair], set()).add(split)
    torn = [f"{group} ({', '.join(sorted(splits))})" for group, splits in sorted(places.items()) if len(splits) > 1]
    fix = "move each group into one split folder, or put all files into flat folders to have them divided"
    return [Problem(f"groups lie in more than one split: {list_some(torn)}", "groups", fix)] if torn else []
