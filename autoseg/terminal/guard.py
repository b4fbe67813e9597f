"""Runs the command line so that every ending has its exit code and its sentence.

0 done; 2 the user can mend it (no traceback); 1 our fault (traceback to a log file, one line on screen);
130 interrupted by Ctrl-C or SIGTERM (state saved).
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from autoseg.errors import MENDABLE, AutosegError, Interrupted, UserError

_PATIENCE = 3.0  # seconds in which further signals are ignored
_MENDABLE = {
    **MENDABLE,
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG), "choose another path"),
}


def guarded(app: Any, arguments: list[str]) -> int:
    """Call the application and turn whatever happens into an exit code.

    Args:
        app: A typer application.
        arguments: The command line without the program's name.

    Returns:
        The exit code.
    """
    handler = _Interrupt()
    previous: dict[int, Any] = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app(arguments, prog_name="autoseg")
        return 0
    except SystemExit as ending:  # the framework's own: help, wrong usage, done
        if isinstance(ending.__context__, BrokenPipeError):
            return _reader_gone()
        return ending.code if isinstance(ending.code, int) else 0
    except UserError as error:
        _say(f"autoseg: {len(error.problems)} problem{'s' if len(error.problems) > 1 else ''} to mend")
        for problem in error.problems:
            _say(f"\n{problem}")
        return UserError.exit_code
    except (Interrupted, KeyboardInterrupt) as interruption:
        _say(f"\nautoseg: interrupted. {interruption}".rstrip())
        return Interrupted.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except AutosegError as error:
        _say(f"autoseg: {error} (details: {_keep_traceback()})")
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MENDABLE:
            place = f"{error.filename}: " if error.filename else ""
            _say(f"autoseg: 1 problem to mend\n\n{place}{error.strerror}\n  -> {_MENDABLE[error.errno]}")
            return UserError.exit_code
        first = str(error).partition("\n")[0]
        _say(f"autoseg: internal error: {type(error).__name__}: {first} (please report it with {_keep_traceback()})")
        return 1
    finally:
        handler.over()
        for number, before in previous.items():
            signal.signal(number, before)


class _Interrupt:
    """Signal handler that raises :class:`Interrupted`; impatient repetitions do not disturb the ending.

    The exception may hit a place where Python drops exceptions, such as the end of an object's life. So the
    signal is repeated after a while, and raises again unless the first one is on its way out.
    """

    def __init__(self) -> None:
        self._raised_at = -math.inf
        self._again: threading.Timer | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._raised_at <= _PATIENCE or _unwinding():
            return
        self._raised_at = time.monotonic()
        self.over()
        self._again = threading.Timer(1.1 * _PATIENCE, os.kill, (os.getpid(), number))
        self._again.daemon = True
        self._again.start()
        raise Interrupted

    def over(self) -> None:
        """No more repetitions."""
        if self._again is not None:
            self._again.cancel()


def _unwinding() -> bool:
    """Whether an interruption is being handled right now."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


def _reader_gone() -> int:
    """Whoever read our output has seen enough, as in ``autoseg list | head -1``; nothing is wrong."""
    with suppress(OSError, ValueError):  # no real stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _keep_traceback() -> Path:
    """Write the current traceback to a file and return its path."""
    handle, name = tempfile.mkstemp(prefix="autoseg-error-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(name)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
