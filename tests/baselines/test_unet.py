from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from autoseg.baselines.unet import UNet
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestUNet(ModelContract):
    model = UNet
    options: ClassVar = {"width": 4}


class TestPlainUNet(ModelContract):
    model = UNet
    options: ClassVar = {"width": 8, "depth": 3, "batch_norm": False}


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_published_number_of_parameters(batch_norm: bool) -> None:
    with torch.device("meta"):
        assert parameters(UNet(3, 2, batch_norm=batch_norm)) == 31_031_810


def test_the_shift_of_the_normalisation_takes_the_place_of_the_bias() -> None:
    with torch.device("meta"):
        network = UNet(3, 2)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(convolutions) == len(norms) == 18
    assert all(m.bias is None for m in convolutions)
    assert all([name for name, _ in m.named_parameters()] == ["bias"] for m in norms)


def test_parameters_of_a_small_one_by_hand() -> None:
    # width 2, depth 1, 1 channel, 2 classes, no batch normalisation
    encoder = (9 * 1 * 2 + 2) + (9 * 2 * 2 + 2) + (9 * 2 * 4 + 4) + (9 * 4 * 4 + 4)
    decoder = (4 * 4 * 2 + 2) + (9 * 4 * 2 + 2) + (9 * 2 * 2 + 2)
    head = 2 * 2 + 2
    assert parameters(UNet(1, 2, width=2, depth=1, batch_norm=False)) == encoder + decoder + head


def test_width_scales_all_levels() -> None:
    widths = [block[0].out_channels for block in UNet(3, 2, width=16).encoder]
    assert widths == [16, 32, 64, 128, 256]


def test_size_divisor_follows_the_depth() -> None:
    assert [UNet(3, 2, width=2, depth=depth).size_divisor for depth in (1, 3, 4)] == [2, 8, 16]


def test_skips_carry_full_resolution() -> None:
    """Without the lower levels, what is left is the copy of level 0: the output still sees each pixel."""
    network = UNet(1, 2, width=4, depth=2).eval()
    for up in network.up:
        nn.init.zeros_(up.weight)
    x = torch.randn(1, 1, 16, 16)
    changed = x.clone()
    changed[0, 0, 5, 6] += 10
    with torch.no_grad():
        difference = (network(changed) - network(x)).abs().sum(1)[0]
    assert difference[5, 6] > 0
    # four 3x3 convolutions (two in level 0, two in the decoder) see 4 pixels far
    assert difference[:1].sum() == 0
    assert difference[10:].sum() == 0


def test_activations_keep_their_scale_without_batch_norm() -> None:
    torch.manual_seed(0)
    network = UNet(3, 4, width=16, batch_norm=False).eval()
    with torch.no_grad():
        spread = network(torch.randn(2, 3, 64, 64)).std().item()
    assert 0.3 < spread < 5


def test_all_wrong_numbers_are_named() -> None:
    with pytest.raises(UserError) as error:
        UNet(0, 2, width=-1, depth=1.5)  # type: ignore[arg-type]
    assert [p.where for p in error.value.problems] == ["unet, in_channels", "unet, width", "unet, depth"]
