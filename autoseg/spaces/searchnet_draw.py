"""SEARCH-Net architectures as graphs that the report draws. This file needs no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from autoseg.spaces.extras import EXTRA_LABELS
from autoseg.spaces.searchnet_code import UNITS, Edge, Genotype

if TYPE_CHECKING:
    from autoseg.spaces.base import CellDrawing

LABELS = {
    "conv3": "3x3 conv",
    "conv5": "5x5 conv",
    "dil3": "3x3 dilated",
    "dil5": "5x5 dilated",
    "mb3": "3x3 SE-MBConv",
    "mb5": "5x5 SE-MBConv",
    "identity": "identity",
    **EXTRA_LABELS,
}
_SCALES = ("full size", "1/2", "1/4", "1/8", "1/8", "1/4", "1/2", "full size")


def draw_cells(genotype: Genotype, c4c5_skip: bool = False) -> list[CellDrawing]:
    """The shape of the network, then the eight units, each with the edges it keeps.

    Args:
        genotype: The edges.
        c4c5_skip: Whether C5 reads the input of C4 beside its output; then that input is a node of its own.

    Returns:
        Nine graphs; an operation is a node, as is the sum of the edges of a node.

    Example:
        >>> cells = draw_cells(Genotype(units=(((1, 0, "conv3"),),) * 8))
        >>> cells[1]["title"], [node["label"] for node in cells[8]["nodes"]]
        ('C1 (full size)', ['input', '3x3 conv', 'output'])
    """
    units = zip(UNITS, _SCALES, genotype.units, strict=True)
    return [_network(c4c5_skip), *(_unit(f"{unit.upper()} ({scale})", edges) for unit, scale, edges in units)]


def _network(c4c5_skip: bool) -> CellDrawing:
    """The units in their order, and who reads whom."""
    nodes = [{"id": "in", "label": "image", "kind": "input"}]
    nodes += [
        {"id": unit, "label": f"{unit.upper()} ({scale})", "kind": "combine"}
        for unit, scale in zip(UNITS, _SCALES, strict=True)
    ]
    if c4c5_skip:
        c4 = next(place for place, node in enumerate(nodes) if node["id"] == "c4")
        nodes.insert(c4, {"id": "c4in", "label": f"input of C4 ({_SCALES[3]})", "kind": "combine"})
    nodes.append({"id": "out", "label": "classes", "kind": "output"})
    edges = [[before["id"], after["id"]] for before, after in pairwise(nodes)]
    edges += [["c1", "c8"], ["c2", "c7"], ["c3", "c6"]]
    if c4c5_skip:
        edges.append(["c4in", "c5"])
    return {"title": "Network", "nodes": nodes, "edges": edges}


def _unit(title: str, edges: tuple[Edge, ...]) -> CellDrawing:
    """One unit; a node with a single edge is not drawn as a sum."""
    last = max(node for node, _, _ in edges)
    nodes = [{"id": "n0", "label": "input", "kind": "input"}]
    lines: list[list[str]] = []
    ends = {0: "n0"}
    for node in range(1, last + 1):
        incoming = [(source, op) for end, source, op in edges if end == node]
        for source, op in incoming:
            key = f"e{source}_{node}"
            nodes.append({"id": key, "label": LABELS[op], "kind": "op"})
            lines.append([ends[source], key])
        ends[node] = f"n{node}" if len(incoming) > 1 else f"e{incoming[0][0]}_{node}"
        if len(incoming) > 1:
            nodes.append({"id": f"n{node}", "label": f"add (node {node})", "kind": "combine"})
            lines += [[f"e{source}_{node}", f"n{node}"] for source, _ in incoming]
    nodes.append({"id": "out", "label": "concat, 1x1 conv" if last > 1 else "output", "kind": "output"})
    lines += [[ends[node], "out"] for node in range(1, last + 1)]
    return {"title": title, "nodes": nodes, "edges": lines}
