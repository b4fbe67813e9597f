"""What comes from NNI's manager, read as plain JSON, first of all the parameters of a trial.

NNI's own functions decode it with ``nni.load``, which imports what a text names and runs pickles in it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from autoseg.errors import Problem, UserError

_PATIENCE = 60.0  # seconds until the manager must answer; it lets a trial that waits ask again after one
_PICKLE = "bytes:"  # how a text begins that NNI would unpickle
_ASK_AGAIN, _CLOSED = 408, 410


def refuse_marks(value: Any) -> None:
    """Raise if something is marked as more than JSON, in the way of ``nni.dump``.

    The marks are keys such as ``__nni_type__``, ``__nni_obj__``, ``__symbol__``, ``__instance_type__``.

    Args:
        value: What JSON was decoded to.

    Raises:
        ValueError: It has a key between double underscores, or a text that begins like a pickle.

    Example:
        >>> refuse_marks({"choices": [{"op": "conv3"}], "note": "__init__"})
        >>> refuse_marks([{"op": {"__nni_obj__": "gASV"}}])
        Traceback (most recent call last):
        ...
        ValueError: '__nni_obj__' is refused: it marks what is more than JSON
    """
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            waiting += [*found.values()]
            names = [str(key) for key in found]
            marks = [name for name in names if name.startswith("__nni_") or name[:2] == name[-2:] == "__"]
        elif isinstance(found, list | tuple):
            waiting += found
            continue
        else:
            marks = [_PICKLE] if isinstance(found, str) and found.startswith(_PICKLE) else []
        if marks:
            raise ValueError(f"{marks[0]!r} is refused: it marks what is more than JSON")


def plain(text: str | bytes) -> Any:
    """Plain JSON out of a text.

    Raises:
        ValueError: It is not JSON, is nested too deep, or has marks of NNI in it.
        TypeError: It is not a text.

    Example:
        >>> plain('{"default": 0.5}')
        {'default': 0.5}
    """
    found = _json(text)
    refuse_marks(found)
    return found


def _json(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def next_parameters(url: str | None = None) -> dict[str, Any] | None:
    """The record of the parameters of this trial, as NNI keeps it.

    The manager is asked again until it answers: somebody else on the machine may have taken its answer. Where
    there is no manager to ask, as in a container on Kubernetes, the parameters are in a file.

    Args:
        url: Where the trial reaches the manager; by default what NNI has set in the environment.

    Returns:
        ``{"parameter_id": 3, "parameters": {...}, ...}``; None when the manager has closed.

    Raises:
        UserError: The trial was added by somebody else, so it has no number of ours.
        ValueError: The record is not plain JSON, or is none.
        OSError: The manager does not answer.
    """
    url = url or os.environ.get("NNI_TRIAL_COMMAND_CHANNEL")
    text = _asked(url) if url else (Path(os.environ["NNI_SYS_DIR"]) / "parameter.cfg").read_text(encoding="utf-8")
    if text is None:
        return None
    record = _json(text)
    number = record.get("parameter_id") if isinstance(record, dict) else ""
    if number is None:
        raise UserError(Problem("this trial is not one of the run's own", "", "leave it to the run to add trials"))
    refuse_marks(record)
    if type(number) is not int or not isinstance(record.get("parameters"), dict):
        raise ValueError("NNI's manager has sent something else than parameters")
    return dict(record)


def _asked(url: str) -> str | None:
    """What the manager answers; None when it has closed."""
    opener = build_opener(ProxyHandler({}))  # whatever proxy the user has for the internet
    header = {"content-type": "application/json"}
    question = Request(url, b'{"type": "request_parameter"}', header, method="PUT")
    while True:
        try:
            opener.open(question, timeout=_PATIENCE).close()
            with opener.open(url, timeout=_PATIENCE) as answer:
                return str(json.load(answer)["parameter"])
        except HTTPError as error:
            if error.code == _CLOSED:
                return None
            if error.code != _ASK_AGAIN:
                raise
