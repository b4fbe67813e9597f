"""What the ranks of the tests do; started in other processes, so each is a function of an importable module."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.errors import Problem, UserError
from autoseg.progress import Progress
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.distributed import agreed, confirm, evaluate_together
from autoseg.train.keeper import Trained
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import train_network


def plain_network() -> nn.Module:
    """Without normalisation, so that the batch can be shared without any difference."""
    seed_everything(3)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))


def normalised_network() -> nn.Module:
    """With batch normalisation and a parameter that is never used."""
    seed_everything(3)
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1))
    network.unused = nn.Parameter(torch.ones(1))
    return network


class Poisoned(nn.Module):
    """Its fourth output is not finite, on rank 1 only."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        seed_everything(3)
        self.conv, self.calls, self.rank = nn.Conv2d(1, 3, 1), 0, rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        return self.conv(x) * (float("nan") if self.rank == 1 and self.calls == 4 else 1.0)


NETWORKS = {"plain": plain_network, "normalised": normalised_network}


def training(
    compute: Compute, folder: str, network: str = "plain", progress: Progress | None = None, **recipe: Any
) -> tuple[nn.Module, Trained]:
    """A short training; each rank leaves its weights in the folder."""
    data = synthetic_ceramic(count=15, size=32)
    built = Poisoned(compute.rank) if network == "poisoned" else NETWORKS[network]()
    trained = train_network(
        built,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=Normalisation.from_split(data.train, 1),
        recipe=Recipe(**{"epochs": 3, "batch": 5, "patch": 16, "loss": "ce+dice", **recipe}),
        seed=0,
        compute=compute,
        state_file=Path(folder) / "state.safetensors",
        progress=progress,
        save_every=0.0,
    )
    weights = {name: value.tolist() for name, value in built.state_dict().items()}
    kept = {"weights": weights, "trained": {k: v for k, v in asdict(trained).items() if k != "seconds"}}
    (Path(folder) / f"rank-{compute.rank}.json").write_text(json.dumps(kept))
    return built, trained


def evaluation(compute: Compute, folder: str, images: int) -> Any:
    """Scores of a network on so many images."""
    data = synthetic_ceramic(count=40, size=32)
    rng = np.random.default_rng(0)

    class Few:
        names = data.train.names[:images]

        def __len__(self) -> int:
            return images

        def __getitem__(self, i: int) -> Any:
            return data.train[i]

    found = evaluate_together(
        plain_network(), Few(), data.info, Normalisation((90.0,), (20.0,)), compute, loss=nn.CrossEntropyLoss()
    )
    assert rng is not None
    kept = {"names": found.names, "confusions": found.confusions.tolist(), "loss": found.loss}
    (Path(folder) / f"rank-{compute.rank}.json").write_text(json.dumps(kept))
    return kept


def agreement(compute: Compute, folder: str, differ: bool = False) -> Any:
    """A value of rank 0, and a check that may fail."""
    found = agreed(compute, lambda: {"rank": compute.rank, "pid": os.getpid()})
    confirm(compute, "the path", {"op": compute.rank if differ else 0})
    (Path(folder) / f"rank-{compute.rank}.json").write_text(json.dumps(found))
    return found


def failing(compute: Compute, folder: str, how: str) -> None:
    """Rank 1 fails in the middle of the work."""
    agreed(compute, lambda: 1)
    if compute.rank == 1:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        if how == "exception":
            raise LookupError("planted\nin two lines")
        if how == "user":
            raise UserError(Problem("wrong image", "data", "mend it"))
        if how == "killed":
            os.kill(os.getpid(), 9)
        if how == "exit":
            os.write(2, b"a library died\n")
            os._exit(7)
    agreed(compute, lambda: 2)
    if compute.rank == 0 and how == "zero":
        raise LookupError("of rank 0")
    time.sleep(0.0 if compute.rank == 0 else 60.0)


def wait(compute: Compute, folder: str) -> None:
    """Note the process, then wait for rank 0 for ever."""
    (Path(folder) / f"pid-{compute.rank}").write_text(str(os.getpid()))
    agreed(compute, lambda: time.sleep(600))


INFO = DatasetInfo("toy", 1, ("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
