"""The plan of a run: what is inferred from the data, and what it will cost, measured by a probe.

A few real training steps of every network are timed on this machine before anything starts. From them
come the predicted seconds of each stage and the memory, and, when the user gave a budget, the share of
time that each stage gets.
"""

from __future__ import annotations

import logging
import math
import resource
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from autoseg.config import ExperimentConfig
from autoseg.data.base import DatasetInfo, SegmentationData, Split
from autoseg.durations import format_duration
from autoseg.errors import Problem, UserError
from autoseg.nn.padding import pad_to_multiple
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.modelspec import ModelSpec
from autoseg.train.recipe import Recipe

log = logging.getLogger(__name__)

_STEPS = 1500  # training length when the user names none: about this many steps
_SEARCH_SHARE = 0.3  # of a budget
_REPORT_SECONDS = 6.0
_SETUP_SECONDS = 1.0  # per training: building the network, writing files, counting operations
_LEAST_SECONDS = 1.0


@dataclass
class Plan:
    """What will be done and what it will cost.

    Attributes:
        recipe: How every network is trained.
        search_seconds: Length of the search under a budget, else None.
        models: Labels of the networks to train.
        seeds: Training seeds.
        stages: ``{"name", "seconds", "what"}`` in order.
        memory_bytes: Peak memory of this process (or of the GPU) in the probe, plus the decoded images.
        notes: Choices made for the user, and their reasons.
    """

    recipe: Recipe
    search_seconds: float | None
    models: list[str]
    seeds: list[int]
    stages: list[dict[str, Any]] = field(default_factory=list)
    memory_bytes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Predicted seconds of the whole run."""
        return float(sum(stage["seconds"] for stage in self.stages))

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        return {
            "recipe": self.recipe.to_json(),
            "search_seconds": self.search_seconds,
            "models": self.models,
            "seeds": self.seeds,
            "stages": self.stages,
            "seconds": self.seconds,
            "memory_bytes": self.memory_bytes,
            "notes": self.notes,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Read what :meth:`to_json` wrote."""
        known = {key: value[key] for key in ("search_seconds", "models", "seeds", "stages", "memory_bytes", "notes")}
        return cls(recipe=Recipe(**value["recipe"]), **known)


def smallest_side(split: Split) -> int:
    """Shortest image side of a split, pixels."""
    return min(min(split[i][1].shape[:2]) for i in range(len(split)))


def steps_per_epoch(split: Split, recipe: Recipe) -> int:
    """Training steps in one pass: as many patches as cover the images, by area."""
    patches = 0
    for i in range(len(split)):
        height, width = split[i][1].shape[:2]
        patches += max(1, round(height * width / recipe.patch**2))
    return math.ceil(patches / recipe.batch)


def infer_recipe(config: ExperimentConfig, data: SegmentationData) -> tuple[Recipe, list[str]]:
    """Fill what the user left open: patch, batch and length; with the reasons."""
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
        loss_options=dict(train.loss.options),
        augment=train.augment,
        validate_every=train.validate_every,
    )
    if train.epochs is None and train.seconds is None:
        steps = steps_per_epoch(data.train, recipe)
        epochs = min(300, max(10, round(_STEPS / steps)))
        notes.append(f"{epochs} epochs: about {epochs * steps} steps of {batch} patches")
        recipe = Recipe(**{**recipe.to_json(), "epochs": epochs})
    return recipe, notes


def probe_step(spec: ModelSpec, recipe: Recipe, info: DatasetInfo, compute: Compute, repeats: int = 2) -> float:
    """Seconds of one training step of a network, measured here and now (best of a few).

    Raises:
        UserError: A step does not fit into memory.
    """
    compute.prepare()
    seed_everything(0)
    network = spec.build(info.channels, info.num_classes).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    loss = recipe.build_loss()
    x = torch.randn(recipe.batch, info.channels, recipe.patch, recipe.patch, device=compute.device)
    x, _ = pad_to_multiple(x, int(getattr(network, "size_divisor", 1)))
    target = torch.randint(0, info.num_classes, (x.shape[0], *x.shape[-2:]), device=compute.device)
    best = math.inf
    try:
        for _ in range(1 + repeats):
            start = time.perf_counter()
            with compute.autocast():
                value = loss(network(x.to(memory_format=torch.channels_last)), target)
            value.backward()
            value.item()
            best = min(best, time.perf_counter() - start)
    except (torch.OutOfMemoryError, MemoryError) as error:
        fix = "give a smaller train.batch or train.patch, or a narrower network"
        raise UserError(Problem("one training step does not fit into memory", f"model {spec.label!r}", fix)) from error
    return best


