"""Imported first of all by the fork server of :mod:`autoseg.processes`: it ends at once when its process does.

Without this it would end when everything is imported, and only after seconds of taking it all down again.
In any other process importing this does nothing.
"""

from __future__ import annotations

import atexit
import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any

SERVER_OF = "AUTOSEG_FORK_SERVER_OF"
"""Environment variable with the process id of the process that starts a server."""


class _Watch(MetaPathFinder):
    """Asked at every import, finds nothing, and sees whether anybody still waits for the result."""

    def __init__(self) -> None:
        self.server, self.parent = os.getpid(), os.getppid()

    def find_spec(self, *_: Any) -> None:
        """Nothing; in a server whose process is gone, the end."""
        if os.getpid() == self.server and os.getppid() != self.parent:
            os._exit(1)


if os.environ.get(SERVER_OF) == str(os.getppid()):
    sys.meta_path.insert(0, _Watch())
    atexit.register(os._exit, 0)  # what it has imported needs no farewell; its children never come here
