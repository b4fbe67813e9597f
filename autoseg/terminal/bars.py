"""Progress on standard error: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from autoseg import progress as base
from autoseg.durations import format_duration

_LINE_EVERY = 15.0


@contextmanager
def shown_progress() -> Iterator[base.Progress]:
    """Bars when standard error is a terminal, else lines; open bars are taken away in the end, however it comes."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    bars = Bars()
    try:
        yield bars
    finally:
        bars.close()


class Bars(base.Progress):
    """One rich bar per open piece of work; a finished one leaves a line."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, tuple[TaskID, float, float]] = {}

    def stage(self, title: str) -> None:
        """Print the stage as a rule."""
        super().stage(title)
        self.console.rule(title, align="left")

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Add a bar."""
        super().begin(label, total, unit)
        if self._bars is None:
            self._bars = _bars(self.console)
            self._bars.start()
        self._tasks[label] = (self._bars.add_task(label, total=total, state=""), total, time.monotonic())

    def update(self, label: str, done: float, text: str = "") -> None:
        """Move a bar."""
        if self._bars and label in self._tasks:
            self._bars.update(self._tasks[label][0], completed=done, state=text)

    def end(self, label: str, text: str = "") -> None:
        """Take the bar away and leave a line."""
        super().end(label, text)
        if self._bars is None or label not in self._tasks:
            return
        task, _, began = self._tasks.pop(label)
        self._bars.remove_task(task)
        spent = format_duration(round(time.monotonic() - began))
        self.console.print(f"{label}: {text or 'done'} ({spent})", highlight=False, markup=False)
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Take all bars away and give the cursor back."""
        if self._bars is not None:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def note(self, text: str) -> None:
        """Print a sentence."""
        super().note(text)
        self.console.print(f"note: {text}", highlight=False, markup=False)


def _bars(console: Console) -> Progress:
    """Rows that keep their times whole: what is too long for the terminal is taken from bar and state."""
    wide = console.width >= 100

    def column(least: int) -> Column:
        return Column(min_width=least, no_wrap=True, overflow="ellipsis")

    return Progress(
        TextColumn("{task.description}", table_column=column(16)),
        BarColumn(bar_width=24 if wide else 8),
        TextColumn("{task.percentage:>3.0f} %", table_column=column(5)),
        *([TimeElapsedColumn(table_column=column(7))] if wide else []),
        TextColumn("left", table_column=column(4)),
        TimeRemainingColumn(table_column=column(7)),
        TextColumn("{task.fields[state]}", table_column=column(1)),
        console=console,
        transient=True,
    )


@dataclass
class _Line:
    total: float
    began: float
    printed: float


class Lines(base.Progress):
    """A plain line now and then, for log files and pipes."""

    def __init__(self) -> None:
        self._open: dict[str, _Line] = {}

    def stage(self, title: str) -> None:
        """Print the stage."""
        super().stage(title)
        _print(f"== {title}")

    def begin(self, label: str, total: float, unit: str = "") -> None:
        """Note the start."""
        super().begin(label, total, unit)
        now = time.monotonic()
        self._open[label] = _Line(total, now, now)

    def update(self, label: str, done: float, text: str = "") -> None:
        """Print a line when the last one is a while ago."""
        line, now = self._open.get(label), time.monotonic()
        if line is None or now - line.printed < _LINE_EVERY or done <= 0:
            return
        line.printed = now
        left = (now - line.began) * max(line.total - done, 0) / done
        _print(f"{label}: {100 * done / line.total:.0f} %, {format_duration(round(left))} left, {text}")

    def end(self, label: str, text: str = "") -> None:
        """Print how it ended."""
        super().end(label, text)
        line = self._open.pop(label, None)
        spent = f" ({format_duration(round(time.monotonic() - line.began))})" if line else ""
        _print(f"{label}: {text or 'done'}{spent}")

    def note(self, text: str) -> None:
        """Print a sentence."""
        super().note(text)
        _print(f"note: {text}")


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
