"""Presets: parts of an experiment that a file holds ready under names, and ``--preset`` puts over the file.

Dictionaries are merged, lists and scalars replaced; a key that is null is taken away, so that its default applies.
Where a preset names another plugin, the options of the one in the file do not stay. Each merged key remembers that
it was written in the preset, so that messages name its line and ``presets.NAME.key``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

from autoseg.config_check import expand, value_at
from autoseg.config_yaml import Document, Key, Place
from autoseg.errors import Problem, did_you_mean

PRESETS = "presets"
"""The key of the file that holds them."""
PLUGIN_SECTIONS: dict[Key, str] = {
    ("data",): "dataset",
    ("space",): "name",
    ("strategy",): "name",
    ("train", "loss"): "name",
    ("train", "schedule"): "name",
}
"""Sections that choose a plugin, and the key that names it."""


def take_presets(document: Document) -> dict[str, dict[str, Any]]:
    """Take the presets out of a document; what is no preset becomes a problem of it.

    Args:
        document: As it was read; the key ``presets`` leaves its data, the places stay.

    Returns:
        The content of each preset by its name.

    Example:
        >>> from pathlib import Path
        >>> document = Document({"seed": 1, "presets": {"paper": {"seed": 2}}}, Path("."))
        >>> take_presets(document), document.data
        ({'paper': {'seed': 2}}, {'seed': 1})
    """
    written = document.data.pop(PRESETS, None)
    if written is None:
        return {}
    fix = "presets: {NAME: {any keys of an experiment}}"
    if not isinstance(written, dict):
        document.problems.append(Problem("this is not a section of presets", document.where(PRESETS), fix))
        return {}
    presets: dict[str, dict[str, Any]] = {}
    for name, content in written.items():
        if isinstance(name, str) and isinstance(content, dict | None):
            presets[name] = content or {}
        else:
            what = f"{name!r} is not text" if not isinstance(name, str) else "this is not a section of keys"
            document.problems.append(Problem(what, document.where(PRESETS, str(name)), fix))
    return presets


def unknown_preset(name: str, presets: Collection[str]) -> Problem:
    """What to say about a preset that is not there.

    Example:
        >>> print(unknown_preset("papr", ["paper"]))
        --preset papr: there is no preset called 'papr'
          -> did you mean 'paper'?
    """
    fix = did_you_mean(name, presets) if presets else "the file has no presets; leave it out"
    return Problem(f"there is no preset called '{name}'", f"--preset {name}", fix)


def with_preset(
    document: Document, name: str, content: Mapping[str, Any], defaults: Mapping[str, str], train_keys: Collection[str]
) -> Document:
    """A document with a preset put over it; the old one stays as it is.

    Args:
        document: The file without its presets, nothing expanded yet.
        name: Name of the preset.
        content: What it holds.
        defaults: Names of the plugins, by the last part of their section's key, where a file names none.
        train_keys: Keys of ``train``; others are options of the space.

    Example:
        >>> from pathlib import Path
        >>> document = Document({"strategy": {"name": "enas", "options": {"rewards": 8}}}, Path("."))
        >>> with_preset(document, "quick", {"strategy": "random"}, {}, []).data
        {'strategy': {'name': 'random'}}
    """
    merged = Document(deepcopy(document.data), document.folder, dict(document.places), list(document.problems))
    extra: dict[str, Any] = deepcopy(dict(content))
    gone = _take_nulls(extra, ())
    _expand(merged, train_keys)
    within = Document(extra, document.folder, _inner_places(document, name))
    named = [key for key, field in PLUGIN_SECTIONS.items() if isinstance(value_at(extra, key), str)]
    options_alone = extra.pop("data") if list(_section(extra, ("data",))) == ["options"] else None
    _expand(within, train_keys)
    if options_alone is not None:  # those of the file's data set
        extra["data"] = options_alone
    for key in named:
        place, field = within.places.get(key), PLUGIN_SECTIONS[key]
        if place is not None:
            within.places[(*key, field)] = place._replace(key=(*(place.key or key), field))
    for key in gone:
        _take_away(merged, key, train_keys)
    _drop_foreign_options(merged, extra, defaults)
    _merge(merged, merged.data, extra, ())
    merged.places = {**within.places, **merged.places}
    return merged


def _take_nulls(data: dict[Any, Any], key: Key) -> list[Key]:
    """Take the keys that are null out of ``data`` and everything in it; returns them."""
    found: list[Key] = []
    for name, value in list(data.items()):
        if value is None:
            del data[name]
            found.append((*key, name))
        elif isinstance(value, dict):
            found += _take_nulls(value, (*key, name))
    return found


def _take_away(document: Document, key: Key, train_keys: Collection[str]) -> None:
    """Take a key out of an expanded document; where it names a plugin, with the whole section."""
    if PLUGIN_SECTIONS.get(key[:-1]) == key[-1]:
        key = key[:-1]
    if key[0] == "train" and len(key) > 1 and key[1] not in train_keys:
        key = ("train", "space_options", *key[1:])
    elif key[0] == "data" and len(key) > 1 and key[1] not in ("dataset", "options"):
        key = ("data", "options", *key[1:])
    section: dict[Any, Any] = _section(document.data, key[:-1])
    section.pop(key[-1], None)
    _forget(document, key)
    if key == ("space",):
        _take_away(document, ("train", "space_options"), train_keys)


def _inner_places(document: Document, name: str) -> dict[Key, Place]:
    """Where the keys of a preset were written, by the key that they stand for."""
    found = {key[2:]: (key, place) for key, place in document.places.items() if key[:2] == (PRESETS, name) and key[2:]}
    return {key: place._replace(key=written) for key, (written, place) in found.items()}


def _expand(document: Document, train_keys: Collection[str]) -> None:
    """Write short forms out, and move the places of what has moved."""
    before = document.data.get("data")
    expand(document.data, train_keys)
    moves = isinstance(before, dict) and document.data["data"] is not before
    moved = {
        key: (key[0], "options", *key[1:])
        for key in document.places
        if moves and len(key) > 1 and key[0] == "data" and key[1] != "options"
    } | {
        key: (key[0], "space_options", *key[1:])
        for key in document.places
        if len(key) > 1 and key[0] == "train" and key[1] not in train_keys
    }
    for old, new in moved.items():
        place = document.places.pop(old)
        document.places[new] = place if place.key else place._replace(key=old)


def _drop_foreign_options(document: Document, extra: dict[str, Any], defaults: Mapping[str, str]) -> None:
    """Options of the file's plugins leave where the preset names other plugins."""
    for section, field in PLUGIN_SECTIONS.items():
        old, new = _section(document.data, section), _section(extra, section)
        name = new.get(field)
        if name is None or name == old.get(field, defaults.get(str(section[-1]))):
            continue
        old.pop("options", None)
        _forget(document, (*section, "options"))
        train = document.data.get("train")
        if section == ("space",) and isinstance(train, dict):
            train.pop("space_options", None)
            _forget(document, ("train", "space_options"))


def _merge(document: Document, target: dict[Any, Any], extra: dict[Any, Any], key: Key) -> None:
    for name, value in extra.items():
        inner = (*key, name)
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            _merge(document, target[name], value, inner)
        else:
            target[name] = value
            _forget(document, inner)


def _forget(document: Document, key: Key) -> None:
    """Forget where a key and everything in it were written."""
    document.places = {other: place for other, place in document.places.items() if other[: len(key)] != key}


def _section(data: Any, key: Key) -> dict[str, Any]:
    """The section at ``key``; an empty one where there is none."""
    found = value_at(data, key)
    return found if isinstance(found, dict) else {}
