"""Whether the plan predicts the time of a run: the truth as a multiple of the prediction, stage by stage.

Run: ``python benchmarks/prediction.py [FILE] [--set KEY=VALUE ...]`` on a machine that does nothing else; without a
file a run of about a minute on synthetic ceramic micrographs. The exit code is 1 when the whole run takes less than
half or more than twice the time that was predicted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bounds import Bound

import autoseg
from autoseg.plan import Plan

SMALL: dict[str, Any] = {
    "name": "prediction",
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 60, "size": 64}},
    "space": {"name": "ednas", "options": {"width": 8, "layers": 2}},
    "strategy": {"name": "enas", "options": {"epochs": 4}},
    "train": {"epochs": 10, "batch": 8},
    "baselines": [{"name": "unet", "options": {"width": 8}}, "random"],
    "repeats": 1,
    "compute": {"workers": 1},
    "ui": {"enabled": False},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    plans: list[tuple[Plan, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        run = autoseg.run(
            given.file or SMALL,
            out=Path(folder) / "run",
            overrides=given.settings,
            on_plan=lambda plan, prepared: plans.append((plan, time.monotonic())),
        )
    assert run is not None
    ((plan, began),) = plans
    took = time.monotonic() - began
    predicted = {stage["name"]: stage["seconds"] for stage in plan.stages}
    print(f"{'stage':24s} predicted s   took s  took / predicted")
    for label, model in run.comparison["models"].items():
        seconds = sum(seed["train_seconds"] for seed in model["seeds"])
        expected = predicted[f"train {label}"]
        print(f"{'train ' + label:24s} {expected:11.1f} {seconds:8.1f} {seconds / expected:17.2f}")
    print(f"{'whole run':24s} {plan.seconds:11.1f} {took:8.1f} {took / plan.seconds:17.2f}")
    bounds = [Bound("took / predicted", took / plan.seconds, 2.0), Bound("predicted / took", plan.seconds / took, 2.0)]
    for bound in bounds:
        print(bound)
    return 0 if all(bound.kept for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
