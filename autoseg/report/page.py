"""Write ``report.html``: read the run folder, make tables and figures, fill the template."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg import __version__
from autoseg.card_weights import unequal_start
from autoseg.data.base import DatasetInfo, SegmentationData, default_colors
from autoseg.report import formats, tables
from autoseg.report.figures import training_figure
from autoseg.report.grids import GridRow, example_names, grid, worst_names
from autoseg.report.intervals import gain_chart
from autoseg.report.palette import hex_color
from autoseg.report.reading import number
from autoseg.report.rundata import Run, read_run
from autoseg.report.search_section import search_section
from autoseg.report.template import fill
from autoseg.runfolder import RunFolder, write_text

log = logging.getLogger(__name__)

_COMMAND_KEYS = ("command", "command_line", "argv")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")


def write_report(run_dir: Path, data: SegmentationData | None) -> Path:
    """Write the report page of a run, finished or not.

    The page is one file: styles, figures and pictures are inside, nothing is fetched. A reader never sees
    half a page, because it is moved to its place when it is complete.

    Args:
        run_dir: The run folder. Only its files are read; parts that are missing are named in the report.
        data: The data set of the run, for input images, truth and class colours; None leaves the pictures out.

    Returns:
        The path of ``report.html`` in ``run_dir``.

    Raises:
        UserError: When ``run_dir`` is not a directory.

    Example:
        >>> import tempfile
        >>> write_report(Path(tempfile.mkdtemp()), None).name
        'report.html'
    """
    run = read_run(Path(run_dir))
    html = render(run, data)
    target = write_text(RunFolder(run.folder).report, html)
    log.info("report written: %s", target)
    return target


def render(run: Run, data: SegmentationData | None) -> str:
    """The page as text."""
    info = _info(run, data)
    examples, worst, picture_note = _pictures(run, data)
    return fill(
        "report.html.j2",
        run=run,
        autoseg_version=__version__,
        verdict=_verdict(run),
        comparison=tables.comparison_table(run.models) if run.models else None,
        unequal_times=_unequal_times(run),
        unequal_start=unequal_start({model.name: model.weights for model in run.models}),
        classes=tables.class_table(run.models, info.classes) if run.models else None,
        info=info,
        class_colors=[hex_color(c) for c in info.colors],
        search=search_section(run),
        training_svg=training_figure(run.models),
        examples=examples,
        worst=worst,
        picture_note=picture_note,
        command=_command(run.environment),
        environment_lines=tables.flatten({k: v for k, v in run.environment.items() if k not in _COMMAND_KEYS}),
        plan_lines=tables.flatten({k: v for k, v in run.plan.items() if k not in ("stages", "notes", "data")}),
        notes=[str(note) for note in run.plan.get("notes") or []],
        cost_input=_cost_input(run),
        stages=_stages(run),
    )


def _unequal_times(run: Run) -> str:
    """A sentence when the finalist had clearly more or less training time than the model it is compared with."""
    times = {model.name: model.mean("train_seconds") for model in run.models}
    finalist, other = run.models[0].name if run.models else "", str(run.verdict.get("against") or "")
    ours, theirs = times.get(finalist), times.get(other)
    if not ours or not theirs or 0.8 < ours / theirs < 1.25:
        return ""
    return (
        f"All had the same number of epochs, not the same time: training {finalist} took "
        f"{ours / theirs:.1f} times as long as {other}. With a budget, or with train.seconds, all get the same time."
    )


def _verdict(run: Run) -> dict[str, Any]:
    """Tone, first sentence, the other sentences and, when there is a gain, its chart."""
    verdict = run.verdict
    gain = number(verdict.get("gain"))
    ends = verdict.get("interval")
    interval = [v for v in map(number, ends) if v is not None] if isinstance(ends, list) else []
    compared = gain is not None and len(interval) == 2
    tone = "none" if not compared else "good" if verdict.get("worth_it") else "poor"
    text = str(verdict.get("text") or "There is nothing to compare yet: the run has no comparison of its models.")
    first, _, rest = _SENTENCE_END.sub("\\n", text, count=1).partition("\n")
    view = {"tone": tone, "first": first, "rest": rest, "gain": ""}
    if gain is None or not compared:
        return view
    color = {"good": "#1a7f4b", "poor": "#a15c00"}[tone]
    return view | {
        "gain": formats.points(gain),
        "interval": " to ".join(formats.points(v) for v in interval),
        "against": str(verdict.get("against") or ""),
        "chart": gain_chart(gain, interval, color),
    }


def _info(run: Run, data: SegmentationData | None) -> DatasetInfo:
    """Classes and colours: of the data set, else of a trained model's description, else numbered."""
    if data is not None:
        return data.info
    for card in (seed.card for model in run.models for seed in model.runs):
        info = card.get("info")
        if isinstance(info, dict) and info.get("classes"):
            names = tuple(str(name) for name in info["classes"])
            colors = info.get("colors") or default_colors(len(names))
            return DatasetInfo(str(info.get("name") or run.dataset), 1, names, tuple((r, g, b) for r, g, b in colors))
    count = max((len(s.get("iou_per_class") or []) for m in run.models for s in m.seeds), default=0)
    return DatasetInfo(run.dataset, 1, tuple(f"class {i}" for i in range(count)), default_colors(count))


