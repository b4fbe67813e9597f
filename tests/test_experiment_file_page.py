"""docs/experiment-file.md names every key of the experiment file, with its meaning and its default."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autoseg.config import ExperimentConfig
from autoseg.train.schedules import SCHEDULES

PAGE = Path(__file__).parent.parent / "docs" / "experiment-file.md"


def sections_in(annotation: Any) -> Iterator[tuple[type[BaseModel], bool]]:
    """The models in an annotation, each with whether a list holds it."""
    if isinstance(annotation, type) and not typing.get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation, False
    for part in typing.get_args(annotation):
        for model, _ in sections_in(part):
            yield model, typing.get_origin(annotation) is list


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if hasattr(value, "name") else ""
    if isinstance(value, list) and value:
        return ", ".join(f"`{item.name}`" for item in value)
    if value is None or value in ({}, []):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(model: type[BaseModel] = ExperimentConfig, key: str = "", names: str = "required") -> Iterator[str]:
    """The table row of every key; ``names`` is the default of the keys ``name`` in a section."""
    for name, field in model.model_fields.items():
        own = key + (field.alias or name)
        special = {"compute.machines[].user": "your name here", "baselines[].as": "its name"}
        default = special.get(own) or (names if name == "name" and key else default_of(field))
        yield f"| `{own}` | {field.description} | {default} |"
        for inner, listed in sections_in(field.annotation):
            yield from rows(inner, own + ("[]." if listed else "."), "required" if listed else default)


def test_every_key_is_there_with_its_meaning_and_default() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `")]
    keys = [row.split("`")[1] for row in rows()]
    assert len(keys) == len(set(keys)) > 60
    assert [line for line in table if line.split("`")[1] in keys] == list(rows())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_there_with_its_options(name: str) -> None:
    (line,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |"))
    fields = SCHEDULES[name].__dataclass_fields__
    assert all(f"`{field}: {spec.default:g}`" in line for field, spec in fields.items())
