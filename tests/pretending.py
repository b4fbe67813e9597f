"""A crew that pretends to do the jobs of a run, for the tests of the conductor."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autoseg.conduct import Conductor
from autoseg.config import load_config
from autoseg.crew import Crew, Result, Ticket
from autoseg.job import Job
from autoseg.plan import Plan
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, write_json
from autoseg.search.trials import result_file
from autoseg.train.recipe import Recipe

CONFIG: dict[str, Any] = {
    "data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}},
    "space": {"name": "ednas", "options": {"width": 4, "layers": 2, "blocks": 2}},
    "baselines": [{"name": "unet", "options": {"width": 4}}, "random"],
    "repeats": 2,
    "compute": {"device": "cpu"},
}
TRACE = (
    "Traceback (most recent call last):\n" + "".join(f"  step {n}\n" for n in range(20)) + "ValueError: 7 is too many\n"
)


class Told(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Pretending(Crew):
    """Leaves results as jobs do, in no time; ``ends`` names jobs that end otherwise."""

    def __init__(self, folder: RunFolder, prepared: Prepared, slots: int = 2, **ends: Exception) -> None:
        self.told = Told()
        super().__init__(slots, self.told)
        self.folder, self.prepared = folder, prepared
        self.ends = {name.replace("_", " "): error for name, error in ends.items()}
        self.done: list[str] = []

    def begin(self, ticket: Ticket) -> None:
        job = ticket.job
        self.done.append(str(job))
        for name, error in self.ends.items():
            if str(job).replace(",", "") == name:
                self.failed(ticket, error)
                return
        self.finished(
            ticket, {"search": self.search, "candidate": self.candidate, "training": self.train}[job.kind](job)
        )

    def stop(self) -> None:
        pass

    def search(self, job: Job) -> Result:
        found = {"space": "ednas", "kwargs": CONFIG["space"]["options"], "choices": dict(self.prepared.control.choices)}
        found |= {
            "search_seed": job.seed,
            "miou": {0: 0.25, 1: 0.5, 2: 0.125}[job.seed],
            "code": f"E=[{job.seed}]",
            "notes": [],
        }
        write_json(self.folder.search_of(job.seed, job.number) / "found.json", found)
        return {"miou": found["miou"], "code": found["code"]}

    def candidate(self, job: Job) -> Result:
        result = {"miou": (job.number + 1) / 16, "seconds": 1.0, "cpu_seconds": 1.0, "note": ""}
        write_json(
            result_file(self.folder.search, job.number), {"number": job.number, "choices": job.choices, **result}
        )
        return result

    def train(self, job: Job) -> Result:
        image = {"name": "a", "miou": 0.5, "confusion": [[4, 1, 0], [1, 4, 0], [0, 0, 4]]}
        role = {"searched": "finalist", "unet": "baseline", "random": "control"}[job.label]
        test = {
            "model": job.label,
            "role": role,
            "seed": job.seed,
            "params": 9,
            "miou": 0.5,
            "dice": 0.6,
            "val_miou": 0.5,
        }
        test |= {"accuracy": 0.7, "iou_per_class": [0.5, 0.5, 0.5], "train_seconds": 1.0, "images": [image, image]}
        write_json(self.folder.model(job.label, job.seed) / "test.json", test)
        return {"miou": 0.5}


@cache
def prepared_for(strategy: str) -> Prepared:
    return prepare(load_config({**CONFIG, "strategy": json.loads(strategy)})).with_threads(1)


Setting = Callable[..., tuple[RunFolder, Prepared, Plan]]


def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """What makes a run folder with a plan; drawings are left out, they take a second each."""
    monkeypatch.setattr("autoseg.conduct.save_architecture", lambda *_: None)

    def make(strategy: dict[str, Any], **plan: Any) -> tuple[RunFolder, Prepared, Plan]:
        prepared = prepared_for(json.dumps(strategy))
        folder = RunFolder(tmp_path / "run")
        folder.open(resume=False)
        models = ["searched", "unet", "random"]
        recipe = Recipe(epochs=1, batch=4, patch=32)
        return folder, prepared, Plan(recipe, None, models, [0, 1], control=dict(prepared.control.choices), **plan)

    return make


def conduct(setting: tuple[RunFolder, Prepared, Plan], crew: Pretending) -> Conductor:
    conductor = Conductor(*setting, crew, crew.told)
    conductor.run()
    return conductor


TRAININGS = [f"{label}, seed {seed}" for seed in (0, 1) for label in ("searched", "unet", "random")]
ENAS = {"name": "enas", "options": {"epochs": 1}}
RANDOM = {"name": "random", "options": {"trials": 4, "epochs": 2}}
