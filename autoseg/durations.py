"""Lengths of time as people write them: ``10min``, ``1h30m``, ``90s``, or a plain number of seconds."""

from __future__ import annotations

import math
import re

from autoseg.errors import Problem, UserError

_UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
_NAMES = {
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*")


def parse_duration(value: str | float) -> float:
    """Read a length of time.

    Args:
        value: A number of seconds (also as text, ``"90"``), or number-unit pairs such as ``"1h30m"`` and
            ``"2 min 5 s"``. Units are d, h, m/min and s, upper or lower case, each at most once.

    Returns:
        Seconds, finite and not negative.

    Raises:
        UserError: The value is not a length of time.

    Example:
        >>> parse_duration("1h30m"), parse_duration("10min"), parse_duration(90)
        (5400.0, 600.0, 90.0)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _not_a_duration(value)
    seconds = _parse_text(value) if isinstance(value, str) else float(value)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise _not_a_duration(value)
    return seconds


def format_duration(seconds: float) -> str:
    """Write a length of time with its two largest units, which :func:`parse_duration` reads back.

    Args:
        seconds: Any finite number of seconds; below ten seconds one decimal is kept (two digits below one).

    Raises:
        ValueError: ``seconds`` is infinite or not a number.

    Example:
        >>> format_duration(95), format_duration(5400), format_duration(2.54), format_duration(90061)
        ('1 min 35 s', '1 h 30 min', '2.5 s', '1 d 1 h')
    """
    if not math.isfinite(seconds):
        raise ValueError(f"not a finite number of seconds: {seconds}")
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 9.95:
        text = f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2g}"
        return f"{text.removesuffix('.0')} s"
    # Round to the smaller of the two units first, so that 3599.7 s is "1 h" and never "60 min".
    for smallest, limit in ((1.0, 3600.0), (60.0, 86400.0), (3600.0, math.inf)):
        rest = round(seconds / smallest) * smallest
        if rest < limit:
            break
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count:.0f} {unit}")
    return " ".join(parts)


def _parse_text(text: str) -> float | None:
    """Seconds, or None when ``text`` cannot be read."""
    text = text.strip().lower()
    try:
        return float(text)
    except ValueError:
        pass
    found: dict[str, float] = {}
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        unit = _NAMES.get(part.group(2)) if part else None
        if part is None or unit is None or unit in found:
            return None
        found[unit] = float(part.group(1)) * _UNITS[unit]
        position = part.end()
    return sum(found.values()) if found else None


def _not_a_duration(value: object) -> UserError:
    return UserError(Problem(f"{value!r} is not a length of time", fix="write 90s, 10min, 2h, 1h30m or seconds"))
