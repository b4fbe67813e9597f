"""The plan of a run: what is inferred from the data, and what it will cost, measured by a probe.

A few real training steps of every network are timed on this machine before anything starts. From them
come the predicted seconds of each stage and the memory, and, when the user gave a budget, the share of
time that each stage gets.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

from autoseg.config import ExperimentConfig
from autoseg.data.base import SegmentationData, Split
from autoseg.durations import format_duration
from autoseg.errors import Problem, UserError
from autoseg.places import places, shared_gpus
from autoseg.prepare import Prepared
from autoseg.probe import forward_seconds, probe
from autoseg.schedule import longest_training, makespan
from autoseg.train.modelspec import ModelSpec
from autoseg.train.recipe import Recipe

log = logging.getLogger(__name__)

_STEPS = 1500  # training length when the user names none: about this many steps
_SEARCH_SHARE = 0.3  # of a budget
_REPORT_SECONDS = 6.0
_WORKER_SECONDS = 5.0  # to start the processes, and for each to read the data
_PAGE_SECONDS = 3.0  # to start and stop the web page
_SEARCH_SETUP_SECONDS = 2.0  # to start the engine of a search
_SETUP_SECONDS = 1.0  # per training: building the network, writing files, counting operations
_LEAST_SECONDS = 1.0


@dataclass
class Plan:
    """What will be done and what it will cost.

    Example:
        >>> plan = Plan(Recipe(epochs=3), None, ["searched"], [0], seconds=12.5)
        >>> Plan.from_json(plan.to_json()) == plan
        True

    Attributes:
        recipe: How every network is trained.
        search_seconds: Length of the search under a budget, else None.
        search_patch: Side of the crops in the search, pixels; None takes that of the recipe.
        search_batch: Patches per step of the search; None takes that of the recipe.
        models: Labels of the networks to train, the finalist first.
        seeds: Training seeds.
        workers: Jobs done side by side.
        gpus: For each job side by side, the names of the GPUs it may use, with commas between them; empty where
            each takes what it finds.
        search_slots: Candidates of a multi-trial search side by side, for the whole life of the run: what such a
            search proposes depends on it.
        search_seeds: Seed of each search; more than one where a one-shot search is repeated.
        control: Choices of the random control, drawn once for all processes of the run.
        normalisation: Mean and standard deviation of the training images, measured once.
        seconds: Predicted seconds of the whole run.
        stages: ``{"name", "seconds", "what"}``; stages may run side by side.
        memory_bytes: Peak memory in the probe, decoded images included, times the number of workers.
        notes: Choices made for the user, and their reasons.
        data: What is in the data set, for the cards of the models; see :func:`autoseg.data.facts.data_facts`.
    """

    recipe: Recipe
    search_seconds: float | None
    models: list[str]
    seeds: list[int]
    search_patch: int | None = None
    search_batch: int | None = None
    workers: int = 1
    gpus: list[str] = field(default_factory=list)
    search_slots: int = 1
    search_seeds: list[int] = field(default_factory=lambda: [0])
    control: dict[str, Any] | None = None
    normalisation: dict[str, Any] | None = None
    seconds: float = 0.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    memory_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {
            "recipe": self.recipe.to_json(),
            "search_seconds": self.search_seconds,
            "models": self.models,
            "seeds": self.seeds,
            "search_patch": self.search_patch,
            "search_batch": self.search_batch,
            "workers": self.workers,
            "gpus": self.gpus,
            "search_slots": self.search_slots,
            "search_seeds": self.search_seeds,
            "control": self.control,
            "normalisation": self.normalisation,
            "stages": self.stages,
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "notes": self.notes,
            "data": self.data,
        }

    @property
    def search_recipe(self) -> Recipe:
        """How the networks of the search are trained."""
        patch, batch = self.search_patch or self.recipe.patch, self.search_batch or self.recipe.batch
        return replace(self.recipe, patch=patch, batch=batch)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Read what :meth:`to_json` wrote."""
        return cls(**{**value, "recipe": Recipe(**value["recipe"])})


