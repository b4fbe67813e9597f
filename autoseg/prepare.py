"""Checking an experiment before any work starts: data, device, plugins and their options, all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoseg import registry
from autoseg.config import ExperimentConfig, load_config, load_data_section
from autoseg.data.augment import Augment
from autoseg.data.base import SPLITS, SegmentationData
from autoseg.data.batches import Normalisation, RamCache
from autoseg.errors import Problem, UserError, raise_if
from autoseg.losses.training import completed, needs_training
from autoseg.search.architecture import Architecture
from autoseg.search.control import random_architecture
from autoseg.search.objective import Objective
from autoseg.search.supported import misfit
from autoseg.spaces.base import decisions
from autoseg.train.compute import Compute
from autoseg.train.modelspec import ModelSpec

FINALIST, CONTROL = "searched", "random"


@dataclass
class Prepared:
    """An experiment whose configuration, data and plugins have been checked.

    Attributes:
        loss_options: Options of the loss, those included that it takes from the training split.
    """

    config: ExperimentConfig
    data: SegmentationData
    normalisation: Normalisation
    compute: Compute
    space: Any
    strategy: Any
    baselines: list[ModelSpec]
    control: Architecture
    loss_options: dict[str, Any] = field(default_factory=dict)

    def with_threads(self, threads: int) -> Prepared:
        """The same with another number of CPU threads."""
        return replace(self, compute=replace(self.compute, threads=threads))

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


def load_experiment(
    source: Path | str | Mapping[str, Any], overrides: Sequence[str] = (), preset: str | None = None
) -> ExperimentConfig:
    """Read an experiment file; when it is wrong, its data are looked at all the same.

    Args:
        source: As for :func:`autoseg.config.load_config`.
        overrides: As for :func:`autoseg.config.load_config`.
        preset: As for :func:`autoseg.config.load_config`.

    Raises:
        UserError: With the problems of the file and of the data together.
    """
    try:
        return load_config(source, overrides, preset)
    except UserError as error:
        problems = list(error.problems)
    try:
        load_data(load_data_section(source, overrides, preset))
    except UserError as error:
        problems += [problem for problem in error.problems if problem not in problems]
    except (ValueError, TypeError, OSError) as error:
        problems.append(Problem(str(error), "data", "change its options"))
    raise UserError(problems)


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


def prepare(config: ExperimentConfig, control: dict[str, Any] | None = None) -> Prepared:
    """Load and try everything an experiment names, before any work starts.

    Args:
        config: The experiment.
        control: Choices of the random control of a run that was begun; drawn unless given.

    Raises:
        UserError: With all problems of data, device, space, strategy, loss and baselines together.
    """
    problems: list[Problem] = []

    def attempt(where: str, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except UserError as error:
            problems.extend(error.problems)
        except (ValueError, TypeError, OSError) as error:
            problems.append(Problem(str(error), where, "change its options"))
        return None

    compute = attempt("compute", lambda: _compute_here(config))
    data = attempt("data", lambda: load_data(config))
    space = registry.load("space", config.space.name)
    strategy = attempt("strategy", lambda: registry.load("strategy", config.strategy.name)(**config.strategy.options))
    if config.strategy.repeats > 1 and strategy is not None and not getattr(strategy, "one_shot", False):
        what = f"strategy {config.strategy.name!r} trains every candidate by itself; repeating is for one-shot searches"
        problems.append(Problem(what, "strategy.repeats", "leave it out, and give the strategy more trials"))
    if config.compute.devices > 1 and getattr(strategy, "one_shot", False) and not hasattr(strategy, "take_part"):
        what = f"strategy {config.strategy.name!r} cannot share a search among several devices"
        problems.append(Problem(what, "compute.devices", "use 1, or another strategy"))
    loss_options, loss_notes = attempt("train.loss", lambda: _loss_options(config, data)) or ({}, [])
    augment = config.train.augment
    if isinstance(augment, dict):
        attempt("train.augment", lambda: Augment(**augment))
    baselines = _baselines(config)
    for label in {FINALIST} & {b.label for b in baselines}:
        problems.append(Problem(f"the name {label!r} is taken by the search's result", "baselines", "use another 'as'"))
    channels, classes = (data.info.channels, data.info.num_classes) if data else (1, 2)
    if data is not None and classes < 2:
        problems.append(
            Problem("there is only one class", "data", "segmentation needs background and at least one class")
        )
    sample = attempt("space", lambda: space(channels, classes, **config.space.options))
    drawn = None
    if sample is not None:
        unfit = misfit(strategy, config.strategy.name, config.space.name, sample)
        problems += unfit
        if control is None:
            drawn = attempt("space", lambda: _control(config, sample, data, compute, told=bool(unfit)))
        else:
            drawn = Architecture(config.space.name, dict(config.space.options), dict(control))
    if drawn is not None:
        options = dict(config.train.space_options)
        attempt("train", lambda: drawn.build(channels, classes, **options))
    for spec in baselines:
        if spec.role == "baseline":
            attempt(f"baselines, {spec.label}", partial(spec.build, channels, classes))
    raise_if(problems)
    assert data is not None and drawn is not None
    normalisation = Normalisation.from_split(data.train, channels)
    data = replace(data, notes=[*data.notes, *loss_notes])
    return Prepared(config, data, normalisation, compute, space, strategy, baselines, drawn, loss_options)


def prepared_again(
    config: ExperimentConfig, data: SegmentationData, normalisation: Normalisation, control: dict[str, Any]
) -> Prepared:
    """What :func:`prepare` returned in another process, without checking everything again.

    Args:
        config: The experiment.
        data: Its data.
        normalisation: Of the training split.
        control: Choices of the random control.

    Raises:
        UserError: This machine does not have the device.
    """
    compute = _compute_there(config)
    space = registry.load("space", config.space.name)
    strategy = registry.load("strategy", config.strategy.name)(**config.strategy.options)
    drawn = Architecture(config.space.name, dict(config.space.options), dict(control))
    return Prepared(config, data, normalisation, compute, space, strategy, _baselines(config), drawn)


def _compute_here(config: ExperimentConfig) -> Compute:
    """What this machine computes with; jobs for other machines find out there whether the device exists."""
    if config.compute.service != "local":
        return Compute.resolve()
    return _compute_there(config)


def _compute_there(config: ExperimentConfig) -> Compute:
    """What the machine that does a job computes with."""
    return Compute.resolve(config.compute.device, config.compute.precision, devices=config.compute.devices)


def _loss_options(config: ExperimentConfig, data: SegmentationData | None) -> tuple[dict[str, Any], list[str]]:
    """All options of the loss, which is built once to try them, and why they are what they are."""
    name, given = config.train.loss.name, config.train.loss.options
    loss = registry.load("loss", name)
    if data is None and needs_training(loss):
        return dict(given), []  # the data have to be mended first
    options, notes = (dict(given), []) if data is None else completed(name, given, data)
    loss(**options)
    return options, notes


def _baselines(config: ExperimentConfig) -> list[ModelSpec]:
    """What the experiment names; the control's architecture is filled in later."""
    return [
        ModelSpec(b.label, "control")
        if b.name == CONTROL
        else ModelSpec(b.label, "baseline", model=b.name, options=dict(b.options))
        for b in config.baselines
    ]


def _control(
    config: ExperimentConfig, sample: Any, data: SegmentationData | None, compute: Compute | None, told: bool
) -> Architecture | None:
    """The random architecture of the comparison; the limits can only be checked when the data are all right.

    None for a space whose decisions cannot be drawn, where the user has been ``told`` that no strategy fits.
    """
    try:
        decisions(sample)
    except TypeError:
        if told:
            return None
        raise
    space = (config.space.name, dict(config.space.options), sample, config.seed)
    if data is None or compute is None:
        return random_architecture(*space)
    height, width = data.val[0][1].shape[:2]
    return random_architecture(
        *space,
        objective=Objective(**config.objective.model_dump()),
        final_kwargs=dict(config.train.space_options),
        image=(data.info.channels, height, width),
        num_classes=data.info.num_classes,
        device=compute.device,
    )
