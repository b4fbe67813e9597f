"""The found architecture as a picture: its cells side by side, each a layered graph, as one inline SVG.

Any space can describe itself for this drawing with a static method ``cells(choices, kwargs)``; nothing here
knows a particular space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import escape

from autoseg.report.layout import ROW, Edge, Layout
from autoseg.report.palette import INK, LINE, MUTED, NODE_FILLS, NODE_LINES

PAGE_WIDTH = 1036.0
"""Width of the page in pixels; wider cells are scaled down by the browser."""
BOX_HEIGHT = 34.0
_CELL_GAP = 40.0
_CHAIN_GAP = 34.0
_PAD = 22.0
_TITLE = 34.0
_CHARACTER = 7.1
_LONGEST = 26


@dataclass(frozen=True)
class _Cell:
    """One cell, laid out: its size and its drawing relative to its own corner."""

    width: float
    height: float
    content: str


def draw_cells(cells: Sequence[Mapping[str, Any]]) -> str:
    """Draw the cells of an architecture.

    Args:
        cells: ``{"title": str, "nodes": [{"id", "label", "kind": "input|op|combine|output"}],
            "edges": [[from, to], ...]}`` each; ids are unique within a cell.

    Returns:
        An inline SVG element. Data flow from top to bottom, in a plain chain from left to right; each operation
        label has its own colour. Every node is a ``<g class="node" data-node="id">`` and every edge a
        ``<path class="edge">`` with ``data-from`` and ``data-to``.

    Raises:
        ValueError: When a cell has a cycle, or an edge to a node that it does not have.

    Example:
        >>> svg = draw_cells([{"title": "Cell", "nodes": [{"id": "a", "label": "in", "kind": "input"},
        ...     {"id": "b", "label": "conv", "kind": "op"}], "edges": [["a", "b"]]}])
        >>> svg.count('class="node"'), svg.count('class="edge"')
        (2, 1)
    """
    colors = operation_colors(node["label"] for cell in cells for node in cell["nodes"] if node.get("kind") == "op")
    drawn = [_draw_cell(cell, colors) for cell in cells]
    rows: list[list[_Cell]] = []
    for cell in drawn:
        if rows and sum(c.width + _CELL_GAP for c in rows[-1]) + cell.width <= PAGE_WIDTH:
            rows[-1].append(cell)
        else:
            rows.append([cell])
    parts, top, widest = [], 0.0, 1.0
    for row in rows:
        left = 0.0
        for cell in row:
            parts.append(f'<g transform="translate({left:.1f} {top:.1f})">{cell.content}</g>')
            left += cell.width + _CELL_GAP
        widest = max(widest, left - _CELL_GAP)
        top += max(cell.height for cell in row) + _CELL_GAP
    height = max(1.0, top - _CELL_GAP)
    return (
        f'<svg class="cells" viewBox="-1 -1 {widest + 2:.0f} {height + 2:.0f}" width="{widest + 2:.0f}" role="img" '
        f'aria-label="Cells of the architecture">{"".join(parts)}</svg>'
    )


def operation_colors(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Fill and outline for each different operation, the same in all cells.

    Example:
        >>> sorted(operation_colors(["conv", "pool", "conv"]))
        ['conv', 'pool']
    """
    names = sorted({str(label) for label in labels})
    return {name: (NODE_FILLS[i % len(NODE_FILLS)], NODE_LINES[i % len(NODE_LINES)]) for i, name in enumerate(names)}


def _draw_cell(cell: Mapping[str, Any], colors: Mapping[str, tuple[str, str]]) -> _Cell:
    """Lay out and draw one cell on its panel."""
    nodes = {str(node["id"]): node for node in cell["nodes"]}
    edges: list[Edge] = list(dict.fromkeys((str(start), str(end)) for start, end in cell["edges"]))
    widths = {key: _box_width(str(node["label"])) for key, node in nodes.items()}
    title = str(cell.get("title", ""))
    operations = frozenset(key for key, node in nodes.items() if node.get("kind") == "op")
    layout = Layout(widths, edges, sink=operations)
    if layout.is_chain and sum(widths.values()) + (len(nodes) - 1) * _CHAIN_GAP + 2 * _PAD <= PAGE_WIDTH:
        return _draw_chain(title, sorted(nodes, key=layout.layer.__getitem__), nodes, widths, colors)
    width = max(layout.width, 8.2 * len(title)) + 2 * _PAD
    height = _TITLE + max(0, layout.depth - 1) * ROW + BOX_HEIGHT + 2 * _PAD
    left = (width - layout.width) / 2
    x = {key: left + value for key, value in layout.x.items()}
    y = {key: _row_y(layer) for key, layer in layout.layer.items()}
    bends = {edge: [(left + bx, _row_y(layer)) for bx, layer in path] for edge, path in layout.bends.items()}
    starts, ends = _ports(edges, bends, x, widths)
    content = [_panel(title, width, height)]
    for index, edge in enumerate(edges):
        first = (starts[index], y[edge[0]] + BOX_HEIGHT / 2)
        last = (ends[index], y[edge[1]] - BOX_HEIGHT / 2)
        content.append(_edge(edge, [first, *bends[edge], last]))
    content += [_node(key, node, x[key], y[key], widths[key], colors) for key, node in nodes.items()]
    return _Cell(width, height, "".join(content))


