"""The found architecture as a picture: its cells side by side, each a layered graph, as one inline SVG.

Any space can describe itself for this drawing with a static method ``cells(choices, kwargs)``; nothing here
knows a particular space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from autoseg.report.folded import Fold, draw_fold, fold, group
from autoseg.report.layout import ROW, Edge, Layout
from autoseg.report.shapes import (
    ARROW,
    BOX_HEIGHT,
    PAD,
    TITLE,
    Cell,
    Colors,
    Point,
    arrow,
    box,
    box_width,
    chain,
    on_panel,
    operation_colors,
    panel_width,
)

PAGE_WIDTH = 1036.0
"""Width of the page in pixels; wider cells are scaled down by the browser."""
_CELL_GAP = 24.0
_CHAIN_GAP = 34.0
_MOST_SPARE = 0.25  # of the width that panels are widened by, to end where the widest row ends
_FOLDED_FROM = 6
"""Nodes from which a path with skips counts as the overview of an encoder-decoder."""


def draw_cells(cells: Sequence[Mapping[str, Any]], colors: Colors | None = None) -> str:
    """Draw the cells of an architecture.

    Args:
        cells: ``{"title": str, "nodes": [{"id", "label", "kind": "input|op|combine|output"}],
            "edges": [[from, to], ...]}`` each; ids are unique within a cell.
        colors: Colours of operation labels, from :func:`cell_colors`; its default when left out.

    Returns:
        An inline SVG element. Data flow from top to bottom, in a plain chain from left to right; the overview of an
        encoder-decoder (a path of six nodes or more, and skips one inside the other) is a U. Each operation label has
        its own colour. Every node is a ``<g class="node" data-node="id">`` and every edge a ``<path class="edge">``
        with ``data-from`` and ``data-to``.

    Raises:
        ValueError: When a cell has a cycle, or an edge to a node that it does not have.

    Example:
        >>> svg = draw_cells([{"title": "Cell", "nodes": [{"id": "a", "label": "in", "kind": "input"},
        ...     {"id": "b", "label": "conv", "kind": "op"}], "edges": [["a", "b"]]}])
        >>> svg.count('class="node"'), svg.count('class="edge"')
        (2, 1)
    """
    colors = cell_colors(cells) if colors is None else colors
    rows: list[list[Cell]] = []
    for drawn in (_draw_cell(cell, colors) for cell in cells):
        if rows and _row_width(rows[-1]) + _CELL_GAP + drawn.width <= PAGE_WIDTH:
            rows[-1].append(drawn)
        else:
            rows.append([drawn])
    widest = max(map(_row_width, rows), default=1.0)
    parts, top = [], 0.0
    for row in rows:
        left, height, spare = 0.0, max(cell.height for cell in row), widest - _row_width(row)
        wider = spare / len(row) if spare <= _MOST_SPARE * widest else 0.0
        for cell in row:
            width = cell.width + wider
            parts.append(f'<g transform="translate({left:.1f} {top:.1f})">{on_panel(cell, width, height)}</g>')
            left += width + _CELL_GAP
        top += height + _CELL_GAP
    total = max(1.0, top - _CELL_GAP)
    return (
        f'<svg class="cells" viewBox="-1 -1 {widest + 2:.0f} {total + 2:.0f}" width="{widest + 2:.0f}" role="img" '
        f'aria-label="Cells of the architecture">{"".join(parts)}</svg>'
    )


def cell_colors(cells: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Fill and outline of every operation label in the cells; then of the groups of nodes in overviews.

    Example:
        >>> cell = {"nodes": [{"id": "a", "label": "conv", "kind": "op"}], "edges": []}
        >>> list(cell_colors([cell]))
        ['conv']
    """
    labels: tuple[set[str], set[str]] = (set(), set())
    for cell in cells:
        nodes, edges = _graph(cell)
        names = {str(node["label"]) for node in nodes.values() if node.get("kind") == "op"}
        if _folded(nodes, edges) is None:
            labels[0].update(names)
        else:
            labels[1].update(map(group, names))
    return operation_colors(labels[1], operation_colors(labels[0]))


def _graph(cell: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], list[Edge]]:
    """Nodes by id, and each edge once."""
    nodes = {str(node["id"]): node for node in cell["nodes"]}
    edges = list(dict.fromkeys((str(start), str(end)) for start, end in cell["edges"]))
    for edge in edges:
        for end in edge:
            if end not in nodes:
                raise ValueError(f"edge {edge[0]} -> {edge[1]} names the unknown node {end!r}")
    return nodes, edges


def _folded(nodes: Mapping[str, Mapping[str, Any]], edges: Sequence[Edge]) -> Fold | None:
    """The U of an overview; None for any other cell, and for a plain chain that fits on the page."""
    widths = [box_width(str(node["label"])) for node in nodes.values()]
    chained = len(edges) == len(nodes) - 1 and sum(widths) + (len(nodes) - 1) * _CHAIN_GAP + 2 * PAD <= PAGE_WIDTH
    return None if len(nodes) < _FOLDED_FROM or chained else fold(list(nodes), edges)


