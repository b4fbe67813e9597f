"""The paper's notation for ED-NAS cells: tuples of codes, sizes of the space, and the published cells.

An encoder cell is ``E = [(I1, I2, OP1, OP2), ...]``, one 4-tuple per block; a chain decoder cell is
``D = [(I1, OP1), ...]``; a multi-branch decoder cell is written like an encoder cell. Operation codes
are 0 = 3x3 depthwise separable, 1 = 5x5 depthwise separable, 2 = 3x3, 3 = 3x3 dilated by 2, 4 = 3x3 max
pooling (ED-NAS, Table 1); the option ``extra`` adds 5 = squeeze-and-excitation and 6 = global context,
which are not the paper's. Input codes count the candidates of a block: under the reading ``"enas"``
0 = the previous cell, 1 = the cell before it, 2 + b = block b; under ``"fig"`` 0 = the previous cell,
1 + b = block b. This file needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.spaces.extras import EXTRAS, check_extra

OPERATIONS = ("dw3", "dw5", "conv3", "dil3", "pool3")
"""Operation names in the order of the paper's codes (kept equal to ``nn.ops.ED_NAS_OPERATIONS``)."""
CODES = OPERATIONS + EXTRAS
"""Operation names by code, those of the option ``extra`` included."""
READINGS = ("enas", "fig")
DECODERS = ("chain", "multi")

BranchTuple = tuple[int, int, int, int]
ChainTuple = tuple[int, int]


def candidates(block: int, inputs: str) -> int:
    """Number of tensors that block ``block`` (from 0) may read.

    Raises:
        ValueError: ``inputs`` is unknown.

    Example:
        >>> [candidates(b, "enas") for b in range(3)], [candidates(b, "fig") for b in range(3)]
        ([2, 3, 4], [1, 2, 3])
    """
    if inputs not in READINGS:
        raise ValueError(f"inputs must be one of {READINGS}, got {inputs!r}")
    return block + (2 if inputs == "enas" else 1)


@dataclass(frozen=True)
class Genotype:
    """A pair of cells in the paper's notation.

    Attributes:
        encoder: ``(I1, I2, OP1, OP2)`` per block.
        decoder: ``(I1, OP1)`` per block for a chain, else as the encoder.
        inputs: Which reading the input codes follow, ``"enas"`` or ``"fig"``.
        wiring: ``"given"``, or ``"assumed"`` when the paper does not say which inputs a block reads.
        source: Where the cells come from.
        extra: Operations that the space has besides the paper's five.

    Raises:
        ValueError: A code is out of range, or the cells have no blocks or different numbers of them; all
            faults are named together, each with its place, as ``D[2]: OP1=7 is not in 0..4``.

    Example:
        >>> pair = Genotype(encoder=((0, 1, 2, 4),), decoder=((0, 2),))
        >>> str(pair), pair.blocks, pair.decoder_kind
        ('E=[(0,1,2,4)] D=[(0,2)]', 1, 'chain')
    """

    encoder: tuple[BranchTuple, ...]
    decoder: tuple[Any, ...]
    inputs: str = "enas"
    wiring: str = "given"
    source: str = ""
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        operations = [CODES.index(name) for name in OPERATIONS + check_extra(self.extra)]
        wrong = _wrong_branches("E", self.encoder, self.inputs, operations)
        if not self.encoder:
            wrong.append("E has no blocks")
        if len(self.encoder) != len(self.decoder):
            wrong.append(f"E has {len(self.encoder)} blocks and D has {len(self.decoder)}")
        elif self.decoder_kind == "chain":
            for b, (source, op) in enumerate(self.decoder):
                if source != b:
                    wrong.append(f"D[{b}]: I1={source}, but block {b} of a chain reads the block before it ({b})")
                if not _is_code(op, operations):
                    wrong.append(f"D[{b}]: OP1={op!r} is not in {_span(operations)}")
        else:
            wrong += _wrong_branches("D", self.decoder, self.inputs, operations)
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def blocks(self) -> int:
        """Number of blocks N in each cell."""
        return len(self.encoder)

    @property
    def decoder_kind(self) -> str:
        """``"chain"`` or ``"multi"``."""
        return "chain" if all(len(block) == 2 for block in self.decoder) else "multi"

    def __str__(self) -> str:
        return f"E={_show(self.encoder)} D={_show(self.decoder)}"


