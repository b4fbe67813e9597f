"""Numbers, marks of the best, and interval charts."""

from __future__ import annotations

import re

import pytest

from autoseg.report.formats import NO_BREAK, amount, duration, flops, milliseconds, percent, points
from autoseg.report.intervals import chart_limits, gain_chart, interval_chart
from autoseg.report.palette import model_colors
from autoseg.report.reading import mean, number
from autoseg.report.tables import mark_best


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9995, "10.0 k"),
        (99_950, "100 k"),
        (1_940_000, "1.94 M"),
        (2.5e9, "2.50 G"),
    ],
)
def test_amount(value: float, text: str) -> None:
    assert amount(value) == text.replace(" ", NO_BREAK)


def test_other_formats() -> None:
    assert percent(1.0) == "100.0" and percent(0.0004) == "0.0"
    assert points(-0.0123) == "−1.2"
    assert flops(999e6) == f"999.0{NO_BREAK}MFLOPs" and flops(1.25e12) == f"1.2{NO_BREAK}TFLOPs"
    assert milliseconds(0.04) == f"0.0{NO_BREAK}ms"
    assert duration(3600) == f"1{NO_BREAK}h"
    assert {f(None) for f in (percent, points, amount, flops, milliseconds, duration)} == {"n/a"}


def test_best_is_marked_as_printed() -> None:
    assert [c.best for c in mark_best([0.5001, 0.5004, 0.3], 1, percent)] == [True, True, False]
    assert [c.best for c in mark_best([3.0, 2.0, None], -1, milliseconds)] == [False, True, False]
    assert not any(c.best for c in mark_best([0.5], 1, percent))
    assert not any(c.best for c in mark_best([0.5001, 0.5004], 1, percent))


def test_interval_chart_places_dot_bar_and_ticks() -> None:
    svg = interval_chart(0.5, (0.25, 0.75), [0.4, None], 0.0, 1.0, "#123456")
    assert float(re.search(r'cx="([\d.]+)"', svg)[1]) == pytest.approx(75.0)
    assert re.search(r'x1="41.0" x2="109.0"[^>]*stroke="#123456"', svg)
    assert svg.count("<path") == 1 and "M61.4 6V16" in svg


def test_gain_chart_has_zero_in_the_middle() -> None:
    svg = gain_chart(-0.01, (-0.03, 0.01), "#000")
    assert re.search(r'<line x1="75.0" x2="75.0"', svg)
    assert float(re.search(r'cx="([\d.]+)"', svg)[1]) < 75


def test_chart_limits_are_whole_percents_around_all_values() -> None:
    assert chart_limits([0.701, None, 0.724]) == (0.69, 0.73)
    assert chart_limits([]) == (0.0, 1.0)
    assert chart_limits([0.999, 1.0])[1] == 1.0


def test_numbers_from_files() -> None:
    assert number("1e-3") == 0.001 and number(True) is None and number(float("inf")) is None and number("x") is None
    assert mean([None, "2", 4]) == 3.0


def test_colours_stay_with_roles() -> None:
    colors = model_colors(["finalist", "baseline", "baseline", "control"])
    assert len(set(colors)) == 4
    assert colors[0] == model_colors(["finalist"])[0] and colors[3] == model_colors(["control"])[0]
