"""What a user says about a data set: the file ``dataset.yaml`` and a pixel size such as ``0.12nm``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autoseg.errors import Problem, UserError, raise_if

PIXEL_UNITS = {"nm": "nm", "um": "um", "µm": "um", "μm": "um", "mm": "mm", "px": "px"}
"""Accepted spelling of a length unit -> the spelling used everywhere else."""

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"


@dataclass(frozen=True)
class Description:
    """Contents of ``dataset.yaml``; None where the file says nothing.

    Attributes:
        name: Short name of the data set.
        classes: Class names; the index is the mask value.
        colors: One RGB triple (0..255) per class.
        ignore_index: Mask value of pixels that do not count.
        pixel_size: Edge length of a pixel in ``pixel_unit``.
        pixel_unit: ``"nm"``, ``"um"``, ``"mm"`` or ``"px"``.
        licence: The terms under which the images may be used, in any words.
    """

    name: str | None = None
    classes: tuple[str, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] | None = None
    ignore_index: int | None = None
    pixel_size: float | None = None
    pixel_unit: str | None = None
    licence: str | None = None


def parse_pixel_size(text: str, where: str = "pixel_size") -> tuple[float, str]:
    """Split a pixel size into number and unit.

    Args:
        text: A positive number followed by nm, um (or µm), mm or px.
        where: The option or file to name in the error.

    Raises:
        UserError: The text is no such pixel size.

    Example:
        >>> parse_pixel_size("0.12nm"), parse_pixel_size("2 µm")
        ((0.12, 'nm'), (2.0, 'um'))
    """
    match = re.fullmatch(rf"\s*({_NUMBER})\s*({'|'.join(PIXEL_UNITS)})\s*", str(text))
    size = float(match[1]) if match else 0.0
    if match is None or not 0 < size < math.inf:
        fix = "write a positive number and a unit (nm, um, mm or px), for example 0.12nm"
        raise UserError(Problem(f"'{text}' is no pixel size", where, fix))
    return size, PIXEL_UNITS[match[2]]


def read_description(path: Path) -> Description:
    r"""Read ``dataset.yaml``; keys that are not known here (citation, ...) are left alone.

    Args:
        path: The file. Known keys: ``name``; ``classes``, a list of names or of ``{index, name, color}``;
            ``ignore_index``; ``pixel_size``, such as ``0.12nm`` (or a number, with the unit in ``pixel_unit``);
            ``licence``.

    Raises:
        UserError: The file is no YAML, or known keys hold wrong values (all reported together).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "dataset.yaml"
        ...     _ = file.write_text("classes: [matrix, crack]\npixel_size: 2um\n")
        ...     found = read_description(file)
        >>> found.classes, found.pixel_size, found.pixel_unit
        (('matrix', 'crack'), 2.0, 'um')
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(Problem(f"cannot be read as YAML: {error}", str(path), "correct or remove the file")) from error
    try:
        parsed = _File.model_validate({} if content is None else content)
    except ValidationError as error:
        raise UserError([_problem(path, dict(detail)) for detail in error.errors()]) from error
    problems = _class_problems(path, parsed.classes)
    size, unit = None, None
    try:
        if parsed.pixel_size is not None:
            size, unit = parse_pixel_size(f"{parsed.pixel_size}{parsed.pixel_unit or ''}", f"{path}, pixel_size")
    except UserError as error:
        problems += error.problems
    raise_if(problems)
    entries = sorted(parsed.classes, key=lambda entry: entry.index) if parsed.classes else None
    colors = [entry.color for entry in entries if entry.color is not None] if entries else []
    return Description(
        name=parsed.name,
        classes=tuple(entry.name for entry in entries) if entries else None,
        colors=tuple(colors) if entries and len(colors) == len(entries) else None,
        ignore_index=parsed.ignore_index,
        pixel_size=size,
        pixel_unit=unit,
        licence=parsed.licence,
    )


_Level = Annotated[int, Field(ge=0, le=255)]


class _Class(BaseModel):
    index: _Level
    name: str
    color: tuple[_Level, _Level, _Level] | None = None


def _spell_out(classes: Any) -> Any:
    """Turn plain names into entries with an index, and fill in missing indices by position."""
    if not isinstance(classes, list):
        return classes
    return [
        {"index": index, **entry} if isinstance(entry, dict) else {"index": index, "name": entry}
        for index, entry in enumerate(classes)
    ]


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    classes: Annotated[list[_Class] | None, BeforeValidator(_spell_out)] = None
    ignore_index: _Level | None = None
    pixel_size: str | int | float | None = None
    pixel_unit: str | None = None
    licence: str | None = None


def _problem(path: Path, detail: dict[str, Any]) -> Problem:
    keys = ".".join(str(key) for key in detail["loc"])
    fix = "for example: classes: [{index: 0, name: matrix, color: [0, 0, 0]}, {index: 1, name: crack}]"
    return Problem(str(detail["msg"]), f"{path}, {keys}" if keys else str(path), fix if "classes" in keys else "")


def _class_problems(path: Path, classes: list[_Class] | None) -> list[Problem]:
    if classes is None:
        return []
    problems = []
    indices = sorted(entry.index for entry in classes)
    if indices != list(range(len(classes))):
        what = f"class indices are {indices}"
        problems.append(Problem(what, f"{path}, classes", f"number the classes 0 to {len(classes) - 1} without gaps"))
    if len({entry.name for entry in classes}) < len(classes):
        problems.append(Problem("two classes have the same name", f"{path}, classes", "give each class its own name"))
    return problems
