"""Numbers as people write them: percent, counts with k and M, durations. Unknown values are ``n/a``."""

from __future__ import annotations

from autoseg.durations import format_duration

NOT_KNOWN = "n/a"
NO_BREAK = "\u00a0"


def percent(value: float | None) -> str:
    """A fraction 0..1 in percent with one decimal, without the sign.

    Example:
        >>> percent(0.68949), percent(None)
        ('68.9', 'n/a')
    """
    return NOT_KNOWN if value is None else f"{100 * value:.1f}"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, signed, with a true minus.

    Example:
        >>> points(0.014), points(-0.002), points(-0.0001)
        ('+1.4', '−0.2', '0.0')
    """
    if value is None:
        return NOT_KNOWN
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def amount(value: float | None, unit: str = "") -> str:
    """A count with three figures and k, M, G or T; with a ``unit`` the letter joins it.

    Example:
        >>> amount(1_940_000).replace(NO_BREAK, " "), amount(950), amount(999_999).replace(NO_BREAK, " ")
        ('1.94 M', '950', '1.00 M')
        >>> amount(31_031_810).replace(NO_BREAK, " ")
        '31.0 M'
    """
    if value is None:
        return NOT_KNOWN
    letters, scaled = ["", "k", "M", "G", "T"], float(value)
    while len(letters) > 1 and abs(scaled) >= 999.5:
        scaled, letters = scaled / 1000, letters[1:]
    digits = 0 if letters[0] == "" or abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:.{digits}f}{NO_BREAK}{letters[0]}{unit}".rstrip(NO_BREAK)


def flops(value: float | None) -> str:
    """Floating-point operations of one forward pass.

    Example:
        >>> flops(1.2e9).replace(NO_BREAK, " "), flops(85e6).replace(NO_BREAK, " ")
        ('1.2 GFLOPs', '85.0 MFLOPs')
    """
    if value is None:
        return NOT_KNOWN
    size, letter = next(((s, c) for s, c in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if value >= s), (1e3, "k"))
    return f"{value / size:,.1f}{NO_BREAK}{letter}FLOPs"


def milliseconds(value: float | None) -> str:
    """A latency given in milliseconds.

    Example:
        >>> milliseconds(3.42).replace(NO_BREAK, " "), milliseconds(128.4).replace(NO_BREAK, " ")
        ('3.4 ms', '128 ms')
    """
    return NOT_KNOWN if value is None else f"{value:.{0 if value >= 99.95 else 1}f}{NO_BREAK}ms"


def duration(value: float | None) -> str:
    """Seconds with their two largest units, as everywhere in autoseg.

    Example:
        >>> [duration(s).replace(NO_BREAK, " ") for s in (0.4, 45, 200, 4320)]
        ['0.4 s', '45 s', '3 min 20 s', '1 h 12 min']
    """
    return NOT_KNOWN if value is None else format_duration(value).replace(" ", NO_BREAK)
