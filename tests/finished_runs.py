"""Writes the four files of a finished run that a comparison of runs reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoseg import __version__

ROLES = {"searched": "finalist", "random": "control"}


def write_run(
    path: Path,
    dataset: str,
    scores: Mapping[str, float | None],
    *,
    recipe: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    notes: tuple[str, ...] = (),
) -> Path:
    """A run on ``dataset`` whose models have these mIoU values; the others change entries of the usual protocol."""
    path.mkdir(parents=True)
    models = {
        name: {
            "role": ROLES.get(name, "baseline"),
            "params": 1000,
            "flops": None,
            "latency_ms": 2.5,
            "miou": score,
            "miou_interval": [None, None] if score is None else [score - 0.02, score + 0.01],
            "seeds": [{"seed": 0, "miou": score, "dice": score, "accuracy": score, "train_seconds": 3.0}],
        }
        for name, score in scores.items()
    }
    verdict = {"text": f"What {path.name} says.", "gain": None, "interval": None, "notes": list(notes)}
    _write(path / "comparison.json", {"models": models, "verdict": verdict})
    baselines = [{"name": name, "options": {}, "as": name} for name in scores if name not in ROLES]
    usual = {"name": "x", "data": {"dataset": dataset}, "budget": None, "baselines": baselines}
    (path / "config.yaml").write_text(yaml.safe_dump(usual | dict(config or {})))
    trained = {"epochs": 20, "seconds": None, "batch": 4, "patch": 64, "lr": 0.003} | dict(recipe or {})
    _write(path / "plan.json", {"recipe": trained, "seeds": [0]})
    machine = {"device": "cpu", "gpu": None, "processor": "P"}
    told = {"autoseg": __version__, "packages": {"torch": "2.9.0"}, "machine": machine, "data_hash": f"{dataset:0<64}"}
    _write(path / "environment.json", told | dict(environment or {}))
    return path


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
