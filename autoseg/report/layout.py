"""Where the nodes of a small directed graph go: layers from top to bottom, few crossings, no overlaps.

This is the classical layered drawing of Sugiyama, Tagawa and Toda (1981): longest-path layering, bends for
edges that pass a layer, ordering by barycentres, and places by isotonic regression within each layer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise

Edge = tuple[str, str]

GAP = 22.0
ROW = 72.0
BEND_WIDTH = 8.0
_SWEEPS = 8
_STARTS = 16
_ROUNDS = 100


class Layout:
    """Places of the nodes and bends of the edges of one graph.

    Args:
        widths: Box width of each node in pixels; the order breaks ties, so keep it meaningful.
        edges: ``(from, to)`` pairs of keys of ``widths``.
        sink: Nodes to move down as far as their followers allow (operations stay with what they feed).

    Attributes:
        x: Centre of each node.
        layer: Layer of each node, 0 at the top.
        bends: For each edge, the ``(x, layer)`` it passes between its ends.
        width: Width of the drawing.
        depth: Number of layers.

    Raises:
        ValueError: When the graph has a cycle or an edge names an unknown node.

    Example:
        >>> layout = Layout({"a": 50, "b": 50, "c": 50}, [("a", "b"), ("b", "c"), ("a", "c")])
        >>> layout.layer, len(layout.bends[("a", "c")])
        ({'a': 0, 'b': 1, 'c': 2}, 1)
    """

    def __init__(self, widths: Mapping[str, float], edges: Sequence[Edge], sink: frozenset[str] = frozenset()) -> None:
        for edge in edges:
            for end in edge:
                if end not in widths:
                    raise ValueError(f"edge {edge[0]} -> {edge[1]} names the unknown node {end!r}")
        self.layer = longest_path_layers(list(widths), edges, sink)
        self.depth = max(self.layer.values(), default=-1) + 1
        self._width = dict(widths)
        self._rows: list[list[str]] = [[] for _ in range(self.depth)]
        for node in widths:
            self._rows[self.layer[node]].append(node)
        self._up: dict[str, list[str]] = {node: [] for node in widths}
        self._down: dict[str, list[str]] = {node: [] for node in widths}
        chains = {edge: self._add_bends(edge) for edge in dict.fromkeys(edges)}
        self._order()
        self.x = self._place()
        left = min((self.x[n] - self._width[n] / 2 for n in self.x), default=0.0)
        self.x = {node: x - left for node, x in self.x.items()}
        self.width = max((self.x[n] + self._width[n] / 2 for n in self.x), default=0.0)
        first = {edge: self.layer[edge[0]] + 1 for edge in chains}
        self.bends = {
            edge: [(self.x[bend], first[edge] + i) for i, bend in enumerate(chain)] for edge, chain in chains.items()
        }
        self.x = {node: self.x[node] for node in widths}

    @property
    def is_chain(self) -> bool:
        """Whether each node follows the one before it and nothing branches."""
        return all(len(row) == 1 for row in self._rows) and all(len(after) <= 1 for after in self._down.values())

    def _add_bends(self, edge: Edge) -> list[str]:
        """Put an invisible node into each layer that an edge passes."""
        chain = []
        previous = edge[0]
        for layer in range(self.layer[edge[0]] + 1, self.layer[edge[1]]):
            bend = f"{edge[0]}\0{edge[1]}\0{layer}"
            self._width[bend] = BEND_WIDTH
            self._rows[layer].append(bend)
            self._up[bend], self._down[bend] = [], []
            self._link(previous, bend)
            chain.append(bend)
            previous = bend
        self._link(previous, edge[1])
        return chain

    def _link(self, above: str, below: str) -> None:
        self._down[above].append(below)
        self._up[below].append(above)

    def _order(self) -> None:
        """Sort every layer by the mean place of its neighbours, down and up in turn, from several starts."""
        best, fewest = [list(row) for row in self._rows], self._crossings()
        shuffle = random.Random(0).shuffle
        for sweep in range(_SWEEPS * _STARTS):
            if fewest == 0:
                break
            if sweep and sweep % _SWEEPS == 0:
                for row in self._rows:
                    shuffle(row)
            down = sweep % 2 == 0
            neighbours = self._up if down else self._down
            for index in range(self.depth) if down else reversed(range(self.depth)):
                row = self._rows[index]
                place = {node: i for other in self._rows for i, node in enumerate(other)}
                key = {
                    node: sum(place[n] for n in neighbours[node]) / len(neighbours[node])
                    if neighbours[node]
                    else float(place[node])
                    for node in row
                }
                row.sort(key=key.__getitem__)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(row) for row in self._rows], crossings
        self._rows = best

    def _crossings(self) -> int:
        """Pairs of edges between neighbouring layers that cross."""
        total = 0
        for above, below in pairwise(self._rows):
            place = {node: i for i, node in enumerate(below)}
            ends = [place[n] for node in above for n in sorted(self._down[node], key=place.__getitem__)]
            total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
        return total

    def _place(self) -> dict[str, float]:
        """Move each node towards the middle of its neighbours as far as order and widths allow."""
        x: dict[str, float] = {}
        for row in self._rows:
            edge = 0.0
            for node in row:
                x[node] = edge + self._width[node] / 2
                edge += self._width[node] + GAP
            x.update({node: x[node] - (edge - GAP) / 2 for node in row})
        for sweep in range(_ROUNDS):
            rows = self._rows if sweep % 2 == 0 else self._rows[::-1]
            for row in rows:
                around = {node: self._up[node] + self._down[node] for node in row}
                wish = [sum(x[n] for n in around[v]) / len(around[v]) if around[v] else x[v] for v in row]
                weight = [float(len(around[v])) + (4.0 if "\0" in v else 0.1) for v in row]
                x.update(zip(row, spread(wish, weight, [self._width[node] for node in row]), strict=True))
        return x


def longest_path_layers(nodes: Sequence[str], edges: Sequence[Edge], sink: frozenset[str]) -> dict[str, int]:
    """Layer of each node: one more than the deepest node before it; ``sink`` nodes then go just above what follows.

    Example:
        >>> longest_path_layers(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")], frozenset())
        {'a': 0, 'b': 1, 'c': 2}
    """
    before: dict[str, list[str]] = {node: [] for node in nodes}
    after: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        before[end].append(start)
        after[start].append(end)
    order = list(TopologicalSorter(before).static_order())
    layer: dict[str, int] = {}
    for node in order:
        layer[node] = 1 + max((layer[n] for n in before[node]), default=-1)
    for node in reversed(order):
        if node in sink and before[node] and after[node]:
            layer[node] = min(layer[n] for n in after[node]) - 1
    return {node: layer[node] for node in nodes}


def spread(wish: Sequence[float], weight: Sequence[float], width: Sequence[float]) -> list[float]:
    """Places nearest to ``wish`` (weighted least squares) that keep the order and :data:`GAP` between boxes.

    Subtracting the least distances turns this into isotonic regression, solved by pooling neighbours.

    Example:
        >>> spread([0.0, 0.0], [1.0, 1.0], [10.0, 10.0])
        [-16.0, 16.0]
    """
    offsets = [0.0]
    for left, right in pairwise(width):
        offsets.append(offsets[-1] + (left + right) / 2 + GAP)
    pools: list[tuple[float, float, int]] = []
    for target, strength, offset in zip(wish, weight, offsets, strict=True):
        value, total, count = target - offset, strength, 1
        while pools and pools[-1][0] > value:
            other, other_total, other_count = pools.pop()
            value = (value * total + other * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        pools.append((value, total, count))
    flat = [value for value, _, count in pools for _ in range(count)]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]
