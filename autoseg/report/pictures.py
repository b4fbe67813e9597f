"""The found architecture as picture files: ``architecture.svg`` and ``architecture.png`` beside its JSON.

The PNG is rendered from the SVG by resvg, with the DejaVu Sans font that comes with matplotlib, so that it looks
the same on a machine without fonts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import resvg_py

from autoseg import registry
from autoseg.report.drawing import draw_cells
from autoseg.runfolder import write_bytes, write_text

log = logging.getLogger(__name__)

_FAMILIES = "'DejaVu Sans', Verdana, Arial, Helvetica, sans-serif"
_PIXELS_PER_UNIT = 2.0


def cells_of(architecture: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cells of an architecture, as its space describes them for drawing.

    Args:
        architecture: The content of ``architecture.json``. Its ``final_kwargs``, the options that differ in the final
            training, replace those of the search: what is drawn is the network that is trained in the end.

    Returns:
        What the space's ``cells(choices, kwargs)`` returns. Empty when there are no choices, when the space offers no
        drawing, and, with a warning in the log, when it fails: a drawing is never worth a run.

    Example:
        >>> from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
        >>> found = {"space": "ednas", "kwargs": {"blocks": 3}, "choices": to_choices(ED_NAS_N3)}
        >>> [cell["title"] for cell in cells_of(found)]
        ['Encoder cell', 'Decoder cell (chain)']
    """
    try:
        choices = architecture.get("choices")
        if not isinstance(choices, dict):
            return []
        cells = getattr(registry.load("space", architecture["space"]), "cells", None)
        options = {**(architecture.get("kwargs") or {}), **(architecture.get("final_kwargs") or {})}
        return list(cells(choices, options)) if cells else []
    except Exception as error:  # a space is somebody's plugin, whatever it does
        log.warning("the architecture is not drawn: %s", error)
        return []


def save_cells(cells: Sequence[Mapping[str, Any]], path: Path) -> list[Path]:
    """Write the drawing of cells as ``.svg`` and ``.png``; each stands alone, on a white ground.

    Args:
        cells: As :func:`autoseg.report.drawing.draw_cells` takes them.
        path: Where to, without a suffix or with any; the folder is made when it is missing.

    Returns:
        The paths of the SVG and the PNG; both are replaced whole or not at all.

    Raises:
        ValueError: A cell has a cycle, or an edge to a node that it does not have.

    Example:
        >>> import tempfile
        >>> node = {"id": "a", "label": "3x3 conv", "kind": "op"}
        >>> files = save_cells([{"title": "Cell", "nodes": [node], "edges": []}], Path(tempfile.mkdtemp()) / "cell")
        >>> [file.name for file in files], files[1].read_bytes()[1:4]
        (['cell.svg', 'cell.png'], b'PNG')
    """
    svg = stand_alone(draw_cells(cells))
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        zoom=_PIXELS_PER_UNIT,
        background="#ffffff",
        skip_system_fonts=True,
        font_files=[str(fonts / name) for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")],
    )
    return [write_text(path.with_suffix(".svg"), svg), write_bytes(path.with_suffix(".png"), bytes(png))]


def save_architecture(architecture: Mapping[str, Any], path: Path) -> list[Path]:
    """Write the pictures of an architecture beside its JSON.

    Args:
        architecture: The content of ``architecture.json``.
        path: Where to, as for :func:`save_cells`.

    Returns:
        The files written; none when the space offers no drawing or describes one that cannot be drawn.

    Example:
        >>> save_architecture({"space": "ednas"}, Path("architecture"))
        []
    """
    cells = cells_of(architecture)
    try:
        return save_cells(cells, path) if cells else []
    except Exception as error:  # cells of a plugin may be anything
        log.warning("the architecture is not drawn: %s", error)
        return []


def stand_alone(svg: str) -> str:
    r"""An inline SVG element as a document: with a name space, fonts, margins and a white ground.

    Example:
        >>> stand_alone('<svg viewBox="-1 -1 12 8" width="12" role="img"></svg>')[:60]
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="\'DejaVu'
    """
    head, body = svg.split(">", 1)
    left, top, width, height = (float(v) for v in head.split('viewBox="')[1].split('"')[0].split())
    margin = 12.0
    box = f"{left - margin:g} {top - margin:g} {width + 2 * margin:g} {height + 2 * margin:g}"
    ground = (
        f'<rect x="{left - margin:g}" y="{top - margin:g}" width="{width + 2 * margin:g}" '
        f'height="{height + 2 * margin:g}" fill="#ffffff"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="{_FAMILIES}" viewBox="{box}" '
        f'width="{width + 2 * margin:g}" height="{height + 2 * margin:g}">{ground}{body}\n'
    )
