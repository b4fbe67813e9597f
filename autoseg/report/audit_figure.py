"""The picture of an audit: does the ranking with shared weights agree with that of networks trained alone?"""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autoseg.report.palette import ACCENT, INK, MUTED
from autoseg.report.plotting import STYLE

_LONGEST = 56


def audit_scatter(supernet: Sequence[float], alone: Sequence[float], tau: float, names: Sequence[str]) -> bytes:
    """Scores of the same architectures with shared weights and trained alone.

    The architecture that the shared weights put first and the one that is best when trained alone are named: the
    height between the two is the regret of the ranking.

    Args:
        supernet: mIoU of each architecture with the weights of the supernet, 0..1.
        alone: mIoU of each, trained on its own, 0..1.
        tau: Kendall's rank correlation of the two, -1..1, for the title; NaN where it is not defined.
        names: Name of each architecture, such as its code.

    Returns:
        A PNG file.

    Raises:
        ValueError: The three do not have the same length, or are empty.

    Example:
        >>> audit_scatter([0.3, 0.5], [0.6, 0.7], 1.0, ["a", "b"])[1:4]
        b'PNG'
    """
    if not len(supernet) == len(alone) == len(names) or not names:
        raise ValueError(f"{len(supernet)}, {len(alone)} and {len(names)} entries: all must be as many, and not none")
    x, y = ([100 * value for value in values] for values in (supernet, alone))
    chosen = max(range(len(x)), key=lambda i: (x[i], -i))
    best = max(range(len(y)), key=lambda i: (y[i], i == chosen))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained", dpi=160)
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.set_title(f"Kendall's tau {tau:.2f} over {len(x)} architectures".replace("-", "−"))
        axis.set_xlabel("mIoU with shared weights, %")
        axis.set_ylabel("mIoU trained alone, %")
        axis.plot(x, y, "o", color="#8fa3b8", markersize=5.5)
        marks = [(chosen, "first with shared weights", ACCENT), (best, "best trained alone", "#d55e00")]
        if chosen == best:
            marks = [(best, "first with shared weights, best trained alone", ACCENT)]
        for index, title, color in marks:
            name = names[index] if len(names[index]) <= _LONGEST else names[index][: _LONGEST - 1] + "…"
            axis.plot(x[index], y[index], "o", color=color, markersize=8, label=f"{title}: {name}")
        if chosen != best:
            axis.axhline(y[best], color="#d55e00", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
            axis.axhline(y[chosen], color=ACCENT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axis.tick_params(length=0, labelcolor=MUTED)
        axis.margins(0.08)
        figure.legend(loc="outside lower left", frameon=False, fontsize=8.5, labelcolor=INK)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
