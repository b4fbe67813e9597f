"""The pieces of a run that can be done by different processes: the search, and each training with its test.

A job needs the run folder alone: configuration and plan are read from it, results are written into it. A
job whose result is there has been done; one that was cut continues from the state in its folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2

from autoseg.config import load_config
from autoseg.plan import Plan
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.report.pictures import save_architecture
from autoseg.runfolder import RunFolder, read_json, write_bytes, write_json
from autoseg.search.architecture import Architecture
from autoseg.search.objective import Objective
from autoseg.search.task import SearchTask
from autoseg.train.compute import seed_everything
from autoseg.train.cost import count_parameters, measure
from autoseg.train.evaluate import evaluate
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec
from autoseg.train.trainer import train_network

log = logging.getLogger(__name__)

SEARCH = "search"


@dataclass(frozen=True)
class Job:
    """The search, or one training.

    Attributes:
        label: ``"search"``, or the label of a network.
        seed: Training seed; the search has its own.
        needs_search: Whether the search must be finished first.
    """

    label: str
    seed: int = 0
    needs_search: bool = False

    def done(self, folder: RunFolder) -> bool:
        """Whether the result is in the run folder."""
        if self.label == SEARCH:
            return folder.architecture.exists()
        return (folder.model(self.label, self.seed) / "test.json").exists()

    def __str__(self) -> str:
        return "the search" if self.label == SEARCH else f"{self.label}, seed {self.seed}"


def run_job(job: Job, path: Path, threads: int, progress: Progress) -> None:
    """Do a job in this process, from nothing but the run folder.

    Args:
        job: What to do.
        path: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads to use.
        progress: Receives the progress.
    """
    folder, prepared = RunFolder(path), _context(path, threads)
    prepared.compute.prepare()
    do_job(job, folder, prepared, Plan.from_json(read_json(folder.plan)), progress)


@lru_cache(maxsize=1)
def _context(path: Path, threads: int) -> Prepared:
    """The checked experiment, loaded once per process."""
    folder = RunFolder(path)
    plan = Plan.from_json(read_json(folder.plan))
    return prepare(load_config(folder.config), control=plan.control).with_threads(threads)


def do_job(job: Job, folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> None:
    """Do a job with what has been prepared already."""
    if job.label == SEARCH:
        search(folder, prepared, plan, progress)
        return
    found = Architecture.read(folder.architecture) if job.needs_search else prepared.control
    spec = next(spec for spec in prepared.specs(found) if spec.label == job.label)
    train_and_test(folder, prepared, plan, spec, job.seed, progress)


def search_task(folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> SearchTask:
    """What the strategy of a run is given."""
    config, data = prepared.config, prepared.data
    return SearchTask(
        space=config.space.name,
        kwargs=dict(config.space.options),
        space_class=prepared.space,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=prepared.normalisation,
        recipe=plan.search_recipe,
        compute=prepared.compute,
        seed=config.seed,
        folder=folder.search,
        seconds=plan.search_seconds,
        progress=progress,
        objective=Objective(**config.objective.model_dump()),
        final_kwargs=dict(config.train.space_options),
    )


def search(folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> None:
    """Search and write architecture.json, with its picture."""
    result = prepared.strategy.search(search_task(folder, prepared, plan, progress))
    for note in result.notes:
        progress.note(note)
    found = {
        **result.architecture.to_json(),
        "final_kwargs": dict(prepared.config.train.space_options),
        "search_seconds": round(result.seconds, 1),
        "notes": result.notes,
    }
    save_architecture(found, folder.architecture)
    write_json(folder.architecture, found)


def train_and_test(
    folder: RunFolder, prepared: Prepared, plan: Plan, spec: ModelSpec, seed: int, progress: Progress
) -> None:
    """One training and its test; test.json is written last and says that all is there."""
    data, compute = prepared.data, prepared.compute
    place = folder.model(spec.label, seed)
    seed_everything(seed)
    network = spec.build(data.info.channels, data.info.num_classes)
    trained = train_network(
        network,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=prepared.normalisation,
        recipe=plan.recipe,
        seed=seed,
        compute=compute,
        state_file=place / "state.safetensors",
        progress=progress,
        label=f"{spec.label}, seed {seed}",
    )
    for note in trained.notes:
        progress.note(f"{spec.label}, seed {seed}: {note}")
    trained.write_history(place / "history.csv")
    training = {
        "recipe": plan.recipe.to_json(),
        "seed": seed,
        "best_epoch": trained.best_epoch,
        "best_miou": trained.best_miou,
        "seconds": round(trained.seconds, 2),
        "notes": trained.notes,
    }
    ModelFile(spec, data.info, prepared.normalisation, training).save(place, network)
    first = seed == plan.seeds[0]
    result = evaluate(network, data.test, data.info, prepared.normalisation, compute, keep_predictions=first)
    for name, mask in result.predictions.items():
        write_bytes(place / "predictions" / f"{name}.png", cv2.imencode(".png", mask)[1].tobytes())
    write_json(
        place / "test.json",
        {
            "model": spec.label,
            "role": spec.role,
            "seed": seed,
            "split": "test",
            **result.scores.to_json(),
            "train_seconds": round(trained.seconds, 2),
            "best_epoch": trained.best_epoch,
            "val_miou": trained.best_miou,
            "params": count_parameters(network),
            "images": result.images(),
        },
    )
    (place / "state.safetensors").unlink(missing_ok=True)


def measure_costs(folder: RunFolder, prepared: Prepared, specs: list[ModelSpec], seed: int) -> None:
    """FLOPs and latency of every network on one test image, into ``cost.json`` beside its first training.

    All in one go when nothing else runs, so that the latencies compare.
    """
    data, compute = prepared.data, prepared.compute
    compute.prepare()
    for spec in specs:
        place = folder.model(spec.label, seed)
        if (place / "cost.json").exists():
            continue
        _, network = ModelFile.load(place)
        height, width = data.test[0][1].shape[:2]
        image = (data.info.channels, height, width)
        cost = measure(network, image, compute.device)
        found = {"flops": cost.flops, "latency_ms": cost.latency_ms, "image": list(image), "device": compute.device}
        write_json(place / "cost.json", found)
