"""A checked data set as plain files that open at once: for worker processes, and to carry to other machines.

Reading a folder of images again takes as long as it took the first time. Packed, all arrays of one type in a
split lie in one ``.npy`` file one after the other; reading maps it into memory, so that a process loads only the
images it looks at, and several processes share them. There is no pickle in any file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autoseg.data.base import SPLITS, DatasetInfo, Image, Mask, SegmentationData, Split
from autoseg.errors import Problem, UserError
from autoseg.runfolder import read_json, write_json

INDEX = "info.json"
_FORMAT = 1
_BUFFER = 1 << 24  # bytes collected before they are written


def pack(data: SegmentationData, folder: Path) -> Path:
    """Write a data set; images and masks are read once, one after the other.

    Args:
        data: The data set.
        folder: Where to; made when missing. ``info.json`` is written last and says that all is there.

    Returns:
        The folder.

    Example:
        >>> import tempfile
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> place = pack(synthetic_ceramic(count=6, size=32), Path(tempfile.mkdtemp()))
        >>> sorted(file.name for file in place.iterdir())[:3]
        ['info.json', 'test-0-uint8.npy', 'train-0-uint8.npy']
        >>> read_packed(place).train[0][0].shape
        (32, 32)
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    splits = {name: _pack_split(data.split(name), name, folder) for name in SPLITS}
    index = {"format": _FORMAT, "info": asdict(data.info), "notes": list(data.notes), "splits": splits}
    write_json(folder / INDEX, index)
    return folder


def is_packed(folder: Path) -> bool:
    """Whether a whole packed data set is in this folder."""
    return (folder / INDEX).exists()


def read_packed(folder: Path) -> SegmentationData:
    """Read what :func:`pack` wrote; the arrays are read-only and stay on disk until they are looked at.

    Raises:
        UserError: The folder is not a packed data set, or it is damaged.
    """
    index = read_json(folder / INDEX)
    try:
        if index["format"] != _FORMAT:
            raise ValueError(f"format {index['format']} is not known")
        info = dict(index["info"])
        info |= {"classes": tuple(info["classes"]), "colors": tuple(tuple(color) for color in info["colors"])}
        train, val, test = (PackedSplit(folder, index["splits"][name]) for name in SPLITS)
        return SegmentationData(DatasetInfo(**info), train, val, test, list(index["notes"]))
    except (KeyError, TypeError, ValueError, OSError) as error:
        what = f"is not a packed data set, or is damaged ({error})"
        raise UserError(Problem(what, str(folder), "delete it; it is made anew from the images")) from error


class PackedSplit:
    """A split in ``.npy`` files, as :class:`autoseg.data.base.Split`.

    Args:
        folder: Where the files are.
        rows: From info.json: the names, and where each image and mask lies.
    """

    def __init__(self, folder: Path, rows: dict[str, Any]) -> None:
        self.names: Sequence[str] = list(rows["names"])
        self._files = [np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in rows["files"]]
        self._items = rows["items"]
        if len(self._items) != len(self.names):
            raise ValueError("names and images differ in number")
        for item in self._items:
            for file, start, shape in item:
                if start + int(np.prod(shape)) > len(self._files[file]):
                    raise ValueError(f"{rows['files'][file]} is too short")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        image, mask = self._items[range(len(self))[index]]
        return self._array(image), cast(Mask, self._array(mask))

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return (self[i] for i in range(len(self)))

    def _array(self, row: tuple[int, int, list[int]]) -> Image:
        file, start, shape = row
        flat = self._files[file][start : start + int(np.prod(shape))]
        return np.asarray(flat).reshape(shape)


def _pack_split(split: Split, name: str, folder: Path) -> dict[str, Any]:
    """Write the files of one split; what info.json says about them."""
    writers: dict[str, _FlatFile] = {}
    items = []
    try:
        for image, mask in split:
            row = []
            for array in (image, mask):
                dtype = array.dtype.newbyteorder("=") if array.dtype.byteorder == ">" else array.dtype
                if dtype.name not in writers:
                    path = folder / f"{name}-{len(writers)}-{dtype.name}.npy"
                    writers[dtype.name] = _FlatFile(path, dtype, len(writers))
                row.append(writers[dtype.name].append(array))
            items.append(row)
    finally:
        for writer in writers.values():
            writer.close()
    return {"names": list(split.names), "files": [writer.path.name for writer in writers.values()], "items": items}


class _FlatFile:
    """A one-dimensional ``.npy`` file that grows; its length is filled in at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any], number: int) -> None:
        self.path, self.number = path, number
        self._dtype, self._count = dtype, 0
        self._file = path.open("w+b", buffering=_BUFFER)
        self._write_header()

    def append(self, array: npt.NDArray[Any]) -> tuple[int, int, list[int]]:
        """Add the values of an array; gives the file's number, where they start, and their shape."""
        start = self._count
        self._file.write(np.ascontiguousarray(array, self._dtype).data)
        self._count += array.size
        return self.number, start, list(array.shape)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        """128 bytes, the same whatever the length."""
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._count,)}
        text = repr(header).encode("latin1")
        padded = text + b" " * (128 - 10 - 1 - len(text)) + b"\n"
        self._file.write(np.lib.format.magic(1, 0) + len(padded).to_bytes(2, "little") + padded)
