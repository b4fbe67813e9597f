"""The stand-in that NNI starts as a trial: it hands the trial over to the main process and waits for its end.

Run as ``python -S -E relay.py SOCKET`` with the environment of a trial. It needs the standard library alone
and starts in milliseconds. What it hands over: NNI's variables, the GPUs that NNI chose, and its output
streams. NNI ends a trial by a signal: the relay then closes its side of the connection, the main process ends
the trial's process, and its exit code comes back. When NNI's manager is gone, the relay does the same; when
the main process is gone, the relay ends at once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

_CHOSEN_BY_NNI = ("CUDA_VISIBLE_DEVICES", "MULTI_PHASE", "REUSE_MODE")
_WATCH = 1.0  # seconds between two looks at the manager


def relay(path: str) -> int:
    """Hand this trial over and wait for it.

    Args:
        path: The socket on which the main process listens.

    Returns:
        The exit code of the trial; 1 when the main process is not there or goes away.
    """
    manager = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to end, a signal ends the relay
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(path)
            chosen = [f"{k}={v}" for k, v in os.environ.items() if k.startswith("NNI_") or k in _CHOSEN_BY_NNI]
            socket.send_fds(connection, ["\0".join(chosen).encode()], [1, 2])
        except OSError as error:
            print(f"the main process of autoseg does not answer: {error}", file=sys.stderr)
            return 1

        def let_go(*_: object) -> None:
            with suppress(OSError):  # the main process is gone, which the loop below sees
                connection.shutdown(socket.SHUT_WR)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, let_go)
        connection.settimeout(_WATCH)
        while True:
            try:
                return int(connection.recv(16) or b"1")
            except TimeoutError:
                if os.getppid() != manager:
                    let_go()
            except OSError:
                return 1


if __name__ == "__main__":
    sys.exit(relay(sys.argv[1]))
