"""A real ssh server of our own on 127.0.0.1, which stands for another machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")


def need_sshd() -> None:
    """Skip a test where there is no ssh server and client to use."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("there is no OpenSSH server and client here (Debian: apt install openssh-server openssh-client)")


class Sshd:
    """One server with keys of its own; the caches of its sessions lie in its folder.

    Attributes:
        port: Its port on 127.0.0.1.
        machine: It as an entry of ``compute.machines``.
        cache: What sessions take for the user's cache.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder, self.cache = folder, folder / "cache"
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nSubsystem sftp internal-sftp\nSetEnv XDG_CACHE_HOME={self.cache}\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)  # for a server of root
        self.process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "sshd does not start"
                time.sleep(0.05)

    @property
    def machine(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1", "port": self.port, "key": str(self.folder / "user"), "python": sys.executable,
        }  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """What works on this machine: NNI's agent and the trials."""
        found = []
        for process in psutil.process_iter():
            try:
                seen = [*process.cmdline(), process.environ().get("AUTOSEG_CODE", "")]
                if any(str(self.cache) in part for part in seen) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def trials(self) -> list[int]:
        """Process ids of the trials on it."""
        found = []
        for process in self.processes():
            try:
                if "autoseg.nnibridge.trial" in process.cmdline():
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def listening(self) -> set[str]:
        """Addresses on which its processes can be reached over the network."""
        found = set()
        for process in self.processes():
            try:
                connections = process.net_connections("inet")
            except psutil.Error:
                continue
            found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
        return found

    def kill(self) -> None:
        """Pull the plug: the server, all sessions, and everything they started end at once."""
        for process in [*psutil.Process(self.process.pid).children(recursive=True), *self.processes()]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()
