"""The options of a plugin, read from its signature: which exist, which are required, what type they take.

A plugin documents its options by being an ordinary typed Python callable; nothing has to be declared twice.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from autoseg.errors import Problem, did_you_mean

_NETWORK_ARGUMENTS = ("in_channels", "num_classes")


@dataclass(frozen=True)
class OptionsOf:
    """Marks an option that is a section with the options of another plugin.

    Attributes:
        plugin: The other plugin, loaded.

    Example:
        >>> def dice(smooth: float = 1e-6): ...
        >>> def total(dice: typing.Annotated[dict[str, Any], OptionsOf(dice)] = {}): ...
        >>> print(check_against(options_of(total), {"dice": {"smoth": 1.0}}, lambda *keys: ".".join(keys))[0])
        dice.smoth: unknown option 'smoth'
          -> did you mean 'smooth'?
    """

    plugin: Any


def is_file_name(text: str) -> bool:
    """Whether the value of an option that takes names and files means a file: it has a ``/`` or an ending.

    Example:
        >>> is_file_name("imagenet"), is_file_name("encoder.pth"), is_file_name("./encoder")
        (False, True, True)
    """
    return os.sep in text or bool(Path(text).suffix)


def options_of(obj: Any) -> dict[str, Parameter]:
    """Keyword options that a plugin class or callable accepts.

    Inherited options are included where a class passes ``**kwargs`` on. ``in_channels`` and
    ``num_classes``, which autoseg itself supplies to networks, are left out. A plugin whose options have names
    that are none in Python gives them itself, as a dictionary ``plugin_options``.

    Args:
        obj: A class (its ``__init__`` counts) or any callable.

    Returns:
        Option name to parameter, with the annotation evaluated where that is possible. When anything is
        accepted, the last entry is the variadic parameter, under a key that starts with ``**``.

    Example:
        >>> def unet(in_channels: int, num_classes: int, *, width: int = 16): ...
        >>> {name: option.default for name, option in options_of(unet).items()}
        {'width': 16}
    """
    declared: Mapping[str, Parameter] | None = getattr(obj, "plugin_options", None)
    if declared is not None:
        return dict(declared)
    options: dict[str, Parameter] = {}
    variadic: Parameter | None = None
    for function, is_method in _functions(obj):
        variadic = None
        for parameter in _parameters(function)[is_method:]:
            if parameter.kind is Parameter.VAR_KEYWORD:
                variadic = parameter
            elif parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY):
                options.setdefault(parameter.name, parameter)
        if variadic is None:
            break
    for name in _NETWORK_ARGUMENTS:
        # A data set may well have an option num_classes=3: the pair, or one without default, is a network's.
        pair = all(argument in options for argument in _NETWORK_ARGUMENTS if argument != name)
        if name in options and (pair or options[name].default is Parameter.empty):
            options = {key: value for key, value in options.items() if key not in _NETWORK_ARGUMENTS}
    if variadic is not None:
        options[f"**{variadic.name}"] = variadic
    return options


def accepts_anything(options: Mapping[str, Parameter]) -> bool:
    """Whether the result of :func:`options_of` has a variadic entry.

    Example:
        >>> accepts_anything(options_of(lambda **options: None)), accepts_anything(options_of(lambda a: None))
        (True, False)
    """
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in options.values())


def check_against(
    known: Mapping[str, Parameter], given: Mapping[str, Any], where: Callable[..., str], *, complete: bool = True
) -> list[Problem]:
    """Compare the options that somebody gave with those that a plugin has.

    Args:
        known: Result of :func:`options_of`.
        given: Option values, JSON-like.
        where: Gives the place of an option for the message; for one inside a section it is called with the keys
            of both.
        complete: Whether a required option that is missing is a problem.

    Returns:
        One problem for each unknown option, value of the wrong type and missing required option.

    Example:
        >>> known = options_of(lambda layers=3: None)
        >>> print(check_against(known, {"layer": 5}, "space.options.{}".format)[0])
        space.options.layer: unknown option 'layer'
          -> did you mean 'layers'?
    """
    problems = []
    sections = {name: part for name, parameter in known.items() for part in _section_of(parameter.annotation)}
    for name, value in given.items():
        if name in known and not name.startswith("**"):
            annotation = known[name].annotation
            complaint = _type_complaint(value, annotation)
            if complaint:
                fix = f"'{name}' takes {_spell(annotation)}"
                if known[name].default is not Parameter.empty:
                    fix += f" (default: {known[name].default!r})"
                problems.append(Problem(f"option '{name}': {complaint}, got {value!r}", where(name), fix))
        elif not accepts_anything(known):
            inside = {f"{key}.{option}" for key, plugin in sections.items() for option in options_of(plugin)}
            fix = did_you_mean(name, known.keys() | inside) if known else "this plugin has no options"
            problems.append(Problem(f"unknown option '{name}'", where(name), fix))
    for name, parameter in known.items():
        required = parameter.default is Parameter.empty and parameter.kind is not Parameter.VAR_KEYWORD
        if complete and required and name not in given:
            problems.append(Problem(f"option '{name}' is missing", where(name), f"give {_spell(parameter.annotation)}"))
    for name, plugin in sections.items():
        section = given.get(name, {})
        if isinstance(section, dict):
            problems += check_against(options_of(plugin), section, functools.partial(where, name), complete=complete)
    return problems


def resolve_paths(
    known: Mapping[str, Parameter], given: Mapping[str, Any], base: Callable[..., Path]
) -> dict[str, Any]:
    """Turn the options annotated as :class:`~pathlib.Path` into absolute paths.

    Args:
        known: Result of :func:`options_of`.
        given: Option values.
        base: Gives the folder that a relative path of this option refers to; for an option inside a section it
            is called with the keys of both.

    Returns:
        A copy of ``given``; text (or each text of a list) becomes a ``Path`` where the annotation allows one.
        Where it allows a ``str`` too, only text with a ``/`` or a suffix such as ``.pth`` is a path.

    Example:
        >>> def folder(images: Path): ...
        >>> resolve_paths(options_of(folder), {"images": "a/../b"}, lambda option: Path("/data"))["images"].as_posix()
        '/data/b'
    """
    resolved = {}
    for name, value in given.items():
        annotation = known[name].annotation if name in known else Parameter.empty
        resolved[name] = _resolve(value, annotation, base(name))
        for plugin in _section_of(annotation):
            if isinstance(value, dict):
                resolved[name] = resolve_paths(options_of(plugin), value, functools.partial(base, name))
    return resolved


def _functions(obj: Any) -> Iterator[tuple[Callable[..., Any], int]]:
    """The functions whose parameters count, nearest first, each with its number of leading ``self``."""
    if not inspect.isclass(obj):
        yield obj, 0
        return
    found = False
    lineage = obj.__mro__
    for position, owner in enumerate(lineage):
        # NNI's ModelSpace replaces __init__ by a wrapper (*args, **kwargs) and keeps the original here.
        init = vars(owner).get("_init_wrapped") or vars(owner).get("__init__")
        is_root = owner is object or owner.__module__ == "torch.nn.modules.module"
        inherited = any(init is vars(base).get("__init__") for base in lineage[position + 1 :])
        if init is None or is_root or inherited:
            continue
        found = True
        yield init, 1
    if not found and obj.__new__ is not object.__new__:
        yield obj, 0


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    """Parameters with evaluated annotations; anything goes when there is no signature."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    if not hasattr(inner, "__globals__"):
        inner = type(inner).__call__
    names = {"Path": Path} | getattr(inner, "__globals__", {})
    return [parameter.replace(annotation=_evaluate(parameter.annotation, names)) for parameter in parameters]


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation written as text becomes a type; one that cannot be resolved stays text."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))
    except Exception:
        return annotation


