"""The tables of the report: what stands in which column, and which value is the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from autoseg.report.formats import NO_BREAK, NOT_KNOWN, amount, duration, flops, milliseconds, percent
from autoseg.report.intervals import axis_chart, chart_limits, interval_chart
from autoseg.report.reading import mean, number
from autoseg.report.rundata import ModelRun
from autoseg.report.template import CARD


@dataclass(frozen=True)
class Cell:
    """One value of a table; ``best`` marks the best of its column."""

    text: str
    best: bool = False


@dataclass
class ModelRow:
    """One line of the comparison table; ``cards`` are seeds with links to the cards of their models."""

    model: ModelRun
    cells: dict[str, Cell]
    interval: str
    chart: Markup
    seeds: list[str]
    cards: list[tuple[int, str]]


@dataclass
class Comparison:
    """The comparison table: ``columns`` are ``(key, header)``, ``axis`` the scale of the charts."""

    columns: list[tuple[str, str]]
    rows: list[ModelRow]
    axis: Markup


@dataclass
class ClassTable:
    """Per-class IoU: one row per class, one column per model; ``shares`` of the true test pixels, in percent."""

    names: list[str]
    shares: list[str]
    rows: list[list[Cell]] = field(default_factory=list)


_COLUMNS: tuple[tuple[str, str, Callable[[ModelRun], float | None], Callable[[float | None], str], int], ...] = (
    ("miou", "mIoU %", lambda m: m.miou, percent, 1),
    ("dice", "Dice %", lambda m: m.mean("dice"), percent, 1),
    ("accuracy", "Accuracy %", lambda m: m.mean("accuracy"), percent, 1),
    ("params", "Parameters", lambda m: m.params, amount, -1),
    ("flops", "FLOPs", lambda m: m.flops, flops, -1),
    ("latency", "Latency", lambda m: m.latency_ms, milliseconds, -1),
    ("train", "Training", lambda m: m.mean("train_seconds"), duration, -1),
)


def mark_best(values: Sequence[float | None], sign: int, show: Callable[[float | None], str]) -> list[Cell]:
    """Format ``values`` and mark the largest (``sign`` 1) or smallest (-1); ties as printed are all marked.

    A column with fewer than two known values, or with all printed alike, has no best.

    Example:
        >>> [c.best for c in mark_best([0.5, None, 0.7], 1, percent)]
        [False, False, True]
    """
    texts = [show(v) for v in values]
    known = [sign * v for v in values if v is not None]
    if len(known) < 2 or len({t for t, v in zip(texts, values, strict=True) if v is not None}) < 2:
        return [Cell(text) for text in texts]
    top = texts[next(i for i, v in enumerate(values) if v is not None and sign * v == max(known))]
    return [Cell(text, text == top) for text in texts]


def comparison_table(models: Sequence[ModelRun]) -> Comparison:
    """The comparison table of ``models``, in their order; columns that no model has are left out."""
    columns, cells = [], []
    for key, header, value, show, sign in _COLUMNS:
        values = [value(model) for model in models]
        if key == "miou" or any(v is not None for v in values):
            columns.append((key, header))
            cells.append(mark_best(values, sign, show))
    seeds = [[number(seed.get("miou")) for seed in model.seeds] for model in models]
    low, high = chart_limits([v for m in models for v in (m.miou, *(m.interval or ()))] + [v for s in seeds for v in s])
    rows = [
        ModelRow(
            model=model,
            cells={key: column[i] for (key, _), column in zip(columns, cells, strict=True)},
            interval="–".join(percent(v) for v in model.interval) if model.interval else "",
            chart=interval_chart(model.miou, model.interval, seeds[i], low, high, model.color),
            seeds=[percent(value) for value in seeds[i]],
            cards=[
                (run.seed, quote(f"models/{model.name}/seed-{run.seed}/{CARD}"))
                for run in model.runs
                if (run.folder / CARD).exists()
            ],
        )
        for i, model in enumerate(models)
    ]
    return Comparison(columns, rows, axis_chart(low, high))


def class_table(models: Sequence[ModelRun], classes: Sequence[str]) -> ClassTable:
    """IoU of each class, mean over the seeds in which it is defined; ``n/a`` where the class is absent."""
    table = ClassTable(names=list(classes), shares=_pixel_shares(models, len(classes)))
    for index in range(len(classes)):
        values = [mean(_item(seed.get("iou_per_class"), index) for seed in model.seeds) for model in models]
        table.rows.append(mark_best(values, 1, percent))
    return table


def flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    r"""Nested JSON as ``(dotted key, value)`` lines, for files whose keys are not fixed.

    Example:
        >>> flatten({"a": {"b": 1}, "c": [1, 2], "d": None, "seconds": 5})
        [('a.b', '1'), ('c', '1, 2'), ('d', 'n/a'), ('seconds', '5\xa0s')]
    """
    lines: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            lines += flatten(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
            for index, item in enumerate(value):
                lines += flatten(item if isinstance(item, dict) else {"": item}, f"{name}[{index}].")
        elif isinstance(value, list):
            lines.append((name, ", ".join(map(str, value)) or "none"))
        else:
            lines.append((name, _fact(name, value)))
    return lines


def _fact(name: str, value: object) -> str:
    """A single value, with the unit that its name tells."""
    size = number(value)
    if size is not None and name.endswith("seconds"):
        return duration(size)
    if size is not None and name.endswith("_bytes"):
        return f"{size / 2**30:.1f}{NO_BREAK}GiB"
    if isinstance(value, float):
        return f"{value:g}"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else NOT_KNOWN if value is None else str(value)


def _item(values: object, index: int) -> object:
    """``values[index]`` of a JSON list, or None."""
    return values[index] if isinstance(values, list) and index < len(values) else None


def _pixel_shares(models: Sequence[ModelRun], count: int) -> list[str]:
    """Share of each class among the true pixels of the test set, from the first confusion matrices found."""
    for model in models:
        images = model.shown.test.get("images", []) if model.shown else []
        matrices = [np.asarray(i["confusion"], dtype=float) for i in images if i.get("confusion")]
        if matrices and all(m.shape == (count, count) for m in matrices):
            pixels = np.sum(matrices, axis=(0, 2))
            return [percent(float(v) / max(1.0, float(pixels.sum()))) for v in pixels]
    return []
