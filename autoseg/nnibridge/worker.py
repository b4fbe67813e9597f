"""One machine that works for a run: our folder on it, and the trials in it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from autoseg.nnibridge.bundle import bundle_files
from autoseg.nnibridge.ssh import Login, SshFailed
from autoseg.runfolder import RunFolder

T = TypeVar("T")
R = TypeVar("R")

_NOT_HERE = 44  # exit code of the search for a trial that this machine does not have

# NNI's agents of an earlier run that was killed, or that have not noticed the end of this one; stopped ones too.
_END_AGENTS = """
for file in "$base"/home/nni-experiments/*/environments/*/trial_keeper*/trial_keeper.pid; do
  number=$(cat "$file" 2>/dev/null) && grep -aqF "$base" "/proc/$number/cmdline" 2>/dev/null || continue
  {{ kill "$number" && kill -CONT "$number"; }} 2>/dev/null || true
done
"""
_PLACE = 'base="${{XDG_CACHE_HOME:-$HOME/.cache}}/autoseg/"{name}\n'
_EQUIP = (
    ": autoseg-equips {name} now\n"
    + _PLACE
    + """
set -e
umask 077
mkdir -p "$base"
cd "$base"
base=$(pwd -P)
"""
    + _END_AGENTS
    + """
cd /
rm -rf "$base"
mkdir -p "$base/home"
cd "$base"
tar -xf -
threads=$(( $(nproc 2>/dev/null || echo 1) / {share} ))
[ "$threads" -gt 0 ] || threads=1
printf '{{"run": "run", "threads": %d}}' "$threads" > code/trial.json
pwd -P
"""
)
# The first loop ends what equips this machine still though nobody waits for it; its pattern does not match itself.
_REMOVE = (
    _PLACE
    + """
for process in /proc/[0-9]*; do
  grep -aq ": autoseg-equip[s] "{name}" now" "$process/cmdline" 2>/dev/null && kill "${{process#/proc/}}"
done
cd "$base" 2>/dev/null || exit 0
base=$(pwd -P)
cd /
"""
    + _END_AGENTS
    + """
rm -rf "$base" || {{ sleep 2; rm -rf "$base"; }}  # again, when something was still writing
rmdir "${{base%/*}}" 2>/dev/null || true
"""
)
_FETCH = """
for folder in {folder}/home/nni-experiments/*/environments/*/trials/{trial}; do
  [ -d "$folder" ] && cd "$folder" && exec tar --exclude=./run/data -cf - .
done
exit {missing}
"""


class Worker:
    """A machine and our folder on it.

    Args:
        login: The way there.
        name: Name of our folder, of letters, digits and ``_.-``.

    Attributes:
        folder: Our folder, absolute, once it is equipped.
    """

    def __init__(self, login: Login, name: str) -> None:
        self.login, self.name, self.folder = login, name, ""

    def __str__(self) -> str:
        return str(self.login.machine)

    def equip(self, run: RunFolder, share: int) -> None:
        """Put code, configuration and data of a run onto the machine, in place of what an earlier attempt left.

        Args:
            run: The run folder, after :func:`autoseg.nnibridge.bundle.make_bundle`.
            share: Trials that will share its cores.

        Raises:
            SshFailed: It could not be done; :meth:`remove` takes away what is there.
            UserError: The data are not there to be copied.
        """
        with tempfile.TemporaryDirectory() as scratch:
            files = bundle_files(run, self.login.machine.python, Path(scratch))
            told = self.login.send(files, _EQUIP.format(name=shlex.quote(self.name), share=share))
        self.folder = told.strip().splitlines()[-1]

    @property
    def programs(self) -> str:
        """The folder with the Python that NNI is to use there."""
        return f"{self.folder}/bin"

    def fetch(self, trial: str, target: Path) -> bool:
        """Fetch the output folder of a trial; False when it is not on this machine.

        Raises:
            SshFailed: The machine cannot be reached, or the folder did not come whole.
            OSError: The files cannot be written here.
        """
        script = _FETCH.format(folder=shlex.quote(self.folder), trial=shlex.quote(trial), missing=_NOT_HERE)
        try:
            self.login.fetch(script, target)
        except SshFailed as error:
            if error.code == _NOT_HERE:
                return False
            raise
        return True

    def remove(self) -> None:
        """End what may have been left running and remove our folder, whole or not.

        Raises:
            SshFailed: It could not be done.
        """
        self.login.again().run(_REMOVE.format(name=shlex.quote(self.name)), timeout=20)


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results for all items, in their order; an exception is not kept waiting by those that still run."""
    pool = ThreadPoolExecutor(max(1, min(16, len(items))))
    try:
        return [future.result() for future in [pool.submit(work, item) for item in items]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
