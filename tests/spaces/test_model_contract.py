"""Networks of the spaces keep the contract of all models: the published ones, and points drawn at random."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from torch import nn

from autoseg import registry
from autoseg.search.architecture import Architecture
from autoseg.spaces.base import decisions, plain
from autoseg.testing import ModelContract


class TestEdNasN3(ModelContract):
    model = "ed-nas-n3"
    options: ClassVar = {"layers": 3, "width": 4}
    learning_rate = 1e-2


class TestEdNasN4(ModelContract):
    model = "ed-nas-n4"
    options: ClassVar = {"layers": 2, "width": 8}


def point(in_channels: int, num_classes: int, *, space: str, seed: int, **kwargs: Any) -> nn.Module:
    """A random architecture of a space, the same for the same ``seed``."""
    found = decisions(registry.load("space", space)(1, 2, **kwargs))
    rng = random.Random(seed)
    choices = plain({label: rng.choice(values) for label, values in found.items()})
    return Architecture(space, kwargs, choices).build(in_channels, num_classes)


class TestEdNasWithBranchesInTheDecoder(ModelContract):
    model = point
    options: ClassVar = {
        "space": "ednas", "seed": 1, "blocks": 2, "layers": 2, "width": 4,
        "decoder": "multi", "encdec_skip": True, "extra": ["se", "context"],
    }  # fmt: skip
    learning_rate = 2e-2


class TestSearchNet(ModelContract):
    model = point
    options: ClassVar = {"space": "searchnet", "seed": 1, "width": 4}
    learning_rate = 1e-2


class TestAutoSegNet(ModelContract):
    model = point
    options: ClassVar = {"space": "autosegnet", "seed": 1, "width": 4}
