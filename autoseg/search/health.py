"""Is a search healthy? How decided it is, how steady, which operations it prefers, and what to warn of.

A *distribution* is what a strategy has learned: ``{label: {value: probability}}``, each summing to one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from autoseg.spaces.base import Choices, operations_in, pass_through

Distribution = Mapping[str, Mapping[Any, float]]

UNDECIDED = 0.8
"""Mean entropy above which a search has not converged."""
UNSTEADY = 0.9
"""Share of decisions that must keep their most probable value through the last quarter of a search."""
COLLAPSED = 0.7
"""Share of operations that only pass their input on, from which a search counts as collapsed."""


def entropy(distribution: Distribution) -> float | None:
    """Mean entropy of the decisions, each divided by its largest possible value.

    Returns:
        0 = certain, 1 = nothing learned; None where there is nothing to decide.

    Example:
        >>> entropy({"op": {"conv": 0.5, "pool": 0.5}, "in": {0: 1.0, 1: 0.0}})
        0.5
    """
    shares = [list(values.values()) for values in distribution.values() if len(values) > 1]
    if not shares:
        return None
    return sum(-sum(p * math.log(p) for p in row if p > 0) / math.log(len(row)) for row in shares) / len(shares)


def most_probable(distribution: Distribution) -> dict[str, Any]:
    """The most probable value of every decision.

    Example:
        >>> most_probable({"op": {"conv": 0.6, "pool": 0.4}})
        {'op': 'conv'}
    """
    return {label: max(values, key=values.__getitem__) for label, values in distribution.items()}


def stability(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> float | None:
    """Share of decisions with the same value in both; None when there is nothing to compare.

    Example:
        >>> stability({"a": 1, "b": 2}, {"a": 1, "b": 3}), stability(None, {"a": 1})
        (0.5, None)
    """
    if not before or not now:
        return None
    return sum(before.get(label) == value for label, value in now.items()) / len(now)


def histogram(paths: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How often each operation is chosen: its share of all operation decisions, most frequent first.

    Args:
        paths: The operations of each, as from :func:`autoseg.spaces.base.operations_in`.

    Example:
        >>> histogram([{"op1": "conv", "op2": "pool"}, {"op1": "conv", "op2": "conv"}])
        {'conv': 0.75, 'pool': 0.25}
    """
    counts = Counter(value for path in paths for value in path.values())
    total = sum(counts.values())
    return {
        name: round(count / total, 6) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


def row(distribution: Distribution, before: Mapping[str, Any] | None, space: Any) -> dict[str, Any]:
    """The health columns of an epoch's journal row: entropy, stability, histogram.

    Args:
        distribution: What has been learned.
        before: The most probable values of the epoch before.
        space: The space or its class.
    """
    now = most_probable(distribution)
    return {
        "entropy": _rounded(entropy(distribution)),
        "stability": _rounded(stability(before, now)),
        "histogram": histogram([operations_in(space, now)]),
    }


def still_undecided(rows: Sequence[Mapping[str, Any]], who: str) -> list[str]:
    """What the user must know about a strategy that learned from candidates trained one by one.

    Args:
        rows: Its journal rows with ``entropy``.
        who: What learned.

    Returns:
        A sentence when it has hardly learned, else none.

    Example:
        >>> still_undecided([{"entropy": 0.97}, {"entropy": 0.5}], "the policy")
        []
        >>> still_undecided([{"entropy": 0.97}], "the policy")[0][:82]
        'The search has not converged: the policy is still undecided (entropy 0.97 of 1), a'
    """
    entropies = [row["entropy"] for row in rows if row["entropy"] is not None]
    if not entropies or entropies[-1] <= UNDECIDED:
        return []
    return [
        f"The search has not converged: {_undecided(who, entropies[-1])}, and its proposals were hardly better than "
        "random ones; more trials would give it a chance."
    ]


def diagnosis(rows: Sequence[Mapping[str, Any]], chosen: Choices, space: Any) -> list[str]:
    """What the user must know about a search that has ended.

    Args:
        rows: Its journal rows; epochs with ``entropy`` and ``stability`` are looked at.
        chosen: The choices of the architecture that was found.
        space: The space or its class.

    Returns:
        Sentences for the notes of the search and the verdict; none when nothing is wrong.

    Example:
        >>> diagnosis([{"kind": "epoch", "entropy": 0.97, "stability": 1.0}], {"op": "conv"}, None)[0][:29]
        'The search has not converged:'
    """
    notes = []
    epochs = [r for r in rows if r.get("kind") == "epoch" and r.get("entropy") is not None]
    if epochs:
        last, late = epochs[-1]["entropy"], epochs[-max(1, len(epochs) // 4) :]
        steady = [r["stability"] for r in late if r.get("stability") is not None]
        reasons = []
        if last > UNDECIDED:
            reasons.append(_undecided("it", last))
        if steady and sum(steady) / len(steady) < UNSTEADY:
            changed = 1 - sum(steady) / len(steady)
            reasons.append(f"in its last quarter {100 * changed:.0f} % of the decisions still changed in each epoch")
        if reasons:
            notes.append(
                f"The search has not converged: {' and '.join(reasons)}. The choice rests on the scores of the "
                "candidates; search longer to give it a chance."
            )
    operations, handing_on = histogram([operations_in(space, chosen)]), pass_through(space)
    passing = sum(share for name, share in operations.items() if name in handing_on)
    if passing >= COLLAPSED:
        notes.append(
            f"The search has collapsed: {100 * passing:.0f} % of the chosen operations only pass their input on."
        )
    return notes


def _undecided(who: str, share: float) -> str:
    return f"{who} is still undecided (entropy {share:.2f} of 1)"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