def _type_complaint(value: Any, annotation: Any) -> str:
    """What is wrong with ``value``, or an empty string; annotations that mean nothing here are ignored.

    Values are compared the way JSON carries them and nothing is converted: a list will do for a tuple and
    text for a path, but neither ``"5"`` nor ``true`` for an integer.
    """
    if annotation is Parameter.empty or isinstance(annotation, str):
        return ""
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(annotation)
    except (PydanticUserError, TypeError, NameError):
        return ""
    try:
        try:
            adapter.validate_json(json.dumps(value, default=_path_as_text), strict=True)
        except (TypeError, ValueError) as error:
            if isinstance(error, ValidationError):
                raise
            adapter.validate_python(value)  # something that only Python can pass, such as a function
    except ValidationError as error:
        texts = dict.fromkeys(item["msg"] for item in error.errors(include_url=False))
        return " or ".join(text[:1].lower() + text[1:] for text in texts)
    return ""


def _path_as_text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError


def _resolve(value: Any, annotation: Any, base: Path) -> Any:
    if isinstance(value, list | tuple):
        items = [part for option in _alternatives(annotation) for part in typing.get_args(option)]
        return [_resolve(item, Path, base) for item in value] if Path in items else value
    kinds = _alternatives(annotation)
    is_name = isinstance(value, str) and str in kinds and not is_file_name(value)
    if isinstance(value, str | os.PathLike) and Path in kinds and not is_name:
        return Path(os.path.abspath(base / Path(value).expanduser()))
    return value


def _section_of(annotation: Any) -> list[Any]:
    """The plugin whose options an option holds, as a list of one or none."""
    return [mark.plugin for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, OptionsOf)]


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _spell(annotation: Any) -> str:
    """A type as a reader would write it."""
    if annotation is Parameter.empty:
        return "a value"
    if _section_of(annotation):
        return "a section of options"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("pathlib.", "")
