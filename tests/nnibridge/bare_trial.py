"""A trial of nothing but the standard library: python -S -E bare_trial.py. Its parameters say what it does.

``reports`` and ``final``: values to report, as JSON texts; ``pickle``: whether to report all that NNI unpickles;
``again``: whether to ask for the parameters once more and report them;
``echo``: reported together with what the trial sees; ``sleep``: seconds to live; ``stubborn``: whether signals are
ignored; ``exit``: its exit code, negative for a signal that it sends to itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from urllib.request import Request, urlopen

URL = os.environ.get("NNI_TRIAL_COMMAND_CHANNEL", "")


MARKED = [
    {"__nni_type__": "path:os.system"},
    {"__nni_obj__": "gASVCgAAAAAAAAA="},
    {"__nni_later__": 1},
    {"__symbol__": "path:os.system", "__args__": ["true"]},
    {"__instance_type__": "path:os.system"},
    "bytes:gASVCgAAAAAAAAA=",
]


def put(command: dict[str, object]) -> None:
    header = {"content-type": "application/json"}
    urlopen(Request(URL, json.dumps(command).encode(), header, method="PUT"))


def report(parameter_id: int, kind: str, sequence: int, value: str) -> None:
    metric = {
        "parameter_id": parameter_id,
        "trial_job_id": os.environ["NNI_TRIAL_JOB_ID"],
        "type": kind,
        "sequence": sequence,
        "value": value,
    }
    put({"type": "metric", "metric": json.dumps(metric)})


def asked() -> dict[str, object]:
    put({"type": "request_parameter"})
    return json.loads(json.load(urlopen(URL))["parameter"])


def main() -> int:
    if "--turns" in sys.argv:  # trials that start together ask in the reverse order
        time.sleep(0.1 * (3 - int(os.environ["NNI_TRIAL_SEQ_ID"]) % 4))
    found = asked()
    number, todo = found["parameter_id"], found["parameters"]
    if todo.get("stubborn"):
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
    if todo.get("pickle"):
        for value in MARKED:
            report(number, "PERIODICAL", 0, json.dumps({"default": [value]}))
    for sequence, value in enumerate(todo.get("reports", [])):
        report(number, "PERIODICAL", sequence, value)
    if "final" in todo:
        report(number, "FINAL", 0, todo["final"])
    if todo.get("again"):
        report(number, "FINAL", 0, json.dumps([found, asked()]))
    if "echo" in todo:
        seen = [os.environ["NNI_TRIAL_SEQ_ID"], todo["echo"], os.environ["HOME"], "AUTOSEG_TOKEN_FD" in os.environ]
        report(number, "FINAL", 0, json.dumps(seen))
    print("at work", flush=True)
    time.sleep(todo.get("sleep", 0))
    code = todo.get("exit", 0)
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
