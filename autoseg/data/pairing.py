"""Finding image files and the mask file that belongs to each: same stem, same sub-folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.data.base import SPLITS
from autoseg.data.images import SUFFIXES
from autoseg.errors import Problem

FLAT = "all"
"""Key of the images in :attr:`Pairing.parts` when the folder is not divided into splits."""


@dataclass(frozen=True)
class Pair:
    """One image file with its mask file; ``name`` is unique in the data set."""

    name: str
    image: Path
    mask: Path


@dataclass
class Pairing:
    """What was found in a pair of folders.

    Attributes:
        parts: Pairs for each split folder found, or all of them under :data:`FLAT`; sorted by name.
        problems: Everything that stands in the way of training.
        notes: Sentences worth telling the user.
    """

    parts: dict[str, list[Pair]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_pairs(images: Path, masks: Path) -> Pairing:
    """Pair the files of two folders by stem; sub-folders ``train``, ``val`` and ``test`` are taken as splits.

    Args:
        images: Folder of images, or of split folders with images.
        masks: Folder of masks, divided in the same way.

    Returns:
        The pairs; the names are the stems, with the split in front when a stem occurs in two splits.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for file in ("images/a.png", "images/b.png", "masks/a.png"):
        ...         (Path(folder) / file).parent.mkdir(exist_ok=True)
        ...         (Path(folder) / file).touch()
        ...     pairing = find_pairs(Path(folder) / "images", Path(folder) / "masks")
        >>> [pair.name for pair in pairing.parts["all"]], [problem.what for problem in pairing.problems]
        (['a'], ['1 image without a mask: b.png'])
    """
    pairing = Pairing()
    splits = [split for split in SPLITS if (images / split).is_dir() or (masks / split).is_dir()]
    _note_left_out(images, splits, pairing)
    if not splits:
        pairing.parts[FLAT] = _pair_folder(images, masks, pairing)
        return pairing
    if "train" not in splits:
        fix = "add the folder train, or move all files out of the split folders to have them divided"
        pairing.problems.append(Problem(f"there is {' and '.join(splits)} but no train", str(images), fix))
    return pair_splits({split: (images / split, masks / split) for split in splits}, pairing)


def pair_splits(folders: Mapping[str, tuple[Path, Path]], pairing: Pairing | None = None) -> Pairing:
    """Pair the files of several splits, each with a folder of images and one of masks.

    Args:
        folders: The two folders of each split.
        pairing: Where pairs, problems and notes are added; a new one unless given.

    Returns:
        The pairs; the names are the stems, with the split in front when a stem occurs in two splits.

    Example:
        >>> pairing = pair_splits({"train": (Path("no/train"), Path("no/trainannot"))})
        >>> pairing.parts, [problem.where for problem in pairing.problems]
        ({'train': []}, ['no/train', 'no/trainannot'])
    """
    pairing = pairing or Pairing()
    for split, roots in folders.items():
        missing = [root for root in roots if not root.is_dir()]
        pairing.problems += [missing_folder(root) for root in missing]
        pairing.parts[split] = [] if missing else _pair_folder(*roots, pairing)
    stems = Counter(pair.name for pairs in pairing.parts.values() for pair in pairs)
    if any(count > 1 for count in stems.values()):
        for split, pairs in pairing.parts.items():
            pairing.parts[split] = [replace(pair, name=f"{split}_{pair.name}") for pair in pairs]
        pairing.notes.append("Some file names occur in two splits, so every name got its split in front.")
    return pairing


def missing_folder(path: Path) -> Problem:
    """The report about a folder that does not exist."""
    return Problem(
        "folder does not exist", str(path), "check the path; images and masks lie in folders of the same layout"
    )


def list_some(words: Sequence[str], limit: int = 10) -> str:
    """Join the first ``limit`` words and count the rest.

    Example:
        >>> list_some(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    more = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {more} more" if more > 0 else "")


def _note_left_out(images: Path, splits: list[str], pairing: Pairing) -> None:
    """Say which sub-folders, and which files beside split folders, are not used."""
    others = sorted(
        path.name for path in images.iterdir() if path.is_dir() and path.name not in SPLITS and path.name[0] != "."
    )
    if others:
        pairing.notes.append(
            f"Sub-folders of {images} that are not called train, val or test were left out: {list_some(others)}."
        )
    if splits and (loose := _files(images)):
        pairing.notes.append(f"{len(loose)} files directly in {images}, outside the split folders, were left out.")


def _files(folder: Path) -> list[Path]:
    """Readable image files directly in a folder, sorted by name; hidden files do not count."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file() and path.name[0] != "."
    )


def _pair_folder(images: Path, masks: Path, pairing: Pairing) -> list[Pair]:
    """Pair two folders without sub-folders; problems go to ``pairing``."""
    image_files, mask_files = _files(images), _files(masks)
    if not image_files:
        others = Counter(path.suffix.lower() for path in images.iterdir() if path.is_file() and path.suffix)
        found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        fix = f"put images there ({', '.join(SUFFIXES)})" + (
            f"; found only {found} files, convert those" if found else ""
        )
        if images.name in SPLITS:
            fix += f"; or remove the folder {images.name}"
        pairing.problems.append(Problem("no images", str(images), fix))
        return []
    by_stem: list[dict[str, Path]] = []
    for root, files in ((images, image_files), (masks, mask_files)):
        stems = Counter(path.stem for path in files)
        doubled = [path.name for path in files if stems[path.stem] > 1]
        if doubled:
            what = f"files share one name with different endings: {list_some(doubled)}"
            pairing.problems.append(Problem(what, str(root), "keep one file for each name"))
        by_stem.append({path.stem: path for path in files})
    image_of, mask_of = by_stem
    bare = [path.name for stem, path in image_of.items() if stem not in mask_of]
    orphans = [path.name for stem, path in mask_of.items() if stem not in image_of]
    if bare:
        fix = f"add the masks to {masks} under the same names, or remove the images"
        for name in orphans:  # such as a_mask.png for a.png
            likely = next((image for image in bare if Path(image).stem in Path(name).stem), None)
            if likely:
                new = f"{Path(likely).stem}{Path(name).suffix}"
                fix = f"a mask has the same name as its image: rename {name} to {new}, and so on"
                break
        what = f"{len(bare)} image{'s' * (len(bare) > 1)} without a mask: {list_some(bare)}"
        pairing.problems.append(Problem(what, str(images), fix))
    if orphans:
        what = f"{len(orphans)} mask{'s' * (len(orphans) > 1)} without an image: {list_some(orphans)}"
        pairing.problems.append(
            Problem(what, str(masks), f"add the images to {images} under the same names, or remove the masks")
        )
    return [Pair(stem, path, mask_of[stem]) for stem, path in image_of.items() if stem in mask_of]
