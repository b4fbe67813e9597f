"""A run: check, plan, search, train, test, compare, report, stage by stage over a run folder.

Every stage leaves files that say it is done, so a run can be killed at any moment and continued: stages
and trainings that are done are skipped, the one that was cut continues from its saved state. With lengths
in epochs a resumed run ends with the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from autoseg import registry
from autoseg.comparison import compare
from autoseg.config import ExperimentConfig, load_config
from autoseg.data.augment import Augment
from autoseg.data.base import SPLITS, SegmentationData
from autoseg.data.batches import Normalisation, RamCache
from autoseg.environment import data_hash, describe_environment
from autoseg.errors import Problem, UserError, raise_if
from autoseg.plan import Plan, make_plan
from autoseg.progress import Progress
from autoseg.runfolder import RunFolder, read_json, write_bytes, write_json, write_text
from autoseg.search.architecture import Architecture
from autoseg.search.task import SearchTask
from autoseg.spaces.base import decisions, plain
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.cost import count_flops, count_parameters, latency_ms
from autoseg.train.evaluate import evaluate
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec
from autoseg.train.trainer import train_network

log = logging.getLogger(__name__)

FINALIST, CONTROL = "searched", "random"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run folder.
        comparison: The content of comparison.json.
        architecture: What the search found.
    """

    folder: Path
    comparison: dict[str, Any]
    architecture: Architecture

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return str(self.comparison["verdict"]["text"])


@dataclass
class Prepared:
    """An experiment whose configuration, data and plugins have been checked."""

    config: ExperimentConfig
    data: SegmentationData
    normalisation: Normalisation
    compute: Compute
    space: Any
    strategy: Any
    baselines: list[ModelSpec]
    control: Architecture
    hash: str

    def specs(self, found: Architecture) -> list[ModelSpec]:
        """All networks of the comparison, the finalist first."""
        options = dict(self.config.train.space_options)
        finalist = ModelSpec(FINALIST, "finalist", architecture=found, options=options)
        listed = [
            ModelSpec(baseline.label, "control", architecture=self.control, options=options)
            if baseline.role == "control"
            else baseline
            for baseline in self.baselines
        ]
        return [finalist, *listed]


def load_data(config: ExperimentConfig) -> SegmentationData:
    """The data set of an experiment, its decoded images kept in memory as far as they fit.

    A data set that takes a ``seed`` and was given none gets the experiment's.

    Raises:
        UserError: With every problem of the data.
    """
    factory = registry.load("dataset", config.data.dataset)
    options = dict(config.data.options)
    if "seed" in registry.options_of(factory):
        options.setdefault("seed", config.seed)
    data: SegmentationData = factory(**options)
    empty = [name for name in SPLITS if not len(data.split(name))]
    raise_if([Problem(f"the {name} split is empty", "data", "give it at least one image") for name in empty])
    train, val, test = (RamCache(data.split(name)) for name in SPLITS)
    return replace(data, train=train, val=val, test=test)


def prepare(config: ExperimentConfig) -> Prepared:
    """Load and try everything an experiment names, before any work starts.

    Raises:
        UserError: With all problems of data, device, space, strategy, loss and baselines together.
    """
    problems: list[Problem] = []

    def attempt(where: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except UserError as error:
            problems.extend(error.problems)
        except (ValueError, TypeError) as error:
            problems.append(Problem(str(error), where, "change its options"))
        return None

    compute = attempt("compute", lambda: Compute.resolve(config.compute.device, config.compute.precision))
    data = attempt("data", lambda: load_data(config))
    space = registry.load("space", config.space.name)
    strategy = attempt("strategy", lambda: registry.load("strategy", config.strategy.name)(**config.strategy.options))
    attempt("train.loss", lambda: registry.load("loss", config.train.loss.name)(**config.train.loss.options))
    augment = config.train.augment
    if isinstance(augment, dict):
        attempt("train.augment", lambda: Augment(**augment))
    baselines = [
        ModelSpec(b.label, "control")
        if b.name == CONTROL
        else ModelSpec(b.label, "baseline", model=b.name, options=dict(b.options))
        for b in config.baselines
    ]
    for label in {FINALIST} & {b.label for b in baselines}:
        problems.append(Problem(f"the name {label!r} is taken by the search's result", "baselines", "use another 'as'"))
    channels, classes = (data.info.channels, data.info.num_classes) if data else (1, 2)
    if data is not None and classes < 2:
        problems.append(
            Problem("there is only one class", "data", "segmentation needs background and at least one class")
        )
    sample = attempt("space", lambda: space(channels, classes, **config.space.options))
    control = None
    if sample is not None:
        rng = random.Random(config.seed)
        choices = plain({label: rng.choice(values) for label, values in decisions(sample).items()})
        control = Architecture(config.space.name, dict(config.space.options), choices)
        options = dict(config.train.space_options)
        attempt("train", lambda: control.build(channels, classes, **options))
    for spec in baselines:
        if spec.role == "baseline":
            attempt(f"baselines, {spec.label}", partial(spec.build, channels, classes))
    raise_if(problems)
    assert data is not None and control is not None
    normalisation = Normalisation.from_split(data.train, channels)
    return Prepared(config, data, normalisation, compute, space, strategy, baselines, control, data_hash(data))


def plan_of(prepared: Prepared, elapsed: float = 0.0) -> Plan:
    """Probe the machine and plan the run."""
    return make_plan(
        prepared.config,
        prepared.data,
        prepared.specs(prepared.control),
        ModelSpec("search", "finalist", architecture=prepared.control),
        prepared.strategy,
        prepared.compute,
        elapsed,
    )


def run(
    source: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
    on_plan: Callable[[Plan, Prepared], None] | None = None,
) -> Run | None:
    """Execute an experiment.

    Args:
        source: An experiment file, or its content as a dictionary.
        out: Run folder; ``runs/NAME`` by default.
        resume: Continue the run in that folder.
        overrides: ``"key.sub=value"``, as ``--set`` on the command line.
        dry_run: Stop after the plan; nothing is written.
        progress: Receives the progress.
        on_plan: Called with the plan before work starts.

    Returns:
        The finished run, or None for a dry run.

    Raises:
        UserError: Something the user can mend; nothing was lost.

    Example:
        >>> import autoseg
        >>> config = {"data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}}}
        >>> autoseg.run(config, dry_run=True, overrides=["space.options.width=4", "train.epochs=1", "baselines=[]"])
    """
    began = time.monotonic()
    progress = progress or Progress()
    config = load_config(source, overrides)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / config.name)
    if not dry_run:
        folder.open(resume)
        if resume:
            _same_config(config, folder)
    progress.stage("Checking the data and the plan")
    prepared = prepare(config)
    if dry_run:
        plan = plan_of(prepared, time.monotonic() - began)
        if on_plan:
            on_plan(plan, prepared)
        return None
    with folder.lock(), _log_to(folder.log):
        plan = _start(folder, prepared, began)
        if on_plan:
            on_plan(plan, prepared)
        found = _search(folder, prepared, plan, progress)
        if plan.search_seconds is not None:
            plan = _spend_the_rest(folder, prepared, plan, began)
        specs = prepared.specs(found)
        progress.stage("Training and testing")
        for seed in plan.seeds:
            for spec in specs:
                if not (folder.model(spec.label, seed) / "test.json").exists():
                    train_and_test(folder, prepared, plan, spec, seed, progress)
        progress.stage("Comparing and reporting")
        comparison = compare(folder, [spec.label for spec in specs], plan.seeds)
        write_json(folder.comparison, comparison)
        from autoseg.report.page import write_report

        write_report(folder.path, prepared.data)
    return Run(folder.path, comparison, found)


