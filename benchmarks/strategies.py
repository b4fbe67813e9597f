"""Every strategy on every space: is a planted optimum found, and what does a short real search cost?

Run: ``python benchmarks/strategies.py`` (well over half an hour for all pairs), or a part of it with ``--strategy``,
``--space`` and ``--toy-only`` or ``--real-only``. Every measurement has a process of its own with one thread. Results
are kept in ``docs/strategies.json``, new ones replacing old ones; the tables between the two marker comments of
``docs/strategies.md`` are written from it.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch is imported

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs/strategies.json", ROOT / "docs/strategies.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SEEDS = 5
SPACES: dict[str, dict[str, Any]] = {
    "ednas": {"width": 8, "blocks": 3, "layers": 2},
    "searchnet": {"width": 8, "nodes": 2},
    "autosegnet": {"width": 8, "input_size": 64},
}
TOYS = {"planted": "6 architectures", "planted-wide": "96 architectures"}
_ONE_SHOT, _MULTI_TRIAL = {"epochs": 20}, {"trials": 40, "epochs": 2}
_TOY_OPTIONS = {  # the paper's learning rates are meant for 200 epochs
    "autosegnet": {"lr": 0.05, "controller_lr": 0.01},
    "autosegnet (multi-trial)": {"controller_lr": 0.01},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "autosegnet": ("autosegnet", {}),
    "autosegnet (multi-trial)": ("autosegnet", {"mode": "multi-trial"}),
}


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """``{title: (name, options)}`` of all strategies that are installed."""
    from autoseg import registry

    names = [plugin.name for plugin in registry.plugins("strategy")]
    found = {name: (name, dict[str, Any]()) for name in names if name != "autosegnet"}
    return found | (VARIANTS if "autosegnet" in names else {})


def make_strategy(title: str, toy: bool) -> Any:
    """The strategy, with options for the toy task or with its own, which a budget in seconds replaces."""
    from autoseg import registry

    name, options = variants()[title]
    load = registry.load("strategy", name)
    if toy:
        length = _ONE_SHOT if load(**options).one_shot else _MULTI_TRIAL
        options = {**options, **length, **_TOY_OPTIONS.get(title, {})}
    return load(**options)


def toy_search(title: str, toy: str) -> dict[str, Any]:
    """Searches with five seeds: how many found the planted optimum, and seconds per search."""
    sys.path.insert(0, str(ROOT / "tests/search"))
    from autoseg.quiet import load_nni

    load_nni()
    from toy import BEST, Planted, PlantedWide, planted_task

    from autoseg import registry

    space: Any = {"planted": Planted, "planted-wide": PlantedWide}[toy]
    best = {"planted": BEST, "planted-wide": PlantedWide.best}[toy]
    load = registry.load
    registry.load = lambda kind, name: space if kind == "space" and name == toy else load(kind, name)
    found, learned, seconds = 0, list[bool](), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SEEDS):
            task = replace(planted_task(Path(folder) / str(seed), seed), space=toy, space_class=space)
            began = time.process_time()
            result = make_strategy(title, toy=True).search(task)
            found += result.architecture.choices == best
            learned += [c.choices == best for c in result.candidates if c.source == "greedy"]
            seconds.append(time.process_time() - began)
    greedy = sum(learned) if learned else None
    return {"found": found, "greedy": greedy, "of": SEEDS, "cpu_seconds": statistics.median(seconds)}


def real_search(title: str, space: str, seconds: float) -> dict[str, Any]:
    """One search on drawn micrographs under a budget in seconds, or why there is none."""
    from autoseg import registry
    from autoseg.data.batches import Normalisation
    from autoseg.data.synthetic.ceramic import synthetic_ceramic
    from autoseg.search.task import SearchTask
    from autoseg.train.compute import Compute
    from autoseg.train.recipe import Recipe

    data = synthetic_ceramic(count=24, size=64)
    space_class = registry.load("space", space)
    strategy = make_strategy(title, toy=False)
    reason = strategy.supports(space_class(1, data.info.num_classes, **SPACES[space]))
    if reason:
        return {"refused": reason}
    before = _peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        task = SearchTask(
            space=space,
            kwargs=SPACES[space],
            space_class=space_class,
            train=data.train,
            val=data.val,
            info=data.info,
            normalisation=Normalisation.from_split(data.train, 1),
            recipe=Recipe(epochs=1, batch=8, patch=64),
            compute=Compute("cpu", "32", 1),
            seed=0,
            folder=Path(folder),
            seconds=seconds,
        )
        wall, cpu = time.monotonic(), time.process_time()
        result = strategy.search(task)
    return {
        "miou": result.candidates[0].miou,
        "one_shot": strategy.one_shot,
        "candidates": len(result.candidates),
        "seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": _peak_mib(),
        "peak_mib_before": before,
        "learns": any(row.get("entropy") is not None for row in result.history),
        "notes": result.notes,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(*arguments: object) -> dict[str, Any]:
    """One measurement; the last line of its output is the result."""
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": last}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def toy_table(results: dict[str, Any]) -> list[str]:
    """Planted optima: found by whom, and CPU seconds."""
    heads = [f"{title}: found | learned | CPU s" for title in TOYS.values()]
    lines = [f"| strategy | {' | '.join(heads)} |", "|---|" + "---|" * (3 * len(TOYS))]
    for title, row in sorted(results.items()):
        cells = [row.get(toy) for toy in TOYS]
        if any(cells):
            lines.append(f"| `{title}` | " + " | ".join(map(_toy_cell, cells)) + " |")
    return lines


def _toy_cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not measured | | "
    if "failed" in cell:
        return f"failed: {_escaped(cell['failed'])} | | "
    greedy = "-" if cell["greedy"] is None else f"{cell['greedy']} of {cell['of']}"
    return f"{cell['found']} of {cell['of']} | {greedy} | {cell['cpu_seconds']:.1f}"


def real_table(results: dict[str, Any]) -> list[str]:
    """Short searches: score, time, memory, and how they ended."""
    heads = ["space", "strategy", "mIoU %, shared weights", "mIoU %, trained alone", "candidates", "s", "CPU s"]
    heads += ["peak MiB", "settled"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for space in SPACES:
        for title, row in sorted(results.items()):
            cell = row.get(space)
            if cell is None:
                continue
            if "refused" in cell or "failed" in cell:
                text = f"refused: {cell['refused']}" if "refused" in cell else f"failed: {cell['failed']}"
                lines.append(f"| {space} | `{title}` | {_escaped(text)} | | | | | | |")
                continue
            miou = f"{100 * cell['miou']:.1f}"
            scores = f"{miou} | " if cell["one_shot"] else f" | {miou}"
            lines.append(
                f"| {space} | `{title}` | {scores} | {cell['candidates']} | {cell['seconds']:.0f} | "
                f"{cell['cpu_seconds']:.0f} | {cell['peak_mib']:.0f} | {_ending(cell)} |"
            )
    return lines


def _ending(cell: dict[str, Any]) -> str:
    """Whether what was learned had settled in the end; a strategy that learns no distribution cannot."""
    settled = "yes" if cell["learns"] else "-"
    words = {"not converged": "no", "collapsed": "collapsed to skips"}
    found = [word for start, word in words.items() if any(start in note for note in cell["notes"])]
    return ", ".join(found) or settled


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def write_page(results: dict[str, Any]) -> None:
    """Replace what is between the markers of the page."""
    from autoseg.environment import describe_environment

    machine = describe_environment([], "", "cpu")["machine"]
    where = f"Measured with one thread of: {machine['processor']}, {machine['cores']} cores."
    lines = [where, "", *toy_table(results), "", *real_table(results)]
    text = PAGE.read_text(encoding="utf-8")
    block = "\n".join([BEGIN, *lines, END])
    PAGE.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Measure what was asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strategy", action="append", help="one of them, such as darts; may be repeated")
    parser.add_argument("--space", action="append", choices=list(SPACES), help="one of them; may be repeated")
    parser.add_argument("--toy-only", action="store_true")
    parser.add_argument("--real-only", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a real search")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        title, what, *seconds = options.measure
        found = toy_search(title, what) if what in TOYS else real_search(title, what, float(seconds[0]))
        print(json.dumps(found))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for title in options.strategy or variants():
        kinds = [*([] if options.real_only else TOYS), *([] if options.toy_only else options.space or SPACES)]
        for what in kinds:
            found = in_a_process(title, what, options.seconds)
            print(title, what, found, flush=True)
            results.setdefault(title, {})[what] = found
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            write_page(results)


if __name__ == "__main__":
    main()
