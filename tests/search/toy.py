"""A toy segmentation task with one clearly best architecture, and a task object around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from torch import Tensor, nn

from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.search.task import SearchTask
from autoseg.train.compute import Compute
from autoseg.train.recipe import Recipe

INFO = DatasetInfo("toy", 1, ("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
BEST = {"op": "conv3", "op2": "identity"}


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_empty(x.shape).normal_()


def block(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


class Planted(ModelSpace):
    """The label is the sign of a 3x3 mean: only ``conv3`` followed by ``identity`` can see it."""

    size_divisor = 1

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 1)
        self.op = LayerChoice({"noise": Noise(), "conv1": block(width, 1), "conv3": block(width, 3)}, label="op")
        self.op2 = LayerChoice({"noise": Noise(), "identity": nn.Identity()}, label="op2")
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op2(self.op(self.stem(x))))


class Planes:
    """Random images whose mask is the sign of their 3x3 mean."""

    def __init__(self, count: int, seed: int, size: int = 16) -> None:
        import cv2

        rng = np.random.default_rng(seed)
        self.images = rng.normal(size=(count, size, size)).astype(np.float32)
        self.masks = [
            (cv2.blur(image, (3, 3), borderType=cv2.BORDER_CONSTANT) > 0).astype(np.uint8) for image in self.images
        ]
        self.names = [f"plane-{seed}-{i}" for i in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.images[i], self.masks[i]

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def planted_task(folder: Path, seed: int, **recipe) -> SearchTask:
    train, val = Planes(64, 1), Planes(32, 2)
    return SearchTask(
        space="planted",
        kwargs={},
        space_class=Planted,
        train=train,
        val=val,
        info=INFO,
        normalisation=Normalisation.from_split(train, 1),
        recipe=Recipe(**{"epochs": 1, "batch": 8, "patch": 16, "lr": 0.02, "loss": "ce", "augment": False, **recipe}),
        compute=Compute("cpu", "32", 1),
        seed=seed,
        folder=folder,
    )


class Mixed(nn.Module):
    """Its input under so much noise of equal strength."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.share) * x + self.share * x.std() * torch.randn_like(x)


class PlantedWide(ModelSpace):
    """96 architectures under the same task; two layers of noise and a choice of input have to be got right as well.

    The best is ``{"op": "conv3", "in": [1], "n1": "clear", "n2": "clear"}``; noise is worse the more there is.
    """

    size_divisor = 1
    pass_through = frozenset({"clear"})
    best: ClassVar = {"in": [1], "n1": "clear", "n2": "clear", "op": "conv3"}

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 8) -> None:
        super().__init__()

        def noise(label: str) -> LayerChoice:
            amounts = {"clear": 0.0, "light": 0.3, "strong": 0.6, "all": 1.0}
            return LayerChoice({name: Mixed(share) for name, share in amounts.items()}, label=label)

        self.stem = nn.Conv2d(in_channels, width, 1)
        self.n1, self.n2 = noise("n1"), noise("n2")
        self.op = LayerChoice({"noise": Noise(), "conv1": block(width, 1), "conv3": block(width, 3)}, label="op")
        self.source = InputChoice(2, 1, label="in")
        self.head = nn.Conv2d(width, num_classes, 1)

    @staticmethod
    def named(kwargs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {"plain": {"in": [1], "n1": "strong", "n2": "light", "op": "conv1"}}

    @staticmethod
    def quality(choices: dict[str, Any]) -> float:
        """About the mIoU that two epochs of training reach, in no time."""
        kept = {"clear": 1.0, "light": 0.92, "strong": 0.72, "all": 0.35}
        if choices["in"] == [0]:
            return 0.44 * (0.9 + 0.1 * kept[choices["n2"]])
        reached = {"noise": 0.33, "conv1": 0.43, "conv3": 0.96}[choices["op"]]
        return max(0.33, reached * kept[choices["n1"]] * kept[choices["n2"]])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.n2(self.source([x, self.op(self.n1(x))])))