def smallest_side(split: Split) -> int:
    """Shortest image side of a split, pixels."""
    return min(min(split[i][1].shape[:2]) for i in range(len(split)))


def steps_per_epoch(split: Split, recipe: Recipe) -> int:
    """Training steps in one pass: as many patches as cover the images, by area.

    Example:
        >>> from autoseg.data.synthetic.ceramic import CeramicSplit
        >>> steps_per_epoch(CeramicSplit(range(5), size=64), Recipe(epochs=1, patch=32, batch=8))  # 20 patches
        3
    """
    patches = 0
    for i in range(len(split)):
        height, width = split[i][1].shape[:2]
        patches += max(1, round(height * width / recipe.patch**2))
    return math.ceil(patches / recipe.batch)


def infer_recipe(
    config: ExperimentConfig, data: SegmentationData, loss_options: Mapping[str, Any] | None = None
) -> tuple[Recipe, list[str]]:
    """Fill what the user left open: patch, batch and length.

    Args:
        config: The experiment.
        data: Its data.
        loss_options: Of the checked experiment; those that the user gave, unless given.

    Returns:
        The complete recipe, and sentences that give the reasons, after those of the data set.
    """
    train, notes = config.train, list(data.notes)
    side = smallest_side(data.train)
    patch, batch = train.patch, train.batch or 8
    if patch is None:
        patch = 128 if side >= 128 else max(32, math.ceil(side / 16) * 16)
        notes.append(
            f"patch {patch}: " + ("128 is enough context at this size" if patch == 128 else f"images are {side} px")
        )
    if train.batch is None:
        notes.append(f"batch {batch}: small batches take more steps in the same time")
    recipe = Recipe(
        epochs=train.epochs,
        seconds=train.seconds,
        batch=batch,
        patch=patch,
        lr=train.lr,
        weight_decay=train.weight_decay,
        clip=train.clip,
        loss=train.loss.name,
        loss_options=dict(train.loss.options if loss_options is None else loss_options),
        augment=train.augment,
        validate_every=train.validate_every,
        optimiser=train.optimiser,
        momentum=train.momentum,
        schedule=train.schedule.name,
        schedule_options=dict(train.schedule.options),
    )
    if train.epochs is None and train.seconds is None and config.budget is not None:
        recipe = replace(recipe, seconds=config.budget)  # one training alone; a run shares it out
    elif train.epochs is None and train.seconds is None:
        steps = steps_per_epoch(data.train, recipe)
        epochs = min(300, max(10, round(_STEPS / steps)))
        notes.append(f"{epochs} epochs: about {epochs * steps} steps of {batch} patches")
        recipe = replace(recipe, epochs=epochs)
    return recipe, notes


def resumed(plan: Plan, prepared: Prepared) -> Plan:
    """The plan of a run that goes on, with the places and GPUs that it may use now."""
    jobs = len(plan.search_seeds) + len(plan.models) * len(plan.seeds)
    workers = places(prepared.config, prepared.compute.device, jobs)
    return replace(plan, workers=workers, gpus=shared_gpus(prepared, workers))


def _search_steps(strategy: Any, steps: int, batch: int) -> float:
    """Length of a search in training steps of one network, as the strategy counts it."""
    counted = getattr(strategy, "training_steps", None)
    if counted is None:
        return 20.0 * steps
    return float(counted(steps, batch=batch) if "batch" in signature(counted).parameters else counted(steps))


