"""NNI's remote service with our mends, over workers that are made up: one bad machine does not stop the others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nni_node
import pytest

from autoseg import nnibridge


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    node = Path(nni_node.__path__[0])
    script = Path(__file__).with_name("machines_check.js")
    bridge = Path(nnibridge.__file__).parent
    command = [str(node / "node"), str(script), str(bridge)]
    environment = {"NODE_PATH": str(node / "node_modules")}
    done = subprocess.run(command, cwd=node, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_machines_that_fail_are_given_up_and_the_good_one_works(found: dict[str, Any]) -> None:
    assert found["start"] == [2, "sent", ["good"], ["remote-worker1"], ["1"], ["good"]]
    assert found["words"] == [
        "given up: me@absent:22: no python",
        "given up: me@full:22: disk full",
        "given up: me@silent:22: the start of NNI's agent there took longer than 0.3 s",
    ]


def test_without_any_machine_the_start_fails(found: dict[str, Any]) -> None:
    assert found["none"] == ["no machine is left", "no machine is left"]


def test_trials_go_only_where_an_agent_has_started(found: dict[str, Any]) -> None:
    """One machine does not come back (one attempt), the other is not listed while it starts again."""
    assert found["restart"] == [2, 2, ["remote-worker4"], [[], [], ["slow"]]]
    assert found["late"] == "given up"


def test_a_machine_that_cannot_start_a_trial_is_not_asked_again_for_it(found: dict[str, Any]) -> None:
    assert found["broken"] == ["b", ["a", "b"]]


def test_where_no_gpu_is_free_it_is_asked_again_after_the_others(found: dict[str, Any]) -> None:
    assert found["busy"] == ["b", ["a", "b", "a", "b"]]
