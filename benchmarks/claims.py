"""The shape claims of the four papers, run: reproduced, not reproduced or inconclusive, each with its figures.

Run: ``python benchmarks/claims.py`` for all at a size for two CPU cores (hours), ``python benchmarks/claims.py E1 T1``
for some, ``--list`` to read them. ``--scale gpu`` runs them at the size of the papers on a graphics card (days).
Trainings and searches are kept in ``--out``: what was interrupted goes on, and claims share them. Every (claim, seed)
is measured by one of ``--workers`` processes with one thread each. Results are kept in ``docs/claims.json``, new
ones replacing old ones; the table between the two marker comments of ``docs/reproduction.md`` is written from it.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch is imported

import argparse
import json
import multiprocessing
import re
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "docs/claims.json", ROOT / "docs/reproduction.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def claims() -> dict[str, Any]:
    """All claims by name."""
    from autoseg.quiet import load_nni

    load_nni()
    from claimed import autosegnet, ednas, searchnet, tem

    return {claim.name: claim for room in (ednas, searchnet, tem, autosegnet) for claim in room.CLAIMS}


def measure(name: str, seed: int, folder: Path, scale: str) -> tuple[dict[str, float], list[str]]:
    """The figures of a claim for one seed and what its searches noted, in a process of its own."""
    found = claims()[name]
    from claimed.lab import Lab

    lab = Lab(folder, "cuda" if scale == "gpu" else "cpu", large=scale == "gpu")
    figures = {figure: float(value) for figure, value in found.measure(lab, seed).items()}
    return figures, lab.notes


def run(names: list[str], seeds: int, folder: Path, scale: str, workers: int) -> list[str]:
    """Measure claims and keep what was found; returns the names of those that failed."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[tuple[dict[str, float], list[str]]]] = {name: [] for name in names}
    failed = list[str]()
    began = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        jobs: dict[Future[tuple[dict[str, float], list[str]]], tuple[str, int]] = {
            pool.submit(measure, name, seed, folder, scale): (name, seed) for name in names for seed in range(seeds)
        }
        for done, job in enumerate(as_completed(jobs), 1):
            name, seed = jobs[job]
            error = job.exception()
            if error is None:
                found[name].append(job.result())
            else:
                failed.append(name)
            minutes = (time.monotonic() - began) / 60
            state = f"failed: {type(error).__name__}: {error}" if error else "done"
            print(f"{done}/{len(jobs)}, {minutes:.0f} min: {name}, seed {seed}: {state}", file=sys.stderr, flush=True)
            if len(found[name]) == seeds:
                keep(name, found[name], scale)
    return list(dict.fromkeys(failed))


def keep(name: str, found: list[tuple[dict[str, float], list[str]]], scale: str) -> None:
    """Put figures and verdicts into the results, and their table into the page."""
    from claimed.verdicts import summary

    from autoseg.runfolder import write_bytes, write_json

    claim, rows = claims()[name], [figures for figures, _ in found]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results.setdefault(scale, {})[name] = {
        "verdict": claim.verdict(rows, large=scale == "gpu"),
        "criteria": claim.verdicts(rows),
        "seeds": len(rows),
        "figures": {figure: [round(x, 5) for x in pair] for figure, pair in summary(rows).items()},
        "notes": sorted({note for _, notes in found for note in notes}),
    }
    write_json(RESULTS, results)
    if PAGE.exists():
        text = PAGE.read_text()
        whole = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        write_bytes(PAGE, whole.sub(lambda _: f"{BEGIN}\n{table(results)}\n{END}", text).encode())


def table(results: dict[str, Any]) -> str:
    """All results as Markdown: a table of verdicts, then the figures of each claim."""
    lines = []
    for scale, rows in results.items():
        title = {"cpu": "At a size for two CPU cores", "gpu": "At the size of the papers"}[scale]
        lines += [f"### {title}", "", "| claim | the paper's | verdict here |", "|---|---|---|"]
        for name, claim in claims().items():
            verdict = f"**{rows[name]['verdict']}**" if name in rows else "not run"
            lines.append(f"| **{name}** {claim.says} ({claim.source}) | {claim.paper} | {verdict} |")
        lines.append("")
        for name, claim in claims().items():
            if name not in rows:
                continue
            row = rows[name]
            lines += [
                f"**{name}**, {row['seeds']} seeds. {claim.test}.",
                "",
                "| figure here | mean | sd |",
                "|---|---:|---:|",
            ]
            lines += [f"| {figure} | {mean:.4g} | {sd:.2g} |" for figure, (mean, sd) in row["figures"].items()]
            bounds = [f"{bound}: {verdict}" for bound, verdict in row["criteria"].items()]
            lines += [
                "",
                "; ".join(bounds) + ".",
                *(["", "The searches said: " + " ".join(row["notes"])] if row["notes"] else []),
                "",
            ]
    return "\n".join(lines).rstrip()


def whole_number(least: int) -> Any:
    """A type of argument: a whole number of at least ``least``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, is {text!r}")
        return int(text)

    return read


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CLAIM", help="such as E1; all unless given")
    parser.add_argument("--seeds", type=whole_number(2), default=3)
    parser.add_argument("--scale", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--workers", type=whole_number(1), default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="where trainings and searches are kept")
    parser.add_argument("--list", action="store_true", help="print the claims and stop")
    given = parser.parse_args()
    known = claims()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no claim {', '.join(unknown)}; there are {', '.join(known)}")
    names = given.names or list(known)
    if given.list:
        for name in names:
            print(f"{name}  {known[name].says} ({known[name].source}: {known[name].paper})")
        return 0
    failed = run(names, given.seeds, given.out, given.scale, given.workers)
    results = json.loads(RESULTS.read_text())[given.scale] if RESULTS.exists() else {}
    for name in names:
        print(f"{name}  {'failed' if name in failed else results[name]['verdict']:28s} {known[name].says}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
