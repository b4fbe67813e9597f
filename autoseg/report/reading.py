"""Reading single files of a run folder for the report: whatever is missing or broken is left out, never raised."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)


def number(value: object) -> float | None:
    """A finite float, or None for null, NaN and anything that is not a number.

    Example:
        >>> number("0.5"), number(None), number(float("nan")), number("")
        (0.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


def mean(values: Iterable[object]) -> float | None:
    """Mean of the numbers among ``values``; None when there are none.

    Example:
        >>> mean([1, None, 2.0]), mean([])
        (1.5, None)
    """
    known = [v for v in map(number, values) if v is not None]
    return sum(known) / len(known) if known else None


def read_config(path: Path, missing: list[str]) -> tuple[str, dict[str, Any]]:
    """Text and content of the experiment file."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        log.debug("config.yaml of the run was not read: %s", error)
        missing.append("The resolved experiment file (config.yaml) is missing.")
        return "", {}
    return text, content if isinstance(content, dict) else {}


def read_object(path: Path, missing: list[str] | None = None, note: str = "") -> dict[str, Any]:
    """A JSON object, or an empty dict with a note when it is absent or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        log.debug("%s was not read: %s", path.name, error)
        content = None
    if isinstance(content, dict):
        return content
    if missing is not None:
        missing.append(note)
    return {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a line cut by a kill is skipped."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            found.append(content)
    return found


def read_history(path: Path) -> list[dict[str, float | None]]:
    """Rows of a training curve; cells without a number are None."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = [{k: number(v) for k, v in row.items() if k} for row in csv.DictReader(stream)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [row for row in rows if row.get("epoch") is not None]
