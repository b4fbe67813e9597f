"""The smallest experiment in which every stage of a run has something to do, and how to compare its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"width": 4, "layers": 2, "blocks": 2}},
    "strategy": {"name": "enas", "options": {"epochs": 2, "rewards": 2, "rewards_per_update": 2, "candidates": 1}},
    "train": {"epochs": 2, "batch": 4},
    "baselines": [{"name": "unet", "options": {"width": 4}}, "random"],
    "repeats": 2,
    "compute": {"workers": 1, "device": "cpu"},
    "ui": {"enabled": False},
}
MODELS, SEEDS = ("searched", "unet", "random"), (0, 1)
TIMES = {"train_seconds", "latency_ms"}


def write_experiment(path: Path, **changes: Any) -> Path:
    """Write the tiny experiment as a file (JSON is YAML); ``changes`` replace whole sections."""
    path.write_text(json.dumps({**EXPERIMENT, **changes}, indent=1))
    return path


def timeless(value: Any) -> Any:
    """A copy of JSON without the keys that hold measured times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def comparison_of(run: Path) -> Any:
    """comparison.json of a run, times left out."""
    return timeless(json.loads((run / "comparison.json").read_text()))
