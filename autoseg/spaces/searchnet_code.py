"""SEARCH-Net architectures as tuples: labels, sizes, the derivation rule and a short notation.

A unit is a graph: node 0 is its input, nodes 1..B are computed, and every node has an edge from each node
before it. An edge that is kept is a tuple ``(node, source, operation)``; nodes 1 and 2 keep all their edges,
later ones exactly two. No notation is published; ours writes a unit as ``C1[in>1 conv3; in>2 mb5; 1>2 identity]``.
This file needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from autoseg.spaces.extras import EXTRAS, check_extra

UNITS = tuple(f"c{i}" for i in range(1, 9))
"""The units in the order of data flow: four of the encoder, four of the decoder."""
OPERATIONS = ("conv3", "conv5", "dil3", "dil5", "mb3", "mb5", "identity")
"""Operation names in the paper's order (kept equal to ``nn.ops.search_net_operations``)."""
KEPT = 2
"""Edges that a node keeps at most."""

Edge = tuple[int, int, str]


def edge_label(unit: str, source: int, node: int) -> str:
    """Label of the operation on the edge from ``source`` to ``node``: ``c1_0_2``."""
    return f"{unit}_{source}_{node}"


def pair_label(unit: str, node: int) -> str:
    """Label of the choice of the two edges that ``node`` keeps: ``c1_3_in``."""
    return f"{unit}_{node}_in"


def pairs(node: int) -> dict[str, tuple[int, int]]:
    """The values of that choice and the sources they stand for; none where all edges are kept.

    Example:
        >>> pairs(3), pairs(2)
        ({'0+1': (0, 1), '0+2': (0, 2), '1+2': (1, 2)}, {})
    """
    if node <= KEPT:
        return {}
    return {f"{a}+{b}": (a, b) for a, b in combinations(range(node), KEPT)}


def values(nodes: int, extra: Sequence[str] = ()) -> dict[str, list[str]]:
    """All decisions of the space and their values.

    Example:
        >>> len(values(nodes=3)), values(nodes=1)["c8_0_1"][0]
        (56, 'conv3')
    """
    operations = [*OPERATIONS, *check_extra(extra)]
    found: dict[str, list[str]] = {}
    for unit in UNITS:
        for node in range(1, nodes + 1):
            if pairs(node):
                found[pair_label(unit, node)] = list(pairs(node))
            found |= {edge_label(unit, source, node): operations for source in range(node)}
    return found


