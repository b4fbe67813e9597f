from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autoseg.baselines.layers import (
    DownsamplingBlock,
    conv_layers,
    fraction_problems,
    he_initialise,
    linear_initialise,
)


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (nn.Conv2d(50, 200, 3), 2 / (9 * 50)),
        (nn.Conv2d(900, 900, 3, groups=900), 2 / 9),
        (nn.ConvTranspose2d(100, 100, 2, stride=2), 1 / 100),
        (nn.ConvTranspose2d(100, 100, 3, stride=2), 4 / (9 * 100)),
    ],
)
def test_variance_of_the_weights(layer: nn.Module, variance: float) -> None:
    torch.manual_seed(0)
    he_initialise(layer)
    weight = layer.get_parameter("weight")
    assert abs(weight.mean()) < 0.05 * variance**0.5
    assert weight.var().item() == pytest.approx(variance, rel=0.05)
    assert layer.get_parameter("bias").abs().max() == 0


def test_linear_layers_keep_the_scale() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*(nn.Conv2d(64, 64, 1, bias=False) for _ in range(20)))
    linear_initialise(layers)
    with torch.no_grad():
        assert 0.5 < layers(torch.randn(1, 64, 16, 16)).std() < 2


def test_linear_initialisation_counts_the_inputs_of_a_group() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2000, 2000, 3, groups=2000)
    linear_initialise([layer], branches=4)
    assert layer.weight.var().item() == pytest.approx(1 / (9 * 4), rel=0.05)


def test_bias_follows_the_normalisation_unless_asked_for() -> None:
    def biased(**options: Any) -> list[bool]:
        return [m.bias is not None for m in conv_layers([3, 4, 5], **options) if isinstance(m, nn.Conv2d)]

    assert biased(batch_norm=True) == [False, False]
    assert biased(batch_norm=False) == [True, True]
    assert biased(batch_norm=True, bias=True) == [True, True]


@pytest.mark.parametrize(("before", "after", "made"), [(3, 16, 13), (15, 16, 1), (16, 16, 16), (20, 16, 16)])
def test_downsampling_makes_what_the_copy_leaves_over(before: int, after: int, made: int) -> None:
    block = DownsamplingBlock(before, after, nn.ReLU())
    assert block.conv.out_channels == made
    assert block(torch.randn(2, before, 6, 4)).shape == (2, after, 3, 2)


@pytest.mark.parametrize("value", [-0.1, 1, 1.0, True, "0.1", None, float("nan")])
def test_no_fractions(value: Any) -> None:
    (problem,) = fraction_problems("net", dropout=value)
    assert problem.where == "net, dropout"
    assert repr(value) in problem.what


def test_fractions() -> None:
    assert fraction_problems("net", a=0, b=0.5, c=0.999) == []
