"""``card.html``: the card of one trained model as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoseg import __version__
from autoseg.report.formats import NO_BREAK, NOT_KNOWN, amount, duration, flops, milliseconds, percent
from autoseg.report.intervals import axis_chart, chart_limits, interval_chart
from autoseg.report.palette import ACCENT
from autoseg.report.tables import flatten
from autoseg.report.template import fill

_PUBLISHED = ("ed-nas-n3", "ed-nas-n4")  # cells that a search has found, of whoever published them
_SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}


def render_card(card: Mapping[str, Any]) -> str:
    """The page of a card.

    Args:
        card: The ``card`` of model.json, see :mod:`autoseg.card`.

    Returns:
        HTML that needs no other file.
    """
    model, data, made = card["model"], card["data"], card["made"]
    return fill(
        "card.html.j2",
        card=card,
        kind=_kind(model),
        model_facts=_model_facts(model),
        scores=_scores(card["test"]),
        classes=_classes(card["test"], data),
        splits=_splits(data),
        shares=_shares(data),
        protocol=flatten(card["protocol"]["recipe"]),
        training=_training(card["protocol"]),
        machine=[(k, v) for k, v in flatten(made) if v != NOT_KNOWN],
        place=_place(card["comparison"]),
        hash=data["hash"],
        pixel=NOT_KNOWN if data["pixel_size"] is None else f"{data['pixel_size']:g} {data['pixel_unit'] or ''}",
        autoseg_version=__version__,
    )


def _kind(model: Mapping[str, Any]) -> str:
    """What it is, in a line."""
    if model["space"]:
        how = {"finalist": "found by a search of", "control": "drawn at random from"}.get(model["role"], "a point of")
        return f"An architecture {how} the space {model['space']}."
    if model["name"] in _PUBLISHED:
        return f"The network {model['name']}: published cells, found by a search."
    return f"The network {model['name']}, designed by hand."


def _model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("Parameters", amount(model["params"]))]
    if model["flops"] is not None:
        facts.append(("FLOPs of one image", flops(model["flops"])))
    if model["latency_ms"] is not None:
        facts.append(
            (f"Latency ({model.get('latency_device') or 'device not told'})", milliseconds(model["latency_ms"]))
        )
    if model.get("image"):
        facts.append(("Measured with (channels, height, width)", " × ".join(map(str, model["image"]))))
    return facts + [(f"Option {key}", value) for key, value in flatten(model["options"])]


def _scores(test: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and interval of the scores over all classes."""
    names = (("miou", "mIoU"), ("dice", "Dice"), ("accuracy", "Accuracy"))
    return [(name, percent(test[key]), _interval(test["intervals"][key])) for key, name in names]


def _classes(test: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the class table: name, IoU, its interval, a chart, Dice."""
    ends = test["intervals"]["iou_per_class"]
    low, high = chart_limits([v for pair in ends for v in pair] + list(test["iou_per_class"]))
    rows = [
        {
            "name": name,
            "iou": percent(iou),
            "interval": _interval(pair),
            "chart": interval_chart(iou, None if None in pair else pair, [], low, high, ACCENT),
            "dice": percent(dice),
        }
        for name, iou, dice, pair in zip(
            data["classes"], test["iou_per_class"], test["dice_per_class"], ends, strict=True
        )
    ]
    return {"rows": rows, "axis": axis_chart(low, high)}


def _splits(data: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, images, sizes, type and intensities of every split."""
    return [
        (
            _SPLITS[key],
            str(split["images"]),
            _range([f"{h} × {w}" for h, w in split["sizes"]]),
            split["dtype"],
            NOT_KNOWN if split["values"] is None else _range([f"{v:g}" for v in split["values"]]),
        )
        for key, split in data["splits"].items()
    ]


def _shares(data: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Pixels of each class in every split, percent."""
    splits = list(data["splits"].values())
    return [(name, [percent(split["class_shares"][i]) for split in splits]) for i, name in enumerate(data["classes"])]


def _training(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Seed", str(protocol["seed"])),
        ("Time", duration(protocol["seconds"])),
        ("Best epoch, by validation", str(protocol["best_epoch"] + 1)),
        ("Validation mIoU there, %", percent(protocol["best_miou"])),
    ]


def _place(comparison: Mapping[str, Any] | None) -> str:
    """How it stands among the networks of its run."""
    if comparison is None:
        return ""
    place = f"place {comparison['place']} of {comparison['models']} in its run" if comparison["place"] else ""
    if comparison["seeds"] == 1:  # the score and its interval are those above
        return f"This network takes {place}." if place else ""
    score = f"{percent(comparison['miou'])}{NO_BREAK}% mIoU over {comparison['seeds']} seeds"
    interval = _interval(comparison["miou_interval"])
    ends = f" (95{NO_BREAK}% interval {interval})" if interval else ""
    return f"This network reaches {', '.join([score + ends, *([place] if place else [])])}."


def _interval(pair: Sequence[float | None]) -> str:
    return "" if None in pair else "–".join(percent(end) for end in pair)


def _range(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))
