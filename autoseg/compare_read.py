"""Finished runs, read so that they can be put side by side: every problem of every run is found before any is told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoseg import __version__
from autoseg.card_weights import pretrained_weights
from autoseg.errors import Problem, UserError, raise_if
from autoseg.runfolder import RunFolder, read_json


class ModelScore(BaseModel):
    """A model as comparison.json describes it; fractions 0..1, None for what is not known."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    role: str
    params: int | None = None
    flops: int | None = None
    latency_ms: float | None = None
    miou: float | None
    miou_interval: tuple[float | None, float | None]
    seeds: list[dict[str, Any]] = Field(min_length=1)

    def mean(self, key: str) -> float | None:
        """Mean over the seeds of one of their numbers; None when no seed has it."""
        known = [float(seed[key]) for seed in self.seeds if isinstance(seed.get(key), (int, float))]
        return sum(known) / len(known) if known else None


class _Comparison(BaseModel):
    model_config = ConfigDict(extra="ignore")

    models: dict[str, ModelScore] = Field(min_length=1)
    verdict: dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """One finished run.

    Attributes:
        name: What tells it from the others: the name of its folder, with parents where two are called the same.
        dataset: Name of its data set.
        data_hash: Of its images and masks.
        models: Scores by label.
        verdict: The ``verdict`` of comparison.json.
        config: config.yaml.
        plan: plan.json.
        environment: environment.json.
    """

    name: str
    dataset: str
    data_hash: str
    models: Mapping[str, ModelScore]
    verdict: Mapping[str, Any]
    config: Mapping[str, Any]
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def baselines(self) -> list[dict[str, Any]]:
        """The entries of ``baselines`` in config.yaml."""
        listed = self.config.get("baselines")
        return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []

    @property
    def weights(self) -> dict[str, str | None]:
        """For each model the pretrained weights from which it began; None for one trained from scratch."""
        listed = {str(entry.get("as")): entry for entry in self.baselines}
        return {model: pretrained_weights(listed.get(model, {})) for model in self.models}


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Read finished runs.

    Args:
        paths: Run folders, each once.

    Returns:
        The runs, in the order given.

    Raises:
        UserError: With all problems of all runs: one is given twice, is no run, is not finished, is damaged, or was
            made by a release of autoseg whose results do not compare with this one's.
    """
    problems: list[Problem] = []
    if not paths:
        problems.append(Problem("there is no run to compare", "", "give the folders of finished runs"))
    places = Counter(path.resolve() for path in paths)
    for place, count in places.items():
        if count > 1:
            name = next(str(path) for path in paths if path.resolve() == place)
            problems.append(Problem(f"the run is given {count} times", name, "give every run once"))
    names = _names(list(places))
    runs = []
    for path in dict.fromkeys(paths):
        try:
            runs.append(_read(path, names[path.resolve()]))
        except UserError as error:
            problems += error.problems
    raise_if(problems)
    return runs


def series(version: str) -> str:
    """The releases whose results compare: those with the same first number, or the same first two before 1.0.

    Example:
        >>> series("0.1.3"), series("2.4.0")
        ('0.1', '2')
    """
    parts = version.split(".")
    return ".".join(parts[: 2 if parts[0] == "0" else 1])


def _names(places: Sequence[Path]) -> dict[Path, str]:
    """For each path its shortest end that no other has."""
    names = {}
    for place in places:
        ends = (length for length in range(1, len(place.parts)) if not _shared(place, length, places))
        names[place] = "/".join(place.parts[-next(ends, len(place.parts)) :])
    return names


def _shared(place: Path, length: int, places: Sequence[Path]) -> bool:
    return any(other != place and other.parts[-length:] == place.parts[-length:] for other in places)


def _read(path: Path, name: str) -> FinishedRun:
    """One run, or all of its problems."""
    if not path.is_dir():
        what = "is a file, not a run folder" if path.exists() else "there is no such run folder"
        raise UserError(Problem(what, str(path), "give the folder that 'autoseg run' wrote"))
    folder = RunFolder(path)
    if not folder.config.exists():
        raise UserError(Problem("holds no run: config.yaml is missing", str(path), "give a folder of 'autoseg run'"))
    if not folder.comparison.exists():
        fix = "continue it with 'autoseg run FILE --resume', or leave it out"
        raise UserError(Problem("the run is not finished: it has no comparison.json", str(path), fix))
    problems: list[Problem] = []
    config, plan, environment, content = (
        _object(file, problems) for file in (folder.config, folder.plan, folder.environment, folder.comparison)
    )
    found = None
    if content is not None:
        try:
            found = _Comparison.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            what = f"is not a comparison: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            problems.append(Problem(what, str(folder.comparison), f"write it again: autoseg report {path}"))
    if environment is not None:
        problems += _version_problems(folder, environment)
    raise_if(problems)
    assert config is not None and plan is not None and environment is not None and found is not None
    return FinishedRun(
        name,
        _dataset(folder, config),
        str(environment.get("data_hash") or ""),
        found.models,
        found.verdict,
        config,
        plan,
        environment,
    )


def _object(path: Path, problems: list[Problem]) -> dict[str, Any] | None:
    """The content of a JSON or YAML file that must be an object."""
    fix = "restore it, or leave the run out"
    try:
        value = read_json(path) if path.suffix == ".json" else yaml.safe_load(path.read_text(encoding="utf-8"))
    except UserError as error:
        problems += error.problems
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(Problem(f"cannot be read ({str(error).splitlines()[0]})", str(path), fix))
        return None
    if not isinstance(value, dict):
        problems.append(Problem("is damaged: it holds no object", str(path), fix))
        return None
    infinite = next(_not_finite(value), None)
    if infinite is not None:
        problems.append(Problem(f"{infinite} is not a finite number, so it cannot be compared", str(path), fix))
        return None
    return value


def _not_finite(value: Any, key: str = "") -> Iterator[str]:
    """The keys of numbers that are infinite or no number."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key
    if isinstance(value, (dict, list)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_finite(item, f"{key}.{name}" if key else str(name))


def _version_problems(folder: RunFolder, environment: Mapping[str, Any]) -> list[Problem]:
    version = str(environment.get("autoseg") or "an unknown version")
    if series(version) == series(__version__):
        return []
    what = f"the run was made by autoseg {version}, and this is {__version__}: their results do not compare"
    return [Problem(what, str(folder.environment), "run it again with this version, or leave it out")]


def _dataset(folder: RunFolder, config: Mapping[str, Any]) -> str:
    """Name of the data set as it calls itself, which a trained model knows; else that of its plugin."""
    for description in sorted(folder.models.glob("*/seed-*/model.json")):
        try:
            return str(read_json(description)["info"]["name"])
        except (UserError, KeyError, TypeError):
            continue
    data = config.get("data")
    return str(data.get("dataset") or folder.path.name) if isinstance(data, dict) else folder.path.name
