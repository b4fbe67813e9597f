"""Search spaces: NNI model spaces, one file each.

The classes can be imported from here for use with NNI itself: ``from autoseg.spaces import EDNAS``. Importing
this package alone is cheap; NNI (and torch) are loaded with the first of its modules.

Example:
    >>> from autoseg.spaces import EDNAS, SearchNet
    >>> EDNAS(1, 3, blocks=3, layers=2, width=4).size_divisor
    4
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoseg.quiet import load_nni

if TYPE_CHECKING:
    from autoseg.spaces.autosegnet import AutoSegNet
    from autoseg.spaces.ednas import EdNas as EDNAS
    from autoseg.spaces.searchnet import SearchNet

__all__ = ["EDNAS", "AutoSegNet", "SearchNet"]

_CLASSES = {
    "AutoSegNet": ("autosegnet", "AutoSegNet"),
    "EDNAS": ("ednas", "EdNas"),
    "SearchNet": ("searchnet", "SearchNet"),
}


class _NniFirst:
    """Import hook that finds nothing, but loads NNI quietly before a module of this package imports it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Called for every import; see :class:`importlib.abc.MetaPathFinder`."""
        if name.startswith(f"{__name__}."):
            load_nni()


sys.meta_path.insert(0, _NniFirst)  # type: ignore[arg-type]


def __getattr__(name: str) -> Any:
    """Import a space on first use (PEP 562)."""
    if name in _CLASSES:
        module, attribute = _CLASSES[name]
        return getattr(import_module(f"{__name__}.{module}"), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
