"""The decisions of AutoSegNet as codes: the token sequence of the paper and the sizes of the space.

A network is three layers of cells and a row of bits, written
``down=[...] bridge=[...] up=[...] skips=[1,0]``. One cell is, by encoding,

* ``"enas"``: ``(in1,op1,in2,op2)``, where an input is 0 = the layer before the previous one, h[t-1],
  1 = the previous layer, h[t], 2 + i = cell i of the same layer;
* ``"binary"``: ``(s0,...,op1,op2)`` with one bit per earlier cell of the layer, 1 = it is read.

Operations are 0 = 3x3 separable, 1 = 5x5 separable, 2 = hybrid dilated, 3 = identity, and, where the option
``extra`` adds them, 4 = squeeze and excitation, 5 = global context. A bit of ``skips`` joins a down layer with
the up layer of the same size, the coarsest pair first. This file needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from autoseg.spaces.extras import EXTRAS, check_extra

OPERATIONS = ("sep3", "sep5", "hdc", "identity", *EXTRAS)
"""Operation names in the order of their codes: the paper's four, then the optional ones."""
ENCODINGS = ("enas", "binary")
LAYERS = ("down", "bridge", "up")
SKIP_VALUES = ("none", "skip")
"""Values of a long skip; the position is the bit."""


@dataclass(frozen=True)
class Grammar:
    """Which decisions there are; it follows from the options of the space.

    Args:
        encoding: ``"enas"`` or ``"binary"``.
        cells: Cells per layer (paper: 3).
        use_hdc: Whether hybrid dilated convolution is among the operations.
        extra: Operations beyond the paper's, from :data:`autoseg.spaces.extras.EXTRAS`.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> Grammar().size(skips=2), Grammar(encoding="binary").tokens(skips=2)
        (52529986053649465344, 29)
    """

    encoding: str = "enas"
    cells: int = 3
    use_hdc: bool = True
    extra: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {ENCODINGS}, got {self.encoding!r}")
        if type(self.cells) is not int or self.cells < 1:
            raise ValueError(f"cells must be a whole number of at least 1, got {self.cells!r}")
        object.__setattr__(self, "extra", check_extra(self.extra))

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Grammar:
        """The grammar of a space with these options; those left out have their defaults."""
        return cls(**{field.name: kwargs[field.name] for field in fields(cls) if field.name in kwargs})

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that a cell may use."""
        left_out = ({"hdc"} if not self.use_hdc else set()) | set(EXTRAS).difference(self.extra)
        return tuple(name for name in OPERATIONS if name not in left_out)

    def labels(self, cell: int) -> list[str]:
        """Ends of the labels of cell ``cell``, in the order of its codes.

        Example:
            >>> Grammar().labels(2), Grammar("binary").labels(2)
            (['in1', 'op1', 'in2', 'op2'], ['skip0', 'skip1', 'op1', 'op2'])
        """
        return ["in1", "op1", "in2", "op2"] if self.encoding == "enas" else [*_bits(cell), "op1", "op2"]

    def values(self, label: str, cell: int) -> list[Any]:
        """Values of the decision with this end of its label, in the order of their codes."""
        if label.startswith("op"):
            return list(self.operations)
        return [[i] for i in range(2 if self.encoding == "binary" else 2 + cell)]

    def decisions(self, skips: int) -> dict[str, list[Any]]:
        """All decisions in the paper's order: down, bridge, up, long skips (coarsest first).

        Args:
            skips: Number of long skips, as many as there are down layers.

        Example:
            >>> list(Grammar(cells=1).decisions(skips=1))[-4:]
            ['up_c0_op1', 'up_c0_in2', 'up_c0_op2', 'skip0']
        """
        found = {
            f"{layer}_c{cell}_{label}": self.values(label, cell)
            for layer in LAYERS
            for cell in range(self.cells)
            for label in self.labels(cell)
        }
        return found | {f"skip{i}": list(reversed(SKIP_VALUES)) for i in range(skips)}

    def tokens(self, skips: int) -> int:
        """Number of decisions: ``36 + skips``, or ``27 + skips`` for binary, with three cells."""
        return len(self.decisions(skips))

    def size(self, skips: int, modulo_swap: bool = False) -> int:
        """Number of architectures, exactly.

        Args:
            skips: Number of long skips.
            modulo_swap: Count cells that differ only in the order of their two branches as one. In the binary
                encoding the branches read different layers, so that there is nothing to merge.

        Example:
            >>> Grammar().size(0) == 2359296**3, Grammar("binary").size(0) == 32768**3
            (True, True)
        """
        total = 2**skips
        for cell in range(self.cells):
            branch = (2 + cell) * len(self.operations)
            if self.encoding == "binary":
                total *= (2**cell * len(self.operations) ** 2) ** len(LAYERS)
            else:
                total *= (branch * (branch + 1) // 2 if modulo_swap else branch**2) ** len(LAYERS)
        return total


@dataclass(frozen=True)
class Genotype:
    """An architecture as codes.

    Attributes:
        layers: For down, bridge and up, one tuple of codes per cell.
        skips: 1 or 0 per long skip, the coarsest first; at least one.
        grammar: Which codes are allowed.

    Raises:
        ValueError: A code is out of range; all faults are named together, each with its place.

    Example:
        >>> str(Genotype((((0, 2, 1, 3),),) * 3, (1, 0), Grammar(cells=1)))
        'down=[(0,2,1,3)] bridge=[(0,2,1,3)] up=[(0,2,1,3)] skips=[1,0]'
    """

    layers: tuple[tuple[tuple[int, ...], ...], ...]
    skips: tuple[int, ...]
    grammar: Grammar = Grammar()

    def __post_init__(self) -> None:
        wrong = [] if len(self.layers) == len(LAYERS) else [f"there are {len(self.layers)} layers, not {len(LAYERS)}"]
        for layer, cells in zip(LAYERS, self.layers, strict=False):
            if len(cells) != self.grammar.cells:
                wrong.append(f"{layer} has {len(cells)} cells, not {self.grammar.cells}")
            for number, codes in enumerate(cells[: self.grammar.cells]):
                ends = self.grammar.labels(number)
                if len(codes) != len(ends):
                    wrong.append(f"{layer}[{number}] has {len(codes)} codes, not {len(ends)}")
                    continue
                for end, code in zip(ends, codes, strict=True):
                    allowed = [self._code(value) for value in self.grammar.values(end, number)]
                    if type(code) is not int or code not in allowed:
                        wrong.append(f"{layer}[{number}]: {end}={code!r} is not in {allowed}")
        if not self.skips:
            wrong.append("there are no long skips")
        wrong += [f"skips[{i}]={bit!r} is not 0 or 1" for i, bit in enumerate(self.skips) if bit not in (0, 1)]
        if wrong:
            raise ValueError("; ".join(wrong))

    @staticmethod
    def _code(value: Any) -> int:
        """The code of the value of a decision."""
        if isinstance(value, str):
            return OPERATIONS.index(value)
        (index,) = value
        return int(index)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The codes in the order in which the paper's controller emits them."""
        return (*(code for layer in self.layers for cell in layer for code in cell), *self.skips)

    def sources(self, layer: str) -> list[tuple[list[int], list[int]]]:
        """What the two operations of each cell of a layer read, as codes of inputs (several are added).

        Example:
            >>> Genotype((((0, 0), (1, 2, 2)),) * 3, (1,), Grammar("binary", cells=2)).sources("up")
            [([0], [1]), ([0], [1, 2])]
        """
        cells = self.layers[LAYERS.index(layer)]
        if self.grammar.encoding == "enas":
            return [([in1], [in2]) for in1, _, in2, _ in cells]
        return [([0], [1, *(2 + i for i, bit in enumerate(codes[:-2]) if bit)]) for codes in cells]

    def operations(self, layer: str) -> list[tuple[str, str]]:
        """Names of the two operations of each cell of a layer."""
        first = 1 if self.grammar.encoding == "enas" else -2
        return [(OPERATIONS[codes[first]], OPERATIONS[codes[-1]]) for codes in self.layers[LAYERS.index(layer)]]

    def __str__(self) -> str:
        layers = [
            f"{name}=[" + ",".join("(" + ",".join(map(str, cell)) + ")" for cell in cells) + "]"
            for name, cells in zip(LAYERS, self.layers, strict=True)
        ]
        return " ".join(layers) + " skips=[" + ",".join(map(str, self.skips)) + "]"


