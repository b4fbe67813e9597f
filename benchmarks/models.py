"""What every registered network costs: parameters, operations, a training step and the inference of one image.

Run: ``python benchmarks/models.py > table.md`` (some minutes). The table holds our baselines, one small member of each
family of segmentation_models_pytorch and timm, and the published architectures, all in float32 and channels_last with
two threads. Each network is built and measured in a process of its own, so that one that crashes or takes too much
memory costs its row only; repetitions are few and the median counts. Ratios are to ``unet`` with 16 channels at full
resolution, measured in the same run.

``--models 'deeplab*'`` measures some of them (any one name that ``autoseg.build`` takes, too), ``--quick`` on small
crops, and ``--size``, ``--batch``, ``--threads`` and ``--repetitions`` say how.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

REFERENCE = "unet (width 16)"
ROWS: dict[str, tuple[str, dict[str, Any]]] = {REFERENCE: ("unet", {"width": 16})}
"""Title of a row: name and options of the network. The registered names without a family come beside these."""
REPRESENTATIVES = ("setr-pup-vit_tiny_patch16_224", "unet-resnet18")
"""Members of families that no name without an encoder stands for (``fpn`` is the FPN with a small encoder)."""
CHANNELS, CLASSES = 3, 2
LIMIT = 600.0
"""Seconds after which a network is given up."""


@dataclass(frozen=True)
class Measured:
    """One row; times in milliseconds."""

    params: int
    flops: int | None
    step: float
    inference: float
    memory: float  # MB of the process at its largest


def measure(name: str, options: dict[str, Any], size: int, batch: int, repetitions: int) -> Measured:
    """Build one network and measure it in this process."""
    import resource

    import torch
    from torch.nn import functional as F

    from autoseg import build
    from autoseg.train.cost import count_flops, count_parameters, latency_ms

    torch.manual_seed(0)
    network = build(name, CHANNELS, CLASSES, **options)
    params, flops = count_parameters(network), count_flops(network, CHANNELS, size, size)
    inference = latency_ms(network, CHANNELS, size, size, "cpu", repetitions)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = torch.randn(batch, CHANNELS, size, size).to(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (batch, size, size))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    times = []
    for _ in range(2 + repetitions):
        start = time.perf_counter()
        optimiser.zero_grad()
        F.cross_entropy(network(x), target).backward()
        optimiser.step()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measured(params, flops, 1000 * statistics.median(times[2:]), inference, memory)


def chosen(pattern: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The rows whose title or name the pattern fits; the reference is always among them."""
    from autoseg import registry

    names = [plugin.name for plugin in registry.plugins("model") if "*" not in plugin.name]
    rows = ROWS | {name: (name, {}) for name in (*names, *REPRESENTATIVES)}
    found = {title: row for title, row in rows.items() if fnmatch.fnmatch(title, pattern) or row[0] == pattern}
    if not found and not any(letter in pattern for letter in "*?["):
        found = {pattern: (pattern, {})}
    return {REFERENCE: ROWS[REFERENCE]} | found


def in_a_process(name: str, options: dict[str, Any], settings: argparse.Namespace) -> Measured | str:
    """The row of one network, or why there is none."""
    threads = str(settings.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    job = {"name": name, "options": options} | {key: getattr(settings, key) for key in ("size", "batch", "repetitions")}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--job", json.dumps(job)],
            capture_output=True, text=True, env=environment, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"given up after {LIMIT:.0f} s"
    if done.returncode < 0:
        return (
            f"ended by signal {-done.returncode} (out of memory?)"
            if done.returncode == -9
            else f"ended by signal {-done.returncode}"
        )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def table(rows: dict[str, Measured | str], settings: argparse.Namespace) -> str:
    """The rows as markdown, the fastest training step first, networks that failed at the end."""
    reference = rows[REFERENCE]
    good = {title: row for title, row in rows.items() if isinstance(row, Measured)}
    side = f"{settings.size}x{settings.size}"
    lines = [
        f"| network | parameters | GFLOPs, {side} | training step, {settings.batch}x{side} (ms) | ratio "
        f"| inference, 1x{side} (ms) | ratio | memory (MB) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, row in sorted(good.items(), key=lambda item: item[1].step):
        ratios = ["", ""]
        if isinstance(reference, Measured):
            ratios = [f"{row.step / reference.step:.2f}", f"{row.inference / reference.inference:.2f}"]
        flops = "not countable" if row.flops is None else f"{row.flops / 1e9:.2f}"
        lines.append(
            f"| {title} | {row.params:,} | {flops} | {row.step:.0f} | {ratios[0]} "
            f"| {row.inference:.1f} | {ratios[1]} | {row.memory:.0f} |"
        )
    lines += [f"| {title} | {row} | | | | | | |" for title, row in rows.items() if isinstance(row, str)]
    return "\n".join(lines)


def main() -> int:
    """Measure the chosen networks one after the other; 1 when one of them gave no row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="*", help="names to measure, as a glob (default: all)")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=4, help="images in a training step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=7, help="of which the median counts")
    parser.add_argument("--quick", action="store_true", help="64 pixels, batch of 2, three repetitions")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.job:
        print(json.dumps(asdict(measure(**json.loads(settings.job)))))
        return 0
    if settings.quick:
        settings.size, settings.batch, settings.repetitions = 64, 2, 3
    networks = chosen(settings.models)
    rows: dict[str, Measured | str] = {}
    for number, (title, (name, options)) in enumerate(networks.items(), 1):
        row = rows[title] = in_a_process(name, options, settings)
        outcome = row if isinstance(row, str) else f"{row.step:.0f} ms a step, {row.inference:.1f} ms an image"
        print(f"[{number}/{len(networks)}] {title}: {outcome}", file=sys.stderr, flush=True)
    print(table(rows, settings))
    return int(any(isinstance(row, str) for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
