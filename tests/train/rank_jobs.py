"""What the ranks of the tests do; it is started in other processes, so each is a function of an importable module."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.data.batches import Normalisation
from autoseg.data.synthetic.ceramic import CeramicSplit, synthetic_ceramic
from autoseg.errors import Interrupted, Problem, UserError
from autoseg.progress import Progress
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.distributed import agreed, evaluate_together, forward
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import train_network

NORMALISATION = Normalisation((90.0,), (20.0,))


class Poisoned(nn.Module):
    """Its fourth output in training is not finite, on rank 1 only."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.conv, self.calls, self.rank = nn.Conv2d(1, 3, 1), 0, rank

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.conv(x) * (float("nan") if self.rank == 1 and self.calls == 4 else 1.0)


def network_of(kind: str, rank: int) -> nn.Module:
    """A small network, the same on all ranks."""
    seed_everything(3)
    if kind == "poisoned":
        return Poisoned(rank)
    middle: list[nn.Module] = [nn.Tanh()] if kind == "plain" else [nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2)]
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *middle, nn.Conv2d(6, 3, 3, padding=1))
    if kind == "partly used":
        network.unused = nn.Parameter(torch.ones(1))
    return network


class Cut(Progress):
    """Ends the process, so to speak, after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def update(self, label: str, done: float, text: str = "") -> None:
        """Count the steps."""
        self.steps -= 1
        if self.steps == 0:
            raise Interrupted


def training(compute: Compute, folder: str, network: str = "plain", cut: int = 0, **recipe: Any) -> None:
    """A short training; each rank leaves weights and history in the folder."""
    data = synthetic_ceramic(count=15, size=32)
    built, place = network_of(network, compute.rank), Path(folder)
    try:
        trained = train_network(
            built,
            train=data.train,
            val=data.val,
            info=data.info,
            normalisation=NORMALISATION,
            recipe=Recipe(**{"epochs": 3, "batch": 5, "patch": 16, "loss": "ce+dice", **recipe}),
            seed=0,
            compute=compute,
            state_file=place / ("state.safetensors" if compute.rank == 0 else f"of-rank-{compute.rank}.safetensors"),
            progress=Cut(cut) if cut else None,
            save_every=0.0,
        )
    except Interrupted:
        return
    weights = {name: value.tolist() for name, value in built.state_dict().items()}
    keep(compute, folder, {"weights": weights, **asdict(trained)})


def evaluation(compute: Compute, folder: str, images: int) -> None:
    """Scores of a network on so many images."""
    split, info = CeramicSplit(range(images), size=32), synthetic_ceramic(count=12, size=32).info
    network = network_of("plain", compute.rank)
    found = evaluate_together(network, split, info, NORMALISATION, compute, nn.CrossEntropyLoss(ignore_index=255))
    keep(compute, folder, {"names": found.names, "confusions": found.confusions.tolist(), "loss": found.loss})


def gradient(compute: Compute, folder: str, items: int) -> None:
    """Logits of a batch, and the gradient that DDP would give: the mean over the ranks."""
    seed_everything(5)
    x, target = torch.randn(items, 1, 8, 8), torch.randint(0, 3, (items, 8, 8))
    target[0, :5] = 255  # other numbers of labelled pixels for each rank
    network = network_of("plain", compute.rank)
    logits = forward(compute, network, x)
    nn.CrossEntropyLoss(ignore_index=255)(logits, target).backward()
    for parameter in network.parameters():
        if compute.ranks > 1:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= compute.ranks
    grads = [parameter.grad.tolist() for parameter in network.parameters()]
    keep(compute, folder, {"logits": logits.tolist(), "gradient": grads, "next": float(torch.rand(()))})


def agreement(compute: Compute, folder: str) -> None:
    """A value of rank 0."""
    keep(compute, folder, {"rank": agreed(compute, lambda: compute.rank), "threads": torch.get_num_threads()})


def keep(compute: Compute, folder: str, found: dict[str, Any]) -> None:
    """Write what a rank has found."""
    (Path(folder) / f"rank-{compute.rank}.json").write_text(json.dumps(found))


def several(compute: Compute, folder: str, jobs: dict[str, list[Any]]) -> None:
    """Several jobs one after the other, each in its folder."""
    for label, (job, options) in jobs.items():
        place = Path(folder) / label
        place.mkdir(parents=True, exist_ok=True)
        globals()[job](compute, str(place), **options)
        agreed(compute, lambda: None)


def failing(compute: Compute, how: str) -> None:
    """Rank 1 fails in the middle of the work."""
    agreed(compute, lambda: 1)
    if compute.rank == 1:
        if how == "exception":
            raise LookupError("planted\nin two lines")
        if how == "problem":
            raise UserError(Problem("wrong image", "data", "mend it"))
        if how == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if how == "killed":
            os.kill(os.getpid(), 9)
    agreed(compute, lambda: 2)


def wait(compute: Compute, folder: str) -> None:
    """Note the process, then wait for rank 0 for ever."""
    (Path(folder) / f"pid-{compute.rank}").write_text(str(os.getpid()))
    agreed(compute, lambda: time.sleep(600))
