"""``compare.html``: models over data sets, their ranks, and what must be known before believing them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg import __version__
from autoseg.compare_notes import differences, protocol
from autoseg.compare_read import FinishedRun, ModelScore
from autoseg.compare_runs import ROLES, SOURCE, ComparedRuns
from autoseg.compare_words import headline, ranks_sentence, short_test
from autoseg.errors import Problem, UserError
from autoseg.report.compare_figures import rank_figure, score_figure
from autoseg.report.formats import NOT_KNOWN, amount, duration, flops, milliseconds, percent
from autoseg.report.palette import model_colors
from autoseg.report.tables import Cell, flatten, mark_best
from autoseg.report.template import fill
from autoseg.runfolder import write_json, write_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """Scores on a data set: those of one run, or, where there are several, their mean; only one of both is ranked."""

    dataset: str
    run: FinishedRun | None
    note: str
    ranked: bool


@dataclass(frozen=True)
class ModelLine:
    """One model of the page: rank, one cell for each column of the scores, and the range of what it costs."""

    name: str
    role: str
    weights: str
    color: str
    mean_rank: Cell
    mean: Cell
    cells: list[Cell]
    intervals: list[str]
    ranks: list[str]
    costs: list[str]


def write_comparison(compared: ComparedRuns, out: Path) -> list[Path]:
    """Write ``compare.html`` and ``compare.json``.

    Args:
        compared: The runs.
        out: A folder; it is made when it is missing.

    Returns:
        Both paths, the page first. Either file is replaced whole or not at all.

    Raises:
        UserError: The folder cannot be made or written to.
    """
    html, facts = render_comparison(compared), compared.to_json()
    try:
        written = [write_text(out / "compare.html", html), write_json(out / "compare.json", facts)]
    except OSError as error:
        what = f"the comparison cannot be written there ({error.strerror or error})"
        raise UserError(Problem(what, str(out), "choose another folder with --out")) from error
    log.info("comparison written: %s", written[0])
    return written


def render_comparison(compared: ComparedRuns) -> str:
    """The page as text."""
    order = sorted(compared.models, key=lambda name: ROLES.index(role) if (role := compared.role(name)) in ROLES else 1)
    colors = dict(zip(order, model_colors([compared.role(name) for name in order]), strict=True))
    ranking = compared.ranking
    columns = _columns(compared)
    differing = differences(compared.runs)
    protocols = [dict(flatten(protocol(run))) for run in compared.runs]
    keys = list(dict.fromkeys(key for found in protocols for key in found))
    return fill(
        "compare.html.j2",
        compared=compared,
        ranking=ranking,
        headline=headline(compared),
        test=ranks_sentence(compared),
        short=short_test(compared),
        columns=columns,
        lines=_lines(compared, colors, columns),
        score_svg=score_figure(compared, colors),
        rank_svg=rank_figure(ranking),
        protocol_rows=[
            (key, [found.get(key, NOT_KNOWN) for found in protocols], any(_within(key, name) for name in differing))
            for key in keys
        ],
        notes=[note for note in compared.notes if note != ranking.why_not],
        source=SOURCE,
        autoseg_version=__version__,
    )


def _columns(compared: ComparedRuns) -> list[Column]:
    """A column for every run, and one for the mean of several on one data set."""
    columns = []
    for dataset in compared.datasets:
        runs = [run for run in compared.runs if run.dataset == dataset]
        several = len(runs) > 1
        columns += [Column(dataset, run, run.name if several else "", not several) for run in runs]
        columns += [Column(dataset, None, f"mean of {len(runs)} runs", True)] if several else []
    return columns


def _lines(compared: ComparedRuns, colors: dict[str, str], columns: Sequence[Column]) -> list[ModelLine]:
    """The rows of the tables."""
    models, ranking = compared.models, compared.ranking
    mean_rank = dict(zip(ranking.models, ranking.mean_ranks, strict=True))
    by_rank = mark_best([mean_rank.get(m) for m in models], -1, lambda v: NOT_KNOWN if v is None else f"{v:.2f}")
    means = mark_best([compared.mean(model) for model in models], 1, percent)
    scores = [mark_best([_score(compared, column, model) for model in models], 1, percent) for column in columns]
    lines = []
    for row, model in enumerate(models):
        of_datasets = ranking.ranks[:, ranking.models.index(model)] if model in ranking.models else None
        lines.append(
            ModelLine(
                name=model,
                role=compared.role(model),
                weights=compared.weights(model),
                color=colors[model],
                mean_rank=by_rank[row],
                mean=means[row],
                cells=[column[row] for column in scores],
                intervals=[_interval(column.run.models.get(model) if column.run else None) for column in columns],
                ranks=[
                    ""
                    if of_datasets is None or not column.ranked
                    else f"rank {of_datasets[compared.datasets.index(column.dataset)]:g}"
                    for column in columns
                ],
                costs=_costs([run.models[model] for run in compared.runs if model in run.models]),
            )
        )
    return lines


def _score(compared: ComparedRuns, column: Column, model: str) -> float | None:
    """Score in one run, or the mean of the runs on a data set."""
    if column.run is None:
        return compared.score(model, column.dataset)
    cell = column.run.models.get(model)
    return cell.miou if cell else None


def _interval(cell: ModelScore | None) -> str:
    """Both ends in percent."""
    known = cell is not None and cell.miou is not None and None not in cell.miou_interval
    return "–".join(percent(end) for end in cell.miou_interval) if known and cell else ""


def _costs(cells: Sequence[ModelScore]) -> list[str]:
    """Parameters, FLOPs, latency and seconds of a training; from least to most where the runs differ."""
    shown = (
        ([cell.params for cell in cells], amount),
        ([cell.flops for cell in cells], flops),
        ([cell.latency_ms for cell in cells], milliseconds),
        ([cell.mean("train_seconds") for cell in cells], duration),
    )
    texts = []
    for values, show in shown:
        known = [value for value in values if value is not None]
        ends = list(dict.fromkeys(show(end) for end in (min(known), max(known)))) if known else [NOT_KNOWN]
        texts.append(" – ".join(ends))
    return texts


def _within(key: str, name: str) -> bool:
    """Whether a line of the protocol belongs to an entry of it."""
    return key == name or key.startswith(f"{name}.")