def _show(blocks: tuple[Any, ...]) -> str:
    return "[" + ",".join("(" + ",".join(map(str, block)) + ")" for block in blocks) + "]"


def _wrong_branches(cell: str, blocks: tuple[Any, ...], inputs: str, operations: Sequence[int]) -> list[str]:
    """What is out of range in the tuples of a multi-branch cell."""
    wrong = []
    for b, block in enumerate(blocks):
        if len(block) != 4:
            wrong.append(f"{cell}[{b}] has {len(block)} codes, not 4")
            continue
        sources = range(candidates(b, inputs))
        for name, code, allowed in zip(
            ("I1", "I2", "OP1", "OP2"), block, (sources, sources, operations, operations), strict=True
        ):
            if not _is_code(code, allowed):
                wrong.append(f"{cell}[{b}]: {name}={code!r} is not in {_span(allowed)}")
    return wrong


def _is_code(code: Any, allowed: Sequence[int]) -> bool:
    """Whether a code, possibly from a hand-written file, is a whole number among ``allowed``."""
    return type(code) is int and code in allowed


def _span(codes: Sequence[int]) -> str:
    """``0..6``, or with a gap ``0..4, 6``."""
    last = len(codes) - 1
    return f"0..{last}" if codes[last] == last else f"0..{last - 1}, {codes[last]}"


def to_choices(genotype: Genotype) -> dict[str, Any]:
    """The choices of :class:`autoseg.spaces.ednas.EdNas` that a genotype stands for.

    Returns:
        ``{label: value}``, sorted by label: operation names, and input codes as lists of one. An input with
        a single candidate (block 0 under ``"fig"``) is no decision and has no label.

    Example:
        >>> to_choices(ED_NAS_N3)["enc0_op1"], to_choices(ED_NAS_N3)["dec2_op1"]
        ('dw5', 'conv3')
    """
    choices: dict[str, Any] = {}
    branches = [("enc", genotype.encoder)]
    if genotype.decoder_kind == "multi":
        branches.append(("dec", genotype.decoder))
    else:
        choices.update({f"dec{b}_op1": CODES[op] for b, (_, op) in enumerate(genotype.decoder)})
    for cell, blocks in branches:
        for b, (in1, in2, op1, op2) in enumerate(blocks):
            if candidates(b, genotype.inputs) > 1:
                choices[f"{cell}{b}_in1"], choices[f"{cell}{b}_in2"] = [in1], [in2]
            choices[f"{cell}{b}_op1"], choices[f"{cell}{b}_op2"] = CODES[op1], CODES[op2]
    return dict(sorted(choices.items()))


def labels(blocks: int, decoder: str = "chain", inputs: str = "enas") -> list[str]:
    """The labels of all decisions of the space with these options, sorted.

    Example:
        >>> labels(1), len(labels(4)), len(labels(4, inputs="fig"))
        (['dec0_op1', 'enc0_in1', 'enc0_in2', 'enc0_op1', 'enc0_op2'], 20, 18)
    """
    branches = ((0, 0, 0, 0),) * blocks
    return list(to_choices(Genotype(branches, _chain([0] * blocks) if decoder == "chain" else branches, inputs)))


