from __future__ import annotations

import pytest

from autoseg.durations import format_duration, parse_duration
from autoseg.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("10min", 600), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1 h 30 min", 5400), ("1.5H", 5400),
        ("1d", 86400), ("2 Days 1 sec", 172801), ("90", 90), (" 0.5 ", 0.5), (90, 90), (1.25, 1.25), ("0s", 0),
        (".5min", 30),
    ],
)  # fmt: skip
def test_parse(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert isinstance(parse_duration(text), float)


@pytest.mark.parametrize(
    "text",
    ["", "h", "1h30", "1h 2h", "10 parsecs", "-5", "-5min", "nan", "inf", "1,5h", "1h-2m", True, None, [3], -1.0],
)
def test_parse_rejects(text: object) -> None:
    with pytest.raises(UserError) as caught:
        parse_duration(text)  # type: ignore[arg-type]
    assert caught.value.problems[0].what == f"{text!r} is not a length of time"
    assert "1h30m" in caught.value.problems[0].fix


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.25, "0.25 s"), (0.999, "1 s"), (2.54, "2.5 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min"),
        (60, "1 min"), (95, "1 min 35 s"), (3599.7, "1 h"), (3600, "1 h"), (5400, "1 h 30 min"), (7199, "2 h"),
        (7229, "2 h"), (7322, "2 h 2 min"), (86399, "1 d"), (86400, "1 d"), (90061, "1 d 1 h"), (172800 + 59, "2 d"),
        (-95, "-1 min 35 s"),
    ],
)  # fmt: skip
def test_format(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_format_rejects_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        format_duration(float("inf"))


def test_formatted_durations_are_read_back() -> None:
    for seconds in range(0, 200_000, 37):
        back = parse_duration(format_duration(seconds))
        exact = 1 if seconds < 3600 else 60 if seconds < 86400 else 3600
        assert abs(back - seconds) <= (0 if exact == 1 else exact / 2), seconds
