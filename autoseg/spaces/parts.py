"""What the networks of several spaces are made of: the choice of an operation."""

from __future__ import annotations

from collections.abc import Mapping

from nni.mutable import Categorical
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.space import current_model
from torch import nn

from autoseg.nn.ops import Operation


def operation_choice(channels: int, makers: Mapping[str, Operation], order: str, label: str) -> nn.Module:
    """A choice among operations; inside NNI's ``model_context``, the chosen one, and no other is made.

    Args:
        channels: C of input and output ``(N, C, H, W)``.
        makers: What makes each operation, by name.
        order: Order of ReLU, convolution and normalisation.
        label: Label of the decision; its values are the names of the operations.

    Raises:
        nni.mutable.exception.SampleValidationError: The choices have no such decision, or an unknown operation there.

    Example:
        >>> from nni.nas.space import model_context
        >>> from autoseg.nn.ops import search_net_operations
        >>> with model_context({"c1_0_1": "identity"}):
        ...     operation_choice(4, search_net_operations(), "conv-bn-relu", "c1_0_1")
        Identity()
    """
    given = current_model()
    if given is not None:
        return makers[Categorical(list(makers), label=label).freeze(given)](channels, order)
    return LayerChoice({name: make(channels, order) for name, make in makers.items()}, label=label)
