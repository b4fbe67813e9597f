"""AutoSegNet as graphs that the report draws: the stack of layers, and each kind of layer. No torch here."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from autoseg.spaces.autosegnet_code import LAYERS, Genotype
from autoseg.spaces.autosegnet_shape import Shape, transfer
from autoseg.spaces.extras import EXTRA_LABELS

if TYPE_CHECKING:
    from autoseg.spaces.base import CellDrawing

LABELS = {
    "sep3": "3x3 separable",
    "sep5": "5x5 separable",
    "hdc": "3x3 hybrid dilated",
    "identity": "identity",
    **EXTRA_LABELS,
}


def draw_network(genotype: Genotype, shape: Shape) -> list[CellDrawing]:
    """The whole network, then the down, the bridge and the up layer.

    Args:
        genotype: The architecture.
        shape: Its depth; bits of the long skips are transferred to it.

    Example:
        >>> from autoseg.spaces.autosegnet_code import parse
        >>> cell = "[(0,2,1,3)]"
        >>> genotype = parse(f"down={cell} bridge={cell} up={cell} skips=[1,0]", {"cells": 1})
        >>> stack, down, bridge, up = draw_network(genotype, Shape())
        >>> [edge for edge in stack["edges"] if edge[0] == "down1"], len(down["nodes"])
        ([['down1', 'hdc0'], ['down1', 'up1']], 6)
    """
    return [_stack(genotype, shape), *(_layer(genotype, name) for name in LAYERS)]


def _stack(genotype: Genotype, shape: Shape) -> CellDrawing:
    """Layers from top to bottom with their sizes and channels, and the long skips beside them."""
    n = shape.downsamplings

    def place(level: int) -> str:
        return f"1/{2**level}, C={shape.channels[level]}"

    nodes = [{"id": "stem", "label": f"stem, {3 * shape.width} channels", "kind": "input"}]
    nodes += [{"id": f"down{i}", "label": f"down {place(i)}", "kind": "op"} for i in range(n)]
    nodes += [{"id": f"hdc{i}", "label": f"HDC {place(n)}", "kind": "op"} for i in range(shape.hdc_layers)]
    nodes.append({"id": "bridge", "label": f"bridge {place(n)}", "kind": "op"})
    nodes += [{"id": f"up{i}", "label": f"up {place(i)}", "kind": "op"} for i in reversed(range(n))]
    nodes.append({"id": "out", "label": "1x1 conv", "kind": "output"})
    edges = [[start["id"], end["id"]] for start, end in pairwise(nodes)]
    bits = transfer(genotype.skips, n)
    edges += [[f"down{n - 1 - i}", f"up{n - 1 - i}"] for i, bit in enumerate(bits) if bit]
    return {"title": f"Network ({shape.layers} layers)", "nodes": nodes, "edges": edges}


def _layer(genotype: Genotype, name: str) -> CellDrawing:
    """Cells of a layer: two operations and their sum each; those that no other cell reads are concatenated."""
    sources, operations = genotype.sources(name), genotype.operations(name)
    ids = ["in0", "in1", *(f"add{cell}" for cell in range(len(sources)))]
    read = {code for pair in sources for codes in pair for code in codes}
    titles = ("layer before", "previous layer")
    nodes = [{"id": ids[i], "label": title, "kind": "input"} for i, title in enumerate(titles) if i in read]
    edges = []
    for cell, (pair, names) in enumerate(zip(sources, operations, strict=True)):
        for side, (codes, operation) in enumerate(zip(pair, names, strict=True)):
            nodes.append({"id": f"c{cell}_{side}", "label": LABELS[operation], "kind": "op"})
            edges += [[ids[code], f"c{cell}_{side}"] for code in codes]
            edges.append([f"c{cell}_{side}", f"add{cell}"])
        nodes.append({"id": f"add{cell}", "label": f"add (cell {cell + 1})", "kind": "combine"})
    nodes.append({"id": "out", "label": "concat", "kind": "output"})
    edges += [[f"add{cell}", "out"] for cell in range(len(sources)) if cell + 2 not in read]
    return {"title": f"{name.capitalize()} layer", "nodes": nodes, "edges": edges}