def _draw_chain(
    title: str,
    order: Sequence[str],
    nodes: Mapping[str, Mapping[str, Any]],
    widths: Mapping[str, float],
    colors: Mapping[str, tuple[str, str]],
) -> _Cell:
    """A cell without branches, from left to right to save room."""
    width = max(sum(widths.values()) + (len(order) - 1) * _CHAIN_GAP, 8.2 * len(title)) + 2 * _PAD
    height, y, right = _TITLE + BOX_HEIGHT + 2 * _PAD, _row_y(0), _PAD
    content = [_panel(title, width, height)]
    for index, key in enumerate(order):
        if index:
            start, right = right, right + _CHAIN_GAP
            line, arrow = f"M{start:.1f} {y:.1f}H{right - 6:.1f}", f"M{right:.1f} {y:.1f}l-7 -3.6v7.2z"
            content.append(_line((order[index - 1], key), line, arrow))
        content.append(_node(key, nodes[key], right + widths[key] / 2, y, widths[key], colors))
        right += widths[key]
    return _Cell(width, height, "".join(content))


def _panel(title: str, width: float, height: float) -> str:
    """The ground of a cell, with its title."""
    return (
        f'<rect class="panel" width="{width:.1f}" height="{height:.1f}" rx="8" fill="#fbfcfd" stroke="{LINE}"/>'
        f'<text x="{_PAD:.0f}" y="28" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>'
    )


def _row_y(layer: int) -> float:
    """Centre of the boxes of a layer."""
    return _TITLE + _PAD + BOX_HEIGHT / 2 + layer * ROW


def _box_width(label: str) -> float:
    """Width of a box that holds ``label``."""
    return max(58.0, min(len(label), _LONGEST) * _CHARACTER + 24)


def _ports(
    edges: Sequence[Edge],
    bends: Mapping[Edge, Sequence[tuple[float, float]]],
    x: Mapping[str, float],
    widths: Mapping[str, float],
) -> tuple[list[float], list[float]]:
    """Where each edge leaves and enters its boxes: spread over the middle of the box, in the order of the other end."""
    starts, ends = [0.0] * len(edges), [0.0] * len(edges)
    for side, ports in ((0, starts), (1, ends)):
        for node in x:
            mine = [i for i, edge in enumerate(edges) if edge[side] == node]

            def towards(i: int, side: int = side) -> float:
                path = bends[edges[i]]
                return path[0 if side == 0 else -1][0] if path else x[edges[i][1 - side]]

            mine.sort(key=towards)
            step = min(14.0, 0.6 * widths[node] / max(1, len(mine) - 1))
            for place, index in enumerate(mine):
                ports[index] = x[node] + (place - (len(mine) - 1) / 2) * step
    return starts, ends


def _edge(edge: Edge, path: Sequence[tuple[float, float]]) -> str:
    """A smooth line that leaves and arrives vertically, with a small arrow head."""
    tip_x, tip_y = path[-1]
    points = [*path[:-1], (tip_x, tip_y - 6)]
    slopes = [0.0, *(_slope(*points[i - 1 : i + 2]) for i in range(1, len(points) - 1)), 0.0]
    commands = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for ((px, py), p_slope), ((qx, qy), q_slope) in pairwise(zip(points, slopes, strict=True)):
        reach = (qy - py) * (0.5 if len(points) == 2 else 0.4)
        control = f"{px + p_slope * reach:.1f} {py + reach:.1f} {qx - q_slope * reach:.1f} {qy - reach:.1f}"
        commands.append(f"C{control} {qx:.1f} {qy:.1f}")
    return _line(edge, "".join(commands), f"M{tip_x:.1f} {tip_y:.1f}l-3.6 -7h7.2z")


def _line(edge: Edge, path: str, arrow: str) -> str:
    """An edge from the data of its line and of its arrow head."""
    return (
        f'<path class="edge" data-from="{escape(edge[0])}" data-to="{escape(edge[1])}" d="{path}" '
        f'fill="none" stroke="#98a2b3" stroke-width="1.4"/><path d="{arrow}" fill="#98a2b3"/>'
    )


def _slope(before: tuple[float, float], here: tuple[float, float], after: tuple[float, float]) -> float:
    """Sideways step per step down at a bend: none where the line turns back, never too flat to pass between boxes."""
    if (here[0] - before[0]) * (after[0] - here[0]) <= 0:
        return 0.0
    return min(1.0, max(-1.0, (after[0] - before[0]) / (after[1] - before[1])))


def _node(
    key: str, node: Mapping[str, Any], x: float, y: float, width: float, colors: Mapping[str, tuple[str, str]]
) -> str:
    """A box with its label; what goes in and out is plain, what combines is round, operations are coloured."""
    label, kind = str(node["label"]), str(node.get("kind", "op"))
    fill, stroke = colors.get(label, ("#ffffff", MUTED)) if kind == "op" else ("#ffffff", MUTED)
    if kind in ("input", "output"):
        fill = "#eceff3"
    radius = BOX_HEIGHT / 2 if kind == "combine" else 6
    short = label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"
    box = (
        f'<rect x="{x - width / 2:.1f}" y="{y - BOX_HEIGHT / 2:.1f}" width="{width:.1f}" height="{BOX_HEIGHT:.0f}" '
        f'rx="{radius:.0f}" fill="{fill}" stroke="{stroke}" stroke-width="1.2"/>'
    )
    text = (
        f'<text x="{x:.1f}" y="{y + 4.4:.1f}" text-anchor="middle" font-size="12.5" fill="{INK}">{escape(short)}</text>'
    )
    return f'<g class="node" data-node="{escape(key)}"><title>{escape(label)}</title>{box}{text}</g>'
