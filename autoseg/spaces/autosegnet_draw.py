"""AutoSegNet as graphs that the report draws: the stack of layers, and each kind of layer. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.spaces.autosegnet_code import LAYERS, Genotype
from autoseg.spaces.autosegnet_shape import Shape, transfer
from autoseg.spaces.extras import EXTRA_LABELS
from autoseg.spaces.graph import draw_blocks

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
    """Layers from top to bottom with their sizes and channels, and the long skips beside them.

    The line to a layer comes from the previous layer, or from the layer before where it reads that one alone. An up
    layer that does not read the previous layer takes no long skip, which would be added to what it reads from there.
    """
    n = shape.downsamplings
    reading = {name for name in LAYERS if any(1 in codes for pair in genotype.sources(name) for codes in pair)}
    reading |= {"hdc", "out"}

    def place(level: int) -> str:
        return f"1/{2**level}, C={shape.channels[level]}"

    nodes = [{"id": "stem", "label": f"stem, {3 * shape.width} channels", "kind": "input"}]
    nodes += [{"id": f"down{i}", "label": f"down {place(i)}", "kind": "op"} for i in range(n)]
    nodes += [{"id": f"hdc{i}", "label": f"HDC {place(n)}", "kind": "op"} for i in range(shape.hdc_layers)]
    nodes.append({"id": "bridge", "label": f"bridge {place(n)}", "kind": "op"})
    nodes += [{"id": f"up{i}", "label": f"up {place(i)}", "kind": "op"} for i in reversed(range(n))]
    nodes.append({"id": "out", "label": "1x1 conv", "kind": "output"})
    ids = ["stem", *(node["id"] for node in nodes)]  # the first layer reads the stem twice
    edges = [
        [previous if layer.rstrip("0123456789") in reading else before, layer]
        for before, previous, layer in zip(ids, ids[1:], ids[2:], strict=False)
    ]
    if "up" in reading:
        bits = transfer(genotype.skips, n)
        edges += [[f"down{n - 1 - i}", f"up{n - 1 - i}"] for i, bit in enumerate(bits) if bit]
    return {"title": f"Network ({shape.layers} layers)", "nodes": nodes, "edges": edges}


def _layer(genotype: Genotype, name: str) -> CellDrawing:
    """Cells of a layer: two operations and their sum each; those that no other cell reads are concatenated."""
    cells = [
        [(codes, LABELS[operation]) for codes, operation in zip(pair, names, strict=True)]
        for pair, names in zip(genotype.sources(name), genotype.operations(name), strict=True)
    ]
    inputs = ("layer before", "previous layer")
    return draw_blocks(f"{name.capitalize()} layer", inputs, cells, word="cell", output="concat")
