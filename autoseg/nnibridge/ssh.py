"""Reaching a worker machine with the OpenSSH client of this one: commands, folders there and back, a check.

No password is ever asked for, and ``~/.ssh/config`` is not read, because NNI's own connection does not read it
either. The key of a machine that is new is written down; one that has changed since is refused.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from autoseg.config_compute import MachineConfig
from autoseg.errors import AutosegError, Problem
from autoseg.nnibridge.bundle import required_distributions

_CONNECT = 10  # seconds until a machine that does not answer is given up
_TELL = Path(__file__).with_name("tell.py")
_FREE = 2 * 2**30  # bytes of disk below which a machine is complained about


class SshFailed(AutosegError):
    """A command on another machine failed, or the machine could not be reached.

    Attributes:
        code: Exit code of the command; 255 when there was no connection, negative when it took too long.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Login:
    """A way onto a machine.

    Args:
        machine: Where and as whom.
        known_hosts: Where keys of new machines are written down; the user's own file unless given, which is
            read in any case.
    """

    def __init__(self, machine: MachineConfig, known_hosts: Path | None = None) -> None:
        self.machine, self.known_hosts = machine, known_hosts

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
        with _client(self.command(script), timeout) as process:
            out, err = process.communicate(given.encode())
        self._check(process.returncode, err)
        return out.decode(errors="replace")

    def fetch(self, script: str, target: Path, *, timeout: float = 600) -> None:
        """Fetch files; links and paths that lead out of the target folder are refused.

        Args:
            script: A shell script that writes a tar archive to its standard output.
            target: The folder here to put them into.
            timeout: Seconds it may take.

        Raises:
            SshFailed: It failed, or the archive is cut off or not safe.
        """
        broken: Exception | None = None
        with tempfile.TemporaryFile() as complaints:
            with _client(self.command(script), timeout, complaints) as process:
                assert process.stdin and process.stdout
                process.stdin.close()
                try:
                    with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                        archive.extractall(target, filter="data")
                    process.stdout.read()  # the padding at its end
                except (tarfile.TarError, OSError) as error:
                    broken = error
                    process.stdout.close()
                process.wait()
            complaints.seek(0)
            if not isinstance(broken, tarfile.FilterError):
                self._check(process.returncode, complaints.read())
        if broken:
            raise SshFailed(f"{self.machine}: what came back is not a whole and safe archive ({broken})") from broken

    def send(self, files: Mapping[str, Path], script: str, *, timeout: float = 3600) -> str:
        """Send files and folders.

        Args:
            files: From the path in the archive to the file or folder here.
            script: A shell script that reads a tar archive from its standard input.
            timeout: Seconds it may take.

        Returns:
            What the script wrote to its standard output.

        Raises:
            SshFailed: It failed, took too long, or the machine cannot be reached.
        """
        with tempfile.TemporaryFile() as complaints:
            with _client(self.command(script), timeout, complaints) as process:
                assert process.stdin and process.stdout
                with suppress(OSError):  # it ended before it had read all; its exit code says why
                    with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
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
            told = lines[-1] if lines else "it took too long" if code < 0 else f"exit code {code}"
            raise SshFailed(f"{self.machine}: {told}", code)


def check(
    machine: MachineConfig, known_hosts: Path | None = None, manager: tuple[str, int] | None = None
) -> list[Problem]:
    """Whether a machine can work for us: login, Python, packages, disk, and the way back.

    Args:
        machine: The machine.
        known_hosts: As for :class:`Login`.
        manager: Address and port where NNI's manager will listen; not looked at unless given.

    Returns:
        Everything that has to be mended; empty when all is well.
    """
    needed = required_distributions()
    asked = json.dumps({"packages": sorted(needed), "manager": manager})
    script = f"exec {shlex.quote(machine.python)} - {shlex.quote(asked)}"
    try:
        told = json.loads(Login(machine, known_hosts).run(script, given=_TELL.read_text(encoding="utf-8")))
    except SshFailed as error:
        return [Problem(str(error), "compute.machines", _mend(error, machine))]
    except ValueError:
        fix = "its shell must print nothing of its own when a command is run by ssh"
        return [Problem(f"{machine}: the answer makes no sense", "compute.machines", fix)]
    return [Problem(f"{machine}: {what}", "compute.machines", fix) for what, fix in _complaints(told, needed, machine)]


def _complaints(
    told: dict[str, Any], needed: Mapping[str, str | None], machine: MachineConfig
) -> Iterator[tuple[str, str]]:
    """What is wrong with a machine according to its answer, each with what to do."""
    install = f"there: {machine.python} -m pip install"
    if tuple(told["python"]) < (3, 11):
        found = ".".join(map(str, told["python"]))
        yield f"{machine.python} is Python {found}", "give a Python 3.11 or newer as 'python'"
    missing = [name for name in needed if told["versions"][name] is None]
    if missing:
        yield f"{machine.python} does not have {', '.join(missing)}", f"{install} {' '.join(missing)}"
    nni = told["versions"].get("nni")
    if nni is not None and nni != needed["nni"]:
        yield f"it has NNI {nni}, this machine {needed['nni']}", f"{install} nni=={needed['nni']}"
    if told["torch"]:
        yield f"torch cannot be imported: {told['torch']}", f"{install} --force-reinstall torch"
    if told["free"] < _FREE:
        yield f"only {told['free'] / 2**30:.1f} GiB of disk are free in the home directory", "make room there"
    if told["manager"]:
        fix = "give an address of this machine as compute.bind that it can reach, and open its firewall for it"
        yield f"it does not reach this machine: {told['manager']}", fix


def _mend(error: SshFailed, machine: MachineConfig) -> str:
    text = str(error)
    if "REMOTE HOST IDENTIFICATION" in text or "Host key verification failed" in text:
        return f"its key has changed; if that is right: ssh-keygen -R '[{machine.host}]:{machine.port}'"
    if "Permission denied" in text:
        return f"put {machine.key}.pub into ~/.ssh/authorized_keys there, or give another user or key"
    if error.code in (126, 127):
        return "give the path of a Python on that machine as 'python'"
    return "check host and port, and that its ssh server runs"


@contextmanager
def _client(line: list[str], timeout: float, stderr: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The running client, out of reach of the terminal's Ctrl-C, killed when it takes too long."""
    try:
        pipe = subprocess.PIPE
        process = subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=stderr or pipe, start_new_session=True)
    except FileNotFoundError:
        raise SshFailed("there is no ssh client here: install OpenSSH (Debian: apt install openssh-client)") from None
    timer = threading.Timer(timeout, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
    finally:
        timer.cancel()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing about who owns the files here."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
