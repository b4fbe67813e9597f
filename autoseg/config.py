"""The experiment file: its schema, and reading it with every problem reported at once.

Only ``data`` must be given. What stays None here (epochs, batch size, ...) is decided by the plan from the
data and the machine. The field descriptions are the reference of the file, and the hints of its errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError, model_validator

from autoseg.config_check import check_combinations, check_plugins, default_label, expand
from autoseg.config_compute import ComputeConfig, Section, auto_or_whole, check_compute
from autoseg.config_errors import problems_of
from autoseg.config_presets import take_presets, unknown_preset, with_preset
from autoseg.config_types import Amount, Duration, Slug, Switch
from autoseg.config_yaml import Document, dump, read_document
from autoseg.errors import Problem, UserError, raise_if

Options = dict[str, Any]


class PluginConfig(Section):
    """A plugin and its options."""

    name: str = Field(description="the name of a plugin, see 'autoseg list'")
    options: Options = Field(default_factory=dict, description="keyword options of the plugin")


class StrategyConfig(PluginConfig):
    """A strategy, its options, and the batches it searches on."""

    batch: int | None = Field(
        default=None, ge=1, description="images per step in the search, 1 or more (default: that of train)"
    )
    patch: int | None = Field(
        default=None, ge=8, description="side of the square crop in the search, pixels (default: that of train)"
    )
    repeats: int = Field(default=1, ge=1, le=20, description="one-shot searches with different seeds, 1 to 20")


class ScheduleConfig(Section):
    """A schedule of the learning rate, see :mod:`autoseg.train.schedules`, and its options."""

    name: str = Field(description="cosine, constant, exponential, cosine-annealing or cosine-restarts")
    options: Options = Field(default_factory=dict, description="options of the schedule")


class DataConfig(Section):
    """Where images and masks come from."""

    dataset: str = Field(description="a data set plugin ('autoseg list datasets'), or give images and masks folders")
    options: Options = Field(default_factory=dict, description="keyword options of the data set")


class TrainConfig(Section):
    """How finalists and baselines are trained; None is decided by the plan."""

    epochs: int | None = Field(default=None, ge=1, description="passes over the training images, 1 or more")
    seconds: Duration | None = Field(default=None, description="training time of one network such as 90s or 10min")
    batch: int | None = Field(default=None, ge=1, description="images per step, 1 or more")
    patch: int | None = Field(default=None, ge=8, description="side of the square training crop in pixels, 8 or more")
    lr: float = Field(default=3e-3, gt=0, le=10, description="highest learning rate, such as 0.003")
    weight_decay: float = Field(default=1e-4, ge=0, le=10, description="weight decay, 0 or more, such as 0.0001")
    optimiser: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="adamw, adam or sgd")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd, from 0 to below 1")
    schedule: ScheduleConfig = Field(
        default=ScheduleConfig(name="cosine"), description="how the learning rate changes in the course of the training"
    )
    loss: PluginConfig = Field(default=PluginConfig(name="ce+dice"), description="a loss plugin")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    augment: Switch = Field(default=True, description="true, false or settings of the augmentation")
    validate_every: int | None = Field(
        default=None, ge=1, description="epochs from validation to validation, 1 or more"
    )
    space_options: Options = Field(
        default_factory=dict, description="options of the space that differ in the final training, as layers: 5"
    )


class BaselineConfig(PluginConfig):
    """A network to compare with; the name ``random`` is the control, a random architecture of the space."""

    label: Slug = Field(alias="as", description="what it is called in the results, unique (default: its name)")

    @model_validator(mode="before")
    @classmethod
    def _label_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("name"), str) and not {"as", "label"} & data.keys():
            return {**data, "as": default_label(data["name"])}
        return data


class ObjectiveConfig(Section):
    """Hard limits on the final network; within them the validation mIoU decides."""

    max_params: Amount | None = Field(default=None, description="most parameters, such as 2M")
    max_flops: Amount | None = Field(
        default=None, description="most floating-point operations for one validation image, such as 10G"
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="most milliseconds for one validation image on the device of the run"
    )


class UiConfig(Section):
    """NNI's web page of a running search."""

    enabled: bool = Field(default=True, description="true or false")
    port: Annotated[int | Literal["auto"], PlainValidator(auto_or_whole(1, 65534))] = Field(
        default="auto", description="auto or a port from 1 to 65534; the next one is needed too"
    )


def _default_baselines() -> list[BaselineConfig]:
    """A U-Net as slim as the default search space, and the random control."""
    slim = {"name": "unet", "options": {"width": 16}}
    return [BaselineConfig.model_validate(baseline) for baseline in (slim, {"name": "random"})]


