"""The optimisers that a strategy or a recipe can ask for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.train.clock import Clock
from autoseg.train.module import Optimisation, SegmentationModule


def optimiser(**options: object) -> torch.optim.Optimizer:
    module = SegmentationModule(nn.CrossEntropyLoss(), 2, Optimisation(**options), Clock(epochs=1))  # type: ignore[arg-type]
    module.set_model(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1, bias=False)))
    return module.configure_optimizers()


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_biases_and_normalisation_do_not_decay(name: str, kind: type) -> None:
    built = optimiser(optimiser=name, lr=0.03, weight_decay=0.2)
    assert type(built) is kind
    assert [(len(g["params"]), g["weight_decay"], g["lr"]) for g in built.param_groups] == [
        (2, 0.2, 0.03),
        (3, 0.0, 0.03),
    ]


def test_default_is_adamw() -> None:
    assert type(optimiser()) is torch.optim.AdamW


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.0, False)])
def test_sgd_has_nesterov_momentum(momentum: float, nesterov: bool) -> None:
    (group, _) = optimiser(optimiser="sgd", momentum=momentum).param_groups
    assert (group["momentum"], group["nesterov"]) == (momentum, nesterov)


def test_unknown_optimiser() -> None:
    with pytest.raises(ValueError, match="must be one of adamw, adam, sgd, not 'adamm'"):
        Optimisation(optimiser="adamm")
