"""The files in examples/nni: NNI reads them, and the scripts run through the real manager."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autoseg.config import load_config
from autoseg.nnibridge.ports import free_pairs
from autoseg.quiet import load_nni
from autoseg.search.architecture import Architecture
from autoseg.trial_command import parameter_settings

FOLDER = Path(__file__).parents[2] / "examples" / "nni"
TINY = ("data.options.count=12", "data.options.size=32", "train.epochs=2")


def run(name: str, out: Path, *words: str) -> tuple[str, int]:
    """Run a script with two trials; returns what it printed and its port."""
    home = out.parent / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}
    settings = [word for text in TINY for word in ("--set", text)]
    port = next(free_pairs(9300))
    command = [sys.executable, FOLDER / name, "--trials", "2", "--port", str(port), "--out", out, *settings, *words]
    done = subprocess.run(command, env=environment, cwd=out.parent, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, port


def assert_gone(port: int) -> None:
    """Nothing listens there any more."""
    for _ in range(50):
        with socket.socket() as ours:
            if ours.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    pytest.fail(f"something still listens on port {port}")


def test_hpo_tunes_a_search(tmp_path: Path) -> None:
    out, port = run("hpo.py", tmp_path / "nni", "--set", "strategy.options.epochs=1")
    assert "2 of 2 trials gave a result" in out
    assert_gone(port)
    told = json.loads(out[out.index("\n{\n") : out.rindex("}") + 1])
    assert told["parameters"].keys() == json.loads((FOLDER / "search_space.json").read_text()).keys()
    best = Path(out.splitlines()[-1].partition(": ")[2])
    found = json.loads((best / "architecture.json").read_text())
    assert found["parameters"] == told["parameters"] and found["code"] == told["result"]["code"]
    assert found["kwargs"]["width"] == told["parameters"]["space.options.width"]
    assert (best / "models/searched/seed-0/weights.safetensors").exists()
    scores = [training_score(trial) for trial in best.parent.iterdir()]
    assert len(scores) == 2 and max(scores) == pytest.approx(told["result"]["default"])


def training_score(trial: Path) -> float:
    """Validation mIoU of the model in a trial's folder."""
    described = json.loads((trial / "models/searched/seed-0/model.json").read_text())
    return float(described["training"]["best_miou"])


def test_nas_searches_the_space_with_nnis_strategy(tmp_path: Path) -> None:
    out, port = run("nas.py", tmp_path / "nni")
    assert_gone(port)
    file = Path(re.search(r"^written to (.+)$", out, re.MULTILINE)[1])  # type: ignore[index]
    found = Architecture.read(file)
    assert found.code in out and found.kwargs["blocks"] == 3
    assert found.build(1, 3, width=4, layers=3).size_divisor == 8


def test_nnictl_reads_the_experiment_file() -> None:
    load_nni()
    from nni.experiment.config import ExperimentConfig

    config: Any = ExperimentConfig.load(FOLDER / "ceramic.yml")
    config.validate()
    assert config.tuner.name == "TPE" and config.training_service.platform == "local"
    words = config.trial_command.split()
    assert words[-3:-1] == ["autoseg", "trial"] and (FOLDER / words[-1]).is_file()
    assert (FOLDER / config.search_space_file).is_file() and config.trial_concurrency == 1


def test_every_value_of_the_search_space_is_one_of_the_experiment_file() -> None:
    space = json.loads((FOLDER / "search_space.json").read_text())
    assert {"strategy.name", "space.options.width", "train.loss", "train.lr", "space.options.blocks"} <= space.keys()
    for key, entry in space.items():
        for value in entry["_value"]:
            [setting] = parameter_settings({key: value})
            assert load_config(FOLDER / "trial.yaml", [setting]).name == "trial"
