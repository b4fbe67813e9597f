"""The figures of a trial on their way to NNI, never at the cost of the trial's work.

Reports are requests to NNI's manager. They go from a thread of their own, because a manager that is slow, or
gone, must neither slow down nor fail a training.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Mapping
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

_EVERY = 0.2  # seconds between two reports
_PATIENCE = 10.0  # seconds that the final report may take


class Channel(Protocol):
    """What of NNI's TrialCommandChannel is used."""

    def send_metric(
        self,
        type: Literal["PERIODICAL", "FINAL"],
        parameter_id: int | None,
        trial_job_id: str,
        sequence: int,
        value: Any,
    ) -> None:
        """Send one report."""


class Reports:
    """Sends what a trial reports, at most five times a second; of figures that come faster the newest.

    Args:
        channel: NNI's channel of the trial.
        parameter_id: NNI's number of the parameters of the trial.
        trial_id: NNI's name of the trial.

    Example:
        >>> class Heard:
        ...     def send_metric(self, type, parameter_id, trial_job_id, sequence, value):
        ...         print(type, sequence, value)
        >>> reports = Reports(Heard(), 0, "abcde")
        >>> reports.figures({"default": 0.5, "loss": float("nan")})
        >>> reports.final({"default": 0.75, "code": "E=[0]"})
        PERIODICAL 0 {'default': 0.5}
        FINAL 0 {'default': 0.75, 'code': 'E=[0]'}
    """

    def __init__(self, channel: Channel, parameter_id: int | None, trial_id: str) -> None:
        self._channel, self._parameter_id, self._trial_id = channel, parameter_id, trial_id
        self._changed = threading.Condition()
        self._newest: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._over = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._send, name="reports", daemon=True)
        self._thread.start()

    def figures(self, values: Mapping[str, float]) -> None:
        """Report figures of an epoch; what is not finite is left out.

        Args:
            values: ``default`` is the one to judge by, 0 where it is missing.
        """
        with self._changed:
            self._newest = tellable(values)
            self._changed.notify()

    def final(self, values: Mapping[str, Any]) -> None:
        """Send what has not been sent yet, then the result, and wait until that is done.

        Args:
            values: As for :meth:`figures`; texts may be among them.
        """
        with self._changed:
            self._final = tellable(values)
            self._changed.notify()
        self._over.set()
        self._thread.join(_PATIENCE)

    def _send(self) -> None:
        sequence, final = 0, None
        while final is None:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._final is not None)
                newest, final, self._newest = self._newest, self._final, None
            if newest is not None:
                self._tell("PERIODICAL", sequence, newest)
                sequence += 1
            if final is None:
                self._over.wait(_EVERY)
        self._tell("FINAL", 0, final)

    def _tell(self, kind: Literal["PERIODICAL", "FINAL"], sequence: int, value: dict[str, Any]) -> None:
        try:
            self._channel.send_metric(kind, self._parameter_id, self._trial_id, sequence, value)
        except Exception as error:
            if not self._failed:
                log.warning("NNI's page does not receive the figures of this trial: %s", error)
            self._failed = True


def tellable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The finite numbers and the texts among some values, with a ``default``, as NNI's page can show them.

    Example:
        >>> tellable({"loss": float("inf"), "val_loss": 0.5, "code": "E=[0]", "curve": [1, 2]})
        {'default': 0.0, 'val_loss': 0.5, 'code': 'E=[0]'}
    """
    told: dict[str, Any] = {"default": 0.0}
    for key, value in values.items():
        if isinstance(value, str) or (isinstance(value, (int, float)) and math.isfinite(value)):
            told[key] = value
    return told


def direct(url: str) -> None:
    """Let requests of this process reach NNI's manager itself, whatever proxy the user has for the internet.

    Args:
        url: An address of the manager.
    """
    host = urlsplit(url).hostname or "localhost"
    for name in ("no_proxy", "NO_PROXY"):
        known = [entry for entry in os.environ.get(name, "").split(",") if entry]
        os.environ[name] = ",".join(dict.fromkeys([*known, host]))
