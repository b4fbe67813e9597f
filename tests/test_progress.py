"""Progress: logged by the library, or passed on to another process."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from autoseg.progress import Forwarded, Progress


def tell(progress: Progress) -> None:
    progress.stage("Training")
    progress.begin("unet, seed 0", 2, unit="epochs")
    progress.update("unet, seed 0", 1.5, "loss 0.5")
    progress.end("unet, seed 0")
    progress.note("a sentence")


def test_what_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="autoseg"):
        tell(Progress())
    assert caplog.messages == ["== Training", "unet, seed 0: 2 epochs", "unet, seed 0: done", "a sentence"]


def test_everything_is_passed_on() -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = []
    tell(Forwarded(lambda name, arguments: calls.append((name, arguments))))
    assert calls == [
        ("stage", ("Training",)),
        ("begin", ("unet, seed 0", 2, "epochs")),
        ("update", ("unet, seed 0", 1.5, "loss 0.5")),
        ("end", ("unet, seed 0", "")),
        ("note", ("a sentence",)),
    ]
    public = {name for name in vars(Progress) if not name.startswith("_")}
    assert {name for name, _ in calls} == public
    assert public <= set(vars(Forwarded))
