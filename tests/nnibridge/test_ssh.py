from __future__ import annotations

import io
import json
import shlex
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Sshd, need_sshd

from autoseg.config_compute import MachineConfig
from autoseg.nnibridge.machinecheck import WayBack, check, way_back
from autoseg.nnibridge.ssh import Login, SshFailed, UnsafeArchive


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


def archive_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, size
    return made


def chain() -> list[tarfile.TarInfo]:
    """Links that older Pythons follow out of the target (CVE-2025-4517): the path is too long to be resolved."""
    made, path, folder = list[tarfile.TarInfo](), "", "d" * 247
    for step in "abcdefghijklmnop":
        made += [member(f"{path}{folder}", tarfile.DIRTYPE), member(f"{path}{step}", tarfile.SYMTYPE, folder)]
        path += f"{folder}/"
    long = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/" + "l" * 254
    made += [member(long, tarfile.SYMTYPE, "../" * 16), member("escape", tarfile.SYMTYPE, long + "/../../")]
    for each in made:
        each.mode = 0o755
    return [*made, member("escape/OWNED", size=5)]


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", size=5)],
        [member("in", tarfile.SYMTYPE, "/etc"), member("in/evil", size=5)],
        [member("a", size=5), member("b", tarfile.LNKTYPE, "a")],
        [member("pipe", tarfile.FIFOTYPE)],
        chain(),
    ],
    ids=["leads out", "link", "hard link", "pipe", "chain of links"],
)
def test_an_archive_with_more_than_files_and_folders_is_refused(
    login: Login, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    place = archive_of(tmp_path / "evil.tar", *members)
    target = tmp_path / "run" / "fetched" / "0"
    with pytest.raises(UnsafeArchive, match="not a safe archive"):
        login.fetch(f"cat {place}", target)
    outside = [file for file in tmp_path.rglob("*") if file.is_file() and target not in file.parents]
    assert sorted(file.name for file in outside) == ["evil.tar", "known hosts"]
    assert not any(file.is_symlink() for file in target.rglob("*"))


def test_an_archive_that_is_cut_off_is_refused(login: Login, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    with pytest.raises(SshFailed, match="not a whole archive"):
        login.fetch(f"cd {tmp_path} && tar -cf - big | head -c 100000", tmp_path / "target")
    with pytest.raises(SshFailed) as caught:
        login.fetch("exit 44", tmp_path / "target")
    assert caught.value.code == 44


def test_slow_is_not_silent(login: Login, tmp_path: Path) -> None:
    """Bytes keep a transfer alive, however long it takes; silence ends it."""
    (tmp_path / "file").write_bytes(bytes(range(256)) * 16)
    drip = "tar -cf - file | while head -c 1024 > part && [ -s part ]; do cat part; sleep 0.3; done"
    began = time.monotonic()
    login.fetch(f"cd {tmp_path} && {drip}", tmp_path / "back", silence=1.5)
    assert time.monotonic() - began > 3
    assert (tmp_path / "back" / "file").read_bytes() == bytes(range(256)) * 16
    began = time.monotonic()
    with pytest.raises(SshFailed, match="took too long"):
        login.fetch("sleep 20", tmp_path / "none", silence=1)
    with pytest.raises(SshFailed, match="took too long"):
        login.send({"file": tmp_path / "file"}, "sleep 20", silence=1)
    assert time.monotonic() - began < 8


def test_what_is_on_its_way_can_be_aborted(login: Login) -> None:
    began = time.monotonic()
    threading.Timer(0.7, login.abort).start()
    with pytest.raises(SshFailed, match="it was interrupted"):
        login.run("sleep 20")
    with pytest.raises(SshFailed, match="it was interrupted"):
        login.run("true")
    assert login.again().run("echo yes") == "yes\n"
    assert time.monotonic() - began < 8


def test_a_good_machine_has_no_problems(login: Login) -> None:
    with way_back() as manager:
        assert check(login, manager) == []


def test_a_way_back_that_leads_elsewhere(login: Login) -> None:
    with way_back() as manager:
        (problem,) = check(login, WayBack(manager.address, manager.port, "another word"))
        assert f"127.0.0.1, port {manager.port}: something else answers there" in problem.what
    (problem,) = check(login, manager)  # nobody listens any more, as where a firewall says no
    assert f"127.0.0.1, port {manager.port}: " in problem.what and "refused" in problem.what
    (problem,) = check(login, WayBack("256.0.0.1", 8080, "word"))
    assert "it does not reach this machine: 256.0.0.1, port 8080" in problem.what


def test_a_machine_without_enough_gpus(login: Login) -> None:
    (problem,) = check(login, gpus=64)
    assert problem.what.endswith("but each job needs 64") and "compute.device" in problem.fix


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
    problems = check(Login(login.machine.model_copy(update=change), login.known_hosts))
    assert len(problems) == 1, problems
    assert what in problems[0].what and fix in problems[0].fix
    assert problems[0].where == "compute.machines"


def test_a_python_without_our_libraries(login: Login, tmp_path: Path) -> None:
    bare = tmp_path / "python"  # the same Python that sees nothing but the standard library
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    problems = check(Login(login.machine.model_copy(update={"python": str(bare)}), login.known_hosts))
    assert len(problems) == 1
    assert " does not have " in problems[0].what and " nni, " in problems[0].what and " torch, " in problems[0].what
    assert f"{bare} -m pip install" in problems[0].fix


def test_a_changed_host_key_is_refused(login: Login) -> None:
    login.run("true")
    known = login.known_hosts
    assert known is not None
    words = known.read_text().split()
    other = known.with_name("other")
    other.write_text(" ".join([words[0], words[1], words[2][:-8] + "AAAAAAAA"]) + "\n")
    problems = check(Login(login.machine, other))
    assert len(problems) == 1 and "ssh-keygen -R" in problems[0].fix, problems


def test_no_client(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SshFailed, match="there is no ssh client here: install OpenSSH"):
        login.run("true")


def test_what_a_machine_says_is_json(login: Login) -> None:
    asked = shlex.quote(json.dumps({"packages": ["numpy", "no-such-thing"], "manager": None, "gpus": True}))
    source = (Path(check.__code__.co_filename).with_name("tell.py")).read_text()
    told = json.loads(login.run(f"{sys.executable} - {asked}", given=source))
    assert told["python"] == list(sys.version_info[:2])
    assert told["versions"]["no-such-thing"] is None and told["versions"]["numpy"][0].isdigit()
