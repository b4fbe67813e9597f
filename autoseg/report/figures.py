"""The training curves of the report, drawn by matplotlib as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes

from autoseg.report.plotting import STYLE, dots, epoch, panels, points, svg
from autoseg.report.reading import mean
from autoseg.report.rundata import ModelRun


def training_figure(models: Sequence[ModelRun]) -> Markup:
    """Training loss and validation mIoU per epoch: seeds thin, their mean thick, in the colour of the model.

    Returns:
        An inline SVG, empty when no model has a history.
    """
    shown = [
        (title, key, scale)
        for key, title, scale in (("loss", "Training loss", 1.0), ("val_miou", "Validation mIoU, %", 100.0))
        if any(points(run.history, key) for model in models for run in model.runs)
    ]
    if not shown:
        return Markup("")
    known = [x for m in models for run in m.runs for row in run.history if (x := epoch(row)) is not None]
    with matplotlib.rc_context(STYLE):
        figure, axes = panels([title for title, _, _ in shown], 3.5)
        for axis, (_, key, scale) in zip(axes, shown, strict=True):
            for order, model in enumerate(models):
                _draw_model(axis, model, key, scale, order)
            axis.set_xlim(min(known) - 0.5, max(known) + 0.5)
        return svg(figure, "Training curves", "training")


def _draw_model(axis: Axes, model: ModelRun, key: str, scale: float, order: int) -> None:
    """Add the curves of one model; earlier models lie on top."""
    curves = [curve for run in model.runs if (curve := points(run.history, key, scale))]
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), color=model.color, linewidth=0.9, alpha=0.38, zorder=2)
    by_epoch = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*(set(curve) for curve in by_epoch))) or sorted(by_epoch[0])
    middle = [(x, value) for x in shared if (value := mean(curve.get(x) for curve in by_epoch)) is not None]
    axis.plot(*zip(*middle, strict=True), color=model.color, linewidth=2.0, zorder=20 - order, **dots(middle))
