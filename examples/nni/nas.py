"""Search the ED-NAS space with NNI's own NAS strategies; every candidate is trained under our protocol.

    python examples/nni/nas.py

Writes the best architecture found, which ``autoseg train examples/nni/trial.yaml --model FILE`` then trains.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from autoseg.nnibridge.guarded import guard_nni

FILE = Path(__file__).resolve().with_name("trial.yaml")
OPTIONS = {"blocks": 3, "layers": 2, "width": 8}
CHANNELS, CLASSES = 1, 3  # of the images in trial.yaml


def main() -> None:
    """Run the experiment and write the best architecture."""
    options = argparse.ArgumentParser(description="NNI's NAS on a space of autoseg")
    options.add_argument("--trials", type=int, default=12)
    options.add_argument("--concurrency", type=int, default=2)
    options.add_argument("--port", type=int, default=8080)
    options.add_argument("--out", type=Path, default=Path("runs/nni"), help="where NNI keeps the experiment")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of trial.yaml")
    given = options.parse_args()

    guard_nni()  # before NNI starts its manager
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // given.concurrency))  # of each trial
    from autoseg.quiet import load_nni

    load_nni()  # without its known warnings
    from nni.nas.evaluator import FunctionalEvaluator
    from nni.nas.experiment import NasExperiment
    from nni.nas.strategy import RegularizedEvolution

    from autoseg.search.architecture import Architecture
    from autoseg.spaces import EDNAS
    from autoseg.trial_command import score_model

    space = EDNAS(CHANNELS, CLASSES, **OPTIONS)
    evaluator = FunctionalEvaluator(score_model, file=str(FILE), overrides=given.set)
    strategy = RegularizedEvolution(population_size=4, sample_size=2, seed=0)
    experiment = NasExperiment(space, evaluator, strategy)
    config = experiment.config
    config.experiment_name = "ceramic"
    config.trial_concurrency = given.concurrency
    config.max_trial_number = given.trials
    config.experiment_working_directory = given.out.resolve()

    given.out.mkdir(parents=True, exist_ok=True)
    experiment.run(given.port)
    try:
        best = experiment.export_top_models(1, formatter="dict")
    finally:
        experiment.stop()
    if not best:
        sys.exit(f"no trial gave a result: see trial.stderr of the trials in {given.out / experiment.id}")
    found = Architecture("ednas", OPTIONS, dict(best[0]))
    file = given.out / experiment.id / "architecture.json"
    file.write_text(json.dumps(found.to_json(), indent=2))
    print(f"{found.code}\nwritten to {file}")


if __name__ == "__main__":
    main()
