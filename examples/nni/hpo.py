"""Tune strategy, cells, width, loss and learning rate with NNI's HPO, from Python.

    python examples/nni/hpo.py

The same experiment as ceramic.yml beside it, which is for nnictl; but with our guard, NNI's web page listens on this
machine alone, trials that start together get their own parameters, and everything ends with this script.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

from autoseg.nnibridge.guarded import guard_nni

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Run the experiment and print the best trial."""
    options = argparse.ArgumentParser(description="NNI's HPO over searches of autoseg")
    options.add_argument("--trials", type=int, default=8)
    options.add_argument("--concurrency", type=int, default=2)
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--out", type=Path, default=Path("runs/nni"), help="where NNI keeps the experiment")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of trial.yaml")
    given = options.parse_args()

    guard_nni()  # before NNI starts its manager
    from nni.experiment import Experiment

    threads = max(1, (os.cpu_count() or 1) // given.concurrency)
    command = [sys.executable, "-m", "autoseg", "trial", "trial.yaml"]
    command += [word for text in given.set for word in ("--set", text)]
    experiment = Experiment("local")
    config = experiment.config
    config.experiment_name = "ceramic"
    config.trial_command = f"OMP_NUM_THREADS={threads} {shlex.join(command)}"
    config.trial_code_directory = FOLDER
    config.search_space = json.loads((FOLDER / "search_space.json").read_text())
    config.trial_concurrency = given.concurrency
    config.max_trial_number = given.trials
    config.experiment_working_directory = given.out.resolve()
    config.tuner.name = "TPE"
    config.tuner.class_args = {"optimize_mode": "maximize"}

    given.out.mkdir(parents=True, exist_ok=True)
    experiment.start(given.port)
    try:
        while experiment.get_status() not in ("DONE", "ERROR"):
            time.sleep(1)
        trials = experiment.list_trial_jobs()
    finally:
        experiment.stop()
    done = [trial for trial in trials if trial.finalMetricData]
    print(f"{len(done)} of {len(trials)} trials gave a result")
    if not done:
        sys.exit(f"see trial.stderr of the trials in {given.out / experiment.id}")
    best = max(done, key=lambda trial: trial.finalMetricData[0].data["default"])
    told = {"parameters": best.hyperParameters[0].parameters, "result": best.finalMetricData[0].data}
    print(json.dumps(told, indent=2))
    folder = next((given.out / experiment.id / "environments").glob(f"*/trials/{best.trialJobId}"))
    print(f"its architecture and model: {folder}")


if __name__ == "__main__":
    main()
