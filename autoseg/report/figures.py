"""The curves of the report, drawn by matplotlib as inline SVG.

Only matplotlib's object interface is used: no figure is registered anywhere, so a report can be written
from any thread. Text stays text, and takes the font of the page. Files count epochs from 0, the page from 1.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.report.palette import ACCENT, INK, LINE, MUTED
from autoseg.report.reading import mean, number
from autoseg.report.rundata import ModelRun

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#edf0f4",
    "grid.linewidth": 0.9,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}


def search_figure(epochs: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss, reward and entropy of the search per epoch, the warm-up shaded.

    Args:
        epochs: The ``"kind": "epoch"`` lines of the journal.

    Returns:
        An inline SVG, empty when there is nothing to draw.

    Example:
        >>> search_figure([{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}])[:4]
        Markup('<svg')
    """
    panels = [
        (title, points)
        for key, title in (("loss", "Supernet loss"), ("reward", "Reward"), ("entropy", "Entropy"))
        if (points := _points(epochs, key))
    ]
    if not panels:
        return Markup("")
    warm = [x for line in epochs if line.get("phase") == "warmup" and (x := _epoch(line)) is not None]
    known = [x for line in epochs if (x := _epoch(line)) is not None]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels([title for title, _ in panels], 10.6, 2.75)
        for axis, (_, points) in zip(axes, panels, strict=True):
            if warm:
                axis.axvspan(min(warm) - 0.5, max(warm) + 0.5, color="#eef1f5", linewidth=0, zorder=0)
                if axis is axes[0]:
                    place = axis.get_xaxis_transform()
                    axis.text(min(warm) - 0.2, 0.02, "warm-up", transform=place, color=MUTED, fontsize=8.5)
            axis.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.8, **_dots(points))
            axis.set_xlim(min(known) - 0.5, max(known) + 0.5)
        return _svg(figure, "Curves of the search", "search")


def training_figure(models: Sequence[ModelRun]) -> Markup:
    """Training loss and validation mIoU per epoch: seeds thin, their mean thick, in the colour of the model.

    Returns:
        An inline SVG, empty when no model has a history.
    """
    panels = [
        (title, key, scale)
        for key, title, scale in (("loss", "Training loss", 1.0), ("val_miou", "Validation mIoU, %", 100.0))
        if any(_points(run.history, key) for model in models for run in model.runs)
    ]
    if not panels:
        return Markup("")
    known = [x for m in models for run in m.runs for row in run.history if (x := _epoch(row)) is not None]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels([title for title, _, _ in panels], 10.6, 3.5)
        for axis, (_, key, scale) in zip(axes, panels, strict=True):
            for order, model in enumerate(models):
                _draw_model(axis, model, key, scale, order)
            axis.set_xlim(min(known) - 0.5, max(known) + 0.5)
        return _svg(figure, "Training curves", "training")


def _draw_model(axis: Axes, model: ModelRun, key: str, scale: float, order: int) -> None:
    """Add the curves of one model; earlier models lie on top."""
    curves = [points for run in model.runs if (points := _points(run.history, key, scale))]
    if not curves:
        return
    if len(curves) > 1:
        for points in curves:
            axis.plot(*zip(*points, strict=True), color=model.color, linewidth=0.9, alpha=0.38, zorder=2)
    by_epoch = [dict(points) for points in curves]
    shared = sorted(set.intersection(*(set(curve) for curve in by_epoch))) or sorted(by_epoch[0])
    middle = [(x, value) for x in shared if (value := mean(curve.get(x) for curve in by_epoch)) is not None]
    axis.plot(*zip(*middle, strict=True), color=model.color, linewidth=2.0, zorder=20 - order, **_dots(middle))


def _points(lines: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> list[tuple[float, float]]:
    """``(epoch, value)`` wherever both are numbers; the first epoch is 1."""
    pairs = ((_epoch(line), number(line.get(key))) for line in lines)
    return [(x, scale * y) for x, y in pairs if x is not None and y is not None]


def _epoch(line: Mapping[str, Any]) -> float | None:
    """The epoch of a line of a file, counted from 1."""
    epoch = number(line.get("epoch"))
    return None if epoch is None else epoch + 1


def _dots(points: Sequence[object]) -> dict[str, Any]:
    """Short curves show their points."""
    return {"marker": "o", "markersize": 3.2} if len(points) <= 6 else {}


def _panels(titles: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per title, side by side; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr,call-arg]
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.tick_params(length=0)
    return figure, axes


def _svg(figure: Figure, label: str, salt: str) -> Markup:
    """The figure as an SVG element that can stand inside HTML: no prolog, no names of outside places, sized by CSS."""
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    return Markup(f'<svg class="plot" {box.group(0) if box else ""} role="img" aria-label="{label}">{body.strip()}')