def _same_config(config: ExperimentConfig, folder: RunFolder) -> None:
    """A run may only be resumed with the configuration it was started with."""
    old, new = (c.model_dump(mode="json", exclude={"ui", "compute"}) for c in (load_config(folder.config), config))
    changed = sorted(key for key in old if old[key] != new[key])
    raise_if(
        [
            Problem(
                f"{key!r} is not what the run was started with",
                str(folder.config),
                "resume with the same file, or start anew with --out",
            )
            for key in changed
        ]
    )


def _start(folder: RunFolder, prepared: Prepared, began: float) -> Plan:
    """Write config, environment and plan, or read them back when the run is resumed."""
    if folder.plan.exists():
        stored = read_json(folder.environment)
        if stored["data_hash"] != prepared.hash:
            raise UserError(
                Problem("the images or masks have changed since the run was started", "data", "start anew with --out")
            )
        return Plan.from_json(read_json(folder.plan))
    write_text(folder.config, prepared.config.to_yaml())
    seeds = [prepared.config.seed + k for k in range(prepared.config.repeats)]
    write_json(folder.environment, describe_environment(seeds, prepared.hash, prepared.compute.device))
    plan = plan_of(prepared, time.monotonic() - began)
    write_json(folder.plan, plan.to_json())
    return plan


def _search(folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> Architecture:
    """Search, or read what an earlier process found."""
    if folder.architecture.exists():
        return Architecture.read(folder.architecture)
    config, data = prepared.config, prepared.data
    progress.stage(f"Searching {config.space.name} with {config.strategy.name}")
    task = SearchTask(
        space=config.space.name,
        kwargs=dict(config.space.options),
        space_class=prepared.space,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=prepared.normalisation,
        recipe=plan.recipe,
        compute=prepared.compute,
        seed=config.seed,
        folder=folder.search,
        seconds=plan.search_seconds,
        progress=progress,
    )
    result = prepared.strategy.search(task)
    for note in result.notes:
        progress.note(note)
    write_json(
        folder.architecture,
        {**result.architecture.to_json(), "search_seconds": round(result.seconds, 1), "notes": result.notes},
    )
    return result.architecture


def _spend_the_rest(folder: RunFolder, prepared: Prepared, plan: Plan, began: float) -> Plan:
    """Give every training the same share of what the search left of the budget; decided once."""
    stored = read_json(folder.plan)
    if stored.get("after_search") or any(folder.models.glob("*/seed-*/*")):
        return plan
    report = plan.stages[-1]["seconds"]
    trainings = len(plan.models) * len(plan.seeds)
    overhead = sum(s["seconds"] for s in plan.stages[1:-1]) - trainings * float(plan.recipe.seconds or 0)
    left = float(prepared.config.budget or 0) - (time.monotonic() - began) - report - overhead
    plan = replace(plan, recipe=replace(plan.recipe, seconds=max(1.0, left / trainings)))
    write_json(folder.plan, {**plan.to_json(), "after_search": True})
    return plan


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
    divisor = int(getattr(network, "size_divisor", 32))
    height, width = (-(-side // divisor) * divisor for side in data.test[0][1].shape[:2])
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
            "flops": count_flops(network, data.info.channels, height, width) if first else None,
            "latency_ms": round(latency_ms(network, data.info.channels, height, width, compute.device), 3)
            if first
            else None,
            "cost_input": [data.info.channels, height, width],
            "images": result.images(),
        },
    )
    (place / "state.safetensors").unlink(missing_ok=True)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Append everything the library logs to a file while the run lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("autoseg")
    previous = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(previous)
        handler.close()
