"""What the networks of several spaces are made of: the choice of an operation, and the check of an image's sides."""

from __future__ import annotations

from collections.abc import Mapping

from nni.mutable import Categorical
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.space import current_model
from torch import Tensor, nn

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


def check_sides(x: Tensor, divisor: int) -> None:
    """Refuse images that a network cannot halve as often as it has to.

    Args:
        x: Images ``(N, C, H, W)``.
        divisor: ``size_divisor`` of the network.

    Raises:
        ValueError: H or W is not a multiple of ``divisor``; the message says to what size to pad.

    Example:
        >>> import torch
        >>> check_sides(torch.zeros(1, 3, 20, 16), 8)
        Traceback (most recent call last):
        ValueError: image sides must be multiples of 8, got 20x16; pad to 24x16
    """
    height, width = x.shape[-2:]
    if height % divisor or width % divisor:
        padded = "x".join(str(-(-side // divisor) * divisor) for side in (height, width))
        raise ValueError(f"image sides must be multiples of {divisor}, got {height}x{width}; pad to {padded}")