def _pictures(run: Run, data: SegmentationData | None) -> tuple[list[GridRow], list[GridRow], str]:
    """Example rows, worst rows, and why there are none."""
    if data is None:
        return [], [], "Pictures are left out: the data set was not at hand when this report was written."
    if not any(model.shown and (model.shown.folder / "predictions").is_dir() for model in run.models):
        return [], [], "Pictures are left out: no predictions have been saved yet."
    names = example_names([str(name) for name in data.test.names])
    examples = grid(names, data.test, data.info, run.models)
    scores = run.finalist.image_scores() if run.finalist else {}
    return examples, grid(worst_names(scores), data.test, data.info, run.models), ""


def _command(environment: Mapping[str, Any]) -> str:
    """The command line as it was typed."""
    for key in _COMMAND_KEYS:
        value = environment.get(key)
        if value:
            return shlex.join(map(str, value)) if isinstance(value, list) else str(value)
    return ""


def _cost_input(run: Run) -> str:
    """Size of the input for which FLOPs and latency were taken, such as ``1 × 96 × 96``."""
    sizes = (seed.cost.get("input") for model in run.models for seed in model.runs)
    return next((" × ".join(map(str, size)) for size in sizes if isinstance(size, list)), "")


def _stages(run: Run) -> list[tuple[str, str, str]]:
    """Time per stage: ``(stage, planned, measured)``; training is measured per model, all seeds together."""
    planned = dict(_planned(run.plan.get("stages")))
    measured: dict[str, float] = {}
    clock = [v for line in (*run.epochs, *run.candidates) if (v := number(line.get("seconds"))) is not None]
    searched = number(run.architecture.get("search_seconds"))
    if clock or searched is not None:
        measured["search"] = max(clock) if searched is None else searched
    for model in run.models:
        spent = [v for seed in model.seeds if (v := number(seed.get("train_seconds"))) is not None]
        if spent:
            measured[f"train {model.name}"] = sum(spent)

    def shown(times: Mapping[str, float], stage: str) -> str:
        return formats.duration(times[stage]) if stage in times else ""

    return [(stage, shown(planned, stage), shown(measured, stage)) for stage in dict.fromkeys([*planned, *measured])]


def _planned(stages: object) -> Sequence[tuple[str, float]]:
    """Stages of a plan with their seconds, from ``{name: seconds}`` or a list of objects."""
    entries = stages.items() if isinstance(stages, dict) else []
    if isinstance(stages, list):
        entries = [(s.get("name") or s.get("stage") or "", s) for s in stages if isinstance(s, dict)]
    found = []
    for name, value in entries:
        if isinstance(value, dict):
            value = next((value[k] for k in ("seconds", "predicted_seconds", "expected_seconds") if k in value), None)
        seconds = number(value)
        if seconds is not None:
            found.append((str(name), seconds))
    return found
