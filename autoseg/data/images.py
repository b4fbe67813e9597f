"""Reading one image file or one mask file as a numpy array, in the units of the file.

PNG, JPEG, BMP and WebP are decoded strictly by Pillow, because OpenCV returns a half-grey picture for a truncated
file; then OpenCV gives the pixels, unless Pillow has exactly those already (8-bit PNG). TIFF goes through tifffile,
NPY through numpy without pickle. A file that cannot be trusted raises :class:`~autoseg.errors.UserError` with its name.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as PillowImage

from autoseg.data.base import Image, Mask
from autoseg.errors import Problem, UserError

RASTER_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (*RASTER_SUFFIXES, *TIFF_SUFFIXES, ".npy")
"""File name endings (lower case) that can be read."""

Array = npt.NDArray[np.generic]

_log = logging.getLogger(__name__)
_GREY_MODES = ("1", "L", "LA", "I", "I;16")
_EXIF_ORIENTATION = 0x0112
_BROKEN_FIX = "copy or export the file again; it may be cut short or damaged"
_INDEX_FIX = "save class indices (0, 1, 2, ...) as an 8-bit single-channel PNG"


def read_image(path: str | Path) -> Image:
    """Read an image without scaling its values.

    uint8 and uint16 stay as they are, floats become float32, other number types become float32 (logged). RGB comes
    in the order red, green, blue. An alpha channel is dropped (logged). An EXIF rotation is not applied (logged).

    Args:
        path: A file that ends in one of :data:`SUFFIXES`.

    Returns:
        ``(H, W)`` for grey, else ``(H, W, C)``; uint8, uint16 or float32.

    Raises:
        UserError: The file is missing, truncated, unreadable, a stack of images, or holds NaN or infinity.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "grey.tif"
        ...     tifffile.imwrite(file, np.full((2, 3), 4000, np.uint16))
        ...     image = read_image(file)
        >>> image.shape, image.dtype.name, int(image.max())
        ((2, 3), 'uint16', 4000)
    """
    path = Path(path)
    array = _two_or_three_axes(_decode(path, indices=False), path)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype not in (np.uint8, np.uint16, np.float32):
        if array.dtype.kind not in "iuf":
            raise _unreadable(
                path, f"pixel type {array.dtype} is not a real number", "save 8-bit, 16-bit or float pixels"
            )
        _log.info("%s: %s pixels read as float32", path, array.dtype)
        array = array.astype(np.float32)
    if array.dtype == np.float32 and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise _unreadable(path, f"{bad} pixel values are NaN or infinite", "replace them by finite values")
    return np.ascontiguousarray(array)


def read_mask(path: str | Path) -> Mask:
    """Read a mask of class indices.

    Palette images give the palette index, 1-, 2- and 4-bit images the stored number, grey saved as RGB its grey value.

    Args:
        path: A file that ends in one of :data:`SUFFIXES` and is stored without loss.

    Returns:
        ``(H, W)`` uint8, each value as in the file.

    Raises:
        UserError: As :func:`read_image`; also for a mask stored with loss (JPEG), in colour, or with values that
            are no whole numbers in 0..255.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "mask.npy"
        ...     np.save(file, np.array([[0, 2]]))
        ...     read_mask(file).tolist()
        [[0, 2]]
    """
    path = Path(path)
    array = _two_or_three_axes(_decode(path, indices=True), path)
    if array.ndim == 3:
        if any((array[..., 0] != array[..., channel]).any() for channel in range(1, array.shape[2])):
            raise UserError(
                Problem(
                    "mask is in colour where class indices are due", str(path), f"convert each colour; {_INDEX_FIX}"
                )
            )
        array = array[..., 0]
    if array.dtype.kind not in "buif":
        raise _unreadable(path, f"mask values of type {array.dtype} are no class indices", _INDEX_FIX)
    mask = array.astype(np.uint8) if array.dtype.kind != "f" else np.nan_to_num(array).clip(0, 255).astype(np.uint8)
    if array.dtype != np.uint8:
        wrong = np.unique(array[mask != array])
        if len(wrong):
            shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            what = f"mask values {shown} are not whole numbers in 0..255"
            raise UserError(Problem(what, str(path), f"{_INDEX_FIX}, 255 for pixels to ignore"))
    return np.ascontiguousarray(mask)


def _decode(path: Path, *, indices: bool) -> Array:
    """The pixels of any supported file; ``indices`` keeps palette indices and refuses lossy formats."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _unreadable(path, f"file type '{suffix}' is not supported", f"convert it to one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise _unreadable(path, "no such file", "check the path")
    try:
        if suffix == ".npy":
            array: Array = np.load(path, allow_pickle=False)
            return array
        if suffix in TIFF_SUFFIXES:
            return _decode_tiff(path, indices=indices)
        return _decode_raster(path, indices=indices)
    except UserError:
        raise
    except PillowImage.DecompressionBombError as error:
        raise _unreadable(path, "image is too large to read in one piece", "cut it into smaller images") from error
    except PillowImage.UnidentifiedImageError as error:
        raise _unreadable(path, "file is no image, or its first bytes are damaged", _BROKEN_FIX) from error
    except Exception as error:  # decoders raise anything from struct.error to KeyError on damaged bytes
        reason = f" ({error})" if isinstance(error, (OSError, ValueError, SyntaxError)) else ""
        raise _unreadable(path, f"file cannot be decoded{reason}", _BROKEN_FIX) from error


