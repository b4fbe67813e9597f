"""The parameters of a trial: plain JSON, asked for until they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bare_trial import MARKED
from stand_in import StandIn

from autoseg.errors import UserError
from autoseg.nnibridge.parameters import next_parameters, plain, refuse_marks


class Stolen:
    """A manager whose first answers somebody else has taken."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        asked: list[str] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["type"])
                self._answer(200, "")

            def do_GET(self) -> None:
                self._answer(*answers.pop(0))

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/env/local/trial"


RECORD = {"parameter_id": 3, "parameters": {"kind": "search"}, "parameter_source": "algorithm"}
ANSWER = json.dumps({"type": "parameter", "parameter": json.dumps(RECORD)})


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that is not there must be no hindrance."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    yield


def test_the_manager_is_asked_again_when_its_answer_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Stolen([(408, ""), (408, ""), (200, ANSWER)])
    monkeypatch.setenv("NNI_TRIAL_COMMAND_CHANNEL", manager.url)
    assert next_parameters() == RECORD
    assert manager.asked == ["request_parameter"] * 3
    manager.server.shutdown()


def test_a_manager_that_has_closed_or_fails() -> None:
    manager = Stolen([(410, ""), (500, "")])
    assert next_parameters(manager.url) is None
    with pytest.raises(OSError, match="500"):
        next_parameters(manager.url)
    manager.server.shutdown()


@pytest.mark.parametrize("mark", MARKED)
def test_pickles_do_not_come_in(mark: Any, tmp_path: Path) -> None:
    with StandIn({"kind": "training", "label": [mark]}) as manager, pytest.raises(ValueError, match="is refused"):
        next_parameters(manager.environment(tmp_path)["NNI_TRIAL_COMMAND_CHANNEL"])
    with pytest.raises(ValueError, match="is refused"):
        plain(json.dumps(mark))
    with pytest.raises(ValueError, match="is refused"):
        refuse_marks({"a": (mark,)})


def test_what_is_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "parameter.cfg"  # as in a container
    monkeypatch.setenv("NNI_SYS_DIR", str(tmp_path))
    monkeypatch.delenv("NNI_TRIAL_COMMAND_CHANNEL", raising=False)
    file.write_text(json.dumps(RECORD))
    assert next_parameters() == RECORD
    for text in ("[1]", "{", "[" * 100_000, json.dumps({**RECORD, "parameters": 1}), '{"parameter_id": true}'):
        file.write_text(text)
        with pytest.raises(ValueError):
            next_parameters()
    file.write_text(json.dumps({**RECORD, "parameter_id": None}))
    with pytest.raises(UserError, match="not one of the run's own"):
        next_parameters()
