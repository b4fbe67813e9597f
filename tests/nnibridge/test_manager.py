"""NNI's real manager under guard: who reaches it, what it leaves behind, and how its page is seen again."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

import pytest
from bare import Bare, alive, ask, group, until
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from autoseg.errors import UserError
from autoseg.nnibridge import node, page
from autoseg.nnibridge.manager import Manager, ManagerFailed
from autoseg.nnibridge.ports import free_pairs

PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from bare import Bare
bare = Bare(Path({folder!r}), port={port})
_, trial = bare.running({{"sleep": 600, "stubborn": True}})
bare.running({{"sleep": 600}})
print(bare.manager.pid, bare.manager.experiment, trial, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Bare(tmp_path_factory.mktemp("nni")) as found:
        yield found


def reachable(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=5):
            return True
    except ConnectionRefusedError:
        return False


def own_address() -> str | None:
    """An IPv4 address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
            address = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if address.startswith("127.") else address


def test_the_page_answers_and_says_where_it_is(tmp_path: Path) -> None:
    with Bare(tmp_path) as bare:
        status, text = ask(bare.manager.port, "GET", "/oview")
        assert status == 200 and "<html" in text
        found = page.read_page(tmp_path)
        assert found is not None
        assert (found.url, found.experiment, found.pid) == (bare.manager.url, bare.manager.experiment, bare.manager.pid)
        assert bare.manager.folder == tmp_path / bare.manager.experiment
        bare.manager.stop()
        bare.manager.stop()
    assert not bare.manager.alive and group(bare.manager.pid) == []
    assert page.read_page(tmp_path, alive=False) is None


def test_only_loopback_answers(bare: Bare) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has loopback addresses alone")
    assert reachable("127.0.0.1", bare.manager.port)
    assert not reachable(address, bare.manager.port)


def test_loopback_as_another_address_is_no_other(tmp_path: Path) -> None:
    with Bare(tmp_path, bind="127.0.0.1") as bare:
        assert bare.status(bare.channel.submit({})) == ["SUCCEEDED"]
        assert not reachable("127.0.0.2", bare.manager.port)


def test_another_address_when_asked_for(tmp_path: Path) -> None:
    with Bare(tmp_path, bind="127.0.0.2") as bare:
        assert bare.status(bare.channel.submit({})) == ["SUCCEEDED"]
        connection = HTTPConnection("127.0.0.2", bare.manager.port, timeout=10)
        connection.request("GET", "/api/v1/nni/trial-jobs")
        assert [trial["status"] for trial in json.loads(connection.getresponse().read())] == ["SUCCEEDED"]
        connection.close()
        assert not reachable("127.0.0.3", bare.manager.port)


def test_an_address_of_another_machine_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError) as failure:
        Manager.start(tmp_path, "bare", slots=1, trial_command="true", code=tmp_path, bind="192.0.2.1")
    assert failure.value.problems[0].where == "compute.bind"


@pytest.mark.parametrize(
    ("method", "path", "headers", "allowed"),
    [
        ("GET", "/api/v1/nni/experiment", {}, True),
        ("GET", "/api/v1/nni/experiment", {"host": "localhost:9999"}, True),
        ("GET", "/api/v1/nni/experiment", {"host": "[::1]:8080"}, True),
        ("GET", "/api/v1/nni/experiment", {"host": "rebound.example"}, False),
        ("GET", "/api/v1/nni/experiment", {"origin": "http://evil.example"}, False),
        ("DELETE", "/api/v1/nni/experiment", {"origin": "null"}, False),
        ("POST", "/api/v1/nni/experiment", {}, False),
        ("POST", "/api/v1/nni/experiment", {"x-autoseg-token": ""}, False),
        ("POST", "/api/v1/nni/trial-jobs", {}, False),
        ("POST", "/API/v1/nni/trial-jobs/", {"x-autoseg-token": "guess"}, False),
        ("POST", "/api/v1/nni/tensorboard", {}, False),
        ("POST", "/api/v1/nni/experiment/import-data", {}, False),
        ("PUT", "/api/v1/nni/experiment/cluster-metadata", {}, False),
        ("PUT", "/api/v1/nni/experiment?update_type=TRIAL_CONCURRENCY", {}, True),
        ("PUT", "/api/v1/nni/experiment?update_type=TRIAL_CONCURRENCY&update_type=MAX_TRIAL_NUM", {}, False),
    ],
)
def test_who_may_do_what(bare: Bare, method: str, path: str, headers: dict[str, str], allowed: bool) -> None:
    body = None if method == "GET" else json.dumps({"params": {"trialConcurrency": 2}})
    status, text = ask(bare.manager.port, method, path, body, **headers)
    assert (status, text == "refused by autoseg\n") == ((200, False) if allowed else (403, True))
    assert bare.manager.alive


