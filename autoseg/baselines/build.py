"""One way to construct any network: a registered model by name, or a searched architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import registry
from autoseg.baselines.layers import size_problems
from autoseg.errors import Problem, UserError, raise_if

if TYPE_CHECKING:
    from torch import nn

    from autoseg.search.architecture import Architecture


def build(
    name_or_architecture: str | Path | Mapping[str, Any] | Architecture,
    in_channels: int,
    num_classes: int,
    **options: Any,
) -> nn.Module:
    """Construct a network with fresh weights.

    The weights are drawn from torch's global generator: call ``torch.manual_seed`` before, and the same
    network comes out.

    Args:
        name_or_architecture: The name of a registered model (``autoseg list model``); or an architecture:
            a dict with ``space``, ``kwargs`` and ``choices``, the path of an ``architecture.json``, or an
            :class:`~autoseg.search.architecture.Architecture`. Text that ends in ``.json`` is a path.
        in_channels: Image channels.
        num_classes: Classes, background included.
        **options: Options of the model; for an architecture, options of the space that replace its
            ``kwargs`` (for example a greater ``width``).

    Returns:
        A network from ``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``.

    Raises:
        UserError: The name or an option is unknown, a number is below 1, or the architecture cannot be
            read or does not fit its space; all problems together.

    Example:
        >>> import torch
        >>> net = build("unet", in_channels=1, num_classes=2, width=4, depth=2)
        >>> tuple(net(torch.rand(1, 1, 30, 20)).shape)
        (1, 2, 30, 20)
    """
    problems = size_problems("build", in_channels=in_channels, num_classes=num_classes)
    try:
        architecture = _architecture(name_or_architecture)
        kind, name = ("space", architecture.space) if architecture else ("model", str(name_or_architecture))
        given = {**architecture.kwargs, **options} if architecture else options
        problems += registry.check_options(kind, name, given, name)
    except UserError as error:
        raise UserError([*problems, *error.problems]) from error
    raise_if(problems)
    if architecture:
        return architecture.build(in_channels, num_classes, **options)
    network: nn.Module = registry.load(kind, name)(in_channels, num_classes, **options)
    return network


def _architecture(value: Any) -> Architecture | None:
    """The architecture that ``value`` is, describes or is the path of; None for the name of a model."""
    from autoseg.search.architecture import Architecture

    if isinstance(value, Architecture):
        return value
    if isinstance(value, Mapping):
        return Architecture.from_json(dict(value))
    if isinstance(value, Path) or (isinstance(value, str) and value.endswith(".json")):
        return Architecture.read(value)
    if isinstance(value, str):
        return None
    what = f"a network cannot be built from a {type(value).__name__}"
    raise UserError(Problem(what, "build", "give a model's name, an architecture or the path of an architecture.json"))
