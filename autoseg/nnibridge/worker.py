"""One machine that works for a run: our folder on it, and the trials in it."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autoseg.nnibridge.bundle import bundle_files
from autoseg.nnibridge.ssh import Login, SshFailed
from autoseg.runfolder import RunFolder

_NOT_HERE = 44  # exit code of the search for a trial that this machine does not have

# NNI's agents of an earlier run that was killed, or that have not noticed the end of this one.
_END_AGENTS = """
for file in "$base"/home/nni-experiments/*/environments/*/trial_keeper*/trial_keeper.pid; do
  number=$(cat "$file" 2>/dev/null) && grep -aqF "$base" "/proc/$number/cmdline" 2>/dev/null && kill "$number"
done
"""
_PLACE = 'base="${{XDG_CACHE_HOME:-$HOME/.cache}}/autoseg/{name}"\n'
_EQUIP = (
    _PLACE
    + _END_AGENTS
    + """
set -e
umask 077
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
_REMOVE = (
    "base={folder}\n"
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


@dataclass(frozen=True)
class Worker:
    """A machine that has what it needs.

    Attributes:
        login: The way there.
        folder: Our folder on it, absolute.
    """

    login: Login
    folder: str

    @classmethod
    def equip(cls, login: Login, run: RunFolder, name: str, share: int) -> Worker:
        """Put code, configuration and data of a run onto a machine, in place of what an earlier attempt left.

        Args:
            login: The way there.
            run: The run folder, after :func:`autoseg.nnibridge.bundle.make_bundle`.
            name: Name of our folder there.
            share: Trials that will share its cores.

        Raises:
            SshFailed: It could not be done.
        """
        with tempfile.TemporaryDirectory() as scratch:
            files = bundle_files(run, login.machine.python, Path(scratch))
            told = login.send(files, _EQUIP.format(name=shlex.quote(name), share=share))
        return cls(login, told.strip().splitlines()[-1])

    @property
    def programs(self) -> str:
        """The folder with the Python that NNI is to use there."""
        return f"{self.folder}/bin"

    def fetch(self, trial: str, target: Path) -> bool:
        """Fetch the output folder of a trial; False when it is not on this machine.

        Raises:
            SshFailed: The machine cannot be reached, or the folder did not come whole.
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
        """End what NNI may have left running and remove our folder.

        Raises:
            SshFailed: It could not be done.
        """
        self.login.run(_REMOVE.format(folder=shlex.quote(self.folder)), timeout=20)
