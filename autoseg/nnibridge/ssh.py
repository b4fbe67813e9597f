"""Reaching a worker machine with the OpenSSH client of this one: commands, and folders there and back.

No password is ever asked for, and ``~/.ssh/config`` is not read, because NNI's own connection does not read it
either. The key of a machine that is new is written down; one that has changed since is refused.
"""

from __future__ import annotations

import shlex
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from autoseg.config_compute import MachineConfig
from autoseg.errors import AutosegError

_CONNECT = 10  # seconds until a machine that does not answer is given up
_BLOCK = 1 << 16  # bytes


class SshFailed(AutosegError):
    """A command on another machine failed, or the machine could not be reached.

    Attributes:
        code: Exit code of the command; 255 when there was no connection, negative when it took too long.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class UnsafeArchive(SshFailed):
    """What a machine sent holds more than files and folders, or leads out of its place."""


class Login:
    """A way onto a machine.

    Args:
        machine: Where and as whom.
        known_hosts: Where keys of new machines are written down; the user's own file unless given, which is
            read in any case.

    Attributes:
        aborted: Whether :meth:`abort` was called.
    """

    def __init__(self, machine: MachineConfig, known_hosts: Path | None = None) -> None:
        self.machine, self.known_hosts = machine, known_hosts
        self.aborted = False
        self._clients: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def command(self, script: str) -> list[str]:
        """The command line that runs a shell script there."""
        known = [f'"{self.known_hosts}"'] if self.known_hosts else []
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": _CONNECT,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "ServerAliveInterval": 5,
            "ServerAliveCountMax": 3,
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": " ".join([*known, "~/.ssh/known_hosts"]),
            "LogLevel": "ERROR",
        }
        line = ["ssh", "-F", "none", "-T", "-p", str(self.machine.port), "-i", str(self.machine.key)]
        for name, value in options.items():
            line += ["-o", f"{name}={value}"]
        return [*line, "-l", self.machine.user, "--", self.machine.host, "exec sh -c " + shlex.quote(script)]

    def again(self) -> Login:
        """The same way, for use after :meth:`abort`."""
        return Login(self.machine, self.known_hosts)

    def abort(self) -> None:
        """Kill everything that is on its way, from any thread; nothing more is started on this way."""
        with self._lock:
            self.aborted = True
            for process in self._clients:
                process.kill()

    def run(self, script: str, *, timeout: float = 60, given: str = "") -> str:
        """Run a shell script there and wait for it.

        Args:
            script: For ``sh``; quote what comes from elsewhere with ``shlex.quote``.
            timeout: Seconds it may take.
            given: Its standard input.

        Returns:
            What it wrote to its standard output.

        Raises:
            SshFailed: It failed, took too long, or the machine cannot be reached.
        """
        with self._client(script) as process:
            try:
                out, err = process.communicate(given.encode(), timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
        self._check(process.returncode, err)
        return out.decode(errors="replace")

    def fetch(self, script: str, target: Path, *, silence: float = 60) -> None:
        """Fetch files and folders; an archive that holds anything else, or leads out of the target, is refused.

        Args:
            script: A shell script that writes a tar archive to its standard output.
            target: The folder here to put them into.
            silence: Seconds without any byte after which it is given up.

        Raises:
            UnsafeArchive: There is something in it that must not be unpacked.
            SshFailed: It failed, or the archive is cut off.
            OSError: The files cannot be written here.
        """
        broken: Exception | None = None
        with tempfile.TemporaryFile() as complaints:
            with self._client(script, complaints) as process, _Silence(silence, process.kill) as watch:
                assert process.stdin and process.stdout
                process.stdin.close()
                heard = cast(IO[bytes], _Heard(process.stdout, watch))
                try:
                    with tarfile.open(fileobj=heard, mode="r|") as archive:
                        archive.extractall(target, filter=_plain)
                    while heard.read(_BLOCK):  # the padding at its end
                        pass
                except tarfile.TarError as error:
                    broken = error
                    process.stdout.close()
                process.wait()
            complaints.seek(0)
            if isinstance(broken, tarfile.FilterError):
                raise UnsafeArchive(f"{self.machine}: what came back is not a safe archive ({broken})") from broken
            self._check(process.returncode, complaints.read())
        if broken:
            raise SshFailed(f"{self.machine}: what came back is not a whole archive ({broken})") from broken

    def send(self, files: Mapping[str, Path], script: str, *, silence: float = 300) -> str:
        """Send files and folders.

        Args:
            files: From the path in the archive to the file or folder here.
            script: A shell script that reads a tar archive from its standard input.
            silence: Seconds in which it takes nothing, or does not end, after which it is given up.

        Returns:
            What the script wrote to its standard output.

        Raises:
            SshFailed: It failed, took too long, or the machine cannot be reached.
        """
        with tempfile.TemporaryFile() as complaints:
            with self._client(script, complaints) as process, _Silence(silence, process.kill) as watch:
                assert process.stdin and process.stdout
                heard = cast(IO[bytes], _Heard(process.stdin, watch))
                with suppress(BrokenPipeError):  # it ended before it had read all; its exit code says why
                    with tarfile.open(fileobj=heard, mode="w|") as archive:
                        for name, path in files.items():
                            archive.add(path, name, filter=_anonymous)
                    process.stdin.close()
                out = process.stdout.read()
                process.wait()
            complaints.seek(0)
            self._check(process.returncode, complaints.read())
        return out.decode(errors="replace")

    def _check(self, code: int, complaints: bytes) -> None:
        if code:
            lines = complaints.decode(errors="replace").strip().splitlines()
            ended = "it was interrupted" if self.aborted else "it took too long"
            told = lines[-1] if lines else ended if code < 0 else f"exit code {code}"
            raise SshFailed(f"{self.machine}: {told}", code)

    @contextmanager
    def _client(self, script: str, stderr: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """The running client, out of reach of the terminal's Ctrl-C."""
        pipe = subprocess.PIPE
        with self._lock:
            if self.aborted:
                raise SshFailed(f"{self.machine}: it was interrupted")
            try:
                process = subprocess.Popen(
                    self.command(script), stdin=pipe, stdout=pipe, stderr=stderr or pipe, start_new_session=True
                )
            except FileNotFoundError:
                what = "there is no ssh client here: install OpenSSH (Debian: apt install openssh-client)"
                raise SshFailed(what) from None
            except OSError as error:
                raise SshFailed(f"the ssh client here does not start: {error}") from error
            self._clients.add(process)
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    process.kill()
                    raise
        finally:
            with self._lock:
                self._clients.discard(process)


class _Silence:
    """Does something when nothing has been heard for a while; a context manager."""

    def __init__(self, limit: float, do: Callable[[], object]) -> None:
        self._limit, self._do = limit, do
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ssh-silence", daemon=True)
        self.heard()

    def heard(self) -> None:
        """There was something."""
        self._until = time.monotonic() + self._limit

    def __enter__(self) -> _Silence:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(left := max(0.0, self._until - time.monotonic())):
            if not left:
                self._do()
                return


class _Heard:
    """A pipe whose bytes are heard; what is there is passed on at once, so that slow is not silent."""

    def __init__(self, pipe: IO[bytes], watch: _Silence) -> None:
        self._pipe, self._watch = pipe, watch

    def read(self, size: int, /) -> bytes:
        content: bytes = self._pipe.read1(size)  # type: ignore[attr-defined]
        self._watch.heard()
        return content

    def write(self, content: bytes, /) -> int:
        written = self._pipe.write(content)
        self._watch.heard()
        return written


def _plain(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo:
    """Files and folders alone: Pythons before 3.11.13 can be led out of the target by chains of links."""
    if not (member.isreg() or member.isdir()):
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, target)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing about who owns the files here."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
