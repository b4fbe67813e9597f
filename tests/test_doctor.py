"""What the doctor says about planted faults, and about a machine that is well."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from fake_distribution import install
from sshd import Sshd, need_sshd
from tiny_experiment import write_experiment

from autoseg import doctor
from autoseg.config_compute import ComputeConfig, MachineConfig
from autoseg.doctor import Check, examine, text_of

GIB = 2**30


def only(checks: list[Check]) -> Check:
    assert len(checks) == 1, checks
    return checks[0]


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def healthy() -> dict[str, Check]:
    return {check.name: check for check in examine()}


def test_here_nothing_must_be_mended(healthy: dict[str, Check]) -> None:
    assert {check.status for check in healthy.values()} <= {"ok", "warning"}
    assert healthy["python"].found.startswith(".".join(map(str, sys.version_info[:3])))
    assert healthy["nni"].found == "3.0" and healthy["node"].found == "v18.15.0, of NNI"
    assert {"torch", "numpy", "ports", "plugins", "memory", "disk", "ssh", "fork server"} <= healthy.keys()
    assert not {"pytest", "ruff"} & healthy.keys()  # extras are not needed


def test_the_fork_server_is_timed(healthy: dict[str, Check]) -> None:
    words = healthy["fork server"].found.split()
    assert words[:2] == ["ready", "after"] and 0 <= float(words[2]) < 120 and 0 < float(words[5]) < 30


def test_checks_are_plain_json(healthy: dict[str, Check]) -> None:
    rows = [asdict(check) for check in healthy.values()]
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0].keys() == {"name", "status", "found", "fix"}
    lines = text_of(list(healthy.values())).splitlines()
    assert sum("->" not in line for line in lines) == len(healthy)


@pytest.mark.parametrize(("version", "status"), [((3, 10, 9), "problem"), ((3, 13, 0), "ok"), ((3, 14, 0), "problem")])
def test_python(version: tuple[int, ...], status: str) -> None:
    assert only(doctor.check_python(version)).status == status


def test_packages_that_are_missing_or_of_a_wrong_version() -> None:
    wanted = ["nni==2.10", "not-there-at-all>=1", "numpy>=1.0", 'ruff>=99; extra == "test"']
    nni, missing, numpy = doctor.check_packages(wanted)
    assert (nni.status, nni.found, nni.fix) == ("problem", "3.0, but autoseg needs ==2.10", 'pip install "nni==2.10"')
    assert (missing.name, missing.status, missing.found) == ("not-there-at-all", "problem", "not installed")
    assert (numpy.name, numpy.status) == ("numpy", "ok")


def test_a_plugin_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import a_module_that_is_not_there\n"
    groups = {"autoseg.models": {"broken-net": "brokenplug:Net"}}
    site = install(tmp_path / "site", groups=groups, modules={"brokenplug": source})
    monkeypatch.syspath_prepend(str(site))
    check = only(doctor.check_plugins())
    assert (check.name, check.status) == ("model broken-net", "problem")
    assert check.fix.startswith("install the missing module 'a_module_that_is_not_there'")


def test_node_that_is_missing_or_broken(tmp_path: Path) -> None:
    missing = only(doctor.check_node(tmp_path / "node"))
    assert missing.status == "problem" and "No such file" in missing.found and "nni==3.0" in missing.fix
    broken = only(doctor.check_node(script(tmp_path / "bad", "echo 'GLIBC_2.99 not found' >&2; exit 1")))
    assert (broken.status, broken.found) == ("problem", "NNI's node.js does not run: GLIBC_2.99 not found")


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = only(doctor.check_ports(port))
    assert check.status == "warning" and f"{port} or {port + 1} is taken" in check.found
    free = int(check.found.split("; ")[1].split()[0])
    assert free >= port + 2 and (free - port) % 2 == 0
    assert only(doctor.check_ports(free)).status == "ok"


def test_an_address_of_another_machine() -> None:
    check = only(doctor.check_ports(bind="203.0.113.7"))
    assert check.status == "problem" and "203.0.113.7" in check.found and "address" in check.fix


def test_no_ssh_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert only(doctor.check_ssh()).status == "warning"
    needed = only(doctor.check_ssh(needed=True))
    assert needed.status == "problem" and "openssh-client" in needed.fix
    script(tmp_path / "ssh", "echo OpenSSH_99 >&2")
    assert doctor.check_ssh() == [Check("ssh", "ok", "OpenSSH_99")]


def test_little_memory_and_disk(tmp_path: Path) -> None:
    assert doctor.check_memory(5 * GIB) == [Check("memory", "ok", "5.0 GiB free")]
    assert only(doctor.check_memory(GIB)).status == "warning"
    check = only(doctor.check_disk(tmp_path, GIB // 2))
    assert (check.status, check.found) == ("warning", "0.5 GiB free") and "--out" in check.fix


def test_a_machine_that_cannot_be_reached(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("not a key")
    machine = MachineConfig(host="127.0.0.1", port=1, user="nobody", key=key, python="/usr/bin/python3")
    check = only(doctor.check_machines(ComputeConfig(service="remote", machines=[machine])))
    assert (check.name, check.status) == ("machine nobody@127.0.0.1:1", "problem")
    assert "refused" in check.found.lower() and check.fix


def test_a_machine_that_must_find_the_way_back(tmp_path: Path) -> None:
    need_sshd()
    server = Sshd(tmp_path / "one")
    compute = ComputeConfig(service="remote", machines=[MachineConfig(**server.machine)])
    try:
        good = only(doctor.check_machines(compute))
        lost = doctor.check_machines(compute.model_copy(update={"device": "cuda", "devices": 64}))
        foreign = doctor.check_machines(compute.model_copy(update={"bind": "203.0.113.7"}))
    finally:
        server.stop()
    name = f"machine {compute.machines[0]}"
    assert good == Check(name, "ok", "login, Python, torch, NNI and the way back are all right")
    assert only(lost).found.endswith("but each job needs 64")
    assert "cannot listen on 203.0.113.7" in only(foreign).found


def test_an_experiment_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("check_fork_server", "check_packages", "check_plugins", "check_gpu"):
        monkeypatch.setattr(doctor, name, lambda: [])
    key = tmp_path / "key"
    key.write_text("not a key")
    machines = [
        {"host": "127.0.0.1", "port": port, "user": "a", "key": str(key), "python": "/python"} for port in (1, 2)
    ]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        compute = {"service": "remote", "machines": machines}
        checks = examine(write_experiment(tmp_path / "a.yaml", compute=compute, ui={"port": port}))
    found = {check.name: check for check in checks}
    assert found["experiment"].status == "ok" and found["ports"].status == "warning"
    assert [found[f"machine a@127.0.0.1:{number}"].status for number in (1, 2)] == ["problem", "problem"]

    wrong = examine(write_experiment(tmp_path / "b.yaml", repeats=0, budget="soon"))
    problems = [check for check in wrong if check.status == "problem"]
    assert [check.name for check in problems] == ["experiment", "experiment"]
    assert any("budget" in check.found for check in problems) and any("repeats" in check.found for check in problems)
