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


def measure(name: str, seed: int, folder: Path, scale: str) -> dict[str, float]:
    """The figures of a claim for one seed, in a process of its own."""
    found = claims()[name]
    from claimed.lab import Lab

    lab = Lab(folder, "cuda" if scale == "gpu" else "cpu", large=scale == "gpu")
    return dict(found.measure(lab, seed))


def run(names: list[str], seeds: int, folder: Path, scale: str, workers: int) -> dict[str, list[dict[str, float]]]:
    """Measure claims; figures of every seed by name. A claim that fails is left out and told."""
    context = multiprocessing.get_context("spawn")
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failed = set[str]()
    began = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        jobs: dict[Future[dict[str, float]], tuple[str, int]] = {
            pool.submit(measure, name, seed, folder, scale): (name, seed) for name in names for seed in range(seeds)
        }
        for done, job in enumerate(as_completed(jobs), 1):
            name, seed = jobs[job]
            error = job.exception()
            if error is None:
                figures[name].append(job.result())
            else:
                failed.add(name)
            minutes = (time.monotonic() - began) / 60
            state = f"failed: {error}" if error else "done"
            print(f"{done}/{len(jobs)}, {minutes:.0f} min: {name}, seed {seed}: {state}", file=sys.stderr, flush=True)
            if len(figures[name]) == seeds:
                keep({name: figures[name]}, scale)
    return {name: rows for name, rows in figures.items() if name not in failed}


def keep(figures: dict[str, list[dict[str, float]]], scale: str) -> None:
    """Put figures and verdicts into the results and their table into the page."""
    from claimed.verdicts import summary

    known = claims()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, rows in figures.items():
        results.setdefault(scale, {})[name] = {
            "verdict": known[name].verdict(rows),
            "seeds": len(rows),
            "figures": {figure: [round(x, 5) for x in pair] for figure, pair in summary(rows).items()},
        }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if PAGE.exists():
        text = PAGE.read_text()
        whole = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        PAGE.write_text(whole.sub(lambda _: f"{BEGIN}\n{table(results)}\n{END}", text))


def table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = []
    for scale, rows in results.items():
        title = {"cpu": "At a size for two CPU cores", "gpu": "At the size of the papers"}[scale]
        lines += [
            f"### {title}",
            "",
            "| claim | the paper's | tested here by | verdict | figures measured here |",
            "|---|---|---|---|---|",
        ]
        for name, claim in claims().items():
            if name not in rows:
                lines.append(f"| **{name}** {claim.says} ({claim.source}) | {claim.paper} | {claim.test} | not run | |")
                continue
            row = rows[name]
            figures = "; ".join(f"{figure} {mean:.4g} ± {sd:.2g}" for figure, (mean, sd) in row["figures"].items())
            bounds = ", ".join(str(criterion) for criterion in claim.criteria)
            lines.append(
                f"| **{name}** {claim.says} ({claim.source}) | {claim.paper} | {claim.test}. Bound: {bounds} "
                f"| **{row['verdict']}** | {figures} ({row['seeds']} seeds) |"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CLAIM", help="such as E1; all unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scale", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
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
    figures = run(names, given.seeds, given.out, given.scale, given.workers)
    for name, rows in figures.items():
        print(f"{name}  {known[name].verdict(rows):15s} {known[name].says}")
    return 0 if len(figures) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
