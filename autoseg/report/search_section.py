"""The section of the report on the search: what it cost, how it went, and what there was to choose from."""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoseg.report import formats
from autoseg.report.drawing import cell_colors, draw_cells
from autoseg.report.pictures import cells_of, describe
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

log = logging.getLogger(__name__)

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
        trials: Figure over candidates of a multi-trial search.
        histogram: Figure of the operations.
        legend: ``(operation, fill, outline)`` of that figure.
        cells: Drawing of the architecture.
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
    legend: list[tuple[str, str, str]]
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
    trials = [line for line in run.candidates if "best" in line] if not run.epochs else []
    lines, across = (run.epochs, "epoch") if run.epochs else (trials, "candidate")
    cells = cells_of(run.architecture)
    colors = _safe_colors(cells)
    names = operation_names(run.architecture, operations(lines)) if cells else {}
    shown = list(dict.fromkeys(names.get(name, name) for name in operations(lines)))
    colors = operation_colors(shown, colors)
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
        histogram=histogram_figure(lines, colors, names, across),
        legend=[(name, *colors[name]) for name in shown],
        cells=_drawing(cells, colors),
        pareto=pareto_figure(listed, objective),
        front=[_row(line) for line in listed if line.get("pareto")],
        limits=", ".join(
            f"at most {show(bound)} {unit}" for key, unit, show in _LIMITS if (bound := number(objective.get(key)))
        ),
        scored="after a short training" if trials else "with the shared weights of the supernet" if run.epochs else "",
        candidates=_best(run.candidates),
        audit=_audit(run.audit),
        scatter=_data_uri(run.folder / "audit" / "audit.png") if run.audit else "",
    )


def operation_names(architecture: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """The label in drawings of each operation of the journal, such as ``{"dw3": "3x3 separable"}``.

    The space is asked to draw the architecture with one operation everywhere; the label that then is in all the
    places where the drawings differ from each other belongs to that operation.

    Args:
        architecture: The content of ``architecture.json``.
        names: Operations as in choices.

    Returns:
        Labels of those operations for which this works; none for a space that draws nothing.

    Example:
        >>> from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
        >>> found = {"space": "ednas", "kwargs": {"blocks": 3}, "choices": to_choices(ED_NAS_N3)}
        >>> operation_names(found, ["dw3", "pool3"])
        {'dw3': '3x3 separable', 'pool3': '3x3 max pool'}
    """
    labels: dict[str, Counter[str]] = {}
    for name in names:
        choices = {
            key: name if isinstance(value, str) and value in names else value
            for key, value in (architecture.get("choices") or {}).items()
        }
        try:
            nodes = [node for cell in describe({**architecture, "choices": choices}) for node in cell["nodes"]]
            labels[name] = Counter(str(node["label"]) for node in nodes if node.get("kind") == "op")
        except Exception as error:  # not every operation is allowed everywhere, and a space is somebody's plugin
            log.debug("%s has no label in the drawings: %s", name, error)
    found = {}
    for name, counts in labels.items():
        others = [other for key, other in labels.items() if key != name]
        own = {label: n for label, n in counts.items() if all(n > other[label] for other in others)}
        if own:
            found[name] = max(own, key=own.__getitem__)
    return found


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
    return f"{text}: {', '.join(counts)}." if counts and wall is not None else f"{text}." if wall is not None else ""


def _audit(found: Mapping[str, Any]) -> str:
    """Such as "...; Kendall's tau 0.41 (95 % interval 0.1 to 0.7); regret 1.2 points, of a random pick 3.4."."""
    tau, regret, random = (number(found.get(key)) for key in ("tau", "regret", "random_regret"))
    parts = [str(found.get("text") or "").rstrip(".")]
    ends = found.get("interval")
    if tau is not None and isinstance(ends, list) and len(ends) == 2:
        parts.append(f"Kendall's tau {tau:.2f} (95 % interval {ends[0]:.2f} to {ends[1]:.2f})")
    if regret is not None and random is not None:
        parts.append(f"regret of its favourite {100 * regret:.1f} points, of a random pick {100 * random:.1f}")
    return "; ".join(part for part in parts if part) + "." if any(parts) else ""


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.exists() else ""


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
