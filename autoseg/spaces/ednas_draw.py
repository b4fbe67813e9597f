"""ED-NAS cells as graphs that the report draws. This file needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoseg.spaces.ednas_code import CODES, Genotype
from autoseg.spaces.extras import EXTRA_LABELS
from autoseg.spaces.graph import draw_blocks

if TYPE_CHECKING:
    from autoseg.spaces.base import CellDrawing

LABELS = {
    "dw3": "3x3 separable",
    "dw5": "5x5 separable",
    "conv3": "3x3 conv",
    "dil3": "3x3 dilated",
    "pool3": "3x3 max pool",
    **EXTRA_LABELS,
}


def draw_cells(genotype: Genotype) -> list[CellDrawing]:
    """Encoder cell and decoder cell of a genotype.

    Returns:
        Two graphs. Inputs that no block reads are left out; a block of two branches is two nodes and their sum.

    Example:
        >>> from autoseg.spaces.ednas_code import ED_NAS_N3
        >>> [cell["title"] for cell in draw_cells(ED_NAS_N3)]
        ['Encoder cell', 'Decoder cell (chain)']
    """
    encoder = _branches("Encoder cell", genotype.encoder, genotype.inputs)
    if genotype.decoder_kind == "multi":
        return [encoder, _branches("Decoder cell (multi-branch)", genotype.decoder, genotype.inputs)]
    nodes = [{"id": "in", "label": "unpooled input", "kind": "input"}]
    edges = []
    for b, (_, op) in enumerate(genotype.decoder):
        nodes.append({"id": f"b{b}", "label": LABELS[CODES[op]], "kind": "op"})
        edges.append([nodes[-2]["id"], f"b{b}"])
    nodes.append({"id": "out", "label": "output", "kind": "output"})
    edges.append([nodes[-2]["id"], "out"])
    return [encoder, {"title": "Decoder cell (chain)", "nodes": nodes, "edges": edges}]


def _branches(title: str, blocks: tuple[tuple[int, int, int, int], ...], inputs: str) -> CellDrawing:
    """A multi-branch cell: two operations per block; the loose blocks are joined."""
    sources = ["previous cell", "cell before"] if inputs == "enas" else ["previous cell"]
    branches = [[([in1], LABELS[CODES[op1]]), ([in2], LABELS[CODES[op2]])] for in1, in2, op1, op2 in blocks]
    return draw_blocks(title, sources, branches, word="block", output="concat, 1x1 conv")
