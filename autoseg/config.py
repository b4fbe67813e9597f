"""The experiment file: its schema, and reading it with every problem reported at once.

Only ``data`` must be given. What stays None here (epochs, batch size, ...) is decided by the plan from the
data and the machine. The field descriptions are the reference of the file, and the hints of its errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from autoseg.config_check import check_combinations, check_plugins, default_label, expand
from autoseg.config_compute import ComputeConfig, Section, auto_or_whole, check_compute
from autoseg.config_errors import problems_of
from autoseg.config_yaml import Document, dump, read_document
from autoseg.durations import parse_duration
from autoseg.errors import UserError, raise_if

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def _duration(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except UserError as error:
        raise ValueError(error.problems[0].what) from None
    if seconds <= 0:
        raise ValueError("must be longer than nothing")
    return seconds


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError("must start with a letter or digit and go on with letters, digits or one of . _ + -")
    return value


def _switch_or_settings(value: Any) -> Any:
    if isinstance(value, bool | dict):
        return value
    raise ValueError("must be true, false or a section of settings")


def _amount(value: Any) -> int:
    """A count, possibly written with k, M or G; ``"1.5M"`` is 1,500,000."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kMG]?)", str(value).strip())
    units = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
    count = 0 if match is None or isinstance(value, bool) else round(float(match[1]) * units[match[2]])
    if count < 1:
        raise ValueError("must be a number above 0, such as 500k, 2M or 1.5G")
    return count


Amount = Annotated[int, PlainValidator(_amount)]
"""A count, more than 0, as a number or with k, M or G."""
Duration = Annotated[float, PlainValidator(_duration)]
"""Seconds, more than 0; read with :func:`autoseg.durations.parse_duration`."""
Slug = Annotated[str, AfterValidator(_slug)]
"""A name that is safe as the name of a folder."""
Options = dict[str, Any]


class PluginConfig(Section):
    """A plugin and its options."""

    name: str = Field(description="the name of a plugin, see 'autoseg list'")
    options: Options = Field(default_factory=dict, description="keyword options of the plugin")


class StrategyConfig(PluginConfig):
    """A strategy, its options, and the crops it searches on."""

    patch: int | None = Field(
        default=None, ge=8, description="side of the square crop in the search, pixels (default: that of train)"
    )
    repeats: int = Field(default=1, ge=1, le=20, description="one-shot searches with different seeds, 1 to 20")


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
    loss: PluginConfig = Field(default=PluginConfig(name="ce+dice"), description="a loss plugin")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 turns clipping off")
    augment: Annotated[bool | dict[str, Any], PlainValidator(_switch_or_settings)] = Field(
        default=True, description="true, false or settings of the augmentation"
    )
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


def load_config(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment file and check it against the schema and the installed plugins.

    Relative paths in options that a plugin annotates as ``Path`` are made absolute: from the folder of the
    file when they were written there, from the current folder otherwise.

    Args:
        source: Path of a YAML file, or the same content as a dictionary.
        overrides: ``"key.sub=value"`` texts as given to ``--set``, applied in order; values are YAML.

    Returns:
        The complete configuration. Its name is the stem of the file unless one is given.

    Raises:
        UserError: With every problem found: syntax, unknown keys, values out of range, unknown plugins and
            options, combinations that exclude each other; each with file, line and key.
    """
    document = _read(source, overrides)
    if not isinstance(source, Mapping) and "name" not in document.data:
        document.data["name"] = re.sub(r"[^A-Za-z0-9._+-]+", "-", Path(source).stem).strip("-._+")[:100] or "experiment"
    return _validated(document)


def load_data_section(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment with its data and nothing else, to look at the data of a file that is wrong elsewhere.

    Raises:
        UserError: The file cannot be read, or its section ``data`` is wrong itself.
    """
    document = _read(source, overrides)
    document.data = {key: value for key, value in document.data.items() if key == "data"}
    document.problems = []
    return _validated(document)


def _read(source: Path | str | Mapping[str, Any], overrides: Sequence[str]) -> Document:
    """The raw content with the overrides applied and short forms written out."""
    document = read_document(source)
    for text in overrides:
        document.override(text)
    expand(document.data, set(TrainConfig.model_fields))
    return document


def _validated(document: Document) -> ExperimentConfig:
    """Check against plugins and schema; all problems together."""
    fields, train = ExperimentConfig.model_fields, TrainConfig.model_fields
    defaults = {kind: fields[kind].default.name for kind in ("space", "strategy")} | {
        "loss": train["loss"].default.name
    }
    problems = check_plugins(document, defaults, train.keys() - {"space_options"})
    problems += check_combinations(document, fields["repeats"].default)
    problems += check_compute(document)
    try:
        config = ExperimentConfig.model_validate(document.data)
    except ValidationError as error:
        schema = problems_of(error, ExperimentConfig, document.where)
        raise UserError([*document.problems, *schema, *problems]) from error
    raise_if([*document.problems, *problems])
    return config
