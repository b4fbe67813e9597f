"""What the other ranks of a search have in place of what writes: they train with rank 0 and leave no file."""

from __future__ import annotations

from typing import Any

from autoseg.runfolder import Journal
from autoseg.search.keeper import SearchKeeper


class Unwritten(Journal):
    """A journal that keeps nothing.

    Example:
        >>> from pathlib import Path
        >>> Unwritten(Path("none")).append({"kind": "epoch", "epoch": 0})
        False
    """

    def append(self, row: dict[str, Any]) -> bool:
        """Rank 0 does."""
        del row
        return False


class SilentKeeper(SearchKeeper):
    """Ends warm-up and search as rank 0's does."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Rank 0 writes journal and state."""