def from_choices(choices: dict[str, Any], inputs: str = "enas", extra: Sequence[str] = ()) -> Genotype:
    """The genotype of a set of choices; the inverse of :func:`to_choices`.

    Args:
        choices: ``{label: value}`` with exactly the labels of one space.
        inputs: The reading of the input codes, ``"enas"`` or ``"fig"``.
        extra: Operations that the space has besides the paper's five.

    Raises:
        ValueError: Choices of another space or another reading, or of a broken file.

    Example:
        >>> from_choices(to_choices(ED_NAS_N3)).decoder
        ((0, 0), (1, 0), (2, 2))
    """
    try:
        blocks = sum(label.startswith("enc") and label.endswith("_op1") for label in choices)
        if "dec0_op2" in choices:
            decoder: tuple[Any, ...] = tuple(_branch(choices, "dec", b, inputs) for b in range(blocks))
        else:
            decoder = _chain([CODES.index(choices[f"dec{b}_op1"]) for b in range(blocks)])
        encoder = tuple(_branch(choices, "enc", b, inputs) for b in range(blocks))
        genotype = Genotype(encoder, decoder, inputs, extra=check_extra(extra))
        foreign = sorted(choices.keys() - to_choices(genotype).keys())
        if foreign:
            raise ValueError(f"{', '.join(foreign)} not among the decisions of {blocks} blocks")
    except KeyError as error:
        raise ValueError(f"these are not choices of the ED-NAS space: {error} is missing") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"these are not choices of the ED-NAS space: {error}") from error
    return genotype


def _chain(operations: list[int]) -> tuple[ChainTuple, ...]:
    """A chain decoder cell: every block reads the one before it."""
    return tuple(enumerate(operations))


def _branch(choices: dict[str, Any], cell: str, b: int, inputs: str) -> BranchTuple:
    """Codes of block ``b``; an input that is no decision (one candidate only) is code 0."""
    in1 = in2 = 0
    if candidates(b, inputs) > 1:
        (in1,), (in2,) = (choices[f"{cell}{b}_{side}"] for side in ("in1", "in2"))
    op1, op2 = (CODES.index(choices[f"{cell}{b}_{side}"]) for side in ("op1", "op2"))
    return (in1, in2, op1, op2)


def space_size(
    blocks: int, decoder: str = "chain", inputs: str = "enas", modulo_swap: bool = False, extra: Sequence[str] = ()
) -> int:
    """Number of different pairs of cells, exactly.

    Args:
        blocks: N.
        decoder: ``"chain"`` or ``"multi"``.
        inputs: ``"enas"`` or ``"fig"``.
        modulo_swap: Count two blocks that differ only in the order of their branches as one.
        extra: Operations that the space has besides the paper's five.

    Raises:
        ValueError: ``decoder``, ``inputs`` or ``extra`` is unknown.

    Example:
        >>> space_size(3, inputs="fig"), space_size(4, inputs="enas")
        (70312500, 3515625000000)
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder must be one of {DECODERS}, got {decoder!r}")
    operations = len(OPERATIONS) + len(check_extra(extra))
    branches = [candidates(b, inputs) * operations for b in range(blocks)]
    cell = math.prod(n * (n + 1) // 2 if modulo_swap else n * n for n in branches)
    return cell * (operations**blocks if decoder == "chain" else cell)


def _assumed(pairs: list[tuple[int, int]], chain: list[int], source: str) -> Genotype:
    """Published operations with every block reading the previous cell twice (the wiring was lost)."""
    return Genotype(
        encoder=tuple((0, 0, op1, op2) for op1, op2 in pairs),
        decoder=_chain(chain),
        wiring="assumed",
        source=source,
    )


ED_NAS_N3 = _assumed([(1, 2), (0, 0), (1, 0)], [0, 0, 2], "ED-NAS, Figure 7a")
"""Best cells with N = 3 and a chain decoder; operations from the figure, wiring assumed."""
ED_NAS_N4 = _assumed([(2, 0), (4, 3), (0, 0), (2, 2)], [0, 2, 0, 2], "ED-NAS, Figure 7b")
"""Best cells with N = 4 and a chain decoder, the paper's ED-NAS; operations from the figure, wiring assumed."""
