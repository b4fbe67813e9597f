"""Downloading a public data set: checked, and either all of it is there afterwards or nothing.

Everything happens in a hidden folder beside the target, which becomes the target by one rename. Archives with a
published checksum must have it. One that a server makes on demand has none: the images in it are counted and read,
its SHA-256 is written down, and the next download is compared with that.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pooch
import requests

from autoseg import registry
from autoseg.data.base import SPLITS
from autoseg.data.sources import Archive, Source, data_home, is_there, source_named
from autoseg.errors import Problem, UserError
from autoseg.progress import Progress
from autoseg.runfolder import write_json

_CHUNK = 1 << 18  # bytes written at a time
_MEGABYTE = 1e6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """Where a data set is.

    Attributes:
        folder: Its folder.
        new: False when it was there already, and nothing was downloaded.
    """

    folder: Path
    new: bool


def target_of(name: str, to: Path | None = None) -> Path:
    """The folder that a data set is fetched into.

    Args:
        name: Name of the data set.
        to: The folder the user wants; by default one in :func:`~autoseg.data.sources.data_home`.

    Raises:
        UserError: Nothing can be downloaded for this name, or the folder holds something else or cannot be used.

    Example:
        >>> target_of("pets", Path("pictures")).name
        'pictures'
    """
    source_named(name)
    target = (data_home() / name if to is None else to).expanduser()
    with _writing(target):
        target = target.resolve()
        if not target.exists() or is_there(name, target):
            return target
        if not target.is_dir() or any(target.iterdir()):
            what = f"there is something else than the data set '{name}'"
            raise UserError(Problem(what, str(target), "choose another folder with --to, or remove it"))
        if os.path.ismount(target):  # the folder that was filled beside it could not take its place
            what = "this is the top folder of a disk, which cannot be replaced"
            raise UserError(Problem(what, str(target), f"choose a folder in it: --to {target / name}"))
    return target


def fetch(name: str, to: Path | None = None, progress: Progress | None = None) -> Fetched:
    """Download a data set, unless it is there.

    Args:
        name: Name of the data set.
        to: Folder of the data set; by default where the data set plugin looks for it.
        progress: Receives megabytes.

    Returns:
        The folder, which is complete.

    Raises:
        UserError: The server cannot be reached, the archive is not what it should be, or the folder holds something
            else or cannot be written to. Nothing is left behind then.
    """
    source, target, progress = source_named(name), target_of(name, to), progress or Progress()
    if is_there(name, target):
        return Fetched(target, new=False)
    sums = data_home() / "checksums.json"
    with _writing(sums):
        known = _known_sums(sums)
        if any(archive.checksum is None for archive in source.archives):
            sums.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=sums.parent).close()  # before the download rather than after it
    with _writing(target), _staging(target) as staging:
        made: dict[str, str] = {}
        for archive in source.archives:
            file = _download(archive, known.get(archive.url), staging, _by_hand(source, target), sums, progress)
            made[archive.url] = f"sha256:{pooch.file_hash(str(file))}"
            progress.note(f"unpacking {file.name}")
            _unpack(file, archive, staging)
        progress.note("looking at every image")
        _verify(name, source, staging / "data")
        on_demand = {archive.url: made[archive.url] for archive in source.archives if archive.checksum is None}
        write_json(staging / "data" / "fetched.json", {"data": name, "licence": source.licence, "archives": made})
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / "data", target)
    if on_demand:
        with _writing(sums):
            write_json(sums, {**known, **on_demand})
    return Fetched(target, new=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which place cannot be used, and why, when the system refuses something."""
    try:
        yield
    except OSError as error:
        what = f"cannot write to {path}: {error.strerror or error}"
        room = "make room there; or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        fix = f"{room}choose another folder with --to, or by the variable AUTOSEG_DATA"
        raise UserError(Problem(what, fix=fix)) from error


