"""What a step of a search costs, both sides of every comparison in one process, in CPU time of one thread.

Run: ``python benchmarks/search_step.py`` (some minutes). On SEARCH-Net (width 16, two nodes per unit) it compares

1. a training step of a single-path supernet with a weight step of the seven-operation DARTS mixture,
2. the same with the mean of five networks derived from the space, and
3. our run of NNI's DARTS with a bare PyTorch loop over the same batches with the same first-order algorithm;
4. and it measures what a multi-trial search spends per candidate beyond its training.

Sides alternate; of each the quickest repetition counts. Prints a table and whether every bound is kept; the exit
code is 1 when one is not.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # before torch is imported

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bounds import Bound
from torch import Tensor, nn

from autoseg.data.batches import Normalisation
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.progress import Progress
from autoseg.quiet import load_nni
from autoseg.search import trials
from autoseg.search.architecture import Architecture
from autoseg.search.batches import validation_patches
from autoseg.search.darts import Darts
from autoseg.search.nni_gradients import CuredDarts, freeze_affine
from autoseg.search.random_search import RandomSearch
from autoseg.search.supernet import select, use_batch_statistics
from autoseg.search.task import SearchTask
from autoseg.spaces.base import decisions, plain
from autoseg.spaces.searchnet import SearchNet
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.recipe import Recipe
from autoseg.train.schedules import Cosine
from autoseg.train.trainer import train_loader

load_nni()
from nni.nas.nn.pytorch import LayerChoice  # noqa: E402
from nni.nas.strategy import RandomOneShot  # noqa: E402

KWARGS: dict[str, Any] = {"width": 16, "nodes": 2}
BATCH, CLASSES = 8, 3
ARCHITECTURE_LR, LR, CLIP = 0.02, 3e-3, 1.0


def space() -> SearchNet:
    return SearchNet(1, CLASSES, **KWARGS)


def random_paths(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    values = decisions(space())
    return [plain({label: rng.choice(options) for label, options in values.items()}) for _ in range(count)]


def stepper(network: nn.Module, size: int) -> Callable[[], None]:
    """One weight step on random data, as a training does it."""
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    x = torch.randn(BATCH, 1, size, size).to(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (BATCH, size, size))
    loss = Recipe().build_loss()
    weights = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=LR)

    def step() -> None:
        optimiser.zero_grad()
        loss(network(x), target).backward()
        nn.utils.clip_grad_norm_([p for p in weights if p.grad is not None], CLIP)
        optimiser.step()

    return step


def saved_bytes(network: nn.Module, step: Callable[[], None]) -> int:
    """Bytes that a step keeps for its backward pass, parameters left out, shared memory counted once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # the tensor itself would keep the graph alive

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(found.values())


def cpu_seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def compare_steps(size: int, rounds: int) -> list[Bound]:
    """Single path against mixture and derived networks."""
    paths = random_paths(5)
    single = RandomOneShot().mutate_model(use_batch_statistics(space()))
    mixture = CuredDarts().mutate_model(use_batch_statistics(space()))
    freeze_affine(mixture)
    derived = [Architecture("searchnet", KWARGS, path).build(1, CLASSES) for path in paths]
    single_step, mixture_step = stepper(single, size), stepper(mixture, size)
    derived_steps = [stepper(network, size) for network in derived]
    times: dict[str, list[float]] = {}
    memory: dict[str, int] = {}

    def measure(name: str, network: nn.Module, step: Callable[[], None], number: int) -> None:
        if number:
            times.setdefault(name, []).append(cpu_seconds(step))
        else:
            memory[name] = saved_bytes(network, step)

    for number in range(rounds + 1):  # the first round warms up and measures memory
        for i, path in enumerate(paths):
            select(single, path)
            measure(f"path {i}", single, single_step, number)
            measure(f"derived {i}", derived[i], derived_steps[i], number)
        measure("mixture", mixture, mixture_step, number)
    best = {name: min(values) for name, values in times.items()}

    def mean(kind: str, of: dict[str, Any]) -> float:
        return statistics.fmean(value for name, value in of.items() if name.startswith(kind))

    print(f"{'step of':<28}{'CPU ms':>10}{'saved MiB':>12}   {BATCH} x 1 x {size} x {size}")
    for title, kind in (
        ("one path of the supernet", "path"),
        ("five derived networks", "derived"),
        ("DARTS mixture", "mixture"),
    ):
        print(f"{title:<28}{1000 * mean(kind, best):>10.0f}{mean(kind, memory) / 2**20:>12.0f}", flush=True)
    at = f"({size} px)"
    return [
        Bound(f"single path / DARTS, time {at}", mean("path", best) / best["mixture"], 0.25),
        Bound(f"single path / DARTS, saved activations {at}", mean("path", memory) / memory["mixture"], 0.25),
        Bound(f"single path / derived networks, time {at}", mean("path", best) / mean("derived", best), 1.3),
    ]