def _decode_raster(path: Path, *, indices: bool) -> Array:
    """PNG, JPEG, BMP or WebP: Pillow proves that the file is whole; OpenCV keeps 16-bit colour, which Pillow cuts."""
    data = path.read_bytes()
    with PillowImage.open(io.BytesIO(data)) as picture:
        picture.verify()  # the checksums and the end mark of a PNG, which load() does not look at
    with PillowImage.open(io.BytesIO(data)) as picture:
        lossy = picture.format == "JPEG" or (picture.format == "WEBP" and b"VP8L" not in data)
        if indices and lossy:
            what = f"mask is stored as {picture.format}, which changes class indices (lossy compression)"
            raise UserError(Problem(what, str(path), f"export the mask again from its source; {_INDEX_FIX}"))
        picture.load()
        if indices and picture.mode in ("P", "1"):
            return np.asarray(picture).astype(np.uint8)
        if not indices and picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            _log.warning("%s: the EXIF rotation is not applied, pixels are used as stored", path)
        grey = picture.mode in _GREY_MODES
        png_bits = data[24] if picture.format == "PNG" else 0
        decoded = np.asarray(picture) if 0 < png_bits <= 8 and picture.mode in ("L", "RGB") else None
    array = _opencv(data, path) if decoded is None else decoded
    if grey and array.ndim == 3:
        if array.shape[2] in (2, 4):
            _log.info("%s: alpha channel dropped", path)
        array = array[..., 0]
    if indices and grey and 0 < png_bits < 8:  # decoders stretch 2- and 4-bit grey to 0..255
        array = (array // (255 // (2**png_bits - 1))).astype(np.uint8)
    return array


def _opencv(data: bytes, path: Path) -> Array:
    """Decode with OpenCV: colour as RGB, a fourth channel (alpha) dropped."""
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise _unreadable(path, "file cannot be decoded", _BROKEN_FIX)
    if array.ndim == 3 and array.shape[2] == 4:
        _log.info("%s: alpha channel dropped", path)
        array = array[..., :3]
    if array.ndim == 3 and array.shape[2] == 3:
        array = array[..., ::-1]
    return array


def _decode_tiff(path: Path, *, indices: bool) -> Array:
    """A single-image TIFF; compressions that tifffile lacks (LZW, JPEG) are left to OpenCV or Pillow."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        series = file.series[0]
        photometric, compression = page.photometric, page.compression
        has_alpha = any(sample in (1, 2) for sample in page.extrasamples)  # premultiplied or plain transparency
        if indices and compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG):
            what = "mask is stored with JPEG compression, which changes class indices"
            raise UserError(Problem(what, str(path), f"export the mask again from its source; {_INDEX_FIX}"))
        kept = [
            i for i, (axis, size) in enumerate(zip(series.axes, series.shape, strict=True)) if size > 1 or axis in "YX"
        ]
        axes = "".join(series.axes[i] for i in kept)
        if axes not in ("YX", "YXS", "YXC", "SYX", "CYX"):
            size = "x".join(str(series.shape[i]) for i in kept)
            raise UserError(
                Problem(
                    f"TIFF holds a stack ({size}, axes {axes})",
                    str(path),
                    "save each image of the stack as its own file",
                )
            )
        end = max(offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True))
        if end > path.stat().st_size:
            raise _unreadable(path, "file is truncated", _BROKEN_FIX)
        if photometric == tifffile.PHOTOMETRIC.PALETTE and not indices:
            with PillowImage.open(path) as picture:
                return np.asarray(picture.convert("RGB"))
        try:
            array = series.asarray().reshape([series.shape[i] for i in kept])
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if page.bitspersample > 8:  # Pillow would cut 16-bit colour down to 8 bits
                return _opencv(path.read_bytes(), path)
            with PillowImage.open(path) as picture:
                array = np.asarray(
                    picture if picture.mode in (*_GREY_MODES, "P", "RGB", "RGBA") else picture.convert("RGB")
                )
            axes = "YXS"
    if axes in ("SYX", "CYX"):
        array = np.moveaxis(array, 0, -1)
    is_rgba = photometric == tifffile.PHOTOMETRIC.RGB and array.ndim == 3 and array.shape[2] == 4
    if array.ndim == 3 and (is_rgba or has_alpha):
        _log.info("%s: alpha channel dropped", path)
        array = array[..., :-1]
    return array


def _two_or_three_axes(array: Array, path: Path) -> Array:
    """``(H, W)`` or ``(H, W, C)`` with C > 1; anything else is reported."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise _unreadable(
            path, f"array of shape {array.shape} is no image", "save (height, width) or (height, width, channels)"
        )
    if array.ndim == 3 and array.shape[0] < 5 <= array.shape[2] and array.shape[1] >= 5:
        raise _unreadable(path, f"channels come first in shape {array.shape}", "save (height, width, channels)")
    return array


def _unreadable(path: Path, what: str, fix: str) -> UserError:
    return UserError(Problem(what, str(path), fix))
