"""Short measurements on this machine, from which the plan predicts time and memory.

What is measured on a GPU is measured in a process of its own: CUDA's context and what torch keeps there for
later would otherwise stay until the run ends, on the GPU of the first job, beside that job.
"""

from __future__ import annotations

import logging
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoseg import processes
from autoseg.data.base import DatasetInfo, Split
from autoseg.errors import Problem, UserError, one_line
from autoseg.nn.padding import pad_to_multiple
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.modelspec import ModelSpec
from autoseg.train.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probed:
    """What a probe has found.

    Attributes:
        step: Seconds of a training step of each network, by its label.
        searching: Seconds of a step of the search.
        memory: Peak memory, bytes.
    """

    step: dict[str, float]
    searching: float
    memory: int


def probe(
    specs: Sequence[ModelSpec],
    recipe: Recipe,
    search: tuple[ModelSpec, Recipe],
    info: DatasetInfo,
    compute: Compute,
) -> Probed:
    """Measure a step of everything that a run trains; nothing of it stays on a GPU.

    On a CPU this process measures, which costs no start of another.

    Args:
        specs: The networks.
        recipe: How they are trained.
        search: A path of the search, and how it is trained.
        info: Channels and classes.
        compute: Device, precision and threads.

    Raises:
        UserError: A step does not fit into memory.
    """
    compute.prepare()
    arguments = (list(specs), recipe, search, info, compute)
    if compute.device == "cpu":
        return _probe(*arguments)
    found: Probed = processes.call(_probe, arguments)
    return found


def _probe(
    specs: list[ModelSpec], recipe: Recipe, search: tuple[ModelSpec, Recipe], info: DatasetInfo, compute: Compute
) -> Probed:
    step = {spec.label: probe_step(spec, recipe, info, compute) for spec in specs}
    return Probed(step, probe_step(*search, info, compute), peak_memory(compute))


def probe_step(spec: ModelSpec, recipe: Recipe, info: DatasetInfo, compute: Compute, repeats: int = 2) -> float:
    """Seconds of one training step of a network, measured here and now (best of a few).

    Args:
        spec: The network; a fresh one is built.
        recipe: Batch, patch and loss.
        info: Channels and classes.
        compute: Device, precision and threads.
        repeats: Steps to time after the first, which is slower than the others.

    Raises:
        UserError: A step does not fit into memory, or network or loss fail.
    """
    compute.prepare()
    seed_everything(0)
    best = math.inf
    try:
        network = spec.build(info.channels, info.num_classes).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.train()
        loss = recipe.build_loss().to(compute.device)
        x = torch.randn(recipe.batch, info.channels, recipe.patch, recipe.patch, device=compute.device)
        x, _ = pad_to_multiple(x, int(getattr(network, "size_divisor", 1)))
        target = torch.randint(0, info.num_classes, (x.shape[0], *x.shape[-2:]), device=compute.device)
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
    except UserError:
        raise
    except Exception as error:  # most likely a plugin of somebody
        log.exception("a training step of %s failed", spec.label)
        fix = f"mend the plugin, of the network or of the loss {recipe.loss!r}, or leave it out"
        what = f"one training step fails: {one_line(error)}"
        raise UserError(Problem(what, f"model {spec.label!r}", fix)) from error
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
