"""How long work tells what it is doing. The library calls this; the command line draws it."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Progress:
    """Receives progress; this base class only logs, subclasses draw bars.

    One bar is open at a time: :meth:`begin`, any number of :meth:`update`, :meth:`end`.

    Example:
        >>> progress = Progress()
        >>> progress.begin("training unet", total=2, unit="epochs")
        >>> progress.update(1, "loss 0.5")
        >>> progress.end()
    """

    def stage(self, title: str) -> None:
        """A stage of the run starts."""
        log.info("== %s", title)

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """A piece of work starts; ``total`` is in ``unit`` (epochs, seconds, images)."""
        log.info("%s: %g %s", label, total, unit)

    def update(self, done: float, text: str = "") -> None:
        """``done`` of ``total`` is ready; ``text`` is a short state such as the loss."""

    def end(self, text: str = "") -> None:
        """The piece of work is over."""
        if text:
            log.info("%s", text)

    def note(self, text: str) -> None:
        """One sentence worth reading."""
        log.info("%s", text)
