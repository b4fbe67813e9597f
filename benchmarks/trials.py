"""What a trial costs beyond its work: trials from our fork server against NNI's own, on the same manager.

Run: ``python benchmarks/trials.py`` (some minutes). Both sides have a manager of their own and two trials at a
time; rounds alternate. Our trials are :func:`autoseg.nnibridge.trial.run_trial` with a job that does nothing;
NNI's are processes that import what a stock NAS trial imports, and report. Prints a table and whether every bound
is kept; the exit code is 1 when one is not.

``--trials 200`` runs that many of our trials instead, and prints time and resident memory after each fifty.
"""

from __future__ import annotations

import argparse
import multiprocessing.forkserver
import os
import shlex
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bounds import Bound

CONCURRENCY = 2
PER_TRIAL, AGAINST_STOCK, PAGE = 1.2, 0.2, 3.0  # s, fraction, s
STRIDE = 50
GROWTH = 25.0  # MB that a process may grow between the first fifty trials and the last


def nothing(job: Any, run: Path, threads: int, progress: Any) -> dict[str, Any]:
    """A job without work."""
    progress.figures(str(job), {"default": 0.5})
    return {"miou": 0.5}


def our_trial(run: Path, threads: int, send: Any) -> int:
    """A trial of ours whose job is :func:`nothing`."""
    from autoseg.nnibridge import trial

    trial.run_job = nothing  # type: ignore[assignment]
    return trial.run_trial(run, threads, send)


def stock_trial() -> None:
    """A trial as NNI starts it for a multi-trial search of its own."""
    import nni
    import nni.nas.evaluator
    import nni.nas.execution.training_service
    import nni.nas.nn.pytorch
    import torch  # noqa: F401

    nni.get_next_parameter()
    nni.report_intermediate_result(0.5)
    nni.report_final_result(0.5)


class Side:
    """A manager whose trials are counted."""

    def __init__(self, folder: Path, command: str, held: ExitStack) -> None:
        from autoseg.nnibridge.channel import TrialChannel
        from autoseg.nnibridge.manager import Manager

        folder.mkdir()
        began = time.monotonic()
        self.manager = Manager.start(folder, folder.name, slots=CONCURRENCY, trial_command=command, code=folder)
        with urllib.request.urlopen(self.manager.url) as answer:
            answer.read()
        self.until_page = time.monotonic() - began
        held.callback(self.manager.stop)
        self._ended = threading.Semaphore(0)
        self._statuses: set[str] = set()
        self._channel = TrialChannel(self.manager, lambda *_: None, self._end, lambda reason: sys.exit(reason))
        held.callback(self._channel.close)

    def _end(self, number: int, trial_id: str, status: str) -> None:
        self._statuses.add(status)
        self._ended.release()

    def run(self, count: int) -> float:
        """Seconds per trial of that many."""
        began = time.monotonic()
        for number in range(count):
            self._channel.submit({"kind": "candidate", "number": number, "choices": {"op": "conv3"}})
        for _ in range(count):
            self._ended.acquire()
        if self._statuses != {"SUCCEEDED"}:
            raise SystemExit(f"trials ended as {sorted(self._statuses)}; see {self.manager.folder}")
        return (time.monotonic() - began) / count


@contextmanager
def sides(stock: bool) -> Iterator[list[Side]]:
    """Our side, warmed up, and perhaps NNI's."""
    import trials  # this file, under a name that the processes of trials know

    from autoseg import processes
    from autoseg.nnibridge.forks import TrialForks

    processes.warm_up()
    with tempfile.TemporaryDirectory() as name, ExitStack() as held:
        folder = Path(name)
        (folder / "run").mkdir()
        forks = TrialForks(folder / "run", 1, lambda *_: None, work=trials.our_trial)
        held.callback(forks.stop)
        began = time.monotonic()
        processes.exit_code(processes.start(os._exit, (0,)))
        print(f"the fork server was ready {time.monotonic() - began:.1f} s after this process had imported its own")
        found = [Side(folder / "ours", forks.command, held)]
        if stock:
            found.append(Side(folder / "stock", shlex.join([sys.executable, __file__, "--stock-trial"]), held))
        for side in found:
            side.run(CONCURRENCY)
        yield found


def compare(rounds: int) -> list[Bound]:
    """Our trials and NNI's in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    with sides(stock=True) as (ours, stock):
        for number in range(rounds):
            seconds[0].append(ours.run(20))
            seconds[1].append(stock.run(4))
            print(
                f"round {number + 1}: ours {seconds[0][-1]:.2f} s, NNI's own {seconds[1][-1]:.2f} s per trial",
                flush=True,
            )
        mine, theirs = (sum(values) / len(values) for values in seconds)
        return [
            Bound("a trial of ours", mine, PER_TRIAL, " s"),
            Bound("ours as a part of NNI's own", mine / theirs, AGAINST_STOCK),
            Bound("until the page answers", max(ours.until_page, stock.until_page), PAGE, " s"),
        ]


def endure(count: int) -> list[Bound]:
    """Many of our trials, with the memory of the processes that stay."""
    with sides(stock=False) as (ours,):
        pids = {
            "main process": os.getpid(),
            "NNI's manager": ours.manager.pid,
            "fork server": multiprocessing.forkserver._forkserver._forkserver_pid,  # type: ignore[attr-defined]
        }
        print("  ".join(["trials", "s each", *(f"{name}, MB" for name in pids)]))
        sizes, seconds = [], []
        for done in range(STRIDE, count + 1, STRIDE):
            seconds.append(ours.run(STRIDE))
            sizes.append([resident(pid) for pid in pids.values()])
            columns = [f"{size:>{len(name) + 4}.0f}" for name, size in zip(pids, sizes[-1], strict=True)]
            print("  ".join([f"{done:>6}", f"{seconds[-1]:>6.2f}", *columns]), flush=True)
        grown = [last - first for first, last in zip(sizes[0], sizes[-1], strict=True)]
        return [
            Bound("a trial of ours", max(seconds), PER_TRIAL, " s"),
            *(Bound(f"growth of the {name}", more, GROWTH, " MB") for name, more in zip(pids, grown, strict=True)),
        ]


def resident(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0, help="run that many of ours only")
    parser.add_argument("--stock-trial", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stock_trial:
        stock_trial()
        return 0
    bounds = endure(options.trials) if options.trials else compare(options.rounds)
    print(*bounds, sep="\n")
    return 0 if all(bound.kept for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
