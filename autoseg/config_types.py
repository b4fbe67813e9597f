"""The types of values in an experiment file that are more than numbers and text."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator

from autoseg.durations import parse_duration
from autoseg.errors import UserError

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def _duration(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except UserError as error:
        raise ValueError(error.problems[0].what) from None
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError("must start with a letter or digit and go on with letters, digits or one of . _ + -")
    return value


def _switch_or_settings(value: Any) -> Any:
    if isinstance(value, bool | dict):
        return value
    raise ValueError("must be true, false or a section of settings")


def _amount(value: Any) -> int:
    """A count, possibly written with k, M or G; ``"1.5M"`` is 1,500,000."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kMG]?)", str(value).strip())
    units = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    count = 0 if match is None or isinstance(value, bool) else round(float(match[1]) * units[match[2]])
    if count < 1:
        raise ValueError("must be a number above 0, such as 500k, 2M or 1.5G")
    return count


Amount = Annotated[int, PlainValidator(_amount)]
"""A count, more than 0, as a number or with k, M or G."""
Duration = Annotated[float, PlainValidator(_duration)]
"""Seconds, more than 0; read with :func:`autoseg.durations.parse_duration`."""
Slug = Annotated[str, AfterValidator(_slug)]
"""A name that is safe as the name of a folder."""
Switch = Annotated[bool | dict[str, Any], PlainValidator(_switch_or_settings)]
"""True, false, or a section of settings."""