def make_plan(prepared: Prepared, elapsed: float = 0.0) -> Plan:
    """Infer, probe and predict.

    Args:
        prepared: The checked experiment.
        elapsed: Seconds already spent on this run, which count towards the budget.

    Raises:
        UserError: A step does not fit into memory, or the budget is too small.
    """
    began = time.monotonic()
    config, data = prepared.config, prepared.data
    specs = prepared.specs(prepared.control)  # the control stands for the finalist, which is not known yet
    recipe, notes = infer_recipe(config, data, prepared.loss_options)
    seeds = [config.seed + k for k in range(config.repeats)]
    jobs = 1 + len(specs) * len(seeds)
    workers = places(config, prepared.compute.device, jobs)
    here = config.compute.service == "local"
    compute = prepared.with_threads(max(1, prepared.compute.threads // (workers if here else 1))).compute
    if here and config.compute.workers != "auto" and workers < min(int(config.compute.workers), jobs):
        notes.append(f"{workers} side by side: no two jobs share a GPU, unless the device names it, as cuda:0")
    if not here:
        notes.append("the times are those of this machine; others may be faster or slower")
    steps = steps_per_epoch(data.train, recipe)
    path = ModelSpec("search", "finalist", architecture=prepared.control)
    small = replace(recipe, patch=config.strategy.patch or recipe.patch, batch=config.strategy.batch or recipe.batch)
    length = _search_steps(prepared.strategy, steps_per_epoch(data.train, small), small.batch)
    probed = probe(specs, recipe, (path, small), data.info, compute)
    step, searching = probed.step, _SEARCH_SETUP_SECONDS + probed.searching * length
    validation, testing = (forward_seconds(split, step, recipe) for split in (data.val, data.test))
    around = {label: _SETUP_SECONDS + testing[label] for label in step}

    one_shot = getattr(prepared.strategy, "one_shot", True)
    search_seeds = [config.seed + k for k in range(config.strategy.repeats if one_shot else 1)]
    overhead = (_WORKER_SECONDS if workers > 1 else 0.0) + (_PAGE_SECONDS if config.ui.enabled else 0.0)

    search_seconds: float | None = None
    if config.budget is not None:
        left = config.budget - elapsed - (time.monotonic() - began) - _REPORT_SECONDS
        rounds = math.ceil(len(search_seeds) / workers)
        search_seconds = max(_LEAST_SECONDS, _SEARCH_SHARE * left / rounds)
        searches = [search_seconds] * (len(search_seeds) if one_shot else workers)
        each = longest_training(left - overhead, searches, around, len(seeds), workers)
        if each < _LEAST_SECONDS:
            raise UserError(
                Problem(
                    f"the budget of {format_duration(config.budget)} is too short for {jobs - 1} trainings",
                    "budget",
                    "give more time, fewer repeats or fewer baselines",
                )
            )
        if config.train.epochs is not None:
            notes.append("train.epochs and the strategy's epochs are not used: the budget decides the lengths")
        recipe = replace(recipe, epochs=None, seconds=each)
    else:
        searches = [searching] * len(search_seeds) if one_shot else [searching / workers] * workers
    what = f"{config.strategy.name} over {config.space.name}"
    if len(search_seeds) > 1:
        what += f", {len(search_seeds)} seeds"
    stages = [{"name": "search", "seconds": sum(searches) if one_shot else searches[0], "what": what}]
    trainings = {}
    for label in step:
        epochs = recipe.epochs or 0
        validations = epochs / recipe.validation_interval() * validation[label]
        trainings[label] = recipe.seconds or step[label] * steps * epochs + validations
        each_of = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        long = f"{epochs} epochs" if epochs else format_duration(round(recipe.seconds or 0))
        total = (trainings[label] + around[label]) * len(seeds)
        stages.append({"name": f"train {label}", "seconds": total, "what": f"{each_of} of {long}"})
    stages.append({"name": "report", "seconds": _REPORT_SECONDS, "what": "comparison.json and report.html"})
    lengths = [trainings[label] + around[label] for label in step] * len(seeds)
    return Plan(
        recipe,
        search_seconds,
        models=list(step),
        seeds=seeds,
        search_patch=config.strategy.patch,
        search_batch=config.strategy.batch,
        workers=workers,
        gpus=shared_gpus(prepared, workers),
        search_slots=workers,
        search_seeds=search_seeds,
        control=dict(prepared.control.choices),
        normalisation=prepared.normalisation.to_json(),
        seconds=makespan(searches, lengths, len(step), workers) + _REPORT_SECONDS + overhead,
        stages=stages,
        memory_bytes=probed.memory * workers,
        notes=notes,
    )
