"""The graph of a cell whose blocks each add operations on what they read. This file needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoseg.spaces.base import CellDrawing

Branch = tuple[Sequence[int], str]
"""What an operation reads, as codes (several are added), and the text on it."""


def draw_blocks(
    title: str, inputs: Sequence[str], blocks: Sequence[Sequence[Branch]], *, word: str, output: str
) -> CellDrawing:
    """A cell as a graph; inputs that no block reads are left out.

    Args:
        title: Of the cell.
        inputs: Texts on the inputs of the cell, whose codes are 0, 1, ...; the codes of the blocks come next.
        blocks: The branches of each block; their operations are added.
        word: What a block is called; blocks are numbered from 0, as in the labels of the decisions.
        output: Text on the output, which joins the blocks that no other block reads.

    Example:
        >>> cell = draw_blocks("Cell", ["before"], [[([0], "3x3 conv")]], word="block", output="concat")
        >>> cell["edges"]
        [['in0', 'op0_0'], ['op0_0', 'add0'], ['add0', 'out']]
    """
    ids = [f"in{i}" for i in range(len(inputs))] + [f"add{b}" for b in range(len(blocks))]
    read = {code for block in blocks for codes, _ in block for code in codes}
    nodes = [{"id": ids[i], "label": text, "kind": "input"} for i, text in enumerate(inputs) if i in read]
    edges = []
    for b, block in enumerate(blocks):
        for side, (codes, operation) in enumerate(block):
            nodes.append({"id": f"op{b}_{side}", "label": operation, "kind": "op"})
            edges += [[ids[code], f"op{b}_{side}"] for code in codes]
            edges.append([f"op{b}_{side}", f"add{b}"])
        nodes.append({"id": f"add{b}", "label": f"add ({word} {b})", "kind": "combine"})
    nodes.append({"id": "out", "label": output, "kind": "output"})
    edges += [[f"add{b}", "out"] for b in range(len(blocks)) if len(inputs) + b not in read]
    return {"title": title, "nodes": nodes, "edges": edges}
