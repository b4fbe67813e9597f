"""What the report reads from a run folder.

A run may be unfinished, killed in the middle of a line, or made without a search. Everything that can be
read is returned, and what cannot is named in ``Run.missing`` in words for the reader of the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autoseg.card_weights import pretrained_weights
from autoseg.errors import Problem, UserError
from autoseg.report.palette import model_colors
from autoseg.report.reading import mean, number, read_config, read_history, read_lines, read_object
from autoseg.runfolder import RunFolder

ROLE_ORDER = ("finalist", "baseline", "control")


@dataclass
class SeedRun:
    """The folder of one training: its curve, its test result, its description and what it costs to use."""

    seed: int
    folder: Path
    history: list[dict[str, float | None]] = field(default_factory=list)
    test: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelRun:
    """One model of the comparison.

    Attributes:
        seeds: One dict per seed, as in ``comparison.json``; fractions 0..1.
        runs: What lies in ``models/<name>/seed-<k>/``, lowest seed first.
    """

    name: str
    role: str
    params: float | None = None
    flops: float | None = None
    latency_ms: float | None = None
    miou: float | None = None
    interval: tuple[float, float] | None = None
    seeds: list[dict[str, Any]] = field(default_factory=list)
    runs: list[SeedRun] = field(default_factory=list)
    color: str = ""

    @property
    def shown(self) -> SeedRun | None:
        """The training whose predictions are on disk: the first seed."""
        with_pictures = [run for run in self.runs if (run.folder / "predictions").is_dir()]
        return next(iter(with_pictures or self.runs), None)

    @property
    def weights(self) -> str | None:
        """The pretrained weights from which it began, as its description says; None for one from scratch."""
        builds = [build for run in self.runs if isinstance(build := run.card.get("build"), dict)]
        return next(filter(None, map(pretrained_weights, builds)), None)

    def mean(self, key: str) -> float | None:
        """Mean over the seeds of a number of ``comparison.json``; None when no seed has it."""
        return mean(seed.get(key) for seed in self.seeds)

    def image_scores(self) -> dict[str, float]:
        """MIoU (0..1) of each test image for the first seed; images without a score are left out."""
        images = self.shown.test.get("images", []) if self.shown else []
        scores = {str(i.get("name")): number(i.get("miou")) for i in images if isinstance(i, dict)}
        return {name: score for name, score in scores.items() if score is not None}


@dataclass
class Run:
    """Everything the report shows, read once."""

    folder: Path
    config_text: str
    config: dict[str, Any]
    plan: dict[str, Any]
    environment: dict[str, Any]
    architecture: dict[str, Any]
    epochs: list[dict[str, Any]]
    candidates: list[dict[str, Any]]
    pareto: dict[str, Any]
    audit: dict[str, Any]
    models: list[ModelRun]
    verdict: dict[str, Any]
    missing: list[str]
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the run: the one in the experiment file, else that of the folder."""
        return str(self.config.get("name") or self.folder.resolve().name)

    @property
    def dataset(self) -> str:
        """Name of the data set in the experiment file, or an empty string."""
        data = self.config.get("data")
        return str(data.get("dataset") or "") if isinstance(data, dict) else str(data or "")

    @property
    def date(self) -> str:
        """Day of the run (ISO): as noted in environment.json, else when its files were last written."""
        for key in ("started", "date", "created", "time"):
            value = self.environment.get(key)
            if isinstance(value, str) and value[:4].isdigit():
                return value[:10]
        times = [p.stat().st_mtime for p in self.folder.glob("*") if p.suffix in (".json", ".yaml")]
        return datetime.fromtimestamp(max(times)).date().isoformat() if times else ""

    @property
    def finalist(self) -> ModelRun | None:
        """The searched model; without one, the first model of the table."""
        return self.models[0] if self.models else None


