"""Hand-made points of the AutoSegNet space, for the first population of a search. This file needs no torch."""

from __future__ import annotations

from autoseg.spaces.autosegnet_code import LAYERS, OPERATIONS, Genotype, Grammar


def named_points(grammar: Grammar, skips: int) -> dict[str, Genotype]:
    """Networks one would draw by hand: in every layer the cells follow one another, and all long skips are on.

    Args:
        grammar: The decisions of the space.
        skips: Number of long skips.

    Returns:
        A chain of 3x3 separable convolutions (the nearest thing to a U-Net: every cell is two of them, added), the
        same with an identity beside each convolution, and where the grammar has it the latter with HDC. In the
        binary encoding each cell also reads both previous layers, because there it always does.

    Example:
        >>> str(named_points(Grammar(cells=2), 1)["residual hdc chain, all skips"]).split()[0]
        'down=[(1,2,1,3),(2,2,2,3)]'
    """
    pairs = {"sep3 chain, all skips": ("sep3", "sep3"), "residual sep3 chain, all skips": ("sep3", "identity")}
    if grammar.use_hdc:
        pairs["residual hdc chain, all skips"] = ("hdc", "identity")
    return {
        name: Genotype((_chain(grammar, *(OPERATIONS.index(op) for op in pair)),) * len(LAYERS), (1,) * skips, grammar)
        for name, pair in pairs.items()
    }


def _chain(grammar: Grammar, op1: int, op2: int) -> tuple[tuple[int, ...], ...]:
    """Cells that each read the one before; the first reads the previous layer."""
    if grammar.encoding == "enas":
        return tuple((1 + cell, op1, 1 + cell, op2) for cell in range(grammar.cells))
    return tuple((*(int(i == cell - 1) for i in range(cell)), op1, op2) for cell in range(grammar.cells))
