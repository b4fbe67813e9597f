"""A stand-in for NNI's manager, and things that trials do in the tests; the processes of trials import it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from autoseg.errors import Problem, UserError
from autoseg.job import Job
from autoseg.progress import Progress


class StandIn:
    """Hands out parameters and takes metrics, as NNI's manager does for its trials."""

    def __init__(self, parameters: dict[str, Any] | None = None, parameter_id: int | None = 3) -> None:
        self.metrics: list[dict[str, Any]] = []
        stand_in = self
        record = {"parameter_id": parameter_id, "parameters": parameters, "parameter_source": "algorithm"}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = json.dumps({"type": "parameter", "parameter": json.dumps(record)}).encode()
                self.send_response(200 if parameters is not None else 410)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_PUT(self) -> None:
                command = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if command["type"] == "metric":
                    metric = json.loads(command["metric"])
                    stand_in.metrics.append({**metric, "value": json.loads(metric["value"])})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, output: Path, sequence_id: int = 3) -> dict[str, str]:
        """What NNI sets for a trial; a proxy that is not there must be no hindrance."""
        output.mkdir(parents=True, exist_ok=True)
        return {
            "NNI_PLATFORM": "local",
            "NNI_EXP_ID": "exp",
            "NNI_TRIAL_JOB_ID": f"trial{sequence_id}",
            "NNI_TRIAL_SEQ_ID": str(sequence_id),
            "NNI_SYS_DIR": str(output),
            "NNI_OUTPUT_DIR": str(output),
            "NNI_CODE_DIR": str(output),
            "NNI_TRIAL_COMMAND_CHANNEL": f"http://127.0.0.1:{self.server.server_address[1]}/env/local/trial",
        }

    def values(self, kind: str) -> list[Any]:
        """The metrics of a kind, in the order of arrival."""
        return [metric["value"] for metric in self.metrics if metric["type"] == kind]


class Started:
    """A relay, started as NNI does: by a shell, with its output in files."""

    def __init__(self, command: str, environment: dict[str, str], **more: str) -> None:
        self.output = Path(environment["NNI_OUTPUT_DIR"])
        with (self.output / "trial.stdout").open("w") as out, (self.output / "trial.stderr").open("w") as err:
            self.process = subprocess.Popen(
                command,
                shell=True,
                executable="/bin/bash",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.output,
                env={**os.environ, **environment, **more},
            )

    def wait(self) -> int:
        return self.process.wait(60)

    @property
    def stdout(self) -> str:
        return (self.output / "trial.stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.output / "trial.stderr").read_text()


def until(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    """Whether something becomes so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


# Work for TrialForks: (run folder, threads, send) -> exit code.


def show(run: Path, threads: int, send: Any) -> int:
    print("out", os.environ["NNI_TRIAL_JOB_ID"], os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["HOME"])
    print("err", threads, run.name, file=sys.stderr)
    send("done", {"pid": os.getpid(), "cwd": os.getcwd()})
    return 7


def tell(run: Path, threads: int, send: Any) -> int:
    send("parameter", 5)
    send("progress", ("note", ("hello",)))
    send("done", {})
    return 0


def die(run: Path, threads: int, send: Any) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def crash(run: Path, threads: int, send: Any) -> int:
    raise ZeroDivisionError("at once")


def sleep(run: Path, threads: int, send: Any) -> int:
    send("progress", ("note", (os.getpid(),)))
    time.sleep(60)
    return 0


def hold_gpus(run: Path, threads: int, send: Any) -> int:
    send("gpus", os.environ["CUDA_VISIBLE_DEVICES"])
    until((run / "go").exists)
    send("done", {})
    return 0


def chatter(run: Path, threads: int, send: Any) -> int:
    while True:
        send("progress", ("note", (os.getpid(),)))


def stubborn(run: Path, threads: int, send: Any) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return sleep(run, threads, send)


def pretended(run: Path, threads: int, send: Any) -> int:
    """The trial itself, whose job is :func:`pretend`."""
    from autoseg.nnibridge import trial

    trial.run_job = pretend  # type: ignore[assignment]
    return trial.run_trial(run, threads, send)


def pretend(job: Job, run: Path, threads: int, progress: Progress) -> dict[str, Any]:
    """A job that does what its label says."""
    from nni.runtime.trial_command_channel import set_default_trial_command_channel
    from nni.runtime.trial_command_channel.standalone import StandaloneTrialCommandChannel

    set_default_trial_command_channel(StandaloneTrialCommandChannel())  # as a search of NNI does
    progress.begin(str(job), 3, "epochs")
    if job.label == "mend":
        raise UserError([Problem("no images", "data", "put some there"), Problem("no masks")])
    if job.label == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if job.label == "fail":
        raise ValueError("the first line\nthe second")
    if job.label == "wait":
        assert until(lambda: (run / "go").exists())
    for epoch in range(100):
        progress.figures(str(job), {"default": epoch / 100, "loss": float("nan") if epoch == 99 else 1.0})
    progress.end(str(job), "done")
    return {"miou": 0.75, "threads": threads, "run": run.name, "code": job.code, "curve": [1.0]}
