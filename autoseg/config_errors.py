"""From pydantic's complaints to problems that a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from autoseg.errors import Problem, did_you_mean

Places = Callable[..., str]
"""From the parts of a key to where it was written."""

_TYPES = {
    "int_type": "this is not a whole number",
    "float_type": "this is not a number",
    "bool_type": "this is neither true nor false",
    "string_type": "this is not text",
    "list_type": "this is not a list",
    "dict_type": "this is not a section of keys",
    "model_type": "this is not a section of keys",
    "finite_number": "this is not a finite number",
}


def problems_of(error: ValidationError, model: type[BaseModel], where: Places) -> list[Problem]:
    """Translate every error of a validation.

    Args:
        error: What pydantic raised for ``model``.
        model: The model that was validated; descriptions of its fields say what to write instead.
        where: Gives the place of a key.
    """
    return [_problem(item, model, where) for item in error.errors(include_url=False)]


def _problem(item: Mapping[str, Any], model: type[BaseModel], where: Places) -> Problem:
    key: tuple[str | int, ...] = tuple(item["loc"])
    place = where(*key)
    kind: str = item["type"]
    if kind == "extra_forbidden":
        return Problem(f"unknown key '{key[-1]}'", place, _suggest(str(key[-1]), key[:-1], model))
    if kind == "invalid_key":
        return Problem(f"the key {key[-1]!r} is not text", place, "put it in quotes, or use a key that is known")
    field = _field(key, model)
    fix = f"{_last_name(key)}: {field.description}" if field is not None and field.description else ""
    if kind == "missing":
        return Problem(f"'{_last_name(key)}' is missing", place, fix)
    complaint = _TYPES.get(kind) or item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return Problem(f"{complaint[:1].lower()}{complaint[1:]}{_got(item['input'], complaint)}", place, fix)


def _got(value: object, complaint: str) -> str:
    """The offending value when it is short and not already in the message."""
    text = repr(value)
    said = isinstance(value, str) and text in complaint
    return f" (got {text})" if len(text) <= 60 and not said else ""


def _suggest(word: str, section: Sequence[str | int], root: type[BaseModel]) -> str:
    """Where an unknown key probably belongs."""
    model = _model(section, root) or root
    known = _names(model)
    guess = did_you_mean(word, known)
    if guess.startswith("did you mean"):
        return guess
    for name, field in _names(root).items():
        inner = _model_in(field.annotation)
        if inner is not None and inner is not model and word in _names(inner):
            return f"'{word}' belongs under '{name}'"
    if "options" in known:
        guess += "; options of the plugin go under 'options'"
    return guess


def _names(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields by the name that is written in the file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field(key: Sequence[str | int], model: type[BaseModel]) -> FieldInfo | None:
    """The field that ``key`` names."""
    parts = [part for part in key if isinstance(part, str)]
    owner = _model(parts[:-1], model)
    return _names(owner).get(parts[-1]) if owner and parts else None


def _model(key: Sequence[str | int], model: type[BaseModel]) -> type[BaseModel] | None:
    """The model of the section that ``key`` names."""
    current: type[BaseModel] | None = model
    for part in key:
        if isinstance(part, str) and current is not None:
            field = _names(current).get(part)
            current = _model_in(field.annotation) if field is not None else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in ``Model``, ``list[Model]`` or ``Model | None``."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _last_name(key: Sequence[str | int]) -> str:
    return next((part for part in reversed(key) if isinstance(part, str)), "")
