"""What the figures of the report share: style, panels, and inline SVG.

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

from autoseg.report.palette import INK, LINE, MUTED
from autoseg.report.reading import number

WIDTH = 10.6
"""Width of a figure over the whole page, in inches."""

STYLE: Any = {
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


def points(lines: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> list[tuple[float, float]]:
    """``(epoch, value)`` wherever both are numbers; the first epoch is 1."""
    pairs = ((epoch(line), number(line.get(key))) for line in lines)
    return [(x, scale * y) for x, y in pairs if x is not None and y is not None]


def epoch(line: Mapping[str, Any]) -> float | None:
    """The epoch of a line of a file, counted from 1."""
    value = number(line.get("epoch"))
    return None if value is None else value + 1


def dots(points: Sequence[object]) -> dict[str, Any]:
    """Short curves show their points."""
    return {"marker": "o", "markersize": 3.2} if len(points) <= 6 else {}


def panels(titles: Sequence[str], height: float, across: str = "epoch") -> tuple[Figure, list[Axes]]:
    """A figure with one panel per title, side by side over the whole page; ``height`` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr,call-arg]
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel(across)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.tick_params(length=0)
    return figure, axes


def svg(figure: Figure, label: str, salt: str) -> Markup:
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
