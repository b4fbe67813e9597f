"""Pictures of predictions: each picture is a small PNG inside the page.

A row of a grid is one test image: the input, the truth, then one prediction per model, with its mIoU.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from autoseg.data.base import DatasetInfo, Image, Mask, Split
from autoseg.report.formats import percent
from autoseg.report.rundata import ModelRun

log = logging.getLogger(__name__)

MAX_SIDE = 220
IGNORE_COLOR = (226, 229, 234)
"""Pixels of the truth that do not count."""


@dataclass(frozen=True)
class Picture:
    """One picture of a grid.

    Attributes:
        title: What it shows: ``image``, ``truth`` or a model name.
        uri: ``data:image/png;base64,...``, empty when there is no picture.
        caption: The line under it.
        color: Colour of the model, empty for image and truth.
        coarse: True when the picture is smaller than its place, so that its pixels should stay sharp.
    """

    title: str
    uri: str
    caption: str = ""
    color: str = ""
    coarse: bool = False


@dataclass(frozen=True)
class GridRow:
    """One test image and what the models made of it; ``ignored`` when its truth has pixels that do not count."""

    name: str
    pictures: list[Picture]
    ignored: bool


def example_names(names: Sequence[str], count: int = 4) -> list[str]:
    """``count`` names at equal steps through the test set, first and last included, so nobody picked them.

    Example:
        >>> example_names(["a", "b", "c", "d", "e", "f", "g"])
        ['a', 'c', 'e', 'g']
    """
    if len(names) <= count:
        return list(names)
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def worst_names(scores: dict[str, float], count: int = 5) -> list[str]:
    """The ``count`` names with the lowest score, worst first; equal scores by name.

    Example:
        >>> worst_names({"a": 0.9, "b": 0.1, "c": 0.5}, 2)
        ['b', 'c']
    """
    return sorted(scores, key=lambda name: (scores[name], name))[:count]


def grid(names: Sequence[str], test: Split, info: DatasetInfo, models: Sequence[ModelRun]) -> list[GridRow]:
    """The pictures of some test images.

    Args:
        names: Names of test images; those that are not in ``test`` are left out.
        test: The test split.
        info: Classes and colours.
        models: In the order of the columns.

    Returns:
        One row per name; a model without a prediction for it has a picture with an empty ``uri``.
    """
    places = {str(name): index for index, name in enumerate(test.names)}
    scores = [model.image_scores() for model in models]
    rows = []
    for name in names:
        if name not in places:
            continue
        image, mask = test[places[name]]
        pictures = [
            _picture("image", shrink(to_uint8(image), cv2.INTER_AREA)),
            _picture("truth", _colored(np.asarray(mask), info)),
        ]
        for model, score in zip(models, scores, strict=True):
            prediction = read_prediction(model, name)
            known = name in score
            caption = f"mIoU {percent(score[name])}\u00a0%" if known else "not scored"
            if prediction is None:
                pictures.append(Picture(model.name, "", caption if known else "no prediction", model.color))
            else:
                pictures.append(_picture(model.name, _colored(prediction, info), caption, model.color))
        rows.append(GridRow(name, pictures, bool(np.any(np.asarray(mask) == info.ignore_index))))
    return rows


def read_prediction(model: ModelRun, name: str) -> Mask | None:
    """The saved prediction of the first seed for a test image, or None when there is none."""
    if model.shown is None:
        return None
    path = model.shown.folder / "predictions" / f"{name}.png"
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        log.debug("no prediction %s: %s", path.name, error)
        return None
    return np.asarray(mask, dtype=np.uint8) if mask is not None and mask.ndim == 2 else None


def to_uint8(image: Image) -> npt.NDArray[np.uint8]:
    """Any image as 8-bit grey ``(H, W)`` or RGB ``(H, W, 3)``.

    uint8 keeps its values; other types are stretched between their 0.5 and 99.5 percentiles. Of more than
    three channels the first three are shown, of two the first.

    Example:
        >>> to_uint8(np.array([[0, 65535]], dtype=np.uint16)).tolist()
        [[0, 255]]
    """
    array = np.asarray(image)
    if array.ndim == 3:
        array = array[..., :3] if array.shape[2] >= 3 else array[..., 0]
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    values = np.nan_to_num(array.astype(np.float64))
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values - low) / max(float(high - low), 1e-12)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def color_mask(mask: npt.NDArray[np.integer], info: DatasetInfo) -> npt.NDArray[np.uint8]:
    """Class indices ``(H, W)`` as RGB ``(H, W, 3)``; the ignore index and unknown classes are light grey.

    Example:
        >>> info = DatasetInfo("d", 1, ("a", "b"), ((0, 0, 0), (1, 2, 3)))
        >>> color_mask(np.array([[1, 255]]), info).tolist()
        [[[1, 2, 3], [226, 229, 234]]]
    """
    table = np.full((256, 3), IGNORE_COLOR, dtype=np.uint8)
    table[: info.num_classes] = np.asarray(info.colors, dtype=np.uint8)[: info.num_classes]
    if 0 <= info.ignore_index < 256:
        table[info.ignore_index] = IGNORE_COLOR
    return table[np.clip(mask, 0, 255)]


def shrink(array: npt.NDArray[np.uint8], interpolation: int) -> npt.NDArray[np.uint8]:
    """Make the longer side at most :data:`MAX_SIDE` pixels; smaller pictures are kept."""
    height, width = array.shape[:2]
    factor = MAX_SIDE / max(height, width)
    if factor >= 1:
        return array
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(array, size, interpolation=interpolation), dtype=np.uint8)


def data_uri(array: npt.NDArray[np.uint8]) -> str:
    """Grey or RGB pixels as the data URI of a PNG."""
    pixels = array if array.ndim == 2 else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    _, png = cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")


def _colored(mask: npt.NDArray[np.integer], info: DatasetInfo) -> npt.NDArray[np.uint8]:
    """A small coloured mask; nearest neighbour, so no colour is invented."""
    return shrink(color_mask(mask, info), cv2.INTER_NEAREST)


def _picture(title: str, pixels: npt.NDArray[np.uint8], caption: str = "", color: str = "") -> Picture:
    """A picture of a grid from its pixels."""
    return Picture(title, data_uri(pixels), caption, color, max(pixels.shape[:2]) < 150)
