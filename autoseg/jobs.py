"""Doing a job of a run: a search, a candidate, or a training with its test.

A job needs the run folder alone: configuration, plan and data are read from it, results are written into
it. A job whose result is there has been done; one that was cut continues from the state in its folder.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2

from autoseg.cards import write_card
from autoseg.config import load_config
from autoseg.data.batches import Normalisation
from autoseg.data.facts import data_facts
from autoseg.data.packed import is_packed, read_packed
from autoseg.environment import describe_environment
from autoseg.errors import machine_told
from autoseg.job import Job
from autoseg.plan import Plan
from autoseg.prepare import Prepared, load_data, prepared_again
from autoseg.progress import Forwarded, Progress
from autoseg.runfolder import RunFolder, read_json, write_bytes, write_json
from autoseg.search.architecture import Architecture
from autoseg.search.objective import Objective
from autoseg.search.task import SearchTask
from autoseg.search.trials import Bench, read_result, train_candidate
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.cost import count_parameters, measure
from autoseg.train.distributed import agreed
from autoseg.train.evaluate import evaluate
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec
from autoseg.train.ranks import several_ranks
from autoseg.train.trainer import train_network

__all__ = [
    "Job",
    "do_job",
    "measure_costs",
    "result_of",
    "run_job",
    "search",
    "search_task",
    "train_and_test",
]

log = logging.getLogger(__name__)


def run_job(job: Job, path: Path, threads: int, progress: Progress) -> dict[str, Any]:
    """Do a job in this process, from nothing but the run folder; one that is done already is not done again.

    Args:
        job: What to do.
        path: The run folder, with config.yaml and plan.json in it.
        threads: CPU threads to use.
        progress: Receives the progress.

    Returns:
        Plain values: ``miou`` is the validation mIoU (0..1) to judge the job by; a candidate's has all keys of
        :class:`autoseg.search.trials.TrialResult`.

    Raises:
        UserError: The user can mend something, memory or disk space for example.
    """
    with machine_told(str(job)):
        folder, prepared = RunFolder(path), _context(path, threads)
        prepared.compute.prepare()
        plan = Plan.from_json(read_json(folder.plan))
        arguments = {"path": str(path), "threads": threads, "job": job.to_json()}
        with several_ranks(prepared.compute, "autoseg.jobs:take_part", arguments) as compute:
            return do_job(job, folder, replace(prepared, compute=compute), plan, progress)


def take_part(compute: Compute, path: str, threads: int, job: dict[str, Any]) -> None:
    """What the other ranks of a job do: they compute with the first one, and write nothing.

    Args:
        compute: The rank.
        path: The run folder.
        threads: CPU threads to use.
        job: The job, as JSON.
    """
    own = Job.from_json(job)
    with machine_told(f"{own}, rank {compute.rank}"):
        folder, prepared = RunFolder(Path(path)), _context(Path(path), threads)
        plan = Plan.from_json(read_json(folder.plan))
        do_job(own, folder, replace(prepared, compute=compute), plan, Progress())


@lru_cache(maxsize=1)
def _context(path: Path, threads: int) -> Prepared:
    """The checked experiment, loaded once per process."""
    folder = RunFolder(path)
    plan, config = Plan.from_json(read_json(folder.plan)), load_config(folder.config)
    data = read_packed(folder.data) if is_packed(folder.data) else load_data(config)
    if plan.normalisation:
        normalisation = Normalisation.from_json(plan.normalisation)
    else:
        normalisation = Normalisation.from_split(data.train, data.info.channels)
    return prepared_again(config, data, normalisation, plan.control or {}).with_threads(threads)


def do_job(job: Job, folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Do a job with what has been prepared already; returns what :func:`run_job` returns."""
    known = agreed(prepared.compute, lambda: result_of(job, folder))
    if known is not None:
        return known
    if job.kind == "search":
        return search(folder, prepared, plan, _named(progress, job.label), job)
    if job.kind == "candidate":
        task = search_task(folder, prepared, plan, progress)
        assert job.choices is not None
        return dict(train_candidate(task, job.number, job.choices, epochs=job.epochs, seconds=job.seconds))
    found = Architecture.from_json(job.architecture) if job.architecture else prepared.control
    spec = next(spec for spec in prepared.specs(found) if spec.label == job.label)
    return train_and_test(folder, prepared, plan, spec, job.seed, progress)


def result_of(job: Job, folder: RunFolder) -> dict[str, Any] | None:
    """What :func:`run_job` returned for a job that is done, read from the run folder; None while it is not.

    Args:
        job: The job.
        folder: The run folder.

    Raises:
        UserError: The result is damaged.
    """
    if not job.done(folder):
        return None
    if job.kind == "search":
        found = read_json(folder.search_of(job.seed, job.number) / "found.json")
        return {"miou": found["miou"], "code": found["code"]}
    if job.kind == "candidate":
        result = read_result(folder.search, job.number, job.choices or {})
        return None if result is None else dict(result)
    test = read_json(folder.model(job.label, job.seed) / "test.json")
    return {"miou": test["val_miou"], "epoch": test["best_epoch"], "params": test["params"]}


def _named(progress: Progress, name: str) -> Progress:
    """The progress with a name before the labels, where several searches tell of themselves."""
    if not name:
        return progress

    def send(method: str, arguments: tuple[Any, ...]) -> None:
        if method in ("begin", "update", "end", "figures"):
            arguments = (f"{name}: {arguments[0]}", *arguments[1:])
        getattr(progress, method)(*arguments)

    return Forwarded(send)


def search_task(
    folder: RunFolder,
    prepared: Prepared,
    plan: Plan,
    progress: Progress,
    job: Job | None = None,
    bench: Bench | None = None,
) -> SearchTask:
    """What the strategy of a run is given; ``bench`` trains the candidates of a multi-trial search elsewhere."""
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
        seed=job.seed if job else config.seed,
        folder=folder.search_of(job.seed, job.number) if job else folder.search,
        seconds=plan.search_seconds,
        progress=progress,
        bench=bench,
        objective=Objective(**config.objective.model_dump()),
        final_kwargs=dict(config.train.space_options),
    )


def search(
    folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress, job: Job, bench: Bench | None = None
) -> dict[str, Any]:
    """Search, and write found.json into the folder of the search."""
    task = search_task(folder, prepared, plan, progress, job, bench)
    if task.compute.rank:
        prepared.strategy.take_part(task)
        return {}
    result = prepared.strategy.search(task)
    for note in result.notes:
        progress.note(note)
    found = {
        **result.architecture.to_json(),
        "final_kwargs": dict(prepared.config.train.space_options),
        "search_seed": task.seed,
        "search_seconds": round(result.seconds, 1),
        "miou": result.candidates[0].miou,
        "notes": result.notes,
    }
    write_json(task.folder / "found.json", found)
    return {"miou": found["miou"], "code": found["code"]}


def train_and_test(
    folder: RunFolder, prepared: Prepared, plan: Plan, spec: ModelSpec, seed: int, progress: Progress
) -> dict[str, Any]:
    """One training and its test; test.json is written last and says that all is there.

    Returns:
        The validation mIoU, and no score of the test.
    """
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
    if compute.rank:
        return {}
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
    test = {
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
    }
    facts = plan.data or data_facts(data)  # a training that belongs to no run has no plan for it
    write_card(place, test, facts, describe_environment(plan.seeds, facts["hash"], compute.device))
    write_json(place / "test.json", test)
    (place / "state.safetensors").unlink(missing_ok=True)
    return {"miou": trained.best_miou, "epoch": trained.best_epoch, "params": count_parameters(network)}


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
