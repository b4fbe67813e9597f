"""Short measurements on this machine, from which the plan predicts time and memory."""

from __future__ import annotations

import math
import resource
import time

import torch

from autoseg.data.base import DatasetInfo, Split
from autoseg.errors import Problem, UserError
from autoseg.nn.padding import pad_to_multiple
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.modelspec import ModelSpec
from autoseg.train.recipe import Recipe


def probe_step(spec: ModelSpec, recipe: Recipe, info: DatasetInfo, compute: Compute, repeats: int = 2) -> float:
    """Seconds of one training step of a network, measured here and now (best of a few).

    Args:
        spec: The network; a fresh one is built.
        recipe: Batch, patch and loss.
        info: Channels and classes.
        compute: Device, precision and threads.
        repeats: Steps to time after the first, which is slower than the others.

    Raises:
        UserError: A step does not fit into memory.
    """
    compute.prepare()
    seed_everything(0)
    network = spec.build(info.channels, info.num_classes).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    loss = recipe.build_loss().to(compute.device)
    x = torch.randn(recipe.batch, info.channels, recipe.patch, recipe.patch, device=compute.device)
    x, _ = pad_to_multiple(x, int(getattr(network, "size_divisor", 1)))
    target = torch.randint(0, info.num_classes, (x.shape[0], *x.shape[-2:]), device=compute.device)
    best = math.inf
    try:
        for _ in range(1 + repeats):
            start = time.perf_counter()
            with compute.autocast():
                value = loss(network(x.to(memory_format=torch.channels_last)), target)
            value.backward()
            value.item()
            best = min(best, time.perf_counter() - start)
    except (torch.OutOfMemoryError, MemoryError) as error:
        fix = "give a smaller train.batch or train.patch, or a narrower network"
        raise UserError(Problem("one training step does not fit into memory", f"model {spec.label!r}", fix)) from error
    return best


def forward_seconds(split: Split, step: dict[str, float], recipe: Recipe) -> dict[str, float]:
    """Seconds to run every network over whole images; a forward pass is about a third of a step."""
    pixels = sum(math.prod(split[i][1].shape[:2]) for i in range(len(split)))
    return {label: seconds / (recipe.batch * recipe.patch**2) / 3 * pixels for label, seconds in step.items()}


def peak_memory(compute: Compute) -> int:
    """Highest memory in use so far, after the probe has run a step of everything."""
    if compute.device.startswith("cuda"):
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
