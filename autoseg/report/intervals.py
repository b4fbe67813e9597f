"""The small charts beside numbers: a dot with its interval, as inline SVG without a library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape

from autoseg.report.formats import percent
from autoseg.report.palette import LINE, MUTED

CHART_WIDTH = 150.0
_CHART_PAD = 7.0


def interval_chart(
    value: float | None,
    interval: Sequence[float] | None,
    ticks: Iterable[float | None],
    low: float,
    high: float,
    color: str,
    zero: bool = False,
) -> Markup:
    """A dot with its interval on a scale from ``low`` to ``high``, as inline SVG.

    Args:
        value: Place of the dot, or None for no dot.
        interval: Ends of the bar.
        ticks: Smaller marks, one per seed.
        low: Left end of the scale.
        high: Right end of the scale.
        color: Colour of dot and bar.
        zero: Draw a line at zero.

    Example:
        >>> interval_chart(0.5, (0.4, 0.6), [], 0.0, 1.0, "#000").count("<circle")
        1
    """
    at = _scale(low, high)
    parts = [f'<line x1="{_CHART_PAD}" x2="{CHART_WIDTH - _CHART_PAD}" y1="11" y2="11" stroke="{LINE}"/>']
    if zero:
        parts.append(
            f'<line x1="{at(0):.1f}" x2="{at(0):.1f}" y1="1" y2="21" stroke="{MUTED}" stroke-dasharray="2 2"/>'
        )
        parts.append(f'<text x="{at(0):.1f}" y="33" text-anchor="middle">0</text>')
    if interval:
        parts.append(
            f'<line x1="{at(interval[0]):.1f}" x2="{at(interval[1]):.1f}" y1="11" y2="11" '
            f'stroke="{escape(color)}" stroke-width="5" stroke-linecap="round" stroke-opacity="0.32"/>'
        )
    for tick in ticks:
        if tick is not None:
            parts.append(f'<path d="M{at(tick):.1f} 6V16" stroke="{escape(color)}" stroke-width="1.4" fill="none"/>')
    if value is not None:
        parts.append(f'<circle cx="{at(value):.1f}" cy="11" r="4.2" fill="{escape(color)}" stroke="#fff"/>')
    label = f"{percent(value)} percent" + (
        f", interval {' to '.join(percent(v) for v in interval)}" if interval else ""
    )
    return _svg(parts, 36 if zero else 22, label)


def axis_chart(low: float, high: float) -> Markup:
    """The scale of the interval charts: its two ends in percent."""
    at = _scale(low, high)
    parts = [
        f'<text x="{at(low) - _CHART_PAD:.1f}" y="11">{100 * low:.0f}</text>',
        f'<text x="{at(high) + _CHART_PAD:.1f}" y="11" text-anchor="end">{100 * high:.0f}</text>',
    ]
    return _svg(parts, 14, f"scale from {low:.0%} to {high:.0%}")


def gain_chart(gain: float, interval: Sequence[float], color: str) -> Markup:
    """The gain of the verdict with its interval and a line at zero."""
    reach = max(0.005, *(abs(v) for v in (gain, *interval))) * 1.15
    return interval_chart(gain, interval, [], -reach, reach, color, zero=True)


def chart_limits(values: Sequence[float | None]) -> tuple[float, float]:
    """Ends of the chart scale: whole percents around all ``values``."""
    known = [v for v in values if v is not None]
    if not known:
        return 0.0, 1.0
    low, high = np.floor(100 * min(known) - 0.3) / 100, np.ceil(100 * max(known) + 0.3) / 100
    return max(0.0, float(low)), max(min(1.0, float(high)), float(low) + 0.01)


def _scale(low: float, high: float) -> Callable[[float], float]:
    """Map from a value to its place in a chart."""
    span = (CHART_WIDTH - 2 * _CHART_PAD) / (high - low)
    return lambda value: _CHART_PAD + (min(max(value, low), high) - low) * span


def _svg(parts: Sequence[str], height: int, label: str) -> Markup:
    """Wrap the parts of a small chart; the parts must be escaped already."""
    head = f'<svg class="interval" viewBox="0 0 {CHART_WIDTH:.0f} {height}" width="{CHART_WIDTH:.0f}" height="{height}"'
    return Markup(f'{head} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>')