def make_plan(
    config: ExperimentConfig,
    data: SegmentationData,
    specs: list[ModelSpec],
    path_of_search: ModelSpec,
    strategy: Any,
    compute: Compute,
    elapsed: float = 0.0,
) -> Plan:
    """Infer, probe and predict.

    Args:
        config: The experiment.
        data: Its data set.
        specs: Networks to train; the finalist is represented by the control's architecture.
        path_of_search: One architecture at the size of the search.
        strategy: The strategy; ``training_steps(steps_per_epoch)`` says how long it is in steps.
        compute: Device and precision.
        elapsed: Seconds already spent on this run, which count towards the budget.
    """
    began = time.monotonic()
    recipe, notes = infer_recipe(config, data)
    seeds = [config.seed + k for k in range(config.repeats)]
    steps = steps_per_epoch(data.train, recipe)
    step_seconds = {spec.label: probe_step(spec, recipe, data.info, compute) for spec in specs}
    search_step = probe_step(path_of_search, recipe, data.info, compute)
    test_pixels = sum(math.prod(data.test[i][1].shape[:2]) for i in range(len(data.test)))
    val_pixels = sum(math.prod(data.val[i][1].shape[:2]) for i in range(len(data.val)))
    per_pixel = {label: s / (recipe.batch * recipe.patch**2) / 3 for label, s in step_seconds.items()}
    overhead = sum(_SETUP_SECONDS + per_pixel[spec.label] * test_pixels for spec in specs) * len(seeds)

    search_seconds: float | None = None
    searching = search_step * float(getattr(strategy, "training_steps", lambda n: 20 * n)(steps))
    if config.budget is not None:
        left = config.budget - elapsed - (time.monotonic() - began) - _REPORT_SECONDS
        search_seconds = searching = max(_LEAST_SECONDS, _SEARCH_SHARE * left)
        each = (left - search_seconds - overhead) / (len(specs) * len(seeds))
        if each < _LEAST_SECONDS:
            needed = config.budget + (_LEAST_SECONDS - each) * len(specs) * len(seeds) / (1 - _SEARCH_SHARE)
            raise UserError(
                Problem(
                    f"the budget of {format_duration(config.budget)} leaves {max(each, 0):.1f} s for each training",
                    "budget",
                    f"give at least {format_duration(math.ceil(needed))}, fewer repeats or fewer baselines",
                )
            )
        if recipe.epochs is not None and config.train.epochs is not None:
            notes.append("train.epochs and the strategy's epochs are not used: the budget decides the lengths")
        recipe = Recipe(**{**recipe.to_json(), "epochs": None, "seconds": each})
    stages = [
        {
            "name": "search",
            "seconds": searching,
            "what": f"{config.strategy.name} over {config.space.name}",
        }
    ]
    for spec in specs:
        if recipe.seconds is not None:
            seconds = recipe.seconds
        else:
            validations = (recipe.epochs or 0) / recipe.validation_interval()
            seconds = (
                step_seconds[spec.label] * steps * (recipe.epochs or 0)
                + validations * per_pixel[spec.label] * val_pixels
            )
        seconds += _SETUP_SECONDS + per_pixel[spec.label] * test_pixels
        times = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        length = f"{recipe.epochs} epochs" if recipe.epochs else format_duration(recipe.seconds or 0)
        stages.append({"name": f"train {spec.label}", "seconds": seconds * len(seeds), "what": f"{times} of {length}"})
    stages.append({"name": "report", "seconds": _REPORT_SECONDS, "what": "comparison.json and report.html"})
    return Plan(recipe, search_seconds, [s.label for s in specs], seeds, stages, _peak_memory(compute), notes)


def _peak_memory(compute: Compute) -> int:
    """Highest memory in use so far, after the probe has run a step of everything."""
    if compute.device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
