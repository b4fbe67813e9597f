"""Runs the command line so that every ending has its exit code and its sentence.

0 done; 2 the user can mend it (no traceback); 1 our fault (traceback to a log file, one line on screen);
130 interrupted by Ctrl-C or SIGTERM (state saved).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from autoseg.errors import Interrupted, UserError


def guarded(app: Any, arguments: list[str]) -> int:
    """Call the application and turn whatever happens into an exit code.

    Args:
        app: A typer application.
        arguments: The command line without the program's name.

    Returns:
        The exit code.
    """
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app(arguments, prog_name="autoseg")
        return 0
    except SystemExit as ending:  # the framework's own: help, wrong usage, done
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output went away
        return 0
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _say(f"autoseg: {error.strerror or error}{place}")
        _say(f"  -> free some space or choose another folder; details in {_keep_traceback()}")
        return 1
    except Exception as error:
        _say(f"autoseg: internal error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        _say(f"  -> please report it with {_keep_traceback()}")
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise :class:`Interrupted` once; a second signal is left to the ending of the first."""
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, signal.SIG_IGN)
    raise Interrupted


def _keep_traceback() -> Path:
    """Write the current traceback to a file and return its path."""
    handle, name = tempfile.mkstemp(prefix="autoseg-error-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(name)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
