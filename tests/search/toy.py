"""A toy segmentation task with one clearly best architecture, and a task object around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
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
