from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from autoseg.nn.hdc import FORMS, DilatedBranches, hdc


def weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


@pytest.mark.parametrize("channels", [3, 8, 16, 64])
def test_number_of_weights(channels: int) -> None:
    square = channels * channels
    assert {form: weights(hdc(channels, form)) for form in FORMS} == {
        "split": 9 * square,
        "sum": 27 * square,
        "serial": 27 * square,
    }
    norms = {form: sum(p.numel() for p in hdc(channels, form).parameters() if p.dim() == 1) for form in FORMS}
    assert norms == {"split": 2 * channels, "sum": 2 * channels, "serial": 6 * channels}


@pytest.mark.parametrize("order", ["relu-conv-bn", "conv-bn-relu"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_the_shape_stays(channels: int, form: str, order: str) -> None:
    x = torch.randn(2, channels, 9, 11)
    y = hdc(channels, form, order)(x)
    assert y.shape == x.shape
    assert (y.min() >= 0) == (order == "conv-bn-relu")


def test_rates_are_one_two_and_three() -> None:
    """The response to a single bright pixel shows where the kernels look."""
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    branches = DilatedBranches(1, share=False)
    nn.init.ones_(branches.branches[0].weight)
    nn.init.ones_(branches.branches[1].weight)
    nn.init.ones_(branches.branches[2].weight)
    y = branches(x)[0, 0]
    expected = torch.zeros(15, 15)
    for rate in (1, 2, 3):
        for dy in (-rate, 0, rate):
            for dx in (-rate, 0, rate):
                expected[7 + dy, 7 + dx] += 1
    assert torch.equal(y, expected)
    assert y[7, 7] == 3 and int((y > 0).sum()) == 25


def test_split_concatenates_a_third_per_rate() -> None:
    module = DilatedBranches(8, share=True)
    assert [(b.out_channels, b.dilation) for b in module.branches] == [(3, (1, 1)), (3, (2, 2)), (2, (3, 3))]
    x = torch.randn(1, 8, 10, 10)
    second = functional.conv2d(x, module.branches[1].weight, padding=2, dilation=2)
    assert torch.allclose(module(x)[:, 3:6], second, atol=1e-6)


def test_serial_sees_thirteen_pixels() -> None:
    module = hdc(1, "serial").eval()
    for p in module.parameters():
        nn.init.ones_(p) if p.dim() == 4 else None
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, 10] = 1
    seen = (module(x)[0, 0] > 0).nonzero()
    assert seen.min() == 4 and seen.max() == 16  # 1 + 2 * (1 + 2 + 3) pixels
    assert len(seen) == 13 * 13


def test_unknown_options() -> None:
    with pytest.raises(ValueError, match="hdc must be one of"):
        hdc(4, "parallel")
    with pytest.raises(ValueError, match="order must be one of"):
        hdc(4, "split", "bn-first")
