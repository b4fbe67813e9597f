"""How many jobs go side by side, and which GPUs each of them gets."""

from __future__ import annotations

import os

from autoseg.config import ExperimentConfig
from autoseg.gpus import gpu_groups
from autoseg.prepare import Prepared


def worker_count(asked: int | str, device: str, jobs: int, ranks: int = 1) -> int:
    """How many jobs to do side by side on this machine: one for each GPU, else one for every core up to four.

    Where the jobs share GPUs out, there are never more of them than groups of ``ranks`` GPUs.

    Args:
        asked: ``"auto"`` or a number; 0 and 1 both mean one at a time.
        device: The device of the trainings.
        jobs: How many jobs there are; more workers would be idle.
        ranks: Devices or processes that one training takes.

    Example:
        >>> worker_count(2, "cpu", jobs=5), worker_count("auto", "cuda:0", jobs=5)
        (2, 1)
    """
    groups = len(gpu_groups(device, ranks))
    if asked == "auto":
        asked = groups or (1 if device.startswith("cuda") else min(4, os.cpu_count() or 1) // ranks)
    return max(1, min(int(asked), jobs, groups or jobs))


def shared_gpus(prepared: Prepared, workers: int) -> list[str]:
    """For each job side by side the names of its GPUs."""
    compute = prepared.config.compute
    groups = gpu_groups(prepared.compute.device, compute.devices) if compute.service == "local" else []
    return groups[:workers] if workers > 1 else []


def places(config: ExperimentConfig, device: str, jobs: int) -> int:
    """How many jobs to do side by side, here or on other machines."""
    compute = config.compute
    if compute.service == "local":
        return worker_count(compute.workers, device, jobs, compute.devices)
    return min(compute.slots, jobs)
