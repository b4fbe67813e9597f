"""A data set that a small network learns in a second: the mask is where the blurred image is bright."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from autoseg.baselines.unet import UNet
from autoseg.data.base import DatasetInfo, Image, Mask
from autoseg.data.batches import Normalisation
from autoseg.train.compute import Compute, seed_everything
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import Trained, train_network

INFO = DatasetInfo("tiny", 1, ("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
CPU = Compute("cpu", "32", 1)


class Pairs:
    """A split in memory."""

    def __init__(self, pairs: Sequence[tuple[Image, Mask]]) -> None:
        self.pairs = list(pairs)
        self.names = [f"image-{i}" for i in range(len(pairs))]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        return self.pairs[index]

    def __iter__(self) -> Iterator[tuple[Image, Mask]]:
        return iter(self.pairs)


def bright(count: int, seed: int, size: int = 16) -> Pairs:
    rng = np.random.default_rng(seed)
    images = [cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), 2) for _ in range(count)]
    noise = rng.normal(scale=0.05, size=(count, size, size)).astype(np.float32)
    return Pairs([(image + n, (image > 0).astype(np.uint8)) for image, n in zip(images, noise, strict=True)])


TRAIN, VAL = bright(24, seed=1), bright(12, seed=2)
NORMALISATION = Normalisation.from_split(TRAIN, 1)
RECIPE = Recipe(epochs=6, batch=4, patch=16, lr=0.02, loss="ce", validate_every=2)


def network(seed: int = 0, depth: int = 2) -> UNet:
    seed_everything(seed)
    return UNet(1, 2, width=4, depth=depth)


def train(net: Any, folder: Path, recipe: Recipe = RECIPE, seed: int = 0, **options: Any) -> Trained:
    arguments: dict[str, Any] = {
        "train": TRAIN, "val": VAL, "info": INFO, "normalisation": NORMALISATION, "compute": CPU,
        "state_file": folder / "state.safetensors",
    }  # fmt: skip
    return train_network(net, recipe=recipe, seed=seed, **{**arguments, **options})
