"""Plans, comparisons and plugin lists as plain text tables."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from autoseg.durations import format_duration

if TYPE_CHECKING:
    from autoseg.compare_runs import ComparedRuns


def _render(table: Table) -> str:
    """The table as text, as wide as the terminal and at least 80 columns."""
    file = io.StringIO()
    width = max(80, shutil.get_terminal_size((110, 24)).columns)
    Console(file=file, width=width, highlight=False, markup=False, emoji=False).print(table)
    return file.getvalue().rstrip()


def wrapped(text: str, indent: str = "") -> str:
    """Text broken between words where a person reads it in a terminal, else as it is.

    Args:
        text: One line.
        indent: What its further lines start with.
    """
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def plugin_table(rows: list[dict[str, Any]], pattern: str | None = None) -> str:
    """Name, kind, description and distribution; below each broken plugin the reason.

    Args:
        rows: As :func:`autoseg.registry.listing` gives them.
        pattern: What the names had to match; the members of a family then stand under each other without a
            description of their own, which would be the same for all.

    Example:
        >>> row = {"name": "unet", "kind": "model", "description": "U-Net.", "distribution": "autoseg", "error": None}
        >>> print(plugin_table([row]).splitlines()[2].split())
        ['unet', 'model', 'U-Net.', 'autoseg']
        >>> plugin_table([], "fpn-x*")
        "no plugin's name matches 'fpn-x*'"
    """
    if not rows and pattern is not None:
        return f"no plugin's name matches '{pattern}'"
    table = _table("name", "kind", "description", "from")
    said = set[tuple[str, str]]()
    for row in rows:
        text = f"does not load: {row['error']}" if row["error"] else row["description"]
        repeated = pattern is not None and (row["distribution"], text) in said
        said.add((row["distribution"], text))
        table.add_row(row["name"], row["kind"], '"' if repeated and text else text, row["distribution"])
    families = [f"{row['kind']} '{row['name']}'" for row in rows if "*" in row["name"] and not row["error"]]
    if not families or pattern is not None:
        return _render(table)
    return f"{_render(table)}\n\nAll of a family: autoseg list {families[-1]}"


def plan_table(plan: dict[str, Any]) -> str:
    """Stages with their predicted times, memory and the notes."""
    table = _table("stage", "what", "about", right=("about",))
    for stage in plan["stages"]:
        table.add_row(stage["name"], stage["what"], format_duration(round(stage["seconds"])))
    processes = f"{plan['workers']} processes side by side" if plan["workers"] > 1 else "one process"
    memory = f"about {plan['memory_bytes'] / 2**30:.1f} GiB of memory"
    table.add_row("whole run", f"{processes}, {memory}", format_duration(round(plan["seconds"])))
    return _render(table) + "".join("\n" + wrapped(f"- {note}", "  ") for note in plan["notes"])


def comparison_table(comparison: dict[str, Any]) -> str:
    """All models of a run, best first, and the verdict."""
    table = _table(
        "model", "role", "mIoU %", "95 % interval", "Dice %", "params", "GFLOPs", "ms", "train s",
        right=("mIoU %", "95 % interval", "Dice %", "params", "GFLOPs", "ms", "train s"),
    )  # fmt: skip
    models = sorted(comparison["models"].items(), key=lambda item: -(item[1]["miou"] or 0))
    for name, model in models:
        low, high = model["miou_interval"]
        seeds = model["seeds"]
        table.add_row(
            name,
            model["role"],
            _percent(model["miou"]),
            f"{_percent(low)} to {_percent(high)}",
            _percent(_mean([seed["dice"] for seed in seeds])),
            f"{model['params'] / 1e6:.2f} M",
            "n/a" if model["flops"] is None else f"{model['flops'] / 1e9:.2f}",
            "n/a" if model["latency_ms"] is None else f"{model['latency_ms']:.0f}",
            f"{_mean([seed['train_seconds'] for seed in seeds]) or 0:.0f}",
        )
    return f"{_render(table)}\n\n{wrapped(comparison['verdict']['text'])}"


def runs_table(compared: ComparedRuns, sentences: Sequence[str]) -> str:
    """Models over runs, best mean rank first.

    Args:
        compared: The runs.
        sentences: What stands below the table, a line each.
    """
    several = [run.dataset for run in compared.runs]
    heads = [
        f"{run.dataset}\n{run.name}" if several.count(run.dataset) > 1 or run.name != run.dataset else run.dataset
        for run in compared.runs
    ]
    mean = ["mean"] if len(compared.datasets) > 1 else []
    table = _table("model", "rank", *heads, *mean, right=("rank", *heads, *mean))
    ranks = dict(zip(compared.ranking.models, compared.ranking.mean_ranks, strict=True))
    for name in compared.models:
        cells = [run.models.get(name) for run in compared.runs]
        shown = [f"{_percent(c.miou)}\n{'–'.join(map(_percent, c.miou_interval))}" if c else "n/a" for c in cells]
        rank = f"{ranks[name]:.2f}" if name in ranks else "n/a"
        label = f"{name}\npretrained" if compared.weights(name) else name
        table.add_row(label, rank, *shown, *([_percent(compared.mean(name))] if mean else []))
    return "\n".join([_render(table), "", "mIoU in percent, with its 95 % interval.", *map(wrapped, sentences)])


def audit_table(found: dict[str, Any]) -> str:
    """The architectures of an audit, the supernet's favourite first, and how well the two rankings agree."""
    table = _table("architecture", "supernet %", "alone %", "params", right=("supernet %", "alone %", "params"))
    for row in found["architectures"]:
        name = textwrap.shorten(row["code"], 60, placeholder=" ...")
        table.add_row(name, _percent(row["supernet"]), _percent(row["alone"]), f"{row['params']:,}")
    lines = [found["text"]]
    if found["tau"] is not None:
        low, high = found["interval"]
        chance = "" if found["p_value"] is None else f", p = {found['p_value']:.2g}"
        lines.append(f"Kendall's tau: {found['tau']:.2f}, 95 % interval {low:.2f} to {high:.2f}{chance}")
    lost, expected = _percent(found["regret"]), _percent(found["random_regret"])
    lines.append(f"Regret of the supernet's favourite: {lost} points of mIoU; of a random pick: {expected} on average")
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join([_render(table), "", *(wrapped(line) for line in lines)])


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
