"""The control: a random architecture of the space, drawn before the search and within the same limits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from autoseg.errors import Problem, UserError
from autoseg.search.architecture import Architecture
from autoseg.search.objective import Objective
from autoseg.spaces.base import Choices, decisions, plain
from autoseg.train.cost import measure

_TRIES = 200


def uniform_draws(values: Mapping[str, Sequence[Any]], seed: int) -> Iterator[Choices]:
    """Points of a space without end, every decision drawn uniformly; the same may come again.

    Args:
        values: ``{label: [value, ...]}`` as :func:`autoseg.spaces.base.decisions` lists them.
        seed: The same seed draws the same points.

    Example:
        >>> next(uniform_draws({"op": ["conv3"], "in": [[0], [1]]}, seed=0))
        {'in': [1], 'op': 'conv3'}
    """
    rng = random.Random(seed)
    while True:
        yield plain({label: rng.choice(options) for label, options in values.items()})


def random_architecture(
    space: str,
    kwargs: dict[str, Any],
    instance: Any,
    seed: int,
    *,
    objective: Objective | None = None,
    final_kwargs: dict[str, Any] | None = None,
    image: tuple[int, int, int] = (1, 64, 64),
    num_classes: int = 2,
    device: str = "cpu",
) -> Architecture:
    """Draw every decision uniformly; draw again while the final network breaks a limit.

    Args:
        space: Name of the space.
        kwargs: Its options.
        instance: An unfrozen instance of it.
        seed: The same seed draws the same architecture.
        objective: The limits.
        final_kwargs: Options of the space that differ in the final network.
        image: ``(channels, height, width)`` of an image, on which the limits are measured.
        num_classes: Classes.
        device: Where the latency is measured.

    Raises:
        UserError: No architecture within the limits was drawn; it says how small the smallest was.
        TypeError: A decision of the space is not one of many.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> options = {"blocks": 1, "layers": 1, "width": 2}
        >>> random_architecture("ednas", options, EdNas(1, 2, **options), seed=0).code
        'E=[(1,1,0,2)] D=[(0,4)]'
    """
    limits = objective or Objective()
    nearest: list[tuple[int, str]] = []
    for choices in islice(uniform_draws(decisions(instance), seed), _TRIES):
        drawn = Architecture(space, dict(kwargs), choices)
        if not limits.limited:
            return drawn
        network = drawn.build(image[0], num_classes, **(final_kwargs or {}))
        flops, latency = limits.max_flops is not None, limits.max_latency_ms is not None
        cost = measure(network, image, device, flops=flops, latency=latency)
        if limits.admits(cost):
            return drawn
        nearest.append((cost.params, limits.problem(cost)))
    what = f"none of {_TRIES} random architectures is within the limits: of the smallest, {min(nearest)[1]}"
    raise UserError(Problem(what, "objective", "raise the limit, or make the space narrower or shallower"))
