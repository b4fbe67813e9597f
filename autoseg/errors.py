"""Errors for people: what happened, where, and what to do about it.

Everything a user can mend is a :class:`UserError` carrying one or more :class:`Problem` records, so
that a whole experiment file or data set is checked before anything is reported. The command line
prints them without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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
