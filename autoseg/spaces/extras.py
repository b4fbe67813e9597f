"""The operations that the option ``extra`` adds to a cell space: attention and context.

They are the future work that ED-NAS names. Without the option a space is exactly that of its paper. The
modules are :data:`autoseg.nn.ops.EXTRA_OPERATIONS`; this file needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

EXTRAS = ("se", "context")
"""Names of the extra operations; their order is the order in every choice."""
EXTRA_LABELS = {"se": "squeeze-excite", "context": "global context"}
"""How drawings call them."""


def check_extra(extra: Sequence[str]) -> tuple[str, ...]:
    """The value of the option ``extra`` in the order of :data:`EXTRAS`.

    Args:
        extra: Any of the names, in any order.

    Raises:
        ValueError: It is not a list, or a name is unknown.

    Example:
        >>> check_extra(["context", "se"])
        ('se', 'context')
    """
    if isinstance(extra, str) or not isinstance(extra, Sequence):
        raise ValueError(f"extra must be a list of {EXTRAS}, got {extra!r}")
    unknown = [name for name in extra if name not in EXTRAS]
    if unknown:
        raise ValueError(f"extra must be a list of {EXTRAS}, got {', '.join(map(repr, unknown))}")
    return tuple(name for name in EXTRAS if name in extra)
