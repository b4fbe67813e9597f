"""The trial itself: one job of a run, under NNI's eyes.

On this machine a trial is a process forked from our server (:func:`forked`). On another machine NNI runs
``python -m autoseg.nnibridge.trial`` in the folder that was sent there, which holds config.yaml, plan.json,
perhaps data, and trial.json: ``{"run": NAME, "threads": N}``. The results then lie in a run folder NAME in the
output folder of the trial.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.exceptions import SIGTERMException

from autoseg.errors import UserError, machine_problem, one_line
from autoseg.job import Job
from autoseg.jobs import run_job
from autoseg.nnibridge.parameters import next_parameters
from autoseg.nnibridge.reports import Reports, direct
from autoseg.processes import end_with_parent
from autoseg.progress import Forwarded, Progress
from autoseg.quiet import load_nni
from autoseg.runfolder import read_json, write_json

load_nni()
import nni  # noqa: E402
import nni.runtime.trial_command_channel.v3  # noqa: E402 - not imported on demand: every trial needs it
from nni.runtime import env_vars  # noqa: E402

log = logging.getLogger(__name__)

Send = Callable[[str, Any], None]
Work = Callable[[Path, int, "Send | None"], int]


def run_trial(run: Path, threads: int, send: Send | None = None) -> int:
    """Ask NNI for the job of this trial and do it.

    Besides the job's results in the run folder, the trial leaves two files in NNI's output folder:
    ``architecture.json`` where the job trains a known one, and ``outcome.json``, which holds ``result``, or
    ``problems`` the user can mend, or how it ``failed`` with its ``log``.

    Args:
        run: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads to use.
        send: Receives what happens: ``("parameter", number)`` first, then any of ``("progress", (method,
            arguments))`` and ``("log", (logger, level, text))``, and one of ``("done", result)``, ``("mend",
            problems)`` and ``("failed", (message, traceback))``.

    Returns:
        The exit code: 0, or 2 for something the user can mend, or 1 for any other failure.
    """
    adopt_environment()
    output = Path(os.environ["NNI_OUTPUT_DIR"])
    _keep_log(send)
    tell: Send = send or (lambda kind, content: None)
    who = "the trial"
    try:
        record: Any = next_parameters()
        if record is None:
            raise RuntimeError("NNI's manager has closed the connection before the trial began")
        nni.trial._params = record
        # Searches put a channel of their own in the place of this one, so it is kept.
        channel = nni.runtime.trial_command_channel.get_default_trial_command_channel()
        reports = Reports(channel, record["parameter_id"], os.environ["NNI_TRIAL_JOB_ID"])
        tell("parameter", record["parameter_id"])
        job = Job.from_json(record["parameters"])
        who = str(job)
        if job.architecture or job.choices:
            write_json(output / "architecture.json", job.architecture or {"choices": job.choices})
        result = run_job(job, run, threads, Forwarded(_progress(tell if send else None, reports)))
    except SIGTERMException:  # Lightning's word for being ended from outside
        raise
    except (Exception, SystemExit) as error:
        mendable, trace = machine_problem(error, who), traceback.format_exc()
        print(trace if mendable is None else mendable, file=sys.stderr, flush=True)
        if mendable is not None:
            tell("mend", list(mendable.problems))
            with suppress(OSError):  # the disk may be full
                write_json(output / "outcome.json", {"problems": [asdict(problem) for problem in mendable.problems]})
            return UserError.exit_code
        message = one_line(error)
        write_json(output / "outcome.json", {"failed": message, "log": trace})
        tell("failed", (message, trace))
        return 1
    write_json(output / "outcome.json", {"result": result})
    reports.final(final_figures(job, result))
    tell("done", result)
    return 0


def final_figures(job: Job, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a job as NNI's page shows it: ``default`` is its validation mIoU.

    Example:
        >>> final_figures(Job("candidate", code="E=[0]"), {"miou": 0.5, "seconds": 2.0, "note": ""})
        {'default': 0.5, 'code': 'E=[0]'}
    """
    told = {key: result[key] for key in ("params", "epoch") if key in result}
    code = result.get("code") or job.code
    return {"default": result.get("miou") or 0.0, **told, **({"code": code} if code else {})}


def _progress(send: Send | None, reports: Reports) -> Callable[[str, tuple[Any, ...]], None]:
    """What receives the progress of the job: NNI its figures, and the main process or the log everything.

    On another machine the figures are all that the main process hears, so they say how much is done.
    """
    alone = Progress()
    totals: dict[str, float] = {}
    done: dict[str, float] = {}

    def forward(method: str, arguments: tuple[Any, ...]) -> None:
        if method == "begin":
            totals[arguments[0]] = arguments[1]
        elif method == "update":
            done[arguments[0]] = arguments[1]
        elif method == "figures":
            label, values = arguments
            if send is None and totals.get(label):
                values = {**values, "progress": min(1.0, done.get(label, 0.0) / totals[label])}
            reports.figures(values)
        if send:
            send("progress", (method, arguments))
        else:
            getattr(alone, method)(*arguments)

    return forward


def adopt_environment() -> None:
    """Let NNI see the environment of this trial, which it has read already when it was imported."""
    old, new = env_vars.trial_env_vars, env_vars._load_env_vars(env_vars._trial_env_var_names)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "nni" and vars(module).get("trial_env_vars") is old:
            module.trial_env_vars = new  # type: ignore[attr-defined]
    nni.trial._experiment_id, nni.trial._trial_id = os.environ["NNI_EXP_ID"], os.environ["NNI_TRIAL_JOB_ID"]
    nni.trial._sequence_id = int(os.environ["NNI_TRIAL_SEQ_ID"])
    manager = os.environ.get("NNI_TRIAL_COMMAND_CHANNEL")  # a container reports through its output instead
    if manager:
        direct(manager)


def _keep_log(send: Send | None) -> None:
    """What the library logs goes to the trial's output, which NNI keeps, and to the main process."""
    library = logging.getLogger("autoseg")
    library.setLevel(logging.INFO)
    library.propagate = False
    own = logging.StreamHandler(sys.stdout)
    own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    library.addHandler(own)
    if send:
        library.addHandler(_Sent(send))


class _Sent(logging.Handler):
    """Sends what is logged as plain values."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send("log", (record.name, record.levelno, record.getMessage()))


def forked(
    work: Work, run: Path, threads: int, environment: dict[str, str], streams: list[int], connection: Connection
) -> None:
    """The life of a trial's process on this machine.

    Args:
        work: The work, as :func:`run_trial`.
        run: The run folder.
        threads: CPU threads to use.
        environment: What NNI has set for the trial.
        streams: Its standard output and error.
        connection: To the main process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.update(environment)
    lock = threading.Lock()

    def send(kind: str, content: Any) -> None:
        with lock:
            connection.send((kind, content))

    sys.exit(work(run, threads, send))


def main() -> int:
    """The trial on another machine; returns its exit code."""
    end_with_parent()
    code, told = Path.cwd(), read_json(Path("trial.json"))
    run = Path(os.environ["NNI_OUTPUT_DIR"]) / told["run"]
    run.mkdir(parents=True)
    for name in ("config.yaml", "plan.json"):
        shutil.copy(code / name, run / name)
    data = run / "data"
    if (code / "data").exists():
        data.symlink_to(code / "data")  # every trial on this machine reads the same files
    try:
        return run_trial(run, int(told["threads"]))
    finally:
        with suppress(FileNotFoundError):
            data.unlink()  # the output folder is fetched; the data are not a result


if __name__ == "__main__":
    sys.exit(main())
