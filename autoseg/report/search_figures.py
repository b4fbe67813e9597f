"""The figures of the search: curves over epochs, trials, preferred operations, candidates by cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from autoseg.report.palette import ACCENT, MUTED
from autoseg.report.plotting import STYLE, dots, epoch, panels, points, svg
from autoseg.report.reading import number
from autoseg.report.shapes import Colors

Lines = Sequence[Mapping[str, Any]]

_SERIES = (
    ("Supernet loss", (("loss", "", ACCENT),)),
    ("Reward", (("reward", "reward", ACCENT), ("best", "best candidate", "#d55e00"), ("median", "median", MUTED))),
    ("Entropy", (("entropy", "", ACCENT),)),
    ("Argmax stability", (("stability", "", ACCENT),)),
)
_COSTS = (
    ("params", "parameters, millions", 1e-6, "max_params"),
    ("latency_ms", "latency, ms", 1.0, "max_latency_ms"),
    ("flops", "GFLOPs", 1e-9, "max_flops"),
)
_FAR = 1.6  # a limit further out than this many times the dearest candidate is not drawn


def search_figure(epochs: Lines) -> Markup:
    """Loss, reward, entropy and argmax stability of a one-shot search per epoch, the warm-up shaded.

    Args:
        epochs: The ``"kind": "epoch"`` lines of the journal.

    Returns:
        An inline SVG, empty when there is nothing to draw; panels without a value are left out.

    Example:
        >>> search_figure([{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}])[:4]
        Markup('<svg')
    """
    shown = []
    for title, series in _SERIES:
        curves = [(name, color, found) for key, name, color in series if (found := points(epochs, key))]
        if curves:
            shown.append((title if curves[0][0] in ("", "reward") else "Candidates", curves))
    if not shown:
        return Markup("")
    warm = [x for line in epochs if line.get("phase") == "warmup" and (x := epoch(line)) is not None]
    known = [x for line in epochs if (x := epoch(line)) is not None]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([title for title, _ in shown], 2.75)
        for axis, (title, curves) in zip(axes, shown, strict=True):
            if warm:
                axis.axvspan(min(warm) - 0.5, max(warm) + 0.5, color="#eef1f5", linewidth=0, zorder=0)
                if axis is axes[0]:
                    place = axis.get_xaxis_transform()
                    axis.text(min(warm) - 0.2, 0.02, "warm-up", transform=place, color=MUTED, fontsize=8.5)
            for name, color, found in curves:
                axis.plot(*zip(*found, strict=True), color=color, linewidth=1.8, label=name, **dots(found))
            if len(curves) > 1:
                axis.legend(frameon=False, fontsize=8.5, handlelength=1.2, labelspacing=0.3)
            axis.set_xlim(min(known) - 0.5, max(known) + 0.5)
            if title in ("Entropy", "Argmax stability") and max(y for _, _, c in curves for _, y in c) <= 1:
                axis.set_ylim(-0.03, 1.03)
        return svg(figure, "Curves of the search", "search")


def trials_figure(trials: Lines) -> Markup:
    """Validation mIoU of every candidate by its number, and the best and the median so far.

    Args:
        trials: The ``"kind": "candidate"`` lines of the journal, in order: of a multi-trial search, or of a
            supernet whose choices are uniform.

    Returns:
        An inline SVG, empty when no candidate has a score.

    Example:
        >>> trials_figure([{"number": 0, "miou": 0.5}, {"number": 1, "miou": 0.7}])[:4]
        Markup('<svg')
    """
    scored = [
        (float(i), 100 * miou) for i, line in enumerate(trials, 1) if (miou := number(line.get("miou"))) is not None
    ]
    if not scored:
        return Markup("")
    best = [(x, max(y for _, y in scored[: i + 1])) for i, (x, _) in enumerate(scored)]
    middle = [(x, 100 * y) for x, y in _by_number(trials, "median")]
    curves = [found for key in ("entropy", "stability") if (found := _by_number(trials, key))]
    titles = ["Validation mIoU, %"] + (["Entropy and argmax stability"] if curves else [])
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(titles, 3.1, "candidate")
        axes[0].plot(*zip(*scored, strict=True), "o", color="#8fa3b8", markersize=4, label="candidate")
        axes[0].step(*zip(*best, strict=True), where="post", color=ACCENT, linewidth=1.8, label="best so far")
        if middle:
            axes[0].step(*zip(*middle, strict=True), where="post", color=MUTED, linewidth=1.2, label="median so far")
        axes[0].legend(frameon=False, fontsize=8.5, loc="best")
        for key, color in (("entropy", ACCENT), ("stability", "#d55e00")):
            if found := _by_number(trials, key):
                axes[1].plot(*zip(*found, strict=True), color=color, linewidth=1.8, label=key, **dots(found))
        for axis in axes[1:]:
            axis.legend(frameon=False, fontsize=8.5)
        for axis in axes:
            axis.set_xlim(0.5, len(trials) + 0.5)
        return svg(figure, "Candidates by number", "trials")


def histogram_figure(lines: Lines, colors: Colors, names: Mapping[str, str], across: str) -> Markup:
    """Share of each operation among the decisions, stacked, over the epochs or the candidates of a search.

    Args:
        lines: Lines of the journal with a ``histogram``, ``{operation: share 0..1}``.
        colors: Fill and outline of each operation, by the name on its boxes.
        names: That name for each operation of the journal; operations without one keep their own.
        across: What a line is, ``"epoch"`` or ``"candidate"``.

    Returns:
        An inline SVG, empty when no line has a histogram.

    Example:
        >>> histogram_figure([{"histogram": {"conv": 1.0}}], {"conv": ("#fff", "#000")}, {}, "epoch")[:4]
        Markup('<svg')
    """
    rows = [(i, line["histogram"]) for i, line in enumerate(lines) if _shares(line)]
    if not rows:
        return Markup("")
    places = [(x if (x := epoch(lines[i])) is not None else i + 1.0) if across == "epoch" else i + 1.0 for i, _ in rows]
    edges = [places[0] - 0.5, *((a + b) / 2 for a, b in pairwise(places)), places[-1] + 0.5]
    with matplotlib.rc_context(STYLE):
        figure, (axis,) = panels(["Share of the operations, %"], 2.6, across)
        floor = [0.0] * len(rows)
        for name in operations(lines):
            top = [low + 100 * (number(shares.get(name)) or 0.0) for low, (_, shares) in zip(floor, rows, strict=True)]
            fill, outline = colors[names.get(name, name)]
            axis.stairs(top, edges, baseline=floor, fill=True, facecolor=fill, edgecolor=outline, linewidth=0.8)
            floor = top
        axis.set_xlim(edges[0], edges[-1])
        axis.set_ylim(0, 100)
        return svg(figure, "Operations of the search", "histogram")


def operations(lines: Lines) -> list[str]:
    """All operations in the histograms of these lines, sorted.

    Example:
        >>> operations([{"histogram": {"pool": 1.0}}, {"histogram": {"conv": 0.5, "pool": 0.5}}, {}])
        ['conv', 'pool']
    """
    return sorted({str(name) for line in lines if _shares(line) for name in line["histogram"]})


def pareto_figure(candidates: Lines, objective: Mapping[str, Any]) -> Markup:
    """Validation mIoU of the candidates against what they cost, the Pareto list marked and the limits drawn.

    Args:
        candidates: The entries of ``search/pareto.json``.
        objective: Its limits, such as ``{"max_params": 1000000}``; null where there is none.

    Returns:
        An inline SVG with a panel for each cost that is known of two candidates, FLOPs only where they are limited;
        empty when there is none.

    Example:
        >>> pareto_figure([{"miou": 0.5, "params": 10}, {"miou": 0.6, "params": 20}], {})[:4]
        Markup('<svg')
    """
    shown = []
    for key, title, scale, limit in _COSTS:
        found = [
            (cost * scale, 100 * miou, bool(line.get("pareto")))
            for line in candidates
            if (cost := number(line.get(key))) is not None and (miou := number(line.get("miou"))) is not None
        ]
        bound = number(objective.get(limit))
        if len(found) > 1 and (key != "flops" or bound is not None):
            shown.append((title, found, None if bound is None else bound * scale))
    if not shown:
        return Markup("")
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(["Validation mIoU, %"] + [""] * (len(shown) - 1), 3.3)
        for axis, (title, found, bound) in zip(axes, shown, strict=True):
            axis.set_xlabel(title)
            axis.xaxis.set_major_locator(MaxNLocator(6))
            _scatter(axis, found)
            if bound is not None and bound <= _FAR * max(x for x, _, _ in found):
                axis.axvline(bound, color="#c2334b", linewidth=1.3, linestyle=(0, (4, 3)), label="limit")
        axes[0].legend(frameon=False, fontsize=8.5, loc="best")
        return svg(figure, "Candidates by cost", "pareto")


def _scatter(axis: Axes, found: Sequence[tuple[float, float, bool]]) -> None:
    """All candidates grey, the Pareto list blue, and a stair along those no other beats in these two."""
    others = [(x, y) for x, y, on in found if not on]
    front = sorted((x, -y) for x, y, on in found if on)
    if others:
        axis.plot(*zip(*others, strict=True), "o", color="#b4bfcc", markersize=4.5, label="candidate")
    if front:
        stair: list[tuple[float, float]] = []
        for x, y in front:
            if not stair or -y > stair[-1][1]:
                stair.append((x, -y))
        axis.step(*zip(*stair, strict=True), where="post", color=ACCENT, linewidth=1.2, alpha=0.6)
        marked = [(x, -y) for x, y in front]
        style: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 4}
        axis.plot(*zip(*marked, strict=True), "o", color=ACCENT, label="Pareto list", **style)
    axis.margins(0.08)


def _by_number(lines: Lines, key: str) -> list[tuple[float, float]]:
    return [(float(i), value) for i, line in enumerate(lines, 1) if (value := number(line.get(key))) is not None]


def _shares(line: Mapping[str, Any]) -> bool:
    """Whether a line has a histogram."""
    return isinstance(line.get("histogram"), dict) and bool(line["histogram"])
