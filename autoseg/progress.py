"""How long work tells what it is doing. The library calls this; the command line draws it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Progress:
    """Receives progress; this base class only logs, subclasses draw bars.

    Pieces of work are told apart by their label; several may be open at a time.

    Example:
        >>> progress = Progress()
        >>> progress.begin("unet, seed 0", total=2, unit="epochs")
        >>> progress.update("unet, seed 0", 1, "loss 0.5")
        >>> progress.end("unet, seed 0", "done")
    """

    def stage(self, title: str) -> None:
        """A stage of the run starts."""
        log.info("== %s", title)

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """A piece of work starts; ``total`` is in ``unit`` (epochs, s, architectures)."""
        log.info("%s: %g %s", label, total, unit)

    def update(self, label: str, done: float, text: str = "") -> None:
        """``done`` of the total is ready; ``text`` is a short state such as the loss."""

    def end(self, label: str, text: str = "") -> None:
        """The piece of work is over; ``text`` says how it ended."""
        log.info("%s: %s", label, text or "done")

    def figures(self, label: str, values: dict[str, float]) -> None:
        """Figures of an epoch, all finite, for whoever draws curves; ``default`` is the one to judge by."""

    def note(self, text: str) -> None:
        """One sentence worth reading."""
        log.info("%s", text)


class Forwarded(Progress):
    """Passes every call on, for instance through a pipe to another process.

    Args:
        send: Receives the method's name and its arguments.

    Example:
        >>> calls = []
        >>> Forwarded(lambda name, arguments: calls.append((name, arguments))).update("search", 3.0, "epoch 3")
        >>> calls
        [('update', ('search', 3.0, 'epoch 3'))]
    """

    def __init__(self, send: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._send = send

    def stage(self, title: str) -> None:
        """Forward :meth:`Progress.stage`."""
        self._send("stage", (title,))

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Forward :meth:`Progress.begin`."""
        self._send("begin", (label, total, unit))

    def update(self, label: str, done: float, text: str = "") -> None:
        """Forward :meth:`Progress.update`."""
        self._send("update", (label, done, text))

    def end(self, label: str, text: str = "") -> None:
        """Forward :meth:`Progress.end`."""
        self._send("end", (label, text))

    def figures(self, label: str, values: dict[str, float]) -> None:
        """Forward :meth:`Progress.figures`."""
        self._send("figures", (label, values))

    def note(self, text: str) -> None:
        """Forward :meth:`Progress.note`."""
        self._send("note", (text,))


class Watched(Forwarded):
    """Passes calls on from any thread, one at a time, until whoever receives them fails.

    That is nobody's failure who reports: the first error is kept, and no call is passed on after it.

    Args:
        outer: Receives the calls.
        on_error: Called with that error, once, where it shall not be raised; without it, the call that met
            it raises it, and so does every later one.

    Attributes:
        error: What the receiver raised, or None.

    Example:
        >>> class Gone(Progress):
        ...     def note(self, text):
        ...         raise OSError("the terminal is gone")
        >>> watched = Watched(Gone(), on_error=print)
        >>> watched.note("one sentence")
        the terminal is gone
        >>> watched.note("another"), type(watched.error)
        (None, <class 'OSError'>)
    """

    def __init__(self, outer: Progress, on_error: Callable[[Exception], None] | None = None) -> None:
        super().__init__(self._pass_on)
        self.outer, self._on_error = outer, on_error
        self.error: Exception | None = None
        self._lock = threading.RLock()

    def _pass_on(self, method: str, arguments: tuple[Any, ...]) -> None:
        first = False
        with self._lock:
            if self.error is None:
                try:
                    getattr(self.outer, method)(*arguments)
                    return
                except Exception as error:
                    self.error, first = error, True
        if self._on_error is None:
            raise self.error
        if first:  # without the lock: whoever is told may wait for somebody who reports
            self._on_error(self.error)
