"""Progress on standard error: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from autoseg.durations import format_duration
from autoseg.progress import Progress

_LINE_EVERY = 15.0


def make_progress() -> Progress:
    """Bars when standard error is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Lines()


class Bars(Progress):
    """One rich bar per piece of work."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar: RichProgress | None = None

    def stage(self, title: str) -> None:
        """Print the stage as a rule."""
        super().stage(title)
        self.console.rule(title, align="left")

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Open a bar."""
        super().begin(label, total, unit)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            *([MofNCompleteColumn(), TextColumn(unit)] if unit != "s" and unit != "epochs" else []),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=self.console,
        )
        self._bar.add_task(label, total=total, state="")
        self._bar.start()

    def update(self, done: float, text: str = "") -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, state=text)

    def end(self, text: str = "") -> None:
        """Close the bar; it stays on the screen."""
        super().end(text)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=self._bar.tasks[0].total)
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        """Print a sentence."""
        super().note(text)
        self.console.print(f"note: {text}", highlight=False, markup=False)


class Lines(Progress):
    """A plain line now and then, for log files and pipes."""

    def __init__(self) -> None:
        self._label, self._total, self._unit = "", 0.0, ""
        self._began = self._printed = 0.0

    def stage(self, title: str) -> None:
        """Print the stage."""
        super().stage(title)
        self._print(f"== {title}")

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Note the start."""
        super().begin(label, total, unit)
        self._label, self._total, self._unit = label, total, unit
        self._began = self._printed = time.monotonic()

    def update(self, done: float, text: str = "") -> None:
        """Print a line when the last one is a while ago."""
        now = time.monotonic()
        if now - self._printed < _LINE_EVERY or done <= 0:
            return
        self._printed = now
        left = (now - self._began) * max(self._total - done, 0) / done
        self._print(f"{self._label}: {100 * done / self._total:.0f} %, {format_duration(round(left))} left, {text}")

    def end(self, text: str = "") -> None:
        """Print how it ended."""
        super().end(text)
        spent = format_duration(round(time.monotonic() - self._began))
        self._print(f"{text or self._label + ': done'} ({spent})")

    def note(self, text: str) -> None:
        """Print a sentence."""
        super().note(text)
        self._print(f"note: {text}")

    @staticmethod
    def _print(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