def read_run(folder: Path) -> Run:
    """Read a run folder, finished or not.

    Args:
        folder: The run folder.

    Returns:
        What was found; sentences about what was not are in ``missing``.

    Raises:
        UserError: When ``folder`` is not a directory.

    Example:
        >>> import tempfile
        >>> read_run(Path(tempfile.mkdtemp())).missing[0]
        'The resolved experiment file (config.yaml) is missing.'
    """
    if not folder.is_dir():
        raise UserError(Problem("there is no such run folder", str(folder), "give the folder that 'autoseg run' wrote"))
    missing: list[str] = []
    config_text, config = read_config(folder / "config.yaml", missing)
    plan = read_object(folder / "plan.json", missing, "The plan (plan.json) is missing.")
    environment = read_object(
        folder / "environment.json", missing, "Versions and machine (environment.json) are missing."
    )
    architecture = read_object(
        folder / "architecture.json",
        missing,
        "No architecture was found yet, or none was searched (architecture.json).",
    )
    searched = RunFolder(folder).winning_search(architecture)
    lines = read_lines(searched / "journal.jsonl")
    if not lines:
        missing.append("There is no search journal (search/journal.jsonl), so no search curves and no candidates.")
    comparison = read_object(folder / "comparison.json", missing, _UNFINISHED)
    models = _models(folder, comparison)
    if not models:
        missing.append("No trained model was found (models/).")
    elif comparison and len(models) == 1:
        missing.append("Only one model was trained, so there is nothing to compare it with.")
    elif comparison and all(model.role != "baseline" for model in models):
        missing.append("No hand-designed baseline was trained.")
    verdict = comparison.get("verdict")
    return Run(
        folder=folder,
        config_text=config_text,
        config=config,
        plan=plan,
        environment=environment,
        architecture=architecture,
        epochs=[line for line in lines if line.get("kind") == "epoch"],
        candidates=[line for line in lines if line.get("kind") == "candidate"],
        pareto=read_object(searched / "pareto.json"),
        audit=read_object(folder / "audit" / "audit.json"),
        models=models,
        verdict=verdict if isinstance(verdict, dict) else {},
        missing=missing,
        failures=_failures(folder / "failures.json"),
    )


_UNFINISHED = (
    "The run is not finished: there is no comparison.json, so no verdict and no intervals. "
    "Values are those of the trainings that have been tested so far."
)


def _failures(path: Path) -> list[dict[str, str]]:
    """What failed in the run, as texts."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    rows = found if isinstance(found, list) else []
    return [{key: str(row.get(key, "")) for key in ("job", "message", "log")} for row in rows if isinstance(row, dict)]


def _seed_runs(folder: Path) -> list[SeedRun]:
    """The trainings of one model, lowest seed first."""
    runs = []
    for path in folder.glob("seed-*"):
        seed = path.name.removeprefix("seed-")
        if path.is_dir() and seed.isdigit():
            test, card, cost = (read_object(path / f"{name}.json") for name in ("test", "model", "cost"))
            runs.append(SeedRun(int(seed), path, read_history(path / "history.csv"), test, card, cost))
    return sorted(runs, key=lambda run: run.seed)


def _models(folder: Path, comparison: Mapping[str, Any]) -> list[ModelRun]:
    """The models of the comparison by role and score; of an unfinished run, those that have a folder."""
    entries = comparison.get("models")
    if isinstance(entries, dict) and entries:
        models = [_compared(name, entry, folder) for name, entry in entries.items() if isinstance(entry, dict)]
    else:
        folders = sorted(p for p in (folder / "models").glob("*") if p.is_dir())
        models = [_tested(path) for path in folders]
    models.sort(key=_place)
    for model, color in zip(models, model_colors([m.role for m in models]), strict=True):
        model.color = color
    return models


def _place(model: ModelRun) -> tuple[int, float]:
    """Finalists first, in the order of the run (the verdict is about the first), then the others by score."""
    role = ROLE_ORDER.index(model.role) if model.role in ROLE_ORDER else 1
    return role, 0.0 if role == 0 else -(model.miou or 0.0)


def _compared(name: str, entry: Mapping[str, Any], folder: Path) -> ModelRun:
    """A model as comparison.json describes it."""
    seeds = [seed for seed in entry.get("seeds") or [] if isinstance(seed, dict)]
    interval = entry.get("miou_interval")
    bounds = [number(v) for v in interval] if isinstance(interval, list) and len(interval) == 2 else []
    return ModelRun(
        name=name,
        role=str(entry.get("role") or "model"),
        params=number(entry.get("params")),
        flops=number(entry.get("flops")),
        latency_ms=number(entry.get("latency_ms")),
        miou=number(entry.get("miou")),
        interval=(bounds[0], bounds[1]) if len(bounds) == 2 and None not in bounds else None,  # type: ignore[arg-type]
        seeds=seeds,
        runs=_seed_runs(folder / "models" / name),
    )


def _tested(path: Path) -> ModelRun:
    """A model of an unfinished run, from the test results of its seeds so far."""
    runs = _seed_runs(path)
    seeds = [run.test for run in runs if run.test]
    first: dict[str, Any] = seeds[0] if seeds else {}
    card: dict[str, Any] = next((run.card for run in runs if run.card), {})
    cost: dict[str, Any] = next((run.cost for run in runs if run.cost), {})
    role = first.get("role") or (card.get("build") or {}).get("role")
    return ModelRun(
        name=path.name,
        role=str(role or "model"),
        params=number(first.get("params")),
        flops=number(cost.get("flops")),
        latency_ms=number(cost.get("latency_ms")),
        miou=mean(seed.get("miou") for seed in seeds),
        seeds=seeds,
        runs=runs,
    )
