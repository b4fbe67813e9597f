"""The operations of a search, for the report: their labels, and their shares among the candidates.

The space may be anybody's plugin. Whatever it raises is noted in the log and costs its part of the report alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from autoseg import registry
from autoseg.report.rundata import Run

log = logging.getLogger(__name__)


def space_of(run: Run) -> Any:
    """The class of the space that a run searches; None when it is not known or cannot be loaded.

    Args:
        run: A run, finished or not.
    """
    section = run.config.get("space")
    name = run.architecture.get("space") or (section.get("name") if isinstance(section, dict) else section)
    try:
        return registry.load("space", name) if name else None
    except Exception as error:  # a plugin that is no longer installed, or does not load
        log.debug("the space of the run cannot be loaded: %s", error)
        return None


def operation_labels(space: Any) -> dict[str, str]:
    """What drawings call each operation, such as ``{"dw3": "3x3 separable"}``; those without a label are left out.

    Args:
        space: The class of a space, or None.

    Example:
        >>> from autoseg.spaces.ednas import EdNas
        >>> operation_labels(EdNas)["dw3"], operation_labels(None)
        ('3x3 separable', {})
    """
    try:
        from autoseg.spaces import base  # imports NNI, which a report without a search does without

        return {str(name): str(label) for name, label in base.operation_labels(space).items()}
    except Exception as error:
        log.warning("the space does not say what its operations are called: %s", error)
        return {}


def with_shares(candidates: Sequence[Mapping[str, Any]], space: Any) -> list[Mapping[str, Any]]:
    """Candidates with a histogram each: the share of every operation among all candidates so far.

    Args:
        candidates: The ``"kind": "candidate"`` lines of the journal, in order.
        space: The class of the space, which tells operations from other choices; without it, nothing is counted.

    Returns:
        The lines with ``histogram``, ``{operation: share 0..1}``; a line that has one keeps its own.

    Example:
        >>> from autoseg.spaces.searchnet import SearchNet
        >>> lines = [{"choices": {"c1_0_1": "conv3", "c1_3_in": "0+1"}}, {"choices": {"c1_0_1": "mb3"}}]
        >>> [line["histogram"] for line in with_shares(lines, SearchNet)]
        [{'conv3': 1.0}, {'conv3': 0.5, 'mb3': 0.5}]
    """
    if space is None or all("histogram" in line for line in candidates):
        return list(candidates)
    counts: Counter[str] = Counter()
    found: list[Mapping[str, Any]] = []
    try:
        from autoseg.spaces import base

        for line in candidates:
            choices = line.get("choices")
            counts.update(base.operations_in(space, choices if isinstance(choices, dict) else {}).values())
            shares = {name: count / counts.total() for name, count in counts.items()}
            found.append({"histogram": shares, **line})
    except Exception as error:
        log.warning("the operations of the candidates are not counted: %s", error)
        return list(candidates)
    return found
