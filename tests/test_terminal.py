"""Bars and lines: two pieces of work at a time, nothing wider than the terminal, nothing left behind."""

from __future__ import annotations

import io
import os
import re
import sys

import pytest
from rich.console import Console

from autoseg.terminal import bars, tables
from autoseg.terminal.bars import Bars, Lines, shown_progress

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


def on_screen(width: int) -> tuple[Bars, io.StringIO]:
    """Bars on a terminal of the given width, and what is written to it."""
    screen = io.StringIO()
    shown = Bars()
    shown.console = Console(file=screen, force_terminal=True, width=width, legacy_windows=False)
    return shown, screen


def last_frame(shown: Bars, screen: io.StringIO) -> list[str]:
    """The rows of bars as they stand now."""
    screen.seek(0)
    screen.truncate()
    assert shown._bars is not None
    shown._bars.refresh()
    return [row for row in ANSI.sub("", screen.getvalue()).replace("\r", "\n").splitlines() if row.strip()]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_two_bars_fit_into_the_terminal_with_their_times_whole(width: int) -> None:
    shown, screen = on_screen(width)
    shown.begin("search", 12, "epochs")
    shown.begin("searched, seed 0", 3725.0, "s")
    shown.update("search", 3, "epoch 4, reward 0.512")
    shown.update("searched, seed 0", 1862.5, "epoch 1200, best mIoU 0.306")
    rows = last_frame(shown, screen)
    assert len(rows) == 2 and all(len(row.rstrip()) <= width for row in rows)
    assert rows[0].startswith("search ") and " 25 %" in rows[0]
    assert rows[1].startswith("searched, seed 0") and " 50 %" in rows[1] and "epoch 1200, best" in rows[1]
    for row in rows:
        assert re.search(r"left (\d:\d\d:\d\d|-:--:--) ", row), row
        assert len(re.findall(r"\d:\d\d:\d\d|-:--:--", row)) == (2 if width >= 100 else 1)
    shown.close()


def test_a_finished_piece_leaves_a_line_and_the_others_go_on() -> None:
    shown, screen = on_screen(100)
    shown.stage("Searching")
    shown.begin("search", 2, "epochs")
    shown.begin("unet, seed 0", 2, "epochs")
    shown.end("search", "2 epochs")
    shown.note("the controller is [still] undecided")
    text = ANSI.sub("", screen.getvalue())
    assert "Searching ───" in text and "search: 2 epochs (0 s)" in text
    assert "note: the controller is [still] undecided" in text
    rows = last_frame(shown, screen)
    assert len(rows) == 1 and rows[0].startswith("unet, seed 0")
    shown.end("unet, seed 0")
    assert "unet, seed 0: done (0 s)" in screen.getvalue()
    assert screen.getvalue().rindex(SHOW_CURSOR) > screen.getvalue().rfind(HIDE_CURSOR)
    shown.end("unet, seed 0")  # twice, or of something that never began: nothing happens
    shown.update("nobody", 1)


def test_an_interruption_takes_the_bars_away_and_gives_the_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, screen = on_screen(100)
    monkeypatch.setattr(bars, "Bars", lambda: shown)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt), shown_progress() as progress:
        progress.begin("search", 2)
        progress.begin("unet, seed 0", 2)
        assert HIDE_CURSOR in screen.getvalue()
        screen.truncate(0)
        raise KeyboardInterrupt
    ending = screen.getvalue()
    assert SHOW_CURSOR in ending
    assert ending.count("\x1b[2K") >= 2  # both rows erased
    assert ANSI.sub("", ending).strip("\0\r\n ") == ""


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: clock[0])
    with shown_progress() as progress:
        assert isinstance(progress, Lines)
        progress.stage("Searching")
        progress.begin("search", 100)
        for done, clock[0] in ((1, 10.0), (25, 16.0), (26, 20.0), (50, 40.0)):
            progress.update("search", done, f"epoch {done}")
        progress.end("search", "100 epochs")
        progress.end("other")
        progress.note("a sentence")
    assert capsys.readouterr().err.splitlines() == [
        "== Searching",
        "search: 25 %, 48 s left, epoch 25",
        "search: 50 %, 40 s left, epoch 50",
        "search: 100 epochs (40 s)",
        "other: done",
        "note: a sentence",
    ]


def test_long_sentences_break_between_words_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "- Split by number, 7:1:2 as in the ED-NAS paper: 9 train, 1 validation, 2 test."
    assert tables.wrapped(text, "  ") == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(tables.shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    lines = tables.wrapped(text, "  ").splitlines()
    assert [line[:2] for line in lines] == ["- ", "  ", "  "] and max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines) == text
