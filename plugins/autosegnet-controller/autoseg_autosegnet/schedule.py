"""The learning rate of the shared weights: cosine with warm restarts, and a decay on top of it."""

from __future__ import annotations

import math

EPOCHS = 200
"""Length of the paper's search in epochs."""


def learning_rate(
    epoch: float,
    *,
    peak: float = 0.5,
    period: float = 10.0,
    growth: float = 2.0,
    decay: float = 0.98,
    decay_from: float = 50.0,
) -> float:
    """The learning rate at a moment of the search.

    Cosine annealing from ``peak`` to zero, restarted after ``period`` epochs, then after ``growth`` times
    as many, and so on; after ``decay_from`` epochs it also falls by the factor ``decay`` per epoch.

    Source: AutoSegNet, section on the search strategy, for peak, decay and restarts; SGDR (Loshchilov and
    Hutter) for the restarts, whose periods AutoSegNet does not give: 10, 20, 40, ... are assumed.

    Args:
        epoch: Epochs done, fractions included; the paper's search has :data:`EPOCHS`. A search of another
            length passes its own share done times :data:`EPOCHS`.
        peak: Learning rate at a restart.
        period: Epochs until the first restart.
        growth: Each period is this many times as long as the one before; 1 or more.
        decay: Factor per epoch after ``decay_from``.
        decay_from: Epochs without decay.

    Returns:
        The learning rate, 0..``peak``.

    Raises:
        ValueError: ``epoch`` is negative.

    Example:
        >>> [round(learning_rate(epoch), 4) for epoch in (0, 5, 9.999, 10, 20, 70)]
        [0.5, 0.25, 0.0, 0.5, 0.25, 0.3338]
    """
    if epoch < 0:
        raise ValueError(f"epoch must not be negative, got {epoch}")
    since, length = epoch, period
    while since >= length:
        since -= length
        length *= growth
    cosine = 0.5 * peak * (1.0 + math.cos(math.pi * since / length))
    return cosine * decay ** max(0.0, epoch - decay_from)
