"""Several finished runs side by side: models over data sets, their ranks, and what must be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg import __version__
from autoseg.card_weights import unequal_start
from autoseg.compare_notes import protocol, warnings
from autoseg.compare_read import FinishedRun, ModelScore, read_runs
from autoseg.ranks import Ranking, rank

SOURCE = (
    "J. Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, "
    "Journal of Machine Learning Research 7 (2006), 1-30"
)
_FEW_DATASETS, _FEW_MODELS = 10, 5  # below these the chi-squared distribution is a rough guide (Demsar 2006)
ROLES = ("finalist", "baseline", "control")


@dataclass(frozen=True)
class ComparedRuns:
    """Finished runs side by side.

    Attributes:
        runs: The runs, those on one data set together.
        datasets: Names of the data sets, in the order of the runs.
        models: Names of all models, best mean rank first; those without a rank last.
        ranking: Over the models that have a score on every data set.
        left_out: Each other model, with the data sets on which it has no score in some run.
        warnings: What does not compare.
        notes: What else must be known to read the ranks.
    """

    runs: list[FinishedRun]
    datasets: list[str]
    models: list[str]
    ranking: Ranking
    left_out: dict[str, list[str]]
    warnings: list[str]
    notes: list[str]

    def cell(self, model: str, run: FinishedRun) -> ModelScore | None:
        """What a model has reached in a run; None when it was not trained there."""
        return run.models.get(model)

    def role(self, model: str) -> str:
        """What a model is in the first run that has it."""
        return next(run.models[model].role for run in self.runs if model in run.models)

    def weights(self, model: str) -> str:
        """The pretrained weights from which a model began in any of the runs; empty for one trained from scratch."""
        return ", ".join(dict.fromkeys(name for run in self.runs if (name := run.weights.get(model))))

    def score(self, model: str, dataset: str) -> float | None:
        """Mean mIoU (0..1) over the runs on a data set; None unless all of them have one."""
        return _score(self.runs, model, dataset)

    def mean(self, model: str) -> float | None:
        """Mean mIoU (0..1) over the data sets; None unless there is one on all of them."""
        known = [value for dataset in self.datasets if (value := self.score(model, dataset)) is not None]
        return sum(known) / len(known) if len(known) == len(self.datasets) else None

    def to_json(self) -> dict[str, Any]:
        """The content of compare.json: fractions 0..1, None for what is not known."""
        return {
            "autoseg": __version__,
            "runs": {
                run.name: {
                    "dataset": run.dataset,
                    "data_hash": run.data_hash,
                    "protocol": protocol(run),
                    "verdict": dict(run.verdict),
                }
                for run in self.runs
            },
            "datasets": {
                dataset: {
                    "runs": [run.name for run in self.runs if run.dataset == dataset],
                    "miou": {model: self.score(model, dataset) for model in self.models},
                }
                for dataset in self.datasets
            },
            "models": {
                model: {
                    "role": self.role(model),
                    "weights": self.weights(model) or None,
                    "miou": self.mean(model),
                    "mean_rank": dict(zip(self.ranking.models, self.ranking.mean_ranks, strict=True)).get(model),
                    "runs": {run.name: _plain(run.models.get(model)) for run in self.runs},
                }
                for model in self.models
            },
            "ranking": self.ranking.to_json() | {"datasets": self.datasets, "source": SOURCE},
            "left_out": self.left_out,
            "warnings": self.warnings,
            "notes": self.notes,
        }


def compare_runs(paths: Sequence[Path | str], alpha: float = 0.05) -> ComparedRuns:
    """Put finished runs side by side.

    A data set is what calls itself by one name; several runs on it are repetitions, told apart by the names of their
    folders, and count once in the ranks, with the mean of their scores.

    Args:
        paths: Run folders.
        alpha: Level of the tests.

    Raises:
        UserError: With all problems of all runs, see :func:`autoseg.compare_read.read_runs`.
    """
    runs = read_runs([Path(path) for path in paths])
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    runs = sorted(runs, key=lambda run: datasets.index(run.dataset))
    names = list(dict.fromkeys(model for run in runs for model in run.models))
    left_out: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    for model in names:
        values = {dataset: _score(runs, model, dataset) for dataset in datasets}
        missing = [dataset for dataset, value in values.items() if value is None]
        if missing:
            left_out[model] = missing
        else:
            scores[model] = [value for value in values.values() if value is not None]
    ranking = rank(scores, alpha)
    rest = sorted(left_out, key=lambda model: -_best(runs, model))
    found = warnings(runs)
    return ComparedRuns(
        runs, datasets, [*ranking.models, *rest], ranking, left_out, found, _notes(runs, datasets, ranking, left_out)
    )


def _score(runs: Sequence[FinishedRun], model: str, dataset: str) -> float | None:
    values = []
    for run in runs:
        if run.dataset == dataset:
            cell = run.models.get(model)
            if cell is None or cell.miou is None:
                return None
            values.append(cell.miou)
    return sum(values) / len(values)


def _best(runs: Sequence[FinishedRun], model: str) -> float:
    return max((cell.miou or 0.0 for run in runs if (cell := run.models.get(model))), default=0.0)


def _plain(cell: ModelScore | None) -> dict[str, Any] | None:
    """A cell of the table: means over the seeds."""
    if cell is None:
        return None
    return {
        "miou": cell.miou,
        "miou_interval": list(cell.miou_interval),
        "dice": cell.mean("dice"),
        "accuracy": cell.mean("accuracy"),
        "params": cell.params,
        "flops": cell.flops,
        "latency_ms": cell.latency_ms,
        "train_seconds": cell.mean("train_seconds"),
        "seeds": len(cell.seeds),
    }


def _notes(
    runs: Sequence[FinishedRun], datasets: Sequence[str], ranking: Ranking, left_out: dict[str, list[str]]
) -> list[str]:
    """What else must be known."""
    notes = [ranking.why_not] if ranking.why_not else []
    notes += [_missing(runs, model, missing) for model, missing in left_out.items()]
    several = [dataset for dataset in datasets if sum(run.dataset == dataset for run in runs) > 1]
    if several:
        notes.append(f"Several runs on {' and '.join(several)}: their mean counts in the ranks, as one data set.")
    if ranking.p_value is not None and not ranking.differs:
        notes.append(
            f"The Friedman test finds no difference between the models (p = {ranking.p_value:.2g}), so no two of them "
            "may be told apart, whatever the critical difference says."
        )
    if ranking.p_value is not None and (len(datasets) < _FEW_DATASETS or len(ranking.models) < _FEW_MODELS):
        notes.append(
            f"With {len(datasets)} data sets and {len(ranking.models)} models the p value is a rough guide: the "
            f"test is made for about {_FEW_DATASETS} data sets and {_FEW_MODELS} models or more."
        )
    told: dict[str, list[str]] = {}
    for run in runs:
        for note in run.verdict.get("notes") or []:
            if note != unequal_start(run.weights):  # a warning says it
                told.setdefault(str(note), []).append(run.name)
    return notes + [f"{', '.join(names)}: {note}" for note, names in told.items()]


def _missing(runs: Sequence[FinishedRun], model: str, datasets: Sequence[str]) -> str:
    """Why a model has no rank; in some of several runs on a data set it may well have a score."""
    somewhere = {run.dataset for run in runs if (cell := run.models.get(model)) and cell.miou is not None}
    nowhere = [dataset for dataset in datasets if dataset not in somewhere]
    partly = [dataset for dataset in datasets if dataset in somewhere]
    said = [f"has no score on {' and '.join(nowhere)}"] if nowhere else []
    said += [f"is not in all runs on {' and '.join(partly)}"] if partly else []
    return f"{model} {' and '.join(said)}: it is shown as n/a there and left out of the ranks."
