"""How much memory this process may still take."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> int:
    """Free memory in bytes: of the machine, or of the container when that is less.

    Example:
        >>> available_memory() > 0
        True
    """
    free = _machine()
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        files = _field((group / "memory.stat").read_text(), "inactive_file")  # file cache, given back on demand
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return free
    return max(0, min(free, limit - used + files))


def _machine() -> int:
    try:
        return _field(Path("/proc/meminfo").read_text(), "MemAvailable:") * 1024
    except (OSError, ValueError):  # not Linux: take half of the machine as free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _field(text: str, name: str) -> int:
    """The number after ``name`` in lines of the form ``name number``."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError(name)
