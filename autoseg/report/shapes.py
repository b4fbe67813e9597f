"""The pieces of an architecture drawing as SVG: a cell's panel, its boxes and its arrows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from autoseg.report.layout import Edge
from autoseg.report.palette import INK, LINE, MUTED, NODE_FILLS, NODE_LINES

BOX_HEIGHT = 34.0
PAD = 18.0
TITLE = 34.0
ARROW = 7.0
"""Length of an arrow head."""
_CHARACTER = 7.3
_TITLE_CHARACTER = 9.2
_LONGEST = 26
_EDGE = "#98a2b3"

Colors = Mapping[str, tuple[str, str]]
"""Fill and outline of each operation label."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """One cell, drawn: its title, the size of its panel, and its SVG relative to the panel's corner."""

    title: str
    width: float
    height: float
    content: str


def operation_colors(labels: Iterable[str], known: Colors | None = None) -> dict[str, tuple[str, str]]:
    """Fill and outline for each different operation.

    Args:
        labels: Operations in any order; equal sets get equal colours.
        known: Colours that are given away already; they are kept, and used again last.

    Example:
        >>> sorted(operation_colors(["conv", "pool", "conv"]))
        ['conv', 'pool']
    """
    colors = dict(known or {})
    free = [pair for pair in zip(NODE_FILLS, NODE_LINES, strict=True) if pair not in colors.values()]
    for place, name in enumerate(sorted({str(label) for label in labels} - set(colors))):
        pairs = free or list(zip(NODE_FILLS, NODE_LINES, strict=True))
        colors[name] = pairs[place % len(pairs)]
    return colors


def box_width(label: str) -> float:
    """Width of a box that holds ``label``."""
    return max(58.0, min(len(label), _LONGEST) * _CHARACTER + 20)


def panel_width(title: str, content: float) -> float:
    """Width of a panel that holds ``content`` pixels of drawing and its title."""
    return max(content, _TITLE_CHARACTER * len(title)) + 2 * PAD


def on_panel(cell: Cell, width: float, height: float) -> str:
    """A cell in the middle of its ground, which may be larger than it needs."""
    return (
        f'<rect class="panel" width="{width:.1f}" height="{height:.1f}" rx="8" fill="#fbfcfd" stroke="{LINE}"/>'
        f'<text x="{PAD:.0f}" y="28" font-size="14" font-weight="600" fill="{INK}">{escape(cell.title)}</text>'
        f'<g transform="translate({(width - cell.width) / 2:.1f} 0)">{cell.content}</g>'
    )


def box(key: str, node: Mapping[str, Any], centre: Point, width: float, colors: Colors) -> str:
    """A box with its label; what goes in and out is plain, what combines is round, operations are coloured."""
    (x, y), label, kind = centre, str(node["label"]), str(node.get("kind", "op"))
    fill, stroke = colors.get(label, ("#ffffff", MUTED)) if kind == "op" else ("#ffffff", MUTED)
    if kind in ("input", "output"):
        fill = "#eceff3"
    radius = BOX_HEIGHT / 2 if kind == "combine" else 6
    short = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    rect = (
        f'<rect x="{x - width / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{width:.1f}" height="{BOX_HEIGHT:.0f}" '
        f'rx="{radius:.0f}" fill="{fill}" stroke="{stroke}" stroke-width="1.2"/>'
    )
    text = (
        f'<text x="{x:.1f}" y="{y + 4.4:.1f}" text-anchor="middle" font-size="12.5" fill="{INK}">{escape(short)}</text>'
    )
    return f'<g class="node" data-node="{escape(key)}"><title>{escape(label)}</title>{rect}{text}</g>'


def arrow(edge: Edge, path: str, tip: Point, towards: Point) -> str:
    """An edge: its line (SVG path data up to the base of the head) and a head with its tip at ``tip``.

    Args:
        edge: ``(from, to)``, kept as ``data-from`` and ``data-to``.
        path: Data of the line.
        tip: Where the head ends.
        towards: Direction of the head, one of ``(1, 0)``, ``(-1, 0)``, ``(0, 1)``, ``(0, -1)``.
    """
    (x, y), (dx, dy) = tip, towards
    base_x, base_y, side_x, side_y = x - ARROW * dx, y - ARROW * dy, 3.6 * dy, 3.6 * dx
    head = f"M{x:.1f} {y:.1f}L{base_x + side_x:.1f} {base_y + side_y:.1f}L{base_x - side_x:.1f} {base_y - side_y:.1f}z"
    return (
        f'<path class="edge" data-from="{escape(edge[0])}" data-to="{escape(edge[1])}" d="{path}" '
        f'fill="none" stroke="{_EDGE}" stroke-width="1.4"/><path d="{head}" fill="{_EDGE}"/>'
    )


def straight(edge: Edge, start: Point, tip: Point) -> str:
    """An arrow along one axis."""
    (x, y), (tx, ty) = start, tip
    dx, dy = (tx > x) - (tx < x), (ty > y) - (ty < y)
    return arrow(edge, f"M{x:.1f} {y:.1f}L{tx - (ARROW - 1) * dx:.1f} {ty - (ARROW - 1) * dy:.1f}", tip, (dx, dy))


def chain(title: str, order: Sequence[str], nodes: Mapping[str, Mapping[str, Any]], colors: Colors, gap: float) -> Cell:
    """A cell without branches, from left to right to save room."""
    widths = [box_width(str(nodes[key]["label"])) for key in order]
    width = panel_width(title, sum(widths) + (len(order) - 1) * gap)
    height, y, right = TITLE + BOX_HEIGHT + 2 * PAD, TITLE + PAD + BOX_HEIGHT / 2, PAD
    content = []
    for index, (key, size) in enumerate(zip(order, widths, strict=True)):
        if index:
            content.append(straight((order[index - 1], key), (right, y), (right + gap, y)))
            right += gap
        content.append(box(key, nodes[key], (right + size / 2, y), size, colors))
        right += size
    return Cell(title, width, height, "".join(content))
