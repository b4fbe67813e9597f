"""The section of the report on the search: what it cost, how it went, and what there was to choose from."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoseg.report import formats
from autoseg.report.drawing import cell_colors, draw_cells
from autoseg.report.operations import operation_labels, space_of, with_shares
from autoseg.report.pictures import cells_of
from autoseg.report.reading import number
from autoseg.report.rundata import Run
from autoseg.report.search_figures import (
    histogram_figure,
    operations,
    pareto_figure,
    search_figure,
    trials_figure,
)
from autoseg.report.shapes import Colors, operation_colors

TOP_CANDIDATES = 8

_LIMITS = (
    ("max_params", "parameters", formats.amount),
    ("max_flops", "for a forward pass", formats.flops),
    ("max_latency_ms", "of latency", formats.milliseconds),
)


@dataclass(frozen=True)
class SearchSection:
    """What the template shows of a search; everything may be empty.

    Attributes:
        lead: What was searched, with what, how long.
        notes: What the search reported about itself.
        curves: Figure over epochs.
        trials: Figure over candidates, of a search that learns nothing from epoch to epoch.
        histogram: Figure of the operations.
        counted: Which operations it counts, in words.
        legend: ``(operation, fill, outline)`` of that figure.
        space: The space with its options in the search and in the final training, in words.
        cells: Drawing of the architecture as it is trained in the end.
        pareto: Figure of candidates by cost.
        front: Rows of the Pareto list.
        limits: The hard limits in words.
        scored: How candidates were scored, in words.
        candidates: Rows of the best candidates.
        audit: What an audit of the ranking says, in words.
        scatter: Its plot, as a data URI.
    """

    lead: str
    notes: list[str]
    curves: Markup
    trials: Markup
    histogram: Markup
    counted: str
    legend: list[tuple[str, str, str]]
    space: str
    cells: Markup
    pareto: Markup
    front: list[dict[str, str]]
    limits: str
    scored: str
    candidates: list[dict[str, str]]
    audit: str = ""
    scatter: str = ""

    @property
    def shown(self) -> bool:
        """Whether there is anything to say about a search."""
        return any((self.curves, self.trials, self.histogram, self.pareto, self.candidates, self.notes))


def search_section(run: Run) -> SearchSection:
    """Everything about the search of a run.

    Args:
        run: A run; files that it lacks leave their part empty.
    """
    learns = any(number(line.get("entropy")) is not None or line.get("histogram") for line in run.epochs)
    trials = [] if learns else [line for line in run.candidates if "best" in line]
    space = space_of(run)
    lines, across = (run.epochs, "epoch") if learns else (with_shares(trials, space), "candidate")
    cells = cells_of(run.architecture)
    found_operations = operations(lines)
    labels = operation_labels(space) if found_operations else {}
    shown = list(dict.fromkeys(labels.get(name, name) for name in found_operations))
    colors = operation_colors(shown, _safe_colors(cells))
    found = run.pareto.get("candidates")
    listed = [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []
    limits = run.pareto.get("objective")
    noted = run.architecture.get("notes")
    objective = limits if isinstance(limits, dict) else {}
    return SearchSection(
        lead=_lead(run),
        notes=[str(note) for note in noted] if isinstance(noted, list) else [],
        curves=search_figure(run.epochs),
        trials=trials_figure(trials),
        histogram=histogram_figure(lines, colors, labels, across),
        counted="the most probable operation of each decision" if learns else "operations of the candidates so far",
        legend=[(name, *colors[name]) for name in shown],
        space=_space(run.architecture),
        cells=_drawing(cells, colors),
        pareto=pareto_figure(listed, objective),
        front=[_row(line) for line in listed if line.get("pareto")],
        limits=", ".join(
            f"at most {show(bound)} {unit}" for key, unit, show in _LIMITS if (bound := number(objective.get(key)))
        ),
        scored="with the shared weights of the supernet" if run.epochs else "after a short training" if trials else "",
        candidates=_best(run.candidates),
        audit=_audit(run.audit),
        scatter=_data_uri(run.folder / "audit" / "audit.png") if run.audit else "",
    )


def _safe_colors(cells: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    try:
        return cell_colors(cells)
    except (ValueError, KeyError, TypeError):  # the drawing of a plugin may be anything; it is left out below
        return {}


def _drawing(cells: Sequence[Mapping[str, Any]], colors: Colors) -> Markup:
    """The drawing of the architecture; empty when there is none, or none that can be drawn."""
    try:
        return Markup(draw_cells(cells, colors)) if cells else Markup("")
    except (ValueError, KeyError, TypeError):
        return Markup("")


def _space(architecture: Mapping[str, Any]) -> str:
    """Such as "Space autosegnet, searched with input_size 64; trained with input_size 512, otherwise the same."."""
    searched, final = (
        value if isinstance(value := architecture.get(key), dict) else {} for key in ("kwargs", "final_kwargs")
    )
    other = {key: value for key, value in final.items() if key not in searched or searched[key] != value}
    options, changes = (", ".join(f"{key} {value}" for key, value in given.items()) for given in (searched, other))
    name = architecture.get("space") or "unknown"
    if changes:
        same = ", otherwise the same" if options else ""
        return f"Space {name}, searched with {options or 'its defaults'}; trained with {changes}{same}."
    return f"Space {name}, {options}." if options else f"Space {name}."


def _lead(run: Run) -> str:
    """Such as "The search with enas took 4 min (7 min of CPU time): 12 epochs, 40 candidates scored."."""
    lines = [*run.epochs, *run.candidates]
    scored = sum(number(line.get("miou")) is not None for line in run.candidates)
    searched = number(run.architecture.get("search_seconds"))
    wall = _last(lines, "seconds") if searched is None else searched
    cpu = _last(lines, "cpu_seconds")
    strategy = run.config.get("strategy")
    name = strategy.get("name") if isinstance(strategy, dict) else None
    text = f"The search with {name}" if name else "The search"
    if wall is not None:
        text += f" took {formats.duration(wall)}"
        text += f" ({formats.duration(cpu)} of CPU time)" if cpu is not None else ""
    found = ((len(run.epochs), "epoch", ""), (scored, "candidate", " scored"))
    counts = [f"{count} {what}{'s' * (count > 1)}{end}" for count, what, end in found if count]
    if wall is None:
        return ""
    return (f"{text}: {', '.join(counts)}." if counts else f"{text}.") + _others(run.architecture)


def _others(architecture: Mapping[str, Any]) -> str:
    """Such as " It is the best of 2 searches by validation mIoU: seed 0: 61.2 %, seed 1: 59.8 %."."""
    searches = architecture.get("searches")
    if not isinstance(searches, list) or len(searches) < 2:
        return ""
    scores = ", ".join(f"seed {each['seed']}: {formats.percent(number(each['miou']))} %" for each in searches)
    return f" It is the best of {len(searches)} searches by validation mIoU: {scores}."


def _audit(found: Mapping[str, Any]) -> str:
    """Such as "...; Kendall's tau 0.41 (95 % interval 0.1 to 0.7); regret 1.2 points, of a random pick 3.4."."""
    tau, regret, random = (number(found.get(key)) for key in ("tau", "regret", "random_regret"))
    parts = [str(found.get("text") or "").rstrip(".")]
    if tau is not None:
        given = found.get("interval")
        ends = [end for end in map(number, given) if end is not None] if isinstance(given, list) else []
        interval = f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f})" if len(ends) == 2 else ""
        parts.append(f"Kendall's tau {tau:.2f}{interval}")
    if regret is not None and random is not None:
        parts.append(f"regret of its favourite {100 * regret:.1f} points, of a random pick {100 * random:.1f}")
    return "; ".join(part for part in parts if part) + "." if any(parts) else ""


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def _last(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The largest value: the clocks of a journal run on from line to line."""
    return max((value for line in lines if (value := number(line.get(key))) is not None), default=None)


def _best(candidates: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The best candidates of the journal, best first, each architecture once."""
    known: dict[str, Mapping[str, Any]] = {}
    for line in sorted(candidates, key=lambda line: -(number(line.get("miou")) or 0.0)):
        known.setdefault(str(line.get("code") or line.get("choices")), line)
    return [_row(line) for line in list(known.values())[:TOP_CANDIDATES]]


def _row(line: Mapping[str, Any]) -> dict[str, str]:
    """A candidate as texts."""
    return {
        "source": str(line.get("rank_source") or line.get("source") or ""),
        "miou": formats.percent(number(line.get("miou"))),
        "params": formats.amount(number(line.get("params"))),
        "flops": formats.flops(number(line.get("flops"))),
        "latency": formats.milliseconds(number(line.get("latency_ms"))),
        "code": str(line.get("code") or line.get("choices")),
    }