def _known_sums(path: Path) -> dict[str, str]:
    """The checksums of earlier downloads, by address."""
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        known = None
    if isinstance(known, dict) and all(isinstance(value, str) for value in known.values()):
        return known
    fix = "remove the file; what is downloaded next is then not compared with earlier downloads"
    raise UserError(Problem("these are no checksums of downloads", str(path), fix))


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """An empty hidden folder beside the target, ours alone and gone in the end; one of a killed process is emptied."""
    staging = target.parent / f".{target.name}.fetching"
    staging.mkdir(parents=True, exist_ok=True)
    handle = os.open(staging, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            what = "another process is downloading to here"
            raise UserError(Problem(what, str(target), "wait for it, or choose another folder with --to")) from error
        for entry in staging.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        try:
            (staging / "data").mkdir()
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finally:
        os.close(handle)


def _download(
    archive: Archive, recorded: str | None, staging: Path, by_hand: str, sums: Path, progress: Progress
) -> Path:
    """One archive, with the right checksum where one is known."""
    name = archive.url.rpartition("/")[2]
    bar = _Bar(progress, name)
    downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        return Path(
            pooch.retrieve(archive.url, archive.checksum or recorded, fname=name, path=staging, downloader=downloader)
        )
    except requests.exceptions.RequestException as error:
        log.info("%s: %s", archive.url, error)
        bar.close("failed")
        raise UserError(Problem(_reason(error), archive.url, by_hand)) from error
    except ValueError as error:  # pooch: the checksum is another one
        if archive.checksum is not None:
            fix = f"try again later: what the server sent is damaged or was replaced. {by_hand}"
            what = f"the download does not have the published checksum {archive.checksum}"
        else:
            fix = f"if you trust the server, remove the line of this address from {sums} and fetch it again"
            what = f"the download is not the one of last time, which had {recorded}"
        raise UserError(Problem(what, archive.url, fix)) from error


def _reason(error: requests.exceptions.RequestException) -> str:
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return "the server cannot be reached"


def _by_hand(source: Source, target: Path) -> str:
    """What to do without a network."""
    urls = " and ".join(archive.url for archive in source.archives)
    what = ", ".join(source.contents)
    return f"check the network; or download {urls} elsewhere, and unpack so that {target} holds {what}"


def _unpack(file: Path, archive: Archive, staging: Path) -> None:
    """Put the wanted folder of an archive into ``staging/data``."""
    place = staging / "unpacked"
    try:
        if zipfile.is_zipfile(file):
            shutil.unpack_archive(file, place)
        else:
            shutil.unpack_archive(file, place, "gztar", filter="data")
    except (shutil.ReadError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        fix = "look at the address in a browser: it may be a page in place of the archive"
        raise UserError(Problem("the download is no archive, or damaged", archive.url, fix)) from error
    wanted = place / archive.folder
    if not wanted.is_dir():
        raise UserError(Problem(f"there is no folder {archive.folder} in the archive", archive.url, "report this"))
    goal = staging / "data" / archive.into
    goal.mkdir(parents=True, exist_ok=True)
    for entry in wanted.iterdir():
        os.replace(entry, goal / entry.name)
    shutil.rmtree(place)
    file.unlink()


def _verify(name: str, source: Source, folder: Path) -> None:
    """Read all images, count them, compare their size.

    Raises:
        UserError: Something is missing or wrong in the archive.
    """
    url = source.archives[0].url
    try:
        data = registry.load("dataset", name)(path=folder)
    except UserError as error:
        raise UserError([replace(p, where=url, what=f"in the archive: {p.what}") for p in error.problems]) from error
    problems = []
    counts = {split: len(data.split(split)) for split in SPLITS}
    if counts != source.counts:
        problems.append(Problem(f"the archive holds {counts} images in place of {source.counts}", url))
    if source.image_size is not None:
        sizes = {image.shape[:2] for split in SPLITS for image, _ in data.split(split)}
        if sizes != {source.image_size}:
            what = f"the images are {sorted(sizes)} high and wide in place of {source.image_size}"
            problems.append(Problem(what, url))
    if problems:
        raise UserError([replace(problem, fix="the server has changed it; report this") for problem in problems])


class _Bar:
    """What pooch calls while it downloads, as progress of autoseg; without a known length nothing is drawn."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress, self._label = progress, label
        self._total, self._done, self._open = 0, 0, False

    @property
    def total(self) -> int:
        """Bytes to come, 0 when the server does not say."""
        return self._total

    @total.setter
    def total(self, count: int) -> None:
        self._total = count
        if count:
            self._progress.begin(self._label, count / _MEGABYTE, "MB")
            self._open = True
        else:
            self._progress.note(f"downloading {self._label} (the server does not say how long it is)")

    def update(self, count: int) -> None:
        """So many bytes more."""
        self._done += count
        if self._open:
            done = min(self._done, self._total) / _MEGABYTE
            self._progress.update(self._label, done, f"{done:.0f} MB")

    def reset(self) -> None:
        """Count from the start."""
        self._done = 0

    def close(self, text: str = "") -> None:
        """The download is over."""
        if self._open:
            self._progress.end(self._label, text or f"{self._total / _MEGABYTE:.1f} MB")
            self._open = False
