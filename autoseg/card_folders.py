"""Taking the folders of a machine out of what is shown to others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

_NAMED = re.compile(r"(?:[A-Za-z][\w.-]+[:=](?!//))?")  # such as "weights=" before a path
_ROOT = re.compile(r"file://|~[\w-]*[\\/]|[A-Za-z]:[\\/]|\\\\|/")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_WORD = re.compile(r"[^\s'\"()<>\[\]{},;]+")
_SEPARATOR = re.compile(r"[\\/]+")


def without_folders(value: Any) -> Any:
    """The same plain values with every absolute path cut down to its last part.

    A text that is a path as a whole may hold spaces; within a sentence a path ends at a space, unless it is quoted.
    Relative paths and web addresses stay.

    Args:
        value: Text, or mappings and sequences of plain values; keys are cleaned too.

    Example:
        >>> without_folders({"weights": "/home/me/my nets/w.pth", "note": "1/2 of /data/a, C:/x/y.png", "/srv/a": 1})
        {'weights': 'w.pth', 'note': '1/2 of a, y.png', 'a': 1}
    """
    if isinstance(value, Mapping):
        cleaned: dict[Any, Any] = {}
        for key, item in value.items():
            cleaned[_unused(without_folders(key), cleaned)] = without_folders(item)
        return cleaned
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, Sequence):
        return [without_folders(item) for item in value]
    return value


def _unused(key: Any, taken: Mapping[Any, Any]) -> Any:
    """A key that is not there yet: two folders may hold files of one name."""
    number, free = 2, key
    while free in taken:
        number, free = number + 1, f"{key} ({number})"
    return free


def _clean(text: str) -> str:
    if "\n" not in text and _is_path(text):
        return _last_part(text)
    text = _QUOTED.sub(lambda found: _within(found.group()), text)
    return _WORD.sub(lambda found: _last_part(found.group()) if _is_path(found.group()) else found.group(), text)


def _within(quoted: str) -> str:
    inside = quoted[1:-1]
    return quoted[0] + _last_part(inside) + quoted[-1] if _is_path(inside) else quoted


def _is_path(text: str) -> bool:
    """Whether a text, after a name and a colon perhaps, is an absolute path; "/10" is none."""
    path = text[_NAMED.match(text).end() :]  # type: ignore[union-attr]
    root = _ROOT.match(path)
    return root is not None and (root.group() != "/" or len(_SEPARATOR.findall(path.rstrip("/"))) > 1)


def _last_part(text: str) -> str:
    start = _NAMED.match(text).end()  # type: ignore[union-attr]
    return text[:start] + (PureWindowsPath(text[start:].removeprefix("file://")).name or "folder")
