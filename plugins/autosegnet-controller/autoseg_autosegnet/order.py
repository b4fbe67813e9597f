"""The order in which a controller takes the decisions of a space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoseg.errors import Problem, did_you_mean, raise_if


def ordered(labels: Iterable[str], order: Sequence[str] | None = None) -> list[str]:
    """Sort labels by a list of words, each of which is a label or the beginning of several.

    A label belongs to the longest word it begins with; labels of one word stay in their given order. For
    the AutoSegNet space ``["down", "bridge", "up", "skip"]`` is the order of the paper (section on the
    search strategy), which is also the order in which that space lists its decisions.

    Args:
        labels: All labels of a space.
        order: The words, or None to leave the labels as they are.

    Returns:
        A permutation of ``labels``.

    Raises:
        UserError: The words name no permutation: labels are missing, a word fits none, or one is repeated.

    Example:
        >>> ordered(["skip0", "up_op", "down_op", "down_in"], ["down", "up", "skip"])
        ['down_op', 'down_in', 'up_op', 'skip0']
    """
    labels = list(labels)
    if order is None:
        return labels
    groups: dict[str, list[str]] = {word: [] for word in order}
    missing: list[str] = []
    for label in labels:
        word = max((word for word in groups if label.startswith(word)), key=len, default=None)
        (missing if word is None else groups[word]).append(label)
    where = "strategy autosegnet, option order"
    repeated = sorted({word for word in order if order.count(word) > 1})
    problems = [Problem(f"{word!r} is there twice", where, "name it once") for word in repeated]
    if missing:
        fix = "add them, or words that they begin with; without the option the space's own order is used"
        problems.append(Problem(f"these decisions are missing: {', '.join(missing)}", where, fix))
    for word, members in groups.items():
        if not members:
            what = f"no decision of this space begins with {word!r}"
            problems.append(Problem(what, where, did_you_mean(word, labels)))
    raise_if(problems)
    return [label for members in groups.values() for label in members]
