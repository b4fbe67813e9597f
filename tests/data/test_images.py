from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage

from autoseg.data.images import read_image, read_mask
from autoseg.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (40, 50), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
INDICES = (GREY % 4).astype(np.uint8)


def _palette(indices: np.ndarray) -> PillowImage.Image:
    picture = PillowImage.fromarray(indices)
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    return picture


def _grey_png(bits: int, rows: list[bytes], width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff", "lzw.tif", "a.npy", "grün.png", "A.PNG"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_lossless_round_trip(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        PillowImage.fromarray(pixels).save(path, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    image = read_image(path)
    assert image.dtype == np.uint8 and np.array_equal(image, pixels)


def test_webp_lossless_and_jpeg(tmp_path: Path) -> None:
    PillowImage.fromarray(COLOUR).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_image(tmp_path / "a.webp"), COLOUR)
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([200, 30, 60], np.uint8)
    PillowImage.fromarray(flat).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - flat).max() <= 3  # red first, so a swap of red and blue would be off by 140


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "big-endian.tif", "a.npy"])
def test_sixteen_bits_keep_values_above_255(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, GREY16)
    elif name in ("a.png", "lzw.tif"):  # OpenCV writes LZW
        cv2.imwrite(str(path), GREY16)
    else:
        tifffile.imwrite(path, GREY16, byteorder=">" if name == "big-endian.tif" else "<")
    image = read_image(path)
    assert image.dtype == np.uint16 and int(image.max()) > 60000
    assert np.array_equal(image, GREY16)


def test_sixteen_bit_colour_png_and_tiff_are_rgb(tmp_path: Path) -> None:
    colour16 = RNG.integers(0, 65536, (10, 12, 3), dtype=np.uint16)
    for name in ("a.png", "lzw.tif"):
        cv2.imwrite(str(tmp_path / name), colour16[..., ::-1])
        assert np.array_equal(read_image(tmp_path / name), colour16)


def test_number_types_become_float32(tmp_path: Path) -> None:
    for number, expected in ((np.float32(-1.5), -1.5), (np.float64(0.25), 0.25), (np.int16(-7), -7.0)):
        tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), number))
        image = read_image(tmp_path / "a.tif")
        assert image.dtype == np.float32 and np.all(image == expected)
    np.save(tmp_path / "b.npy", GREY > 99)
    assert read_image(tmp_path / "b.npy").dtype == np.uint8


def test_channel_layouts(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "planar.tif"), COLOUR)
    np.save(tmp_path / "one.npy", GREY[..., None])
    assert np.array_equal(read_image(tmp_path / "one.npy"), GREY)
    np.save(tmp_path / "five.npy", np.zeros((8, 9, 5), np.uint16))
    assert read_image(tmp_path / "five.npy").shape == (8, 9, 5)
    _palette(INDICES).save(tmp_path / "palette.tif")
    assert read_image(tmp_path / "palette.tif")[INDICES == 0].tolist()[0] == [255, 0, 0]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif"])
