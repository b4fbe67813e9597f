"""What the tests of the one-shot strategies share: killing a search, and comparing what two left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trial_tools import outcome, stable
from virtual_time import VirtualTime

from autoseg.errors import Interrupted
from autoseg.progress import Progress
from autoseg.runfolder import Journal
from autoseg.search.candidates import Pool
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchResult, SearchTask
from autoseg.statefile import load_tree


class Killed(Progress):
    """Ends the process, so to speak, at a call of ``update``."""

    def __init__(self, label: str, call: int) -> None:
        self.label, self.call = label, call

    def update(self, label: str, done: float, text: str = "") -> None:
        if label == self.label:
            self.call -= 1
            if self.call == 0:
                raise Interrupted


class KilledAfter(Progress):
    """Ends the process at the first call of ``update`` after some seconds of work."""

    def __init__(self, time: VirtualTime, seconds: float) -> None:
        self.time, self.end_of_life = time, time.now + seconds

    def update(self, label: str, done: float, text: str = "") -> None:
        if self.time.now > self.end_of_life:
            raise Interrupted


class Recorded(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def begin(self, label: str, total: float, unit: str = "") -> None:
        self.calls.append(("begin", label, total, unit))

    def update(self, label: str, done: float, text: str = "") -> None:
        self.calls.append(("update", label, done, text))

    def end(self, label: str, text: str = "") -> None:
        self.calls.append(("end", label, text))


def kill(strategy: OneShot, task: SearchTask, where: tuple[str, int]) -> None:
    """Begin or continue a search and kill it: at a call of the progress, or at ``("pool", 0)`` before its pool is."""
    label, call = where
    with pytest.MonkeyPatch.context() as patch:
        if label == "pool":

            def die(self: Pool, folder: Path) -> None:
                raise Interrupted

            patch.setattr(Pool, "write", die)
        task.progress = Killed(label, call)
        with pytest.raises(Interrupted):
            strategy.search(task)
    torch.manual_seed(99)  # another process


def rows(task: SearchTask, kind: str | None = None) -> list[dict[str, Any]]:
    """The journal on disk without seconds."""
    return stable([row for row in Journal(task.folder / "journal.jsonl").rows if kind in (None, row["kind"])])


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for name, node in items for key, leaf in flat(node, f"{path}/{name}").items()}
    return {path: tree}


def assert_same_state(first: SearchTask, second: SearchTask, tensors: int) -> None:
    """The states on disk, which hold at least so many tensors, are equal to the last bit, but for times."""
    a, b = (flat(load_tree(task.folder / "state.safetensors")) for task in (first, second))
    for times in (a, b):
        assert all(times.pop(name) > 0 for name in ("/spent", "/wall", "/cpu"))
    assert a.keys() == b.keys()
    assert sum(isinstance(value, torch.Tensor) for value in a.values()) >= tensors
    different = [k for k, v in a.items() if not (torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k])]
    assert different == []


def assert_same_result(first: SearchResult, second: SearchResult) -> None:
    assert outcome(first) == outcome(second)  # scores too, to the last bit
