"""Reading YAML so that every key remembers where it was written: a line of the file, or a ``--set``.

Besides the place of each key this finds keys that appear twice, which YAML readers silently accept, and
reads ``1e-3`` as the number it looks like (YAML 1.1, and so PyYAML, takes it for text).
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from autoseg.errors import Problem, UserError

Key = tuple[str | int, ...]
"""Where a value sits: keys and list positions from the top, such as ``("baselines", 0, "name")``."""

_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_CONTAINERS = ("options", "space_options")  # keys that a short form leaves out


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that knows ``1e-3``."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe writer that quotes the text ``"1e-3"`` and never writes aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))  # type: ignore[no-untyped-call]


class Place(NamedTuple):
    """Where a key was written: ``"my.yaml, line 3"``, or ``"--set train.epochs=5"`` on the command line.

    Attributes:
        text: The place; empty for a dictionary made in Python.
        command_line: Whether it is an override.
        key: The key as it was written there, where that is another than the one it stands for.
    """

    text: str
    command_line: bool
    key: Key | None = None


@dataclass
class Document:
    """The raw content of an experiment file, with the place of each key.

    Attributes:
        data: What was written, as plain dictionaries, lists and scalars.
        folder: What relative paths in the file refer to.
        places: Where each key was written; a place without text for a dictionary made in Python.
        problems: Keys that appear twice, and overrides that cannot be applied.
        installed_only: Whether plugins that are not installed here are passed over (a preset not chosen).
    """

    data: dict[str, Any]
    folder: Path
    places: dict[Key, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    installed_only: bool = False

    def where(self, *key: str | int) -> str:
        """The place of a key, for messages; the nearest enclosing section's line when it was not written.

        Example:
            >>> document = Document({}, Path("."), {("train",): Place("my.yaml, line 2", False)})
            >>> document.where("train", "loss", "name")
            'my.yaml, line 2, train.loss.name'
        """
        written = self._written(key)
        if written in self.places:
            key = written  # as the user spelled it: data.images rather than data.options.images
        origin = self._origin(key)
        place = self.places[origin] if origin is not None else Place("", False)
        if place.command_line and origin == key:
            return place.text
        if origin is not None and place.key is not None:
            key = (*place.key, *key[len(origin) :])
        return f"{place.text}, {dotted(key)}" if place.text else dotted(key)

    def base(self, *key: str | int) -> Path:
        """The folder that a relative path in this option refers to."""
        origin = self._origin(self._written(key))
        return Path.cwd() if origin is None or self.places[origin].command_line else self.folder

    def override(self, text: str) -> None:
        """Apply one ``--set key.sub=value``; the value is YAML.

        Example:
            >>> document = Document({"train": {"epochs": 1}}, Path("."))
            >>> document.override("train.epochs=5")
            >>> document.data
            {'train': {'epochs': 5}}
        """
        place = Place(f"--set {text}", True)
        name, equals, value = text.partition("=")
        key = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
        match key:  # an option of the data, or of the space, is set where the file has it
            case ("data", "options", option) if ("data", option) in self.places:
                key = ("data", option)
            case ("data", option) if ("data", "options", option) in self.places:
                key = ("data", "options", option)
            case ("train", "space_options", option) if ("train", option) in self.places:
                key = ("train", option)
            case ("train", option) if ("train", "space_options", option) in self.places:
                key = ("train", "space_options", option)
        if not equals or "" in key:
            self.problems.append(Problem("not of the form key=value", place.text, "write --set train.epochs=5"))
            return
        try:
            new = plain(yaml.load(value, _Loader))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self.problems.append(Problem(f"the value is not YAML: {_one_line(error)}", place.text, "quote the value"))
            return
        target: Any = self.data
        for depth, part in enumerate(key[:-1], start=1):
            if isinstance(target, dict):
                inner = target.get(part)
                if inner is None or isinstance(inner, str):  # a missing section, or the short form "space: ednas"
                    short = "dataset" if key[:depth] == ("data",) else "name"
                    inner = {} if inner is None else {short: inner}
                    target[part] = inner
                target = inner
            elif isinstance(target, list) and isinstance(part, int) and part < len(target):
                if isinstance(target[part], str):
                    target[part] = {"name": target[part]}
                target = target[part]
            else:
                target = None
        last: Any = key[-1]
        if isinstance(target, dict) or (isinstance(target, list) and isinstance(last, int) and last < len(target)):
            target[last] = new
        else:
            what = f"'{dotted(key[:-1])}' has no '{last}' to set"
            self.problems.append(Problem(what, place.text, "set the enclosing key as a whole"))
            return
        self.places = {k: p for k, p in self.places.items() if k[: len(key)] != key} | {key: place}

    def _written(self, key: Key) -> Key:
        """The key as a short form spells it, when only that was written."""
        short = tuple(part for part in key if part not in _CONTAINERS)
        return short if key not in self.places and short in self.places else key

    def _origin(self, key: Key) -> Key | None:
        """The longest written key that encloses ``key`` or is it."""
        return next((key[:n] for n in range(len(key), 0, -1) if key[:n] in self.places), None)


def read_document(source: Path | str | Mapping[str, Any]) -> Document:
    """Read an experiment file, or take a dictionary as one.

    Raises:
        UserError: The file is missing, unreadable, empty, or not YAML with keys at the top.
    """
    if isinstance(source, Mapping):
        document = Document(plain(source), Path.cwd())
        document.places = dict.fromkeys(_keys(document.data, ()), Place("", False))
        return document
    path = Path(source)
    name = str(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(Problem("there is no such file", name, "check the path of the experiment file")) from None
    except IsADirectoryError:
        raise UserError(Problem("this is a folder", name, "give an experiment file (.yaml)")) from None
    except UnicodeDecodeError as error:
        fix = "give a YAML file; if it is one, save it as UTF-8"
        raise UserError(Problem(f"not a text file ({error.reason})", name, fix)) from error
    except OSError as error:
        raise UserError(Problem(f"cannot be read: {error.strerror}", name, "check its permissions")) from error
    document = Document({}, Path(os.path.abspath(path)).parent)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None
        if node is not None:
            _Walk(document, name).visit(node, (), ())
            data = loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(_syntax_problem(error, name)) from error
    if data is None:
        raise UserError(Problem("the file is empty", name, "name the data, as in data: {dataset: synthetic-ceramic}"))
    if not isinstance(data, dict):
        raise UserError(Problem("the file has no keys at its top level", name, "write 'data:' and so on, one per line"))
    document.data = plain(data)
    return document


def dump(data: Mapping[str, Any]) -> str:
    """Write plain data as YAML that :func:`read_document` reads back unchanged, keys in the order given.

    Example:
        >>> print(dump({"name": "a", "lr": 0.5, "text": "1e-3"}), end="")
        name: a
        lr: 0.5
        text: '1e-3'
    """
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def plain(value: Any) -> Any:
    """A copy with dictionaries, lists and text for mappings, tuples, paths and dates; the rest as it is.

    Example:
        >>> plain({"size": (1, 2)})
        {'size': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.isoformat() if isinstance(value, datetime.date) else value


def dotted(key: Sequence[str | int]) -> str:
    """A key as users write it.

    Example:
        >>> dotted(("baselines", 0, "name"))
        'baselines[0].name'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in key]
    return "".join(parts).removeprefix(".")


def _keys(value: Any, key: Key) -> Iterator[Key]:
    """The keys of everything inside plain data."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield (*key, name)
        yield from _keys(item, (*key, name))


@dataclass
class _Walk:
    """Visits the node graph of a file and notes the line of each key."""

    document: Document
    file: str

    def visit(self, node: yaml.Node, key: Key, inside: tuple[int, ...]) -> None:
        """Note everything below ``node``; ``inside`` holds the ids of the nodes around it."""
        if id(node) in inside:
            place = f"{self.file}, line {node.start_mark.line + 1}, {dotted(key)}"
            raise UserError(Problem("this alias contains itself", place, "write the values out"))
        inside = (*inside, id(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._note(item, (*key, index))
                self.visit(item, (*key, index), inside)
        elif isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for name, item in node.value:
                if name.tag == "tag:yaml.org,2002:merge":  # <<: *defaults, which keys written here replace
                    self.visit(item, key, inside)
                    continue
                if not isinstance(name, yaml.ScalarNode):
                    continue
                inner = (*key, name.value)
                line = name.start_mark.line + 1
                if name.value in seen:
                    what = f"the key '{name.value}' appears twice (first on line {seen[name.value]})"
                    place = f"{self.file}, line {line}, {dotted(inner)}"
                    self.document.problems.append(Problem(what, place, "keep one of them"))
                seen.setdefault(name.value, line)
                self._note(name, inner)
                self.visit(item, inner, inside)

    def _note(self, node: yaml.Node, key: Key) -> None:
        self.document.places[key] = Place(f"{self.file}, line {node.start_mark.line + 1}", False)


def _syntax_problem(error: Exception, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
    what = getattr(error, "problem", None) or _one_line(error)
    fix = "check indentation, colons, brackets and quotes around this place"
    if "'\\t'" in what:
        fix = "indent with spaces: YAML does not allow tabs"
    return Problem(f"not valid YAML: {what}", where, fix)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