def test_alpha_is_dropped_and_logged(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    options = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    for stored, expected in ((np.dstack([COLOUR, GREY]), COLOUR), (np.dstack([GREY, GREY]), GREY)):
        PillowImage.fromarray(stored, mode="RGBA" if stored.shape[2] == 4 else "LA").save(tmp_path / name, **options)
        caplog.clear()
        with caplog.at_level(logging.INFO, "autoseg.data.images"):
            assert np.array_equal(read_image(tmp_path / name), expected)
        assert f"{name}: alpha channel dropped" in caplog.text


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "lzw.tif"])
def test_palette_masks_give_indices(tmp_path: Path, name: str) -> None:
    _palette(INDICES).save(tmp_path / name, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    mask = read_mask(tmp_path / name)
    assert mask.dtype == np.uint8 and np.array_equal(mask, INDICES)


def test_masks_of_few_bits_give_the_stored_number(tmp_path: Path) -> None:
    (tmp_path / "four.png").write_bytes(_grey_png(4, [b"\x01\x23", b"\xf0\x00"], 4))
    assert read_mask(tmp_path / "four.png").tolist() == [[0, 1, 2, 3], [15, 0, 0, 0]]
    (tmp_path / "two.png").write_bytes(_grey_png(2, [b"\x1b"], 4))
    assert read_mask(tmp_path / "two.png").tolist() == [[0, 1, 2, 3]]
    PillowImage.fromarray(GREY > 99).save(tmp_path / "one.png")
    assert np.array_equal(read_mask(tmp_path / "one.png"), GREY > 99)


def test_mask_number_types(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.int64, np.float32, np.uint8):
        np.save(tmp_path / "m.npy", INDICES.astype(dtype))
        mask = read_mask(tmp_path / "m.npy")
        assert mask.dtype == np.uint8 and np.array_equal(mask, INDICES)
    PillowImage.fromarray(np.dstack([INDICES] * 3)).save(tmp_path / "grey-as-rgb.png")
    assert np.array_equal(read_mask(tmp_path / "grey-as-rgb.png"), INDICES)


@pytest.mark.parametrize("values", [[[0, 300]], [[0, -1]], [[0.0, 0.5]], [[0.0, np.nan]]])
def test_mask_values_that_are_no_indices(tmp_path: Path, values: list[list[float]]) -> None:
    np.save(tmp_path / "m.npy", np.array(values))
    with pytest.raises(UserError, match=f"{values[0][1]:g} are not whole numbers") as caught:
        read_mask(tmp_path / "m.npy")
    assert "m.npy" in str(caught.value) and "255 for pixels to ignore" in str(caught.value)


@pytest.mark.parametrize("name", ["m.jpg", "disguised.png", "m.tif", "m.webp"])
def test_lossy_masks_are_refused(tmp_path: Path, name: str) -> None:
    grey = PillowImage.fromarray(np.dstack([INDICES] * 3))
    if name == "m.tif":
        grey.save(tmp_path / name, compression="jpeg")
    else:
        grey.save(tmp_path / name, format="WEBP" if name == "m.webp" else "JPEG", quality=80)
    with pytest.raises(UserError, match="changes class indices") as caught:
        read_mask(tmp_path / name)
    assert name in str(caught.value) and "8-bit single-channel PNG" in str(caught.value)


def test_colour_masks_are_refused(tmp_path: Path) -> None:
    PillowImage.fromarray(COLOUR).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="in colour where class indices are due") as caught:
        read_mask(tmp_path / "m.png")
    assert caught.value.exit_code == 2 and "m.png" in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif", "lzw.tif", "zlib.tif", "a.npy"])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_truncated_files_are_detected(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    if name == "a.npy":
        np.save(path, COLOUR)
    elif path.suffix == ".tif":
        cv2.imwrite(str(path), GREY16)
        if name != "lzw.tif":
            tifffile.imwrite(path, GREY16, compression="zlib" if name == "zlib.tif" else None, rowsperstrip=8)
    else:
        PillowImage.fromarray(COLOUR).save(path)
    content = path.read_bytes()
    assert read_image(path).shape[:2] == (40, 50)
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="copy or export the file again") as caught:
        read_image(path)
    assert caught.value.exit_code == 2 and str(path) in str(caught.value)


@pytest.mark.parametrize("place", [60, 1000, -20, -13])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, GREY16], ids=["grey", "colour", "16 bits"])
def test_one_damaged_byte_in_a_png_is_detected(tmp_path: Path, pixels: np.ndarray, place: int) -> None:
    PillowImage.fromarray(pixels).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[place] ^= 1
    (tmp_path / "a.png").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"a.png: file cannot be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.jpg"])
def test_files_that_are_no_images(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello, this is text")
    with pytest.raises(UserError) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and "0x" not in str(caught.value)


def test_refused_contents(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "first.npy", np.zeros((3, 20, 30)))
    np.save(tmp_path / "nan.npy", np.array([[0.0, np.nan, np.inf]]))
    np.save(tmp_path / "complex.npy", np.zeros((4, 4), complex))
    np.save(tmp_path / "line.npy", np.zeros(4))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 20, 30), np.uint8))
    for name, what in (
        ("object.npy", "allow_pickle=False"),
        ("first.npy", "channels come first"),
        ("nan.npy", "2 pixel values are NaN or infinite"),
        ("complex.npy", "complex128"),
        ("line.npy", "is no image"),
        ("stack.tif", "TIFF holds a stack"),
        ("missing.png", "no such file"),
        ("a.dm3", "'.dm3' is not supported"),
    ):
        with pytest.raises(UserError, match=what) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value) and caught.value.problems[0].fix


def test_exif_rotation_is_not_applied_but_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.fromarray(COLOUR).save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").shape == (40, 50, 3)
    assert "phone.jpg: the EXIF rotation is not applied" in caplog.text
