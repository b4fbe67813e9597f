"""Our end of NNI's tuner channel: hands trials to the manager and hears how they fare.

NNI's own client is not used: it decodes with ``nni.load``, which runs pickles. Everything here is plain JSON.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.parameters import plain, refuse_marks
from autoseg.nnibridge.ports import LOOPBACK

log = logging.getLogger(__name__)

_PATIENCE = 15.0  # seconds for the manager to take up the experiment

OnMetric = Callable[[int, str, str, Any], None]
OnEnd = Callable[[int, str, str], None]
OnLost = Callable[[str], None]


class TrialChannel:
    """The tuner of an experiment, as far as NNI is concerned.

    The callbacks are called in a thread of the channel, one after the other.

    Args:
        manager: A manager that has just been started.
        on_metric: Called with parameter id, trial id, ``"PERIODICAL"`` or ``"FINAL"``, and the value.
        on_end: Called with parameter id, trial id and status: ``SUCCEEDED``, ``FAILED``, ``USER_CANCELED`` (in the
            page), ``EARLY_STOPPED`` (by :meth:`cancel`) or ``SYS_CANCELED`` (lost: killed, or its machine is gone).
        on_lost: Called with the reason when the manager is gone although nobody here stopped it.

    Raises:
        ManagerFailed: The manager does not let us in or does not take up the experiment.
    """

    def __init__(self, manager: Manager, on_metric: OnMetric, on_end: OnEnd, on_lost: OnLost) -> None:
        self._manager, self._on_metric, self._on_end, self._on_lost = manager, on_metric, on_end, on_lost
        self._submitting = threading.Lock()
        self._submitted = 0
        self._ready, self._closed = threading.Event(), threading.Event()
        self._held = ExitStack()
        try:
            self._connection = self._connect()
        except (OSError, WebSocketException) as error:
            raise ManagerFailed(f"NNI's manager does not let its tuner in: {error}") from error
        self._thread = threading.Thread(target=self._listen, name="nni-channel", daemon=True)
        self._thread.start()
        if not self._ready.wait(_PATIENCE):
            self.close()
            raise ManagerFailed(f"NNI's manager did not take up the experiment; see {manager.folder / 'log'}")

    def _connect(self) -> ClientConnection:
        return self._held.enter_context(
            connect(
                f"ws://{LOOPBACK}:{self._manager.port}/tuner",
                additional_headers={"x-autoseg-token": self._manager.token},
                compression=None,
                ping_interval=None,  # the manager looks after the connection
                max_size=None,
                proxy=None,
                close_timeout=1,
            )
        )

    def submit(self, parameters: dict[str, Any]) -> int:
        """Queue a trial; trials start in the order in which they were submitted.

        Args:
            parameters: JSON; what the trial gets, and what the page shows.

        Returns:
            The id of the parameters, 0 for the first, which is also NNI's sequence number of the trial.

        Raises:
            ManagerFailed: The manager is gone.
            ValueError: There is something in it that JSON does not have, or that NNI would take for more than JSON.
        """
        refuse_marks(json.loads(json.dumps(parameters, allow_nan=False)))
        with self._submitting:
            number = self._submitted
            content = {"parameter_id": number, "parameters": parameters, "parameter_source": "algorithm"}
            self._send("TR", json.dumps({**content, "parameter_index": 0}))
            self._submitted += 1
        return number

    def cancel(self, trial_id: str) -> None:
        """End a trial; its end is told as any other, and a trial that has ended is left alone.

        Raises:
            ManagerFailed: The manager is gone.
        """
        self._send("KI", json.dumps(trial_id))

    def close(self) -> None:
        """Leave; no callback is called any more, except one that is running now."""
        self._closed.set()
        try:
            self._connection.send(json.dumps({"type": "_bye_"}))
        except (OSError, WebSocketException) as error:
            log.debug("the tuner channel was closed already: %s", error)
        self._held.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _send(self, kind: str, content: str) -> None:
        try:
            self._connection.send(json.dumps({"type": kind, "content": content}))
        except (OSError, WebSocketException) as error:
            raise ManagerFailed(f"NNI's manager is gone: {error}") from error

    def _listen(self) -> None:
        """Hear the manager until one side closes."""
        reason = "NNI's manager has ended unexpectedly"
        try:
            for message in self._connection:
                if self._closed.is_set():
                    break
                command = _command(message)
                if command["type"] in ("TE", "_bye_"):
                    reason = "NNI's experiment was stopped, most likely in its page"
                    break
                self._handle(command["type"], command.get("content"))
        except (OSError, WebSocketException) as error:
            log.debug("the tuner channel broke off: %s", error)
        if not self._closed.is_set() and not self._manager.stopping:
            self._call(self._on_lost, reason)

    def _handle(self, kind: Any, content: Any) -> None:
        """Do what one command asks; commands that need nothing from us are left alone."""
        try:
            if kind == "IN":
                self._ready.set()
                self._send("ID", "")
            elif kind == "ME":
                metric = plain(content)
                if metric["type"] in ("PERIODICAL", "FINAL") and type(metric["parameter_id"]) is int:
                    value = plain(metric["value"])
                    arguments = (metric["parameter_id"], str(metric["trial_job_id"]), metric["type"], value)
                    self._call(self._on_metric, *arguments)
            elif kind == "EN":
                end = plain(content)
                number = plain(end["hyper_params"])["parameter_id"]
                if type(number) is int:  # None is a trial that somebody else has added
                    self._call(self._on_end, number, str(end["trial_job_id"]), str(end["event"]))
        except (ValueError, TypeError, KeyError) as error:
            log.warning("NNI's manager passed on something that is not understood: %s (%s)", kind, error)
        except ManagerFailed as error:
            log.debug("no answer to %s: %s", kind, error)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("what %s was called for failed", getattr(callback, "__qualname__", callback))


def _command(message: str | bytes) -> dict[str, Any]:
    """A message as a command; one without a type when it is not understood."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) and "type" in found else {"type": None}