def make_task(folder: Path, size: int, steps: int, progress: Progress | None = None) -> SearchTask:
    """A search on drawn micrographs with so many training steps in an epoch."""
    data = synthetic_ceramic(count=round(steps * BATCH / 0.7), size=size)
    return SearchTask(
        space="searchnet",
        kwargs=dict(KWARGS),
        space_class=SearchNet,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=Normalisation.from_split(data.train, 1),
        recipe=Recipe(epochs=1, batch=BATCH, patch=size, lr=LR, clip=CLIP),
        compute=Compute("cpu", "32", 1),
        seed=0,
        folder=folder,
        progress=progress or Progress(),
    )


class TrainingTime(Progress):
    """CPU seconds between the begin and the end of the supernet's training, what happens at epoch ends included."""

    began = seconds = 0.0

    def begin(self, label: str, total: float, unit: str = "") -> None:
        if label == "search":
            self.began = time.process_time()

    def end(self, label: str, text: str = "") -> None:
        if label == "search":
            self.seconds = time.process_time() - self.began


def our_darts(folder: Path, size: int, steps: int) -> float:
    watch = TrainingTime()
    task = make_task(folder, size, steps, watch)
    Darts(epochs=1, warmup=0.0, tuning=0.0, candidates=0, architecture_lr=ARCHITECTURE_LR).search(task)
    return watch.seconds


class Mixture(nn.Module):
    """The softmax-weighted sum of all operations of a choice, in plain PyTorch."""

    def __init__(self, choice: LayerChoice) -> None:
        super().__init__()
        self.operations = nn.ModuleList(choice[name] for name in choice.names)
        self.alpha = nn.Parameter(1e-3 * torch.randn(len(self.operations)))
        for module in self.operations.modules():  # as in our search
            if isinstance(module, nn.BatchNorm2d):
                for parameter in module.parameters():
                    parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.alpha.softmax(0)
        return sum(
            (share * operation(x) for share, operation in zip(shares, self.operations, strict=True)), x.new_zeros(())
        )


def bare_darts(folder: Path, size: int, steps: int) -> float:
    """CPU seconds of first-order DARTS over the batches of our search, without NNI and Lightning."""
    task = make_task(folder, size, steps)
    seed_everything(0)
    network: nn.Module = use_batch_statistics(space())
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LayerChoice):
                setattr(parent, name, Mixture(child))
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    alphas = [module.alpha for module in network.modules() if isinstance(module, Mixture)]
    known = {id(alpha) for alpha in alphas}
    weights = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    architecture = torch.optim.Adam(alphas, lr=ARCHITECTURE_LR, betas=(0.5, 0.999), weight_decay=1e-3)
    optimiser = torch.optim.AdamW(weights, lr=LR)
    loss = task.recipe.build_loss()
    train = train_loader(task.train, task.info, task.normalisation, task.recipe, task.seed, 8)
    val = validation_patches(task, size, len(train), BATCH)

    def backward(batch: tuple[Tensor, Tensor]) -> None:
        x, target = batch
        loss(network(x.to(memory_format=torch.channels_last)), target).backward()

    began = time.process_time()
    train.set_epoch(0)
    val.set_epoch(0)
    for step, (batch, held_out) in enumerate(zip(train, val, strict=True)):
        architecture.zero_grad()
        backward(held_out)
        architecture.step()
        optimiser.zero_grad()
        optimiser.param_groups[0]["lr"] = Cosine()(LR, step / steps, 0.0)
        backward(batch)
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimiser.step()
    return time.process_time() - began


def compare_darts(folder: Path, size: int, steps: int, rounds: int) -> list[Bound]:
    """Our run of NNI's DARTS against the bare loop."""
    ours, bare = [], []
    for number in range(rounds):
        ours.append(our_darts(folder / f"darts {number}", size, steps))
        bare.append(bare_darts(folder / "bare", size, steps))
    print(f"\nDARTS, {steps} iterations at {size} px: ours {min(ours):.2f} s, bare loop {min(bare):.2f} s", flush=True)
    return [Bound("our run of DARTS / bare loop, time", min(ours) / min(bare), 1.10)]


def trial_overhead(folder: Path, size: int, count: int) -> list[Bound]:
    """CPU seconds per candidate of a multi-trial search whose trainings take no time."""
    done = trials.TrialResult(miou=0.5, seconds=0.0, cpu_seconds=0.0, note="")
    with patch.object(trials, "train_candidate", lambda *args, **kwargs: done):
        seconds = cpu_seconds(lambda: RandomSearch(trials=count, epochs=1).search(make_task(folder, size, 1)))
    return [Bound(f"multi-trial overhead per candidate, {count} candidates", seconds / count, 0.1, " s")]


def main() -> int:
    """Measure everything; 1 when a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="side of the patches of the steps, pixels")
    parser.add_argument("--darts-size", type=int, default=64, help="side of the patches of the DARTS runs")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each side")
    parser.add_argument("--steps", type=int, default=6, help="iterations of a DARTS run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bounds = compare_steps(options.size, options.rounds)
    with tempfile.TemporaryDirectory() as name:
        bounds += compare_darts(Path(name), options.darts_size, options.steps, options.rounds)
        bounds += trial_overhead(Path(name) / "trials", options.darts_size, 20)
    print("", *bounds, sep="\n")
    return 0 if all(bound.kept for bound in bounds) else 1


if __name__ == "__main__":
    sys.exit(main())
