"""The search unit of SEARCH-Net as a module: a small graph with an operation on every edge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, cast

import torch
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from autoseg.nn.ops import Operation, pointwise
from autoseg.spaces.parts import operation_choice
from autoseg.spaces.searchnet_code import best_pair, edge_label, pair_label, pairs

ORDER = "conv-bn-relu"
LazyEdge = Callable[[], Tensor]
"""An edge with its input in place, which computes nothing before it is called."""


class KeptPair(nn.Module):
    """The sum of two of a node's edges; the others are not computed.

    Args:
        first: Source of the one edge.
        second: Source of the other.
    """

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.sources = (first, second)

    def forward(self, edges: Sequence[LazyEdge]) -> Tensor:
        """``edges[i]`` comes from node ``i``; returns ``(N, C, H, W)``."""
        first, second = self.sources
        return edges[first]() + edges[second]()


class AllEdges(LayerChoice, BaseSuperNetModule):
    """The sum of all edges of a node: what gradient strategies train in place of a choice of two.

    It has no weights of its own. The pair it exports is that of the rule of DARTS: the two edges whose best
    operation is the most probable.

    Args:
        candidates: The pairs by name, kept for freezing.
        label: Label of the decision.
        alphas: The logits of the operations on each edge, by source. They belong to the edges.
    """

    def __init__(self, candidates: dict[str, nn.Module], label: str, alphas: tuple[nn.Parameter, ...]) -> None:
        super().__init__(candidates, label=label)
        self._alphas = alphas  # in a tuple, so that they are not registered a second time

    def forward(self, edges: Sequence[LazyEdge]) -> Tensor:
        """``edges[i]`` comes from node ``i``; returns ``(N, C, H, W)``."""
        return _sum(edge() for edge in edges)

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Nothing is sampled."""
        return {}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """The derived pair, unless ``memo`` has one."""
        if self.label in memo:
            return {}
        return {self.label: best_pair([alpha.softmax(-1).max().item() for alpha in self._alphas])}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """None: the pairs have no probabilities."""
        return {}

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> BaseSuperNetModule | None:
        """A mutation hook of NNI: replaces choices of pairs and leaves everything else to other hooks."""
        if type(module) is not LayerChoice:
            return None
        choice: LayerChoice = module
        if not all(isinstance(pair, KeptPair) for pair in choice):
            return None
        unit, node, _ = choice.label.split("_")
        alphas = tuple(memo[edge_label(unit, source, int(node))] for source in range(int(node)))
        return cls(cast("dict[str, nn.Module]", choice.candidates), choice.label, alphas)


class SearchUnit(nn.Module):
    """A unit: calibration of the input, B nodes that each sum their edges, 1x1 convolution of all nodes.

    Args:
        name: ``"c1"`` to ``"c8"``; the labels of its decisions start with it.
        in_channels: Channels of the input.
        channels: C, of the nodes and the output.
        nodes: B. With one node there is no convolution after it.
        operations: The candidates on every edge by name.
        calibration: Side of the kernel, 1 or 3, of the convolution from ``in_channels`` to C; 0 for none.

    Inside NNI's ``model_context`` only the edges that are kept, and on them the chosen operations, are made.

    Source: SEARCH-Net, "search unit"; the text gives neither B nor what joins the nodes.
    """

    def __init__(
        self,
        name: str,
        in_channels: int,
        channels: int,
        *,
        nodes: int,
        operations: Mapping[str, Operation],
        calibration: int,
    ) -> None:
        super().__init__()
        self.calibrate: nn.Module = (
            Conv2dNormActivation(in_channels, channels, calibration) if calibration else nn.Identity()
        )
        self.sources: list[Sequence[int]] = []
        self.pairs = nn.ModuleDict()
        self.edges = nn.ModuleDict()
        for node in range(1, nodes + 1):
            sources: Sequence[int] = range(node)
            if pairs(node):
                choice = LayerChoice(
                    {k: KeptPair(*pair) for k, pair in pairs(node).items()}, label=pair_label(name, node)
                )
                if isinstance(choice, KeptPair):
                    sources = choice.sources
                else:
                    self.pairs[str(node)] = choice
            self.sources.append(sources)
            for source in sources:
                label = edge_label(name, source, node)
                self.edges[f"{source}_{node}"] = operation_choice(channels, operations, ORDER, label)
        self.merge = pointwise(nodes * channels, channels) if nodes > 1 else nn.Identity()
        self.nodes = nodes

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated input to output, both ``(N, C, H, W)``; call ``calibrate`` first."""
        states = [x]
        for node, sources in enumerate(self.sources, 1):
            edges = [partial(self.edges[f"{source}_{node}"], states[source]) for source in sources]
            key = str(node)
            states.append(self.pairs[key](edges) if key in self.pairs else _sum(edge() for edge in edges))
        return self.merge(states[1] if self.nodes == 1 else torch.cat(states[1:], 1))


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    """The sum; a lone tensor is handed on as it is."""
    return reduce(torch.add, tensors)
