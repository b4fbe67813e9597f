from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoseg.baselines.fcn import FCN16s, bilinear_doubling
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters

VGG16 = 14_714_688
"""Weights and biases of the 13 convolutions, as torchvision's ``vgg16().features`` has them."""


class TestFCN16s(ModelContract):
    model = FCN16s
    options: ClassVar = {"width": 4, "dropout": 0.1}

    def test_loss_falls_when_trained(self) -> None:
        """As for the others, but with the target in squares of 32 pixels: the scores have one in 16 pixels."""
        network = self.build()
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        target = torch.zeros(2, 64, 64, dtype=torch.int64)
        target[:, :, :32] = 1
        x[:, 0] += 4 * target
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = F.cross_entropy(network.train()(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert losses[-1] < 0.35


def test_number_of_parameters() -> None:
    fc6, fc7 = 49 * 512 * 4096 + 4096, 4096 * 4096 + 4096
    classes = 21
    scores = (4096 * classes + classes) + (512 * classes + classes) + 16 * classes * classes
    with torch.device("meta"):
        published = FCN16s(3, classes, batch_norm=False)
        normalised = FCN16s(3, classes)
    assert parameters(published.stages) == VGG16
    assert parameters(published) == VGG16 + fc6 + fc7 + scores == 134_364_410  # the paper says 134 M
    # normalisation: two numbers per channel instead of a bias
    assert parameters(normalised) - parameters(published) == 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512


def test_width_scales_every_layer() -> None:
    network = FCN16s(3, 2, width=8)
    assert [stage[0].out_channels for stage in network.stages] == [8, 16, 32, 64, 64]
    assert (network.classifier[0].out_channels, network.classifier[3].in_channels) == (512, 512)
    assert network.size_divisor == 32


def test_doubling_starts_as_bilinear_interpolation() -> None:
    up = bilinear_doubling(3)
    x = torch.randn(1, 3, 5, 6)
    with torch.no_grad():
        mine = up(x)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(mine[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_the_skip_is_added_at_a_sixteenth() -> None:
    """Without the deep scores the logits are those of pool4, enlarged 16 times."""
    network = FCN16s(3, 2, width=2).eval()
    for layer in (network.score_fc7.weight, network.score_fc7.bias):
        nn.init.zeros_(layer)
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        pool4 = x
        for stage in network.stages[:4]:
            pool4 = F.max_pool2d(stage(pool4), 2)
        assert pool4.shape[-2:] == (4, 2)
        expected = F.interpolate(network.score_pool4(pool4), scale_factor=16, mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(x), expected)


def test_without_the_skip_the_deep_scores_are_left() -> None:
    network = FCN16s(3, 2, width=2).eval()
    nn.init.zeros_(network.score_pool4.weight)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        first = network(x)
        nn.init.zeros_(network.score_fc7.weight)
        assert first.abs().max() > 0
        assert network(x).abs().max() == 0


def test_published_form_keeps_the_scale_of_activations() -> None:
    torch.manual_seed(0)
    network = FCN16s(3, 4, width=16, batch_norm=False).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    with torch.no_grad():
        spread = network(torch.randn(2, 3, 64, 64)).std().item()
    assert 0.1 < spread < 10


def test_all_mistakes_are_named() -> None:
    with pytest.raises(UserError) as error:
        FCN16s(3, 2, width=0, dropout="half")  # type: ignore[arg-type]
    assert [p.where for p in error.value.problems] == ["fcn-16s, width", "fcn-16s, dropout"]
