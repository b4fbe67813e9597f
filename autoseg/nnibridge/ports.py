"""Free ports for NNI's manager, which needs one for its page and, on Kubernetes, the one after it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from autoseg.errors import Problem, UserError

LOOPBACK = "127.0.0.1"
FIRST = 8080
_LAST = 65534


def free_pairs(first: int = FIRST, bind: str | None = None) -> Iterator[int]:
    """Ports that are free together with the one after them, lowest first.

    Free means free just now: another process may be faster, so whoever takes one must see whether it got it.

    Args:
        first: Where to begin.
        bind: Another address on which they must be free too.

    Yields:
        The lower port of each free pair.

    Example:
        >>> with socket.create_server((LOOPBACK, 0)) as taken:
        ...     number = taken.getsockname()[1]
        ...     next(free_pairs(number)) > number
        True
    """
    addresses = [LOOPBACK] if bind is None else [LOOPBACK, bind]
    for port in range(first, _LAST + 1, 2):
        if all(_free(address, number) for address in addresses for number in (port, port + 1)):
            yield port


def check_address(bind: str) -> None:
    """Raise unless this machine has the address.

    Raises:
        UserError: It has not.
    """
    try:
        with socket.create_server((bind, 0)):
            pass
    except OSError as error:
        fix = "give an address that this machine has and that the workers can reach"
        what = f"cannot listen on {bind} ({error.strerror or error})"
        raise UserError(Problem(what, "compute.bind", fix)) from error


def _free(address: str, port: int) -> bool:
    try:
        with socket.create_server((address, port)):
            return True
    except OSError:
        return False
