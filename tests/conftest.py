"""What the tests of the whole program share: one finished tiny run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_experiment import EXPERIMENT

if TYPE_CHECKING:
    from virtual_time import VirtualTime

    from autoseg.experiment import Run


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """One thread, wherever a run asks how many cores there are: tiny networks are quicker so, and repeatable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny experiment, run once on one core through the Python API; tests only read it."""
    import autoseg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        finished = autoseg.run(EXPERIMENT, out=tmp_path_factory.mktemp("runs") / "tiny")
    assert finished is not None
    return finished


@pytest.fixture(scope="session")
def tiny_folder(tiny_run: Run) -> Path:
    """Its run folder."""
    return tiny_run.folder


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    """Time that passes only where work is done."""
    from virtual_time import VirtualTime

    virtual = VirtualTime()
    virtual.install(monkeypatch)
    return virtual
