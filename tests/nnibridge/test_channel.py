"""The tuner channel against NNI's real manager, and against one that says odd things."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bare import TRIAL, Bare
from bare_trial import MARKED
from websockets.sync.server import ServerConnection, serve

from autoseg.nnibridge.channel import TrialChannel
from autoseg.nnibridge.manager import ManagerFailed


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    with Bare(tmp_path_factory.mktemp("nni"), slots=4) as found:
        yield found


def test_each_trial_gets_its_own_parameters(tmp_path: Path) -> None:
    with Bare(tmp_path, slots=4, command=f"{TRIAL} --turns") as bare:
        numbers = [bare.channel.submit({"echo": f"for {number}"}) for number in range(40)]
        assert numbers == list(range(40))
        assert bare.status(*numbers) == ["SUCCEEDED"] * 40
        assert sorted(number for number, *_ in bare.metrics) == numbers
        for number, _, kind, value in bare.metrics:
            assert kind == "FINAL"
            assert value[:2] == [str(number), f"for {number}"]
        home, token = bare.metrics[0][3][2:]
        assert home == str(tmp_path / "home") and token is False


def test_metrics_arrive_in_order_and_the_page_knows_them(bare: Bare) -> None:
    values = [{"default": 0.25, "loss": 1.5}, {"default": 0.5, "loss": 1.0}]
    todo = {"code": "E=[0 1] D=[2]", "reports": [json.dumps(value) for value in values], "final": '{"default": 0.75}'}
    number = bare.channel.submit(todo)
    assert bare.status(number) == ["SUCCEEDED"]
    found = [(kind, value) for one, _, kind, value in bare.metrics if one == number]
    assert found == [("PERIODICAL", values[0]), ("PERIODICAL", values[1]), ("FINAL", {"default": 0.75})]
    trial = bare.manager.trial(bare.ends[number][0])
    assert trial["status"] == "SUCCEEDED" and trial["sequenceId"] == number
    assert json.loads(trial["hyperParameters"][0])["parameters"] == todo
    assert json.loads(json.loads(trial["finalMetricData"][0]["data"])) == {"default": 0.75}


def test_pickles_among_the_metrics_are_refused(bare: Bare, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        number = bare.channel.submit({"pickle": True, "reports": ["not json", "0.5"]})
        assert bare.status(number) == ["SUCCEEDED"]
    assert [value for one, _, _, value in bare.metrics if one == number] == [0.5]
    assert sum("not understood" in record.message for record in caplog.records) == len(MARKED) + 1


def test_how_a_trial_ended_is_told_apart(bare: Bare) -> None:
    failed, killed = bare.channel.submit({"exit": 3}), bare.channel.submit({"exit": -int(signal.SIGKILL)})
    (ours, our_id), (theirs, their_id) = bare.running({"sleep": 60}), bare.running({"sleep": 60})
    bare.channel.cancel(our_id)
    bare.manager._node.request("DELETE", f"/trial-jobs/{their_id}")
    assert bare.status(failed, killed) == ["FAILED", "SYS_CANCELED"]
    assert bare.status(ours, theirs) == ["EARLY_STOPPED", "USER_CANCELED"]
    bare.channel.cancel(our_id)  # which has ended
    bare.channel.cancel("unheard")
    assert bare.status(bare.channel.submit({})) == ["SUCCEEDED"]
    assert bare.lost == []


def test_what_is_not_json_is_not_submitted(bare: Bare) -> None:
    before = bare.channel.submit({})
    for parameters in ({"a": float("nan")}, *({"a": [mark]} for mark in MARKED), {"a": ({"__nni_obj__": ""},)}):
        with pytest.raises(ValueError):
            bare.channel.submit(parameters)
    assert bare.channel.submit({}) == before + 1
    assert bare.status(before, before + 1) == ["SUCCEEDED", "SUCCEEDED"]


def test_a_manager_that_is_killed_is_lost_with_its_trials(tmp_path: Path) -> None:
    with Bare(tmp_path) as bare:
        bare.running({"sleep": 60, "stubborn": True})
        os.kill(bare.manager.pid, signal.SIGKILL)
        bare.wait(lambda: bare.lost)
        assert bare.lost == ["NNI's manager has ended unexpectedly"]
        assert bare.manager.ended.wait(5) and not bare.manager.alive
        with pytest.raises(ManagerFailed, match="is gone"):
            bare.channel.submit({})
        with pytest.raises(ManagerFailed, match="does not answer"):
            bare.manager.trials()


def test_the_end_of_a_manager_that_we_stop_is_no_loss(tmp_path: Path) -> None:
    with Bare(tmp_path) as bare:
        bare.manager.stop()
        bare.channel._thread.join(5)
        assert bare.lost == []


class Odd:
    """Stands in for the manager's side of the channel."""

    def __init__(self, *messages: str | bytes) -> None:
        self.heard: list[Any] = []
        self._messages = messages
        self._server = serve(self._talk, "127.0.0.1", 0)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        port = self._server.socket.getsockname()[1]
        self.manager: Any = SimpleNamespace(port=port, token="", stopping=False, folder=Path())

    def __enter__(self) -> Odd:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _talk(self, connection: ServerConnection) -> None:
        connection.send(json.dumps({"type": "IN", "content": "{}"}))
        for message in self._messages:
            connection.send(message)
        self.heard.append(json.loads(connection.recv()))


def test_unknown_commands_do_no_harm() -> None:
    metric = {"parameter_id": 7, "trial_job_id": "t1", "type": "FINAL", "sequence": 0, "value": "0.5"}
    end = {"trial_job_id": "t1", "event": "FAILED", "hyper_params": '{"parameter_id": 7}'}
    added = {"trial_job_id": "t2", "event": "FAILED", "hyper_params": '{"parameter_id": null}'}
    messages = [
        '{"type": "FD", "content": "[]"}',
        '{"type": "??"}',
        "[" * 100_000,
        json.dumps({"type": "ME", "content": "[" * 100_000}),
        json.dumps({"type": "ME", "content": json.dumps({**metric, "parameter_id": True})}),
        "[1, 2]",
        "no json",
        b"\xff\xfe",
        '{"type": "ME", "content": "{}"}',
        '{"type": "ME", "content": 5}',
        '{"type": "EN", "content": "null"}',
        json.dumps({"type": "ME", "content": json.dumps(metric)}),
        json.dumps({"type": "EN", "content": json.dumps(added)}),
        json.dumps({"type": "EN", "content": json.dumps(end)}),
    ]
    seen: list[Any] = []
    lost = threading.Event()

    def on_metric(*found: Any) -> None:
        seen.append(found)
        raise RuntimeError("a callback that fails")

    with Odd(*messages) as odd:
        channel = TrialChannel(odd.manager, on_metric, lambda *found: seen.append(found), lambda _: lost.set())
        assert lost.wait(10)
        channel.close()
    assert seen == [(7, "t1", "FINAL", 0.5), (7, "t1", "FAILED")]
    assert odd.heard == [{"type": "ID", "content": ""}]


def test_nobody_there() -> None:
    with Odd() as odd:
        port = odd.manager.port
    manager: Any = SimpleNamespace(port=port, token="", stopping=False, folder=Path())
    with pytest.raises(ManagerFailed, match="does not let its tuner in"):
        TrialChannel(manager, print, print, print)