def nodes_and_extra(kwargs: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """The options of the space on which its decisions depend: nodes per unit and extra operations.

    Example:
        >>> nodes_and_extra({"extra": ["se"], "width": 8})
        (2, ('se',))
    """
    return kwargs.get("nodes", 2), check_extra(kwargs.get("extra", ()))


def space_size(nodes: int, extra: Sequence[str] = ()) -> int:
    """Number of different networks, exactly; operations on edges that are not kept do not count.

    Example:
        >>> space_size(1), space_size(2)
        (5764801, 191581231380566414401)
    """
    operations = len(OPERATIONS) + len(check_extra(extra))
    kept = [min(KEPT, node) for node in range(1, nodes + 1)]
    unit = math.prod(math.comb(node, k) * operations**k for node, k in enumerate(kept, 1))
    return int(unit ** len(UNITS))


@dataclass(frozen=True)
class Genotype:
    """The edges that are kept in each of the eight units.

    Attributes:
        units: Per unit ``(node, source, operation)``, sorted by node and source.

    Example:
        >>> str(Genotype(units=(((1, 0, "conv3"),),) * 8))[:25]
        'C1[in>1 conv3] C2[in>1 co'
    """

    units: tuple[tuple[Edge, ...], ...]

    def __str__(self) -> str:
        texts = ("; ".join(f"{source or 'in'}>{node} {op}" for node, source, op in edges) for edges in self.units)
        return " ".join(f"{unit.upper()}[{text}]" for unit, text in zip(UNITS, texts, strict=True))


def from_choices(choices: Mapping[str, Any], nodes: int, extra: Sequence[str] = ()) -> Genotype:
    """The genotype of a set of choices; operations on edges that are not kept are left out.

    Args:
        choices: ``{label: value}`` with exactly the labels of the space.
        nodes: B, nodes per unit.
        extra: Operations of the space besides the paper's seven.

    Raises:
        ValueError: Choices of another space, or of a broken file; the first few faults are named.

    Example:
        >>> from_choices(dict.fromkeys(values(1), "mb3"), nodes=1).units[7]
        ((1, 0, 'mb3'),)
    """
    known = values(nodes, extra)
    wrong = [f"{label} is missing" for label in known if label not in choices]
    wrong += [f"{label} is unknown" for label in sorted(choices.keys() - known.keys())]
    wrong += [
        f"{label}={choices[label]!r}" for label in known if label in choices and choices[label] not in known[label]
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"these are not choices of the SEARCH-Net space with nodes={nodes}: {', '.join(wrong[:3])}{more}"
        )
    return Genotype(
        tuple(
            tuple(
                (node, source, choices[edge_label(unit, source, node)])
                for node in range(1, nodes + 1)
                for source in (pairs(node)[choices[pair_label(unit, node)]] if pairs(node) else range(node))
            )
            for unit in UNITS
        )
    )


def to_choices(genotype: Genotype) -> dict[str, str]:
    """Choices that a genotype stands for; the edges it does not keep get the first operation.

    Returns:
        ``{label: value}``, sorted by label.

    Raises:
        ValueError: A node has too few or too many edges, or an operation is unknown.

    Example:
        >>> to_choices(Genotype(units=(((1, 0, "dil5"),),) * 8))["c8_0_1"]
        'dil5'
    """
    choices: dict[str, str] = {}
    for unit, edges in zip(UNITS, genotype.units, strict=True):
        for node in range(1, max(node for node, _, _ in edges) + 1):
            kept = {source: op for end, source, op in edges if end == node}
            if pairs(node):
                choices[pair_label(unit, node)] = "+".join(map(str, sorted(kept)))
            choices |= {edge_label(unit, source, node): kept.get(source, OPERATIONS[0]) for source in range(node)}
    nodes = max(node for node, _, _ in genotype.units[0])
    if from_choices(choices, nodes, EXTRAS) != genotype:
        raise ValueError("nodes 1 and 2 keep all their edges and later ones two, sorted by node and source")
    return dict(sorted(choices.items()))


def parse(code: str, kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Choices from the short notation; the inverse of ``SearchNet.code(choices, kwargs)``.

    The notation does not tell the operations on edges that are not kept (from the third node of a unit on). They
    are no part of the network, and get the first operation here, as in :func:`to_choices`. So ``code`` of the
    result is the given text, and the result differs from the choices that were written at most on such edges.

    Args:
        code: ``C1[in>1 conv3; ...] C2[...] ... C8[...]``; edges of a unit in any order.
        kwargs: Options of the space; ``nodes`` and ``extra`` count.

    Returns:
        ``{label: value}``, sorted by label.

    Raises:
        ValueError: The text has another form, or these are not choices of the space with these options.

    Example:
        >>> unit = "[in>1 conv3; in>2 mb5; 1>2 identity]"
        >>> choices = parse(" ".join(f"C{i}{unit}" for i in range(1, 9)), {"nodes": 2})
        >>> choices["c8_0_2"], choices["c8_1_2"]
        ('mb5', 'identity')
    """
    nodes, extra = nodes_and_extra(kwargs)
    edge = r"(?:in|[1-9]\d*)>[1-9]\d* \w+"
    pattern = " ".join(rf"{unit.upper()}\[({edge}(?:; {edge})*)\]" for unit in UNITS)
    match = re.fullmatch(pattern, " ".join(code.split()))
    if match is None:
        raise ValueError(f"a SEARCH-Net code is 'C1[in>1 conv3; ...] C2[...] ... C8[...]', got {code!r}")
    units = tuple(tuple(sorted(map(_edge, unit.split("; ")))) for unit in match.groups())
    last = max(node for unit in units for node, _, _ in unit)
    if last > nodes:
        raise ValueError(f"these are not choices of the SEARCH-Net space with {nodes=}: there is a node {last}")
    choices = to_choices(Genotype(units))
    from_choices(choices, nodes, extra)
    return choices


def _edge(text: str) -> Edge:
    """``in>2 mb5`` as a tuple."""
    ends, operation = text.split(" ")
    source, node = ends.split(">")
    return (int(node), 0 if source == "in" else int(source), operation)


def best_pair(strengths: Sequence[float]) -> str:
    """The two strongest of a node's edges, as a value of its choice; the earlier one at a tie.

    Args:
        strengths: Per source from 0, the largest probability that an operation on its edge has.

    Example:
        >>> best_pair([0.2, 0.5, 0.4])
        '1+2'
    """
    first, second = sorted(sorted(range(len(strengths)), key=lambda source: -strengths[source])[:KEPT])
    return f"{first}+{second}"


def derive(
    choices: Mapping[str, Any], probabilities: Mapping[str, Mapping[Any, float]], nodes: int, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """The rule of DARTS: every node keeps the two edges whose best operation is the most probable.

    Args:
        choices: The most probable operation of every edge.
        probabilities: ``{label: {operation: probability}}`` of every edge.
        nodes: B, nodes per unit.
        extra: Operations of the space besides the paper's seven.

    Returns:
        Complete choices.

    Raises:
        ValueError: An edge has no probabilities, or these are not choices of the space.
    """
    derived = dict(choices)
    for unit in UNITS:
        for node in range(1, nodes + 1):
            if not pairs(node):
                continue
            edges = [edge_label(unit, source, node) for source in range(node)]
            unknown = [label for label in edges if label not in probabilities]
            if unknown:
                raise ValueError(f"no probabilities for {', '.join(unknown)}")
            derived[pair_label(unit, node)] = best_pair([max(probabilities[label].values()) for label in edges])
    from_choices(derived, nodes, extra)
    return dict(sorted(derived.items()))
