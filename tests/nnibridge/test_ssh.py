from __future__ import annotations

import io
import json
import shlex
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Sshd, need_sshd

from autoseg.config_compute import MachineConfig
from autoseg.nnibridge.ssh import Login, SshFailed, check


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    need_sshd()
    server = Sshd(tmp_path_factory.mktemp("ssh") / "one")
    yield server
    server.stop()


@pytest.fixture
def login(server: Sshd, tmp_path: Path) -> Login:
    return Login(MachineConfig(**server.machine), tmp_path / "known hosts")


def test_a_command_and_its_output(login: Login, server: Sshd) -> None:
    assert login.run("echo \"$XDG_CACHE_HOME\"; echo 'a  b' >&2") == f"{server.cache}\n"
    assert login.run("cat", given="ä\n2") == "ä\n2"
    assert f"[127.0.0.1]:{server.port} ssh-ed25519" in login.known_hosts.read_text()  # type: ignore[union-attr]
    with pytest.raises(SshFailed, match=rf"127.0.0.1:{server.port}: no way$") as caught:
        login.run("echo no way >&2; exit 7")
    assert caught.value.code == 7
    began = time.monotonic()
    with pytest.raises(SshFailed, match="took too long"):
        login.run("sleep 20", timeout=1)
    assert time.monotonic() - began < 5


def test_files_there_and_back(login: Login, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "in").mkdir(parents=True)
    (source / "in" / "big.bin").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / "other").write_text("x")
    there = tmp_path / "there"
    script = f"mkdir {shlex.quote(str(there))} && cd {shlex.quote(str(there))} && tar -xf - && echo done"
    assert login.send({"a": source, "b/c": tmp_path / "other"}, script) == "done\n"
    assert (there / "b" / "c").read_text() == "x"
    login.fetch(f"cd {there} && exec tar -cf - .", tmp_path / "back")
    assert (tmp_path / "back" / "a" / "in" / "big.bin").read_bytes() == bytes(range(256)) * 4000
    with pytest.raises(SshFailed, match="disk is full") as caught:
        login.send({"a": source}, "echo disk is full >&2; exit 3")
    assert caught.value.code == 3


def test_an_archive_that_is_cut_off_or_leads_out_is_refused(login: Login, tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        member = tarfile.TarInfo("../evil")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"evil\n"))
    (tmp_path / "evil.tar").write_bytes(whole.getvalue())
    with pytest.raises(SshFailed, match="not a whole and safe archive"):
        login.fetch(f"cat {tmp_path}/evil.tar", tmp_path / "target")
    assert not (tmp_path / "evil").exists()
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    with pytest.raises(SshFailed, match="not a whole and safe archive"):
        login.fetch(f"cd {tmp_path} && tar -cf - big | head -c 100000", tmp_path / "target")
    with pytest.raises(SshFailed) as caught:
        login.fetch("exit 44", tmp_path / "target")
    assert caught.value.code == 44


def test_a_good_machine_has_no_problems(login: Login) -> None:
    assert check(login.machine, login.known_hosts, ("127.0.0.1", 1)) == []  # refused there, so it is reachable


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"port": 1}, "Connection refused", "check host and port, and that its ssh server runs"),
        ({"user": "nobody-here"}, "Permission denied", "authorized_keys"),
        ({"python": "/no/python"}, "/no/python", "give the path of a Python on that machine"),
        ({"python": "/bin/echo"}, "the answer makes no sense", "must print nothing of its own"),
    ],
)
def test_what_is_wrong_with_a_machine_is_told(login: Login, change: dict[str, object], what: str, fix: str) -> None:
    problems = check(login.machine.model_copy(update=change), login.known_hosts)
    assert len(problems) == 1, problems
    assert what in problems[0].what and fix in problems[0].fix
    assert problems[0].where == "compute.machines"


def test_a_python_without_our_libraries(login: Login, tmp_path: Path) -> None:
    bare = tmp_path / "python"  # the same Python that sees nothing but the standard library
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    problems = check(login.machine.model_copy(update={"python": str(bare)}), login.known_hosts)
    assert len(problems) == 1
    assert " does not have " in problems[0].what and " nni, " in problems[0].what and " torch, " in problems[0].what
    assert f"{bare} -m pip install" in problems[0].fix


def test_a_manager_that_cannot_be_reached(login: Login) -> None:
    problems = check(login.machine, login.known_hosts, ("256.0.0.1", 8080))
    assert len(problems) == 1 and "it does not reach this machine: 256.0.0.1, port 8080" in problems[0].what


def test_a_changed_host_key_is_refused(login: Login) -> None:
    login.run("true")
    known = login.known_hosts
    assert known is not None
    words = known.read_text().split()
    other = known.with_name("other")
    other.write_text(" ".join([words[0], words[1], words[2][:-8] + "AAAAAAAA"]) + "\n")
    problems = check(login.machine, other)
    assert len(problems) == 1 and "ssh-keygen -R" in problems[0].fix, problems


def test_no_client(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SshFailed, match="there is no ssh client here: install OpenSSH"):
        login.run("true")


def test_what_a_machine_says_is_json(login: Login) -> None:
    asked = shlex.quote(json.dumps({"packages": ["numpy", "no-such-thing"], "manager": None}))
    source = (Path(check.__code__.co_filename).with_name("tell.py")).read_text()
    told = json.loads(login.run(f"{sys.executable} - {asked}", given=source))
    assert told["python"] == list(sys.version_info[:2])
    assert told["versions"]["no-such-thing"] is None and told["versions"]["numpy"][0].isdigit()
