"""What a trained model should not be trusted with: sentences for its card, read from data, training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoseg.train.verdict import FEW_IMAGES

_HARDLY = 0.1  # IoU
_FEW_TRAINING = 10  # training images
_SLACK = 0.05  # of the range of intensities seen in training; single pixels beyond it say nothing
_RARE = 0.005  # share of the training pixels
_CHANNELS = {1: "grey images (one channel)", 3: "colour images (three channels)"}


def limits(
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    images: int,
    seeds: int = 1,
    iou: Sequence[float | None] = (),
) -> list[str]:
    """Sentences on where the model has not been tried, the gravest first.

    Args:
        data: From :func:`autoseg.data.facts.data_facts`.
        training: The ``training`` of model.json.
        images: Test images.
        seeds: Trainings of this network in the run.
        iou: Of each class on the test images, 0..1.

    Example:
        >>> split = {"images": 20, "sizes": [[64, 64], [64, 80]], "dtype": "uint8", "values": [3.0, 250.0],
        ...          "class_shares": [0.9, 0.1]}
        >>> data = {"channels": 1, "classes": ["matrix", "crack"], "pixel_size": None, "pixel_unit": None,
        ...         "splits": {"train": split, "val": split, "test": split}}
        >>> found = limits(data, {"notes": []}, images=20)
        >>> len(found), found[0]
        (3, 'One training with one seed: another seed would give somewhat other scores.')
        >>> found[1][:84]
        'It has seen grey images (one channel) of type uint8 with values 3 to 250, 64 x 64 to'
    """
    splits = data["splits"]
    train, test, classes = splits["train"], splits["test"], list(data["classes"])
    found = [_sentence(str(note)) for note in training.get("notes") or []]
    found += _class_limits(train["class_shares"], test["class_shares"], classes)
    missed = [name for name, value in zip(classes, iou, strict=False) if value is not None and value < _HARDLY]
    if missed:
        found.append(f"Hardly found on the test images (IoU under {_HARDLY:.0%}): {', '.join(missed)}.")
    if train["images"] < _FEW_TRAINING:
        found.append(f"It was trained on {train['images']} image{_s(train['images'])} only.")
    if images < FEW_IMAGES:
        found.append(f"It was tested on {images} image{_s(images)} only: the intervals are too narrow.")
    if seeds == 1:
        found.append("One training with one seed: another seed would give somewhat other scores.")
    found += _unlike(train, test)
    low, high = train["values"] or (0.0, 0.0)
    kind = _CHANNELS.get(data["channels"], f"images of {data['channels']} channels")
    found.append(
        f"It has seen {kind} of type {train['dtype']} with values {low:g} to {high:g}, {_size(train['sizes'])} pixels "
        "(height x width). Outside of that its answers are guesses."
    )
    if data["pixel_size"] is None:
        found.append(
            "The pixel size of its images is not known: whether another magnification suits it cannot be told."
        )
    else:
        found.append(
            f"It has seen pixels of {data['pixel_size']:g} {data['pixel_unit'] or ''}".rstrip()
            + "; images of another pixel size should be scaled to it first."
        )
    return found


def _class_limits(train: Sequence[float | None], test: Sequence[float | None], classes: Sequence[str]) -> list[str]:
    never = [name for name, share in zip(classes, train, strict=True) if not share]
    rare = [name for name, share in zip(classes, train, strict=True) if share and share < _RARE]
    untested = [name for name, share in zip(classes, test, strict=True) if not share]
    found = []
    if never:
        found.append(f"Never seen in training, so it cannot find: {', '.join(never)}.")
    if rare:
        found.append(f"Rare in training (under {_RARE:.1%} of the pixels): {', '.join(rare)}.")
    if untested:
        found.append(f"Not in the test images, so how well it finds them is not known: {', '.join(untested)}.")
    return found


def _unlike(train: Mapping[str, Any], test: Mapping[str, Any]) -> list[str]:
    """Where the test images themselves are outside what was seen in training."""
    found = []
    if train["values"] and test["values"]:
        (low, high), (test_low, test_high) = train["values"], test["values"]
        slack = _SLACK * (high - low)
        if test_low < low - slack or test_high > high + slack:
            found.append(
                f"Out of range: the test images have values {test_low:g} to {test_high:g}, those of the training "
                f"{low:g} to {high:g}."
            )
    (low_h, low_w), (high_h, high_w) = train["sizes"]
    (test_low_h, test_low_w), (test_high_h, test_high_w) = test["sizes"]
    if test_low_h < low_h or test_low_w < low_w or test_high_h > high_h or test_high_w > high_w:
        found.append(
            f"Out of range: the test images have {_size(test['sizes'])} pixels, those of the training "
            f"{_size(train['sizes'])}."
        )
    return found


def _size(sizes: Sequence[Sequence[int]]) -> str:
    low, high = (f"{height} x {width}" for height, width in sizes)
    return low if low == high else f"{low} to {high}"


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