class ExperimentConfig(Section):
    """A whole experiment file, short forms written out and defaults filled in.

    Example:
        >>> config = ExperimentConfig(data=DataConfig(dataset="synthetic-ceramic"))
        >>> config.space.name, [baseline.label for baseline in config.baselines], config.train.clip
        ('ednas', ['unet', 'random'], 1.0)
    """

    name: Slug = Field(default="experiment", description="the name of the run, also of its folder")
    seed: int = Field(default=0, ge=0, lt=2**32, description="where all random numbers start, 0 or more")
    budget: Duration | None = Field(default=None, description="time for the whole run such as 10min, 2h or 1h30m")
    data: DataConfig = Field(description="the images, such as {dataset: synthetic-ceramic} or {images: a, masks: b}")
    space: PluginConfig = Field(default=PluginConfig(name="ednas"), description="what is searched")
    strategy: StrategyConfig = Field(default=StrategyConfig(name="enas"), description="how it is searched")
    objective: ObjectiveConfig = Field(default=ObjectiveConfig(), description="limits on the network to find")
    train: TrainConfig = Field(default=TrainConfig(), description="how networks are trained")
    baselines: list[BaselineConfig] = Field(
        default=_default_baselines(), description="a list of models to compare with, such as [unet, random]"
    )
    repeats: int = Field(default=2, ge=1, le=20, description="trainings of each network with different seeds, 1 to 20")
    compute: ComputeConfig = Field(default=ComputeConfig(), description="device, workers, precision, other machines")
    ui: UiConfig = Field(default=UiConfig(), description="the web page of the search")

    def to_yaml(self) -> str:
        """The configuration as an experiment file in which nothing is left to a default.

        Reading it back with :func:`load_config` gives an equal configuration.
        """
        return dump(self.model_dump(mode="json", by_alias=True))


def load_config(
    source: Path | str | Mapping[str, Any], overrides: Sequence[str] = (), preset: str | None = None
) -> ExperimentConfig:
    """Read an experiment file and check it against the schema and the installed plugins.

    Relative paths in options that a plugin annotates as ``Path`` are made absolute: from the folder of the
    file when they were written there, from the current folder otherwise.

    Args:
        source: Path of a YAML file, or the same content as a dictionary.
        overrides: ``"key.sub=value"`` texts as given to ``--set``, applied in order; values are YAML.
        preset: Which of the file's ``presets`` to put over the file before the overrides; None for none of them.

    Returns:
        The complete configuration. Its name is the stem of the file unless one is given.

    Raises:
        UserError: With every problem found: syntax, unknown keys, values out of range, unknown plugins and
            options, combinations that exclude each other; each with file, line and key. The presets that were not
            chosen are checked too, except that they may name plugins that are not installed here.
    """
    document, others = _read(source, overrides, preset)
    if not isinstance(source, Mapping) and "name" not in document.data:
        document.data["name"] = re.sub(r"[^A-Za-z0-9._+-]+", "-", Path(source).stem).strip("-._+")[:100] or "experiment"
    problems = _problems_of_presets(others)
    try:
        config = _validated(document)
    except UserError as error:
        raise UserError([*error.problems, *(p for p in problems if p not in error.problems)]) from error
    raise_if(problems)
    return config


def load_data_section(
    source: Path | str | Mapping[str, Any], overrides: Sequence[str] = (), preset: str | None = None
) -> ExperimentConfig:
    """The experiment with its data and nothing else, to look at the data of a file that is wrong elsewhere.

    Raises:
        UserError: The file cannot be read, or its section ``data`` is wrong itself.
    """
    document, _ = _read(source, overrides, preset)
    document.data = {key: value for key, value in document.data.items() if key == "data"}
    document.problems = []
    return _validated(document)


def _read(
    source: Path | str | Mapping[str, Any], overrides: Sequence[str], preset: str | None
) -> tuple[Document, list[Document]]:
    """The raw content with preset and overrides applied and short forms written out.

    Returns:
        It, and where there are presets that were not chosen, the file alone and with each of them.
    """
    file = read_document(source)
    presets = take_presets(file)
    keys, defaults = set(TrainConfig.model_fields), _default_plugins()
    if preset is not None and preset not in presets:
        file.problems.append(unknown_preset(preset, presets))
        preset = None
    others = [with_preset(file, name, presets[name], defaults, keys) for name in presets if name != preset]
    if others:
        others.insert(0, with_preset(file, "", {}, defaults, keys))
    document = file if preset is None else with_preset(file, preset, presets[preset], defaults, keys)
    for text in overrides:
        document.override(text)
    expand(document.data, keys)
    return document, others


def _problems_of_presets(documents: list[Document]) -> list[Problem]:
    """What is wrong with presets that were not chosen, and not with the file without them, which comes first."""
    found: list[list[Problem]] = []
    for document in documents:
        document.installed_only = True
        try:
            _validated(document)
            found.append([])
        except UserError as error:
            found.append(list(error.problems))
    return [problem for preset in found[1:] for problem in preset if problem not in found[0]]


def _default_plugins() -> dict[str, str]:
    """What stands for a plugin that a file does not name, by the last part of the key of its section."""
    fields, train = ExperimentConfig.model_fields, TrainConfig.model_fields
    sections = {key: fields[key] for key in ("space", "strategy")} | {key: train[key] for key in ("loss", "schedule")}
    return {key: section.default.name for key, section in sections.items()}


def _validated(document: Document) -> ExperimentConfig:
    """Check against plugins and schema; all problems together."""
    fields, train = ExperimentConfig.model_fields, TrainConfig.model_fields
    problems = check_plugins(document, _default_plugins(), train.keys() - {"space_options"})
    problems += check_combinations(document, fields["repeats"].default)
    problems += check_compute(document)
    try:
        config = ExperimentConfig.model_validate(document.data)
    except ValidationError as error:
        schema = problems_of(error, ExperimentConfig, document.where)
        raise UserError([*document.problems, *schema, *problems]) from error
    raise_if([*document.problems, *problems])
    return config
