"""A folder for the short-lived things of one process, such as its sockets; only this user may look into it.

A process that is killed cannot remove its folder. So every folder is locked by its process, the system ends the
lock with the process, and who makes the next folder of the kind removes those which nobody holds any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class OwnFolder:
    """A new empty folder, gone after :meth:`remove` or at the end of the ``with`` statement.

    Args:
        kind: First part of its name; the number of the process follows.
        parent: Where it is made; the folder for temporary files by default.

    Attributes:
        path: The folder.

    Raises:
        OSError: It cannot be made there, or others could look into it.

    Example:
        >>> with OwnFolder("autoseg-doctest") as folder:
        ...     made = folder.path.is_dir()
        >>> made, folder.path.exists()
        (True, False)
    """

    def __init__(self, kind: str, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
        _remove_stale(parent, kind)
        self._handle = -1
        while self._handle < 0:
            self.path = Path(tempfile.mkdtemp(prefix=f"{kind}-{os.getpid()}-", dir=parent))
            self._handle = _hold(self.path)
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:  # a file system without permissions
            self.remove()
            raise PermissionError(f"others may look into {self.path}")

    def remove(self) -> None:
        """Remove it and what is in it; again does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> OwnFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _hold(folder: Path) -> int:
    """Lock a folder that was just made; -1 when another process was faster and took it for a stale one."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1
    with suppress(OSError):  # where folders cannot be locked nobody can find it stale either
        fcntl.flock(handle, fcntl.LOCK_EX)
    if folder.exists():
        return handle
    os.close(handle)
    return -1


def _remove_stale(parent: Path, kind: str) -> None:
    """Remove the folders of this kind that this user's processes have left behind."""
    for folder in parent.glob(f"{kind}-[0-9]*-*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_uid == os.getuid():
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