def _row_width(row: Sequence[Cell]) -> float:
    return sum(cell.width for cell in row) + (len(row) - 1) * _CELL_GAP


def _draw_cell(cell: Mapping[str, Any], colors: Colors) -> Cell:
    """Lay out and draw one cell."""
    nodes, edges = _graph(cell)
    title = str(cell.get("title", ""))
    folded = _folded(nodes, edges)
    if folded is not None:
        return draw_fold(title, folded, nodes, edges, colors)
    widths = {key: box_width(str(node["label"])) for key, node in nodes.items()}
    operations = frozenset(key for key, node in nodes.items() if node.get("kind") == "op")
    layout = Layout(widths, edges, sink=operations)
    if layout.is_chain and sum(widths.values()) + (len(nodes) - 1) * _CHAIN_GAP + 2 * PAD <= PAGE_WIDTH:
        return chain(title, sorted(nodes, key=layout.layer.__getitem__), nodes, colors, _CHAIN_GAP)
    width = panel_width(title, layout.width)
    height = TITLE + max(0, layout.depth - 1) * ROW + BOX_HEIGHT + 2 * PAD
    left = (width - layout.width) / 2
    x = {key: left + value for key, value in layout.x.items()}
    y = {key: _row_y(layer) for key, layer in layout.layer.items()}
    bends = {edge: [(left + bx, _row_y(layer)) for bx, layer in path] for edge, path in layout.bends.items()}
    starts, ends = _ports(edges, bends, x, widths)
    content = []
    for index, edge in enumerate(edges):
        first = (starts[index], y[edge[0]] + BOX_HEIGHT / 2)
        last = (ends[index], y[edge[1]] - BOX_HEIGHT / 2)
        content.append(_edge(edge, _clear([first, *bends[edge], last], x, y, widths)))
    content += [box(key, node, (x[key], y[key]), widths[key], colors) for key, node in nodes.items()]
    return Cell(title, width, height, "".join(content))


def _row_y(layer: int) -> float:
    """Centre of the boxes of a layer."""
    return TITLE + PAD + BOX_HEIGHT / 2 + layer * ROW


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


def _clear(
    path: Sequence[Point], x: Mapping[str, float], y: Mapping[str, float], widths: Mapping[str, float]
) -> list[Point]:
    """The path, made upright beside those boxes that its smooth line would touch."""
    curves = _curves(path)
    found = [path[0]]
    for place, (bend_x, bend_y) in enumerate(path[1:-1], 1):
        near = [point for curve in curves[place - 1 : place + 1] for point in _sampled(curve)]
        touched = any(
            y[node] == bend_y and abs(px - x[node]) < widths[node] / 2 + 4 and abs(py - bend_y) < BOX_HEIGHT / 2 + 3
            for node in x
            for px, py in near
        )
        half = BOX_HEIGHT / 2
        found += [(bend_x, bend_y - half), (bend_x, bend_y + half)] if touched else [(bend_x, bend_y)]
    return [*found, path[-1]]


def _curves(path: Sequence[Point]) -> list[tuple[Point, Point, Point, Point]]:
    """Cubic Bezier curves through the points: upright at both ends, smooth between."""
    slopes = [0.0, *(_slope(*path[i - 1 : i + 2]) for i in range(1, len(path) - 1)), 0.0]
    found = []
    for (p, p_slope), (q, q_slope) in pairwise(zip(path, slopes, strict=True)):
        reach = (q[1] - p[1]) * (0.5 if len(path) == 2 else 0.4)
        found.append((p, (p[0] + p_slope * reach, p[1] + reach), (q[0] - q_slope * reach, q[1] - reach), q))
    return found


def _sampled(curve: tuple[Point, Point, Point, Point]) -> list[Point]:
    """Points along a cubic Bezier curve."""
    found = []
    for t in (k / 16 for k in range(17)):
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        px, py = (sum(w * point[axis] for w, point in zip(weights, curve, strict=True)) for axis in (0, 1))
        found.append((px, py))
    return found


def _edge(edge: Edge, path: Sequence[Point]) -> str:
    """A smooth line that leaves and arrives upright, with a small arrow head."""
    tip = path[-1]
    curves = _curves([*path[:-1], (tip[0], tip[1] - ARROW + 1)])
    commands = [f"M{path[0][0]:.1f} {path[0][1]:.1f}"]
    for _, a, b, q in curves:
        commands.append(f"C{a[0]:.1f} {a[1]:.1f} {b[0]:.1f} {b[1]:.1f} {q[0]:.1f} {q[1]:.1f}")
    return arrow(edge, "".join(commands), tip, (0, 1))


def _slope(before: tuple[float, float], here: tuple[float, float], after: tuple[float, float]) -> float:
    """Sideways step per step down at a bend: none where the line turns back, never too flat to pass between boxes."""
    if (here[0] - before[0]) * (after[0] - here[0]) <= 0:
        return 0.0
    return min(1.0, max(-1.0, (after[0] - before[0]) / (after[1] - before[1])))
