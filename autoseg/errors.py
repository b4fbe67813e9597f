"""Errors for people: what happened, where, and what to do about it.

Everything a user can mend is a :class:`UserError` carrying one or more :class:`Problem` records, so
that a whole experiment file or data set is checked before anything is reported. The command line
prints them without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
import errno
import logging
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

MENDABLE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or choose another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose another folder or change its permissions"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (ulimit -n)"),
}
"""Errors of the operating system that are the machine's own, and what to do about them."""

_DURING_WORK = {**MENDABLE, **dict.fromkeys((errno.EIO, errno.ESTALE), "check the disk")}


_LINE = 300  # characters of a message in one line


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        what: What happened, one sentence.
        where: The file, key or line concerned; empty when there is none.
        fix: What the user can do.

    Example:
        >>> print(Problem("unknown key 'epoch'", "my.yaml, line 3, train.epoch", "did you mean 'epochs'?"))
        my.yaml, line 3, train.epoch: unknown key 'epoch'
          -> did you mean 'epochs'?
    """

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  -> {self.fix}" if self.fix else head


class AutosegError(Exception):
    """Root of all errors raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class UserError(AutosegError):
    """One or more problems that the user can mend (exit code 2).

    Args:
        problems: A message, a :class:`Problem`, or a sequence of problems.

    Example:
        >>> UserError(Problem("no images", "data/", "put PNG files there")).problems[0].what
        'no images'
    """

    exit_code = 2

    def __init__(self, problems: str | Problem | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class Interrupted(BaseException):
    """Raised by the signal handlers on SIGINT and SIGTERM; state has been saved (exit code 130)."""

    exit_code = 130


def raise_if(problems: Sequence[Problem]) -> None:
    """Raise one :class:`UserError` with all ``problems``, or do nothing when there are none."""
    if problems:
        raise UserError(problems)


def machine_problem(error: BaseException, who: str = "") -> UserError | None:
    """What the user can do about an error for which the machine is to blame, not what ran on it.

    Args:
        error: An error of the operating system, or of memory that ran out; a UserError stays as it is.
        who: What was being done.

    Returns:
        The error for the user, or None where the machine is not to blame.

    Example:
        >>> print(machine_problem(OSError(errno.ENOSPC, "No space left on device"), "unet, seed 0"))
        unet, seed 0: No space left on device
          -> free some space or choose another folder; --resume continues the run
        >>> machine_problem(ValueError("7 is too many")) is None
        True
    """
    if isinstance(error, UserError):
        return error
    if _out_of_memory(error):
        first = str(error).partition("\n")[0]
        what = f"does not fit into memory ({first})" if first else "does not fit into memory"
        fix = (
            "free memory and continue with --resume, or start anew with a smaller train.batch or train.patch "
            "or with fewer compute.workers"
        )
        return UserError(Problem(what, who, fix))
    if isinstance(error, OSError) and error.errno in _DURING_WORK:
        what = f"{who}: {error.strerror}" if who and error.filename else str(error.strerror)
        where = str(error.filename) if error.filename else who
        return UserError(Problem(what, where, f"{_DURING_WORK[error.errno]}; --resume continues the run"))
    return None


@contextmanager
def machine_told(who: str) -> Iterator[None]:
    """Raise errors for which the machine is to blame as UserErrors, see :func:`machine_problem`; log where they arose.

    Args:
        who: What is being done.
    """
    try:
        yield
    except Exception as error:
        problem = machine_problem(error, who)
        if problem is None or problem is error:
            raise
        log.error("%s: %s", who, "".join(traceback.format_exception(error)))
        raise problem from error


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: that of Python, of numpy, or of torch on a GPU or a CPU (which is not imported here)."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    of_torch = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or of_torch or "DefaultCPUAllocator: can't allocate memory" in str(error)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the closest known name, else list what is known.

    Example:
        >>> did_you_mean("epoch", ["epochs", "loss"])
        "did you mean 'epochs'?"
        >>> did_you_mean("zzz", ["epochs", "loss"])
        'known: epochs, loss'
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names) if names else "nothing is registered here"


def one_line(error: BaseException) -> str:
    """The type and first line of an exception, some hundred characters at most.

    Example:
        >>> one_line(ValueError("3 channels, wanted 1")), one_line(KeyboardInterrupt())
        ('ValueError: 3 channels, wanted 1', 'KeyboardInterrupt')
    """
    first = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__name__}: {first}".rstrip(": ")
    return text if len(text) <= _LINE else text[:_LINE] + " ..."
