"""Progress: logged by the library, or passed on to another process."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from autoseg.progress import Forwarded, Progress, Watched


def tell(progress: Progress) -> None:
    progress.stage("Training")
    progress.begin("unet, seed 0", 2, unit="epochs")
    progress.update("unet, seed 0", 1.5, "loss 0.5")
    progress.figures("unet, seed 0", {"default": 0.5})
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
        ("figures", ("unet, seed 0", {"default": 0.5})),
        ("end", ("unet, seed 0", "")),
        ("note", ("a sentence",)),
    ]
    public = {name for name in vars(Progress) if not name.startswith("_")}
    assert {name for name, _ in calls} == public
    assert public <= set(vars(Forwarded))


def test_progress_is_told_one_call_at_a_time() -> None:
    open_calls, most = [0], [0]

    class Slow(Progress):
        def update(self, label: str, done: float, text: str = "") -> None:
            open_calls[0] += 1
            most[0] = max(most[0], open_calls[0])
            time.sleep(0.002)
            open_calls[0] -= 1

    shared = Watched(Slow())
    threads = [threading.Thread(target=shared.update, args=("search", number)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and open_calls == [0]


class Gone(Progress):
    def __init__(self) -> None:
        self.calls = 0

    def note(self, text: str) -> None:
        self.calls += 1
        raise BrokenPipeError(text)


def test_after_its_first_error_a_receiver_is_not_called_again() -> None:
    gone = Gone()
    errors: list[Exception] = []
    watched = Watched(gone, errors.append)
    for text in ("first", "second"):
        watched.note(text)
    watched.update("search", 1.0)
    assert gone.calls == 1 and [str(error) for error in errors] == ["first"] and watched.error is errors[0]


def test_without_a_place_for_it_the_error_is_raised_by_every_call() -> None:
    gone = Gone()
    watched = Watched(gone)
    with pytest.raises(BrokenPipeError, match="first"):
        watched.note("first")
    with pytest.raises(BrokenPipeError, match="first"):
        watched.update("search", 1.0)
    assert gone.calls == 1
