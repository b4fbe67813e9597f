"""Where claims are measured: data, trainings and searches, each done once and kept on disk.

A measurement is named by data, network, protocol, seed and scale; asked for again, by another claim or after an
interruption, its result is read. Two processes that want the same one do it once: the second waits. What is not in the
name is the code: after a change of it, results belong into another folder.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import registry
from autoseg.baselines.build import build
from autoseg.data.base import SegmentationData
from autoseg.data.batches import Normalisation, RamCache
from autoseg.runfolder import read_json, write_json
from autoseg.search.task import SearchTask
from autoseg.train import metrics
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.evaluate import evaluate
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import train_network

Network = str | Mapping[str, Any]
"""The name of a registered model, or an architecture as plain values."""


@dataclass(frozen=True)
class World:
    """A data set.

    Attributes:
        dataset: Its name.
        options: Its options.
        share: Share of the training images that is used, from the first.
    """

    dataset: str
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0


@dataclass(frozen=True)
class Protocol:
    """How networks are trained."""

    epochs: int
    batch: int = 8
    patch: int = 96
    loss: str = "ce+dice"
    loss_options: dict[str, Any] = field(default_factory=dict)
    lr: float = 3e-3

    def recipe(self) -> Recipe:
        """As the trainer wants it."""
        return Recipe(**asdict(self))


class Lab:
    """Does measurements and keeps them.

    Args:
        folder: Where results are kept.
        device: ``"cpu"`` or ``"cuda"``.
        large: Whether to work at the size of a graphics card.

    Attributes:
        notes: What searches said about themselves, such as that they have not converged.
    """

    def __init__(self, folder: Path, device: str = "cpu", large: bool = False) -> None:
        self.folder, self.large, self.notes = folder, large, list[str]()
        self.compute = Compute.resolve(device, "auto" if device != "cpu" else "32")

    def size(self, small: Any, large: Any) -> Any:
        """The value for this scale."""
        return large if self.large else small

    def train(
        self, world: World, network: Network, protocol: Protocol, seed: int, options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Train a network from scratch, keep its best validation weights, score them on the test split once.

        Args:
            world: The data.
            network: What is trained.
            protocol: How.
            seed: Of weights, order, crops and augmentation; the data are the same for all seeds.
            options: Of the model; for an architecture those that replace options of its space.

        Returns:
            ``miou``, ``dice`` (of the last class, the foreground where there are two), ``accuracy``, ``loss`` on the
            test split, ``val_miou``, ``params``, ``cpu_seconds``, and ``masks``, the file of the predicted test masks.
        """
        given = dict(options or {})
        key = {"world": asdict(world), "network": network, "protocol": asdict(protocol), "seed": seed, "options": given}
        return self._once("trainings", key, lambda file: self._train(world, network, protocol, seed, given, file))

    def search(
        self,
        world: World,
        space: tuple[str, Mapping[str, Any]],
        strategy: tuple[str, Mapping[str, Any]],
        protocol: Protocol,
        seed: int,
    ) -> dict[str, Any]:
        """Search a space.

        Args:
            world: The data; the test split is not looked at.
            space: Its name and options.
            strategy: Its name and options, which say how long.
            protocol: Loss, batch, patch and learning rate.
            seed: Of the search.

        Returns:
            ``architecture`` as plain values, ``seconds`` and ``cpu_seconds`` of the search, and its ``notes``.
        """
        key = {
            "world": asdict(world),
            "space": [space[0], dict(space[1])],
            "strategy": [strategy[0], dict(strategy[1])],
            "protocol": asdict(protocol),
            "seed": seed,
        }
        found = self._once("searches", key, lambda file: self._search(world, space, strategy, protocol, seed))
        self.notes += [note for note in found["notes"] if note not in self.notes]
        return found

    def _train(
        self, world: World, network: Network, protocol: Protocol, seed: int, options: dict[str, Any], file: Path
    ) -> dict[str, Any]:
        data, normalisation = load(world)
        recipe = protocol.recipe()
        seed_everything(seed, 0)
        net = build(network, data.info.channels, data.info.num_classes, **options)
        cpu = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            trained = train_network(
                net,
                train=data.train,
                val=data.val,
                info=data.info,
                normalisation=normalisation,
                recipe=recipe,
                seed=seed,
                compute=self.compute,
                state_file=Path(folder) / "state.safetensors",
                save_every=1e9,
            )
        cpu = time.process_time() - cpu
        loss = recipe.build_loss().to(self.compute.device)
        test = evaluate(net, data.test, data.info, normalisation, self.compute, loss=loss, keep_predictions=True)
        masks = file.with_suffix(".npz")
        np.savez_compressed(masks, **test.predictions)
        scores = test.scores
        return {
            "miou": float(scores.miou),
            "dice": float(metrics.dice(test.confusions.sum(0))[-1]),
            "accuracy": float(scores.accuracy),
            "loss": test.loss,
            "val_miou": trained.best_miou,
            "params": sum(parameter.numel() for parameter in net.parameters()),
            "cpu_seconds": cpu,
            "masks": masks.name,
        }

    def _search(
        self,
        world: World,
        space: tuple[str, Mapping[str, Any]],
        strategy: tuple[str, Mapping[str, Any]],
        protocol: Protocol,
        seed: int,
    ) -> dict[str, Any]:
        data, normalisation = load(world)
        with tempfile.TemporaryDirectory() as folder:
            task = SearchTask(
                space=space[0],
                kwargs=dict(space[1]),
                space_class=registry.load("space", space[0]),
                train=data.train,
                val=data.val,
                info=data.info,
                normalisation=normalisation,
                recipe=protocol.recipe(),
                compute=self.compute,
                seed=seed,
                folder=Path(folder),
            )
            wall, cpu = time.monotonic(), time.process_time()
            result = registry.load("strategy", strategy[0])(**strategy[1]).search(task)
        return {
            "architecture": result.architecture.to_json(),
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "notes": result.notes,
        }

    def _once(self, kind: str, key: dict[str, Any], do: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """The kept result, or that of doing it now."""
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        scale = {"large": self.large, "device": self.compute.device}
        text = json.dumps(key | scale, sort_keys=True)
        file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                write_json(file, {"key": key, "result": do(file)})
        result: dict[str, Any] = read_json(file)["result"]
        return result

    def masks(self, result: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The predicted test masks of a training, by image name."""
        with np.load(self.folder / "trainings" / result["masks"]) as stored:
            return dict(stored)


@functools.lru_cache(maxsize=4)
def _loaded(world: str) -> tuple[SegmentationData, Normalisation]:
    described = json.loads(world)
    data: SegmentationData = registry.load("dataset", described["dataset"])(**described["options"])
    train = data.train
    if described["share"] < 1:
        train = _First(train, round(described["share"] * len(train)))
    whole = SegmentationData(data.info, RamCache(train), RamCache(data.val), RamCache(data.test))
    return whole, Normalisation.from_split(whole.train, data.info.channels)


def load(world: World) -> tuple[SegmentationData, Normalisation]:
    """The data, drawn or decoded once per process."""
    return _loaded(json.dumps(asdict(world), sort_keys=True))


class _First:
    """The first images of a split."""

    def __init__(self, split: Any, count: int) -> None:
        self._split, self.names = split, list(split.names)[:count]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self.names):
            raise IndexError(index)
        return self._split[index]

    def __iter__(self) -> Any:
        return (self[index] for index in range(len(self)))
