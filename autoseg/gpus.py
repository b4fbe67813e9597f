"""The GPUs of this machine, shared out among the jobs of a run: no two jobs have the same at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that says which GPUs a process sees; CUDA reads it once, at its first use."""


def gpu_groups(device: str, size: int = 1) -> list[str]:
    """What jobs side by side may put into ``CUDA_VISIBLE_DEVICES``, one entry for each of them.

    The GPUs that the user has chosen by that variable keep the names the user gave them, else they are numbered
    as CUDA does. GPUs that are too few for another group are left over.

    Args:
        device: The device of the trainings. Only ``"cuda"`` is shared out; ``"cuda:1"`` is what all jobs use.
        size: GPUs that one job takes.

    Returns:
        Names with commas between them; empty where there is nothing to share out.

    Example:
        >>> gpu_groups("cpu"), gpu_groups("cuda:0")
        ([], [])
    """
    if device != "cuda":
        return []
    count = torch.cuda.device_count()
    chosen = os.environ.get(VISIBLE)
    names = [name.strip() for name in chosen.split(",")] if chosen else [str(k) for k in range(count)]
    names = names[:count]  # CUDA ignores what follows a name it does not know
    return [",".join(names[k : k + size]) for k in range(0, len(names) - size + 1, size)]


class GpuShares:
    """Hands groups of GPUs out and takes them back; any thread may ask.

    Args:
        groups: As :func:`gpu_groups` returns them; none where every job takes what it finds.

    Attributes:
        any: Whether there are groups at all.

    Example:
        >>> shares = GpuShares(["2", "3"])
        >>> shares.take(), shares.take(), shares.take()
        ('2', '3', None)
        >>> shares.give_back("3")
        >>> shares.take()
        '3'
    """

    def __init__(self, groups: Sequence[str] = ()) -> None:
        self._groups, self._free = list(groups), set(groups)
        self._lock = threading.Lock()
        self.any = bool(groups)

    def take(self) -> str | None:
        """The first group that nobody has; None when there is no such one."""
        with self._lock:
            group = next((group for group in self._groups if group in self._free), None)
            self._free -= {group}
        return group

    def give_back(self, group: str | None) -> None:
        """A job that had this group has ended; None is what it had when there was none."""
        if group is not None:
            with self._lock:
                self._free.add(group)
