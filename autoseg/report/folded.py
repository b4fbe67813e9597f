"""Encoder-decoder overviews as the U of the papers: down on the left, up on the right, skips straight across."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

from autoseg.report.layout import Edge
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
    panel_width,
    straight,
)

ROW = 58.0
_ACROSS = 100.0
_LEFT, _CENTRE, _RIGHT = -1, 0, 1


@dataclass(frozen=True)
class Fold:
    """A path folded in its middle.

    Attributes:
        path: The nodes in the order of the data flow.
        place: ``(side, row)`` of each: side -1 on the left, 0 at the bottom centre, 1 on the right.
    """

    path: tuple[str, ...]
    place: dict[str, tuple[int, float]]


def fold(nodes: Sequence[str], edges: Sequence[Edge]) -> Fold | None:
    """Fold a graph into a U, when it is one: a path through all nodes, and skips that lie one inside the other.

    Both ends of a skip come to lie in one row.

    Args:
        nodes: All nodes.
        edges: ``(from, to)`` of an acyclic graph, each once.

    Returns:
        The places; None for any other graph.

    Example:
        >>> u = fold("abcd", [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])
        >>> [u.place[node] for node in u.path]
        [(-1, 0.0), (-1, 1.0), (1, 1.0), (1, 0.0)]
        >>> fold("abc", [("a", "b"), ("a", "c")]) is None
        True
    """
    before: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        before[end].append(start)
    path = tuple(TopologicalSorter(before).static_order())
    steps = set(pairwise(path))
    if len(path) < 2 or not steps <= set(edges):
        return None
    index = {node: i for i, node in enumerate(path)}
    skips = sorted((index[start], index[end]) for start, end in edges if (start, end) not in steps)
    if any(not (a < c and d < b) for (a, b), (c, d) in pairwise(skips)):
        return None
    place: dict[str, tuple[int, float]] = {}
    left, right, row = -1, len(path), -1.0
    for a, b in skips:
        row += max(a - left, right - b)
        _column(place, path, list(range(left + 1, a + 1)), _LEFT, row)
        _column(place, path, list(range(right - 1, b - 1, -1)), _RIGHT, row)
        left, right = a, b
    inner = list(path[left + 1 : right])
    half = len(inner) // 2
    for i in range(half):
        place[inner[i]] = (_LEFT, row + 1 + i)
        place[inner[-1 - i]] = (_RIGHT, row + 1 + i)
    if len(inner) % 2:
        place[inner[half]] = (_CENTRE, row + max(1, half))
    return Fold(path, place)


def _column(
    place: dict[str, tuple[int, float]], path: Sequence[str], indices: Sequence[int], side: int, row: float
) -> None:
    """Put nodes of one side under each other, the last one into ``row``."""
    for distance, index in enumerate(reversed(indices)):
        place[path[index]] = (side, row - distance)


def group(label: str) -> str:
    """What the nodes of an overview have in common and are coloured by: their label up to its number.

    Example:
        >>> group("down layer 2"), group("C1 (64)"), group("3x3 conv")
        ('down layer', 'C', '3x3 conv')
    """
    named = re.match(r"[^\W\d][^\d(]*", label)
    return named.group().strip() if named else label


def draw_fold(
    title: str, folded: Fold, nodes: Mapping[str, Mapping[str, Any]], edges: Sequence[Edge], colors: Colors
) -> Cell:
    """Draw a folded graph.

    Args:
        title: Title of the cell.
        folded: Places of the nodes.
        nodes: ``{id: node}`` as in :func:`autoseg.report.drawing.draw_cells`.
        edges: All edges.
        colors: Colours of operations, and of the groups of nodes in overviews.
    """
    widths = {key: box_width(str(node["label"])) for key, node in nodes.items()}
    columns = {side: max((widths[k] for k in nodes if folded.place[k][0] == side), default=0.0) for side in (-1, 0, 1)}
    across = max(_ACROSS, columns[_CENTRE] + 60)
    width = panel_width(title, columns[_LEFT] + across + columns[_RIGHT])
    depth = max(row for _, row in folded.place.values())
    height = TITLE + depth * ROW + BOX_HEIGHT + 2 * PAD
    start = (width - columns[_LEFT] - across - columns[_RIGHT]) / 2
    x = {
        _LEFT: start + columns[_LEFT] / 2,
        _CENTRE: start + columns[_LEFT] + across / 2,
        _RIGHT: start + columns[_LEFT] + across + columns[_RIGHT] / 2,
    }
    centre = {key: (x[side], TITLE + PAD + BOX_HEIGHT / 2 + row * ROW) for key, (side, row) in folded.place.items()}
    labels = {str(node["label"]) for node in nodes.values()}
    shown = {label: colors[group(label)] for label in labels if group(label) in colors}
    content = [_edge(edge, centre[edge[0]], centre[edge[1]], widths) for edge in edges]
    content += [box(key, node, centre[key], widths[key], shown) for key, node in nodes.items()]
    return Cell(title, width, height, "".join(content))


def _edge(edge: Edge, start: Point, end: Point, widths: Mapping[str, float]) -> str:
    """Straight within a column or a row; around a corner to and from a box at the bottom centre."""
    (x, y), (tx, ty) = start, end
    half = BOX_HEIGHT / 2
    if x == tx:
        down = 1 if ty > y else -1
        return straight(edge, (x, y + down * half), (tx, ty - down * half))
    if y == ty:
        return straight(edge, (x + widths[edge[0]] / 2, y), (tx - widths[edge[1]] / 2, ty))
    if ty > y:
        tip = (tx - widths[edge[1]] / 2, ty)
        return arrow(edge, _corner((x, y + half), (x, ty), (tip[0] - ARROW + 1, ty)), tip, (1, 0))
    tip = (tx, ty + half)
    return arrow(edge, _corner((x + widths[edge[0]] / 2, y), (tx, y), (tx, tip[1] + ARROW - 1)), tip, (0, -1))


def _corner(start: Point, corner: Point, end: Point) -> str:
    """A line around a rounded corner."""
    return f"M{start[0]:.1f} {start[1]:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
