"""Starting the ranks of a training, and ending them: none outlives rank 0, and none fails without a word.

Rank 0 is the process that does the job. The others are started by it, each a fresh Python that does the
same job with it, from the run folder, and writes nothing. They meet in a folder that only this user can
read and talk through this machine's loopback or its GPUs, so no port is open to others.

A rank reads one line of JSON from its input: what to do. It says that it is ready, waits for the others and
works. Its input ends when rank 0 ends, however that happens, and then it ends at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
from torch import distributed as dist

from autoseg.errors import AutosegError, Problem, UserError, machine_problem
from autoseg.ownfolder import OwnFolder
from autoseg.train.compute import Compute

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds in which ranks end by themselves, or tell why they failed
_START = 600.0  # seconds in which a rank imports torch, be the disk ever so slow
_NEVER = timedelta(days=30)  # a rank that waits is ended by rank 0, not by a timeout
_END = "end"


class RankFailed(AutosegError):
    """A rank failed; the message is its own."""


@contextmanager
def several_ranks(compute: Compute, target: str, arguments: Mapping[str, Any]) -> Iterator[Compute]:
    """Have the other ranks do a job with this process, which is rank 0.

    Args:
        compute: Its ``devices`` say how many ranks there are; with one nothing is started. Its ``threads`` are
            those of each rank.
        target: ``"package.module:function"`` that the other ranks call with their :class:`Compute` and
            ``arguments``. It must come to the same collective operations as the body of the ``with`` statement.
        arguments: Plain values.

    Yields:
        The device and rank of this process.

    Raises:
        UserError: A rank met something the user can mend.
        RankFailed: A rank failed or was killed; rank 0 then cannot go on either.

    Example:
        >>> with several_ranks(Compute(), "autoseg.jobs:take_part", {}) as own:
        ...     own.ranks
        1
    """
    if compute.devices == 1:
        yield compute
        return
    hook = sys.excepthook  # torch sets its own
    with OwnFolder("autoseg-ranks") as folder:
        others = [_Rank(_of_rank(compute, r), target, arguments, folder.path) for r in range(1, compute.devices)]
        own = _of_rank(compute, 0)
        try:
            for other in others:
                other.wait_until_ready()
            _join(own, folder.path)
            own.prepare()
            yield own
            for other in others:
                other.say(_END)
            dist.destroy_process_group()  # all ranks do this at the same time
            for other in others:
                other.end(_PATIENCE)
        except RuntimeError as error:  # a rank that is gone shows in what waited for it
            failure = _first_failure(others, _PATIENCE if _is_loss_of_others(error) else 0.0)
            if failure is None:
                raise
            raise failure from error
        finally:
            for other in others:
                other.end()
            if dist.is_initialized():
                _leave(own)
            sys.excepthook = hook
            compute.prepare()


def _of_rank(compute: Compute, rank: int) -> Compute:
    """What a rank computes with."""
    device = compute.device
    if device != "cpu":
        device = f"cuda:{int(device.partition(':')[2] or 0) + rank}"
    return replace(compute, device=device, ranks=compute.devices, rank=rank)


def _join(compute: Compute, folder: Path) -> None:
    """Wait for all ranks and become one of them."""
    backend = "gloo"
    if compute.device != "cpu":
        torch.cuda.set_device(compute.device)
        backend = "cpu:gloo,cuda:nccl"
    name = "GLOO_SOCKET_IFNAME"
    before = os.environ.get(name)
    os.environ.setdefault(name, "lo0" if sys.platform == "darwin" else "lo")
    try:
        store = dist.FileStore(str(folder / "store"), compute.ranks)
        dist.init_process_group(backend, store=store, rank=compute.rank, world_size=compute.ranks, timeout=_NEVER)
    finally:
        if before is None:
            del os.environ[name]


def _leave(compute: Compute) -> None:
    """Leave the group when the others may be gone already."""
    _abort(compute)
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def _abort(compute: Compute) -> None:
    """End what waits on a GPU for a rank that is gone."""
    group = dist.group.WORLD
    if group is not None and compute.device != "cpu":
        group.abort()


class _Rank:
    """Another rank, seen from rank 0."""

    def __init__(self, compute: Compute, target: str, arguments: Mapping[str, Any], folder: Path) -> None:
        self.compute = compute
        self.words: dict[str, Any] = {}
        self._ready = threading.Event()
        self._errors = folder / f"rank-{compute.rank}.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autoseg.train.ranks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C is rank 0's business
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        request = {"compute": asdict(compute), "target": target, "arguments": arguments, "folder": str(folder)}
        self.say(json.dumps(request))

    def say(self, line: str) -> None:
        """Send a line; a rank that is gone is noticed elsewhere."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self.words.update(words := _words_in(line))
                if words:
                    self._ready.set()
                else:  # of what it started or imported
                    log.info("rank %d wrote: %s", self.compute.rank, line.rstrip())
            if self._process.wait():
                _abort(self.compute)  # rank 0 may wait on its GPU for this one
        finally:
            self._ready.set()

    def wait_until_ready(self) -> None:
        """Wait until it has imported everything, but not for ever."""
        if not self._ready.wait(_START):
            raise RankFailed(self._with_last_line(f"rank {self.compute.rank} was not ready after {_START:g} s."))
        if "ready" not in self.words:
            raise self.failure() or RankFailed(f"rank {self.compute.rank} did not start")

    def _with_last_line(self, text: str) -> str:
        """A sentence, and the last line of the rank's standard error if there is any."""
        return " ".join([text, *self._errors.read_text(errors="replace").strip().splitlines()[-1:]])

    def failure(self) -> AutosegError | None:
        """Why it failed; None while it runs, or when it only lost the others."""
        if self._process.poll() is None:
            return None
        self._listener.join()
        rank = f"rank {self.compute.rank}"
        if "mend" in self.words:
            return UserError([Problem(**problem) for problem in self.words["mend"]])
        if "failed" in self.words:
            log.error("%s failed:\n%s", rank, self.words["trace"])
            return RankFailed(f"{rank} failed: {self.words['failed']}")
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return RankFailed(f"{rank} was killed, most likely because memory ran out; give a smaller train.batch")
        if code == 0 or "lost" in self.words:
            return None
        return RankFailed(self._with_last_line(f"{rank} ended with exit code {code}."))

    def end(self, patience: float = 0.0) -> None:
        """Wait until it has ended by itself, then end it."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()


def _words_in(line: str) -> dict[str, Any]:
    """What a rank tells in a line of its output; empty when the line is not ours."""
    with contextlib.suppress(ValueError):
        words = json.loads(line)
        if isinstance(words, dict) and words.keys() & {"ready", "mend", "failed", "lost"}:
            return words
    return {}


def _first_failure(others: list[_Rank], patience: float) -> AutosegError | None:
    """Why a rank failed of itself; waits a while, because a rank that fails is missed before it has told why."""
    until = time.monotonic() + patience
    while True:
        failures = [failure for other in others if (failure := other.failure()) is not None]
        if failures or time.monotonic() >= until:
            return failures[0] if failures else None
        time.sleep(0.05)


def main() -> None:
    """Be another rank: read what to do, do it, tell how it ended."""
    words = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not for rank 0
    request = json.loads(sys.stdin.readline())
    ended = threading.Event()
    threading.Thread(target=_end_with_leader, args=(ended,), daemon=True).start()
    compute = Compute(**request["compute"])
    code = 1
    try:
        target = pkgutil.resolve_name(request["target"])
        _tell(words, ready=True)
        _join(compute, Path(request["folder"]))
        compute.prepare()
        target(compute, **request["arguments"])
        ended.wait()
        dist.destroy_process_group()
        code = 0
    except Exception as error:
        if (mendable := machine_problem(error, f"rank {compute.rank}")) is not None:
            _tell(words, mend=[asdict(problem) for problem in mendable.problems])
        elif _is_loss_of_others(error):
            _tell(words, lost=True)
        else:
            failed = f"{type(error).__name__}: " + str(error).partition("\n")[0]
            _tell(words, failed=failed, trace=traceback.format_exc())
    os._exit(code)


def _is_loss_of_others(error: Exception) -> bool:
    """Whether an operation failed only because another rank is gone."""
    said = any(word in str(error) for word in ("gloo", "Gloo", "NCCL", "closed by peer"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and said)


def _tell(words: IO[str], **content: Any) -> None:
    with contextlib.suppress(OSError):
        words.write(json.dumps(content) + "\n")
        words.flush()


def _end_with_leader(ended: threading.Event) -> None:
    """End this process when its input ends before rank 0 has said that all is done."""
    if sys.stdin.readline().strip() != _END:
        os._exit(1)
    ended.set()


if __name__ == "__main__":
    main()
