"""What spaces share: listing decisions, counting and describing choices.

A *space* is an NNI ``ModelSpace`` whose constructor is ``(in_channels, num_classes, *, ...)``. Its
labels do not depend on width or depth, so that choices found in a small network rebuild a large one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from nni.mutable import Categorical, CategoricalMultiple
from nni.nas.nn.pytorch import ModelSpace

Choices = dict[str, Any]
"""``{label: value}``; the value of an input choice is a list of one index, as NNI wants it."""


class CellDrawing(TypedDict):
    """A cell as a graph for the report.

    Attributes:
        title: What the cell is called.
        nodes: Each with ``id``, ``label`` and ``kind`` (``"input"``, ``"op"``, ``"combine"``, ``"output"``).
        edges: ``[from, to]``, both ids of nodes.
    """

    title: str
    nodes: list[dict[str, str]]
    edges: list[list[str]]


def decisions(space: ModelSpace) -> dict[str, list[Any]]:
    """All decisions of a space and their possible values, in the order of construction.

    Args:
        space: An unfrozen space.

    Returns:
        ``{label: [value, ...]}``; values of input choices are one-element lists.

    Raises:
        TypeError: A decision is neither a layer choice nor a choice of one input.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> found = decisions(EdNas(1, 2, blocks=1, layers=1, width=2))
        >>> found["enc0_in2"], found["dec0_op1"]
        ([[0], [1]], ['dw3', 'dw5', 'conv3', 'dil3', 'pool3'])
    """
    found: dict[str, list[Any]] = {}
    for label, mutable in space.simplify().items():
        name = "".join(label)  # NNI's label is a subclass of str that does not survive JSON and checkpoints
        if isinstance(mutable, Categorical):
            found[name] = list(mutable.values)
        elif isinstance(mutable, CategoricalMultiple) and mutable.n_chosen == 1:
            found[name] = [[value] for value in mutable.values]
        else:
            raise TypeError(f"decision {name!r} is a {mutable!r}; only one-of-many choices are supported")
    return found


def plain(choices: dict[Any, Any]) -> Choices:
    """Choices with NNI's label type removed and keys sorted: JSON-able and comparable.

    Example:
        >>> plain({"op": "conv3", "in": (1,)})
        {'in': [1], 'op': 'conv3'}
    """
    cleaned = {"".join(k): list(v) if isinstance(v, list | tuple) else v for k, v in choices.items()}
    return dict(sorted(cleaned.items()))


def choices_key(choices: Choices) -> str:
    """A text that is the same for equal choices, whatever their order, to look them up by.

    Example:
        >>> choices_key({"op": "conv3", "in": [0]})
        '{"in": [0], "op": "conv3"}'
    """
    return json.dumps(choices, sort_keys=True)


def named_points(space: Any, kwargs: dict[str, Any]) -> dict[str, Choices]:
    """The hand-designed and published points of a space, by name; empty for a space that names none.

    Args:
        space: The class of the space.
        kwargs: Its options.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> list(named_points(EdNas, {"blocks": 3}))
        ['ed-nas-n3 (assumed wiring)']
    """
    named = getattr(space, "named", None)
    return {name: plain(choices) for name, choices in named(kwargs).items()} if named else {}


def pass_through(space: Any) -> frozenset[str]:
    """Operations of a space that only hand their input on; none for a space that names none.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> sorted(pass_through(EdNas))
        []
    """
    return frozenset(getattr(space, "pass_through", ()))


def operation_labels(space: Any) -> dict[str, str]:
    """What the operations of a space are called in drawings and tables; empty for a space that does not say.

    Args:
        space: The space or its class; its class attribute ``operation_labels`` gives a text for every name of an
            operation, those that options add included.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> operation_labels(EdNas)["dil3"]
        '3x3 dilated'
    """
    return dict(getattr(space, "operation_labels", {}))


def derived(space: Any, kwargs: dict[str, Any], choices: Choices, probabilities: Mapping[str, Any]) -> Choices:
    """Choices after the derivation rule of a space, if it has one.

    Args:
        space: The class of the space; its ``derive(choices, probabilities, kwargs)`` completes choices that a
            gradient strategy has made, as the two strongest inputs of every node.
        kwargs: Its options.
        choices: A value of every decision that has probabilities.
        probabilities: ``{label: {value: probability}}``.
    """
    derive = getattr(space, "derive", None)
    return plain(derive(choices, probabilities, kwargs)) if derive else plain(choices)


def operations_in(space: Any, choices: Mapping[str, Any]) -> dict[str, str]:
    """The choices that are operations, without those of inputs and skips.

    Args:
        space: The space or its class; a static ``is_operation(label)`` says which decisions are operations,
            otherwise all whose value is a name are.
        choices: Some or all choices.

    Example:
        >>> from autoseg.spaces.searchnet import SearchNet
        >>> operations_in(SearchNet, {"c1_0_1": "conv3", "c1_3_in": "0+1"})
        {'c1_0_1': 'conv3'}
    """
    test = getattr(space, "is_operation", lambda label: True)
    return {label: value for label, value in choices.items() if isinstance(value, str) and test(label)}
