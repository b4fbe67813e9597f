"""The figures of the comparison page: scores on each data set, and the critical difference diagram."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from autoseg.compare_runs import ComparedRuns
from autoseg.ranks import Ranking
from autoseg.report.palette import INK, MUTED
from autoseg.report.plotting import STYLE, WIDTH, svg

_PANELS = 3  # side by side
_ROW = 0.27  # inches for one model
_MARKERS = "osD^vP"


def score_figure(compared: ComparedRuns, colors: Mapping[str, str]) -> Markup:
    """MIoU of each model on each data set: a dot and its 95 % interval; the runs on one data set below each other.

    Args:
        compared: The runs.
        colors: A colour for each model.

    Returns:
        An inline SVG.
    """
    names, datasets = compared.models, compared.datasets
    most = max(sum(run.dataset == dataset for run in compared.runs) for dataset in datasets)
    columns = min(_PANELS, len(datasets))
    rows = -(-len(datasets) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, rows * (0.9 + _ROW * max(1.0, 0.55 * most) * max(2, len(names)))), layout="constrained"
        )
        figure.get_layout_engine().set(wspace=0.05, hspace=0.06)  # type: ignore[union-attr,call-arg]
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for place, axis in enumerate(axes.flat):
            if place < len(datasets):
                _draw_scores(axis, compared, datasets[place], colors)
            else:
                axis.set_visible(False)
        return svg(figure, "mIoU of the models on each data set", "scores")


def _draw_scores(axis: Axes, compared: ComparedRuns, dataset: str, colors: Mapping[str, str]) -> None:
    """One panel."""
    names = compared.models
    runs = [run for run in compared.runs if run.dataset == dataset]
    for number, run in enumerate(runs):
        for row, name in enumerate(names):
            cell = run.models.get(name)
            height = row + (number - (len(runs) - 1) / 2) * 0.6 / max(1, len(runs))
            if cell is None or cell.miou is None:
                continue
            low, high = cell.miou_interval
            if low is not None and high is not None:
                axis.hlines(height, 100 * low, 100 * high, color=colors[name], linewidth=4, alpha=0.32)
            marker = _MARKERS[number % len(_MARKERS)]
            axis.plot([100 * cell.miou], [height], marker, color=colors[name], markersize=6, markeredgecolor="white")
        if len(runs) > 1:
            axis.plot([], [], marker, color=MUTED, markersize=6, label=run.name)
    if len(runs) > 1:
        axis.legend(frameon=False, labelcolor=MUTED, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set_title(dataset if len(runs) == 1 else f"{dataset}, {len(runs)} runs")
    axis.set_xlabel("mIoU, %")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.tick_params(length=0, axis="both")
    axis.tick_params(axis="y", labelcolor=INK)


def rank_figure(ranking: Ranking) -> Markup:
    """The critical difference diagram (Demsar 2006, figure 1): models along the axis of mean ranks, the best left.

    Models joined by a thick line are not told apart. The length of the critical difference is above the axis.

    Returns:
        An inline SVG; empty when there is no critical difference.
    """
    distance, count = ranking.critical_difference, len(ranking.models)
    if distance is None:
        return Markup("")
    left, right = (count + 1) // 2, count // 2
    bars = 0.32 * len(ranking.groups) + 0.3
    depth = bars + 0.5 * max(left, right)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH * 0.86, 1.0 + 0.42 * depth), layout="constrained")
        axis = figure.subplots()
        axis.set_axis_off()
        axis.set_xlim(1 - 0.42 * (count - 1), count + 0.42 * (count - 1))
        axis.set_ylim(depth + 0.2, -1.35)
        axis.hlines(0, 1, count, color=INK, linewidth=1.2)
        for tick in range(1, count + 1):
            axis.vlines(tick, -0.12, 0, color=INK, linewidth=1.2)
            axis.text(tick, -0.2, str(tick), ha="center", va="bottom", color=MUTED)
        _draw_distance(axis, distance, count)
        for row, group in enumerate(ranking.groups):
            means = [ranking.mean_ranks[ranking.models.index(name)] for name in group]
            axis.hlines(0.3 + 0.32 * row, min(means) - 0.03, max(means) + 0.03, color=INK, linewidth=4)
        for place, (name, mean) in enumerate(zip(ranking.models, ranking.mean_ranks, strict=True)):
            on_left = place < left
            height = bars + 0.5 * (place if on_left else count - 1 - place) + 0.25
            end = 1 - 0.06 * (count - 1) if on_left else count + 0.06 * (count - 1)
            axis.plot([mean, mean, end], [0, height, height], color=MUTED, linewidth=0.9)
            text, side = (f"{name}  {mean:.2f}", "right") if on_left else (f"{mean:.2f}  {name}", "left")
            axis.text(end + (-0.015 if on_left else 0.015) * (count - 1), height, text, ha=side, va="center")
        return svg(figure, "Critical difference diagram", "ranks")


def _draw_distance(axis: Axes, distance: float, count: int) -> None:
    """The critical difference above the axis; cut where it is longer than the axis, which its number tells."""
    end = 1 + min(distance, count - 1)
    axis.hlines(-0.85, 1, end, color=INK, linewidth=1.6)
    axis.vlines([1, end] if distance <= count - 1 else [1], -0.95, -0.75, color=INK, linewidth=1.6)
    longer = "" if distance <= count - 1 else ", more than the whole axis"
    axis.text(1, -1.0, f"critical difference {distance:.2f}{longer}", ha="left", va="bottom")