def to_choices(genotype: Genotype) -> dict[str, Any]:
    """The choices that a genotype stands for, sorted by label: names, and indices as lists of one.

    Example:
        >>> to_choices(Genotype((((0, 2, 1, 3),),) * 3, (1, 0), Grammar(cells=1)))["down_c0_op1"]
        'hdc'
    """
    choices: dict[str, Any] = {f"skip{i}": SKIP_VALUES[bit] for i, bit in enumerate(genotype.skips)}
    for layer, cells in zip(LAYERS, genotype.layers, strict=True):
        for number, codes in enumerate(cells):
            for end, code in zip(genotype.grammar.labels(number), codes, strict=True):
                choices[f"{layer}_c{number}_{end}"] = OPERATIONS[code] if end.startswith("op") else [code]
    return dict(sorted(choices.items()))


def from_choices(choices: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Genotype:
    """The genotype of a set of choices; the inverse of :func:`to_choices`.

    Args:
        choices: ``{label: value}``; there may be any number of long skips.
        kwargs: Options of the space.

    Raises:
        ValueError: Choices of another space or of other options, or of a broken file; all faults together.
    """
    grammar = Grammar.of(kwargs)
    skips = sum(re.fullmatch(r"skip\d+", label) is not None for label in choices)
    expected = grammar.decisions(max(1, skips))
    wrong = []
    if missing := sorted(expected.keys() - choices.keys()):
        wrong.append(f"{', '.join(missing)} missing")
    if foreign := sorted(choices.keys() - expected.keys()):
        wrong.append(f"no decisions {', '.join(foreign)} with encoding={grammar.encoding!r}, cells={grammar.cells}")
    for label, values in expected.items():
        value = list(choices[label]) if isinstance(choices.get(label), tuple) else choices.get(label)
        if label in choices and value not in values:
            wrong.append(f"{label}={choices[label]!r} is not one of {values}")
    if wrong:
        raise ValueError(f"these are not choices of the AutoSegNet space: {'; '.join(wrong)}")
    layers = tuple(
        tuple(
            tuple(Genotype._code(choices[f"{layer}_c{cell}_{end}"]) for end in grammar.labels(cell))
            for cell in range(grammar.cells)
        )
        for layer in LAYERS
    )
    return Genotype(layers, tuple(SKIP_VALUES.index(choices[f"skip{i}"]) for i in range(skips)), grammar)


def parse(code: str, kwargs: Mapping[str, Any]) -> Genotype:
    """Read what ``str(genotype)`` wrote.

    Args:
        code: ``down=[...] bridge=[...] up=[...] skips=[...]``.
        kwargs: Options of the space.

    Raises:
        ValueError: The text has another form, or a code is out of range.

    Example:
        >>> parse("down=[(0,2,1,3)] bridge=[(0,2,1,3)] up=[(1,0,1,0)] skips=[1]", {"cells": 1}).skips
        (1,)
    """
    codes = r"-?\d+(?:,-?\d+)*"
    cells = rf"\[(\({codes}\)(?:,\({codes}\))*)\]"
    pattern = " ".join([*(f"{layer}={cells}" for layer in LAYERS), rf"skips=\[({codes})\]"])
    match = re.fullmatch(pattern, " ".join(code.split()))
    if match is None:
        raise ValueError(f"an AutoSegNet code is 'down=[...] bridge=[...] up=[...] skips=[...]', got {code!r}")
    *layers, skips = match.groups()
    genotype = tuple(
        tuple(tuple(int(c) for c in cell.split(",")) for cell in re.findall(r"\(([^)]*)\)", layer)) for layer in layers
    )
    return Genotype(genotype, tuple(int(bit) for bit in skips.split(",")), Grammar.of(kwargs))


def _bits(cell: int) -> list[str]:
    return [f"skip{i}" for i in range(cell)]