@pytest.mark.parametrize("path", ["/tuner", "/TUNER/", "/tuner/other"])
def test_nobody_else_is_the_tuner(bare: Bare, path: str) -> None:
    with pytest.raises((WebSocketException, OSError)), connect(f"ws://127.0.0.1:{bare.manager.port}{path}", proxy=None):
        pass
    assert bare.status(bare.channel.submit({})) == ["SUCCEEDED"]  # ours is still connected


def test_concurrency_can_change(bare: Bare) -> None:
    bare.manager.set_concurrency(3)
    profile = json.loads(ask(bare.manager.port, "GET", "/api/v1/nni/experiment")[1])
    assert profile["params"]["trialConcurrency"] == 3
    assert profile["params"]["experimentName"] == "bare"
    assert profile["params"]["searchSpace"]["kind"]["_value"] == ["search", "candidate", "training"]
    bare.manager.set_concurrency(2)
    with pytest.raises(ManagerFailed, match="knows no trial"):
        bare.manager.trial("unheard")


def test_a_taken_port_is_left_to_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as held:
        port = next(free_pairs(9000))
        held.enter_context(socket.create_server(("127.0.0.1", port + 1)))  # the second of the pair
        assert next(free_pairs(port)) >= port + 2
        with caplog.at_level(logging.WARNING), Bare(tmp_path, port=port) as bare:
            assert bare.manager.port >= port + 2
        assert f"port {port} is taken" in caplog.text


def test_a_port_lost_to_a_faster_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as faster:
        taken, free = faster.getsockname()[1], next(free_pairs(9100))
        monkeypatch.setattr(node, "free_pairs", lambda first, bind: iter([taken, free]))
        with Bare(tmp_path) as bare:
            assert bare.manager.port == free
            assert bare.status(bare.channel.submit({})) == ["SUCCEEDED"]


def test_a_manager_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.js"
    broken.write_text("throw new Error('the disk is full of cats');\n")
    monkeypatch.setattr(node, "_GUARD", broken)
    with pytest.raises(ManagerFailed, match=r"(?s)--no-ui.*full of cats"):
        Manager.start(tmp_path / "nni", "bare", slots=1, trial_command="true", code=tmp_path)
    assert page.read_page(tmp_path / "nni") is None
    away = {"platform": "remote"}  # where --no-ui is of no help
    with pytest.raises(ManagerFailed, match="full of cats") as failure:
        Manager.start(tmp_path / "nni", "bare", slots=1, trial_command="true", code=tmp_path, service=away)
    assert "--no-ui" not in str(failure.value)


def test_a_stubborn_trial_does_not_delay_the_end(tmp_path: Path) -> None:
    with Bare(tmp_path) as bare:
        bare.running({"sleep": 600, "stubborn": True})
        assert len(group(bare.manager.pid)) >= 2
        before = time.monotonic()
        bare.manager.stop(1.0)
        assert time.monotonic() - before < 5
    assert group(bare.manager.pid) == []


def test_nothing_outlives_a_parent_and_its_page_can_be_seen_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    parents: dict[int, tuple[subprocess.Popen[str], list[int]]] = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        code = PARENT.format(here=str(Path(__file__).parent), folder=str(tmp_path / number.name), port=9200)
        parents[number] = (
            subprocess.Popen(
                [sys.executable, "-c", code], env={**os.environ, "HOME": str(home)}, stdout=subprocess.PIPE, text=True
            ),
            [],
        )
    told = {}
    try:
        for number, (process, members) in parents.items():
            assert process.stdout is not None
            told[number] = process.stdout.readline().split()
            members += group(int(told[number][0]))
            assert len(members) >= 3  # the manager and two trials
            os.kill(process.pid, number)
            process.wait()
        for _, members in parents.values():
            assert until(lambda members=members: not alive(members)) < 15  # type: ignore[misc]
    finally:
        for process, members in parents.values():
            process.kill()
            process.wait()
            for pid in alive(members):
                os.kill(pid, signal.SIGKILL)
    assert list(home.rglob("*")) == []

    folder = tmp_path / "SIGKILL"
    _, experiment, trial = told[signal.SIGKILL]
    assert page.experiments(folder) == [experiment]
    assert page.read_page(folder) is None and page.read_page(folder, alive=False) is not None
    manager = Manager.view(folder, experiment, port=9300)
    try:
        assert manager.port >= 9300
        assert [entry["status"] for entry in manager.trials()] == ["SYS_CANCELED", "SYS_CANCELED"]
        assert manager.trial(trial)["endTime"] >= manager.trial(trial)["startTime"]
        metrics = json.loads(ask(manager.port, "GET", f"/api/v1/nni/metric-data/{trial}")[1])
        assert [metric["data"] for metric in metrics] == ['"0"']
        output = ask(manager.port, "GET", f"/api/v1/nni/trial-file/{trial}/stdout")
        assert output == (200, "at work\n")
        with pytest.raises(ManagerFailed):
            manager.set_concurrency(4)
    finally:
        manager.stop()
    assert page.settle_trials(folder, experiment) == 0


def test_there_is_no_such_experiment_to_view(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no NNI experiment 'unheard'"):
        Manager.view(tmp_path, "unheard")
