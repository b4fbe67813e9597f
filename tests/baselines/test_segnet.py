from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from autoseg.baselines import segnet
from autoseg.baselines.segnet import SegNet
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestSegNet(ModelContract):
    model = SegNet
    options: ClassVar = {"width": 4}


class TestShallowSegNet(ModelContract):
    model = SegNet
    options: ClassVar = {"width": 8, "depth": 2}


def test_parameters_follow_the_layer_list() -> None:
    encoder = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    decoder = [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64]
    # 13 and 12 convolutions without bias but with scale and shift of the normalisation
    expected = sum(9 * a * b + 2 * b for layers in (encoder, decoder) for a, b in pairwise(layers))
    expected += 9 * 64 * 2 + 2  # the 13th convolution of the decoder gives the logits
    with torch.device("meta"):
        network = SegNet(3, 2)
    # the convolutions of VGG16 have 14,714,688 weights and biases; the encoder has two numbers per channel, not one
    assert parameters(network.encoder) == 14_714_688 + sum(encoder[1:])
    assert parameters(network) == expected == 29_436_226


def test_parameters_with_the_biases_of_the_published_network() -> None:
    with torch.device("meta"):
        network = SegNet(3, 12)
    biases = sum(m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is None)
    assert parameters(network) == 29_441_996
    assert biases == 4_224 + 3_712
    assert round((parameters(network) + biases) / 1e6, 2) == 29.45


def test_has_thirteen_convolutions_on_each_side() -> None:
    network = SegNet(3, 2, width=1)

    def convolutions(module: nn.Module) -> int:
        return sum(isinstance(m, nn.Conv2d) for m in module.modules())

    assert [convolutions(stage) for stage in network.encoder] == [2, 2, 3, 3, 3]
    assert [convolutions(stage) for stage in network.decoder] == [3, 3, 3, 2, 1]
    assert convolutions(network.head) == 1


def test_depth_uses_the_first_stages() -> None:
    network = SegNet(3, 2, width=4, depth=2)
    assert network.size_divisor == 4
    # 3-4-4, 4-8-8 | 8-8-4, 4-4 | head
    pairs = [(3, 4), (4, 4), (4, 8), (8, 8), (8, 8), (8, 4), (4, 4)]
    assert parameters(network) == sum(9 * a * b + 2 * b for a, b in pairs) + 9 * 4 * 2 + 2


def test_unpooling_uses_the_indices_of_the_mirrored_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled: list[Tensor] = []
    unpooled: list[tuple[Tensor, tuple[int, int]]] = []
    true_pool, true_unpool = segnet.pool_with_indices, segnet.unpool

    def pool(x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = true_pool(x)
        pooled.append(indices)
        return y, indices

    def unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
        unpooled.append((indices, size))
        return true_unpool(x, indices, size)

    monkeypatch.setattr(segnet, "pool_with_indices", pool)
    monkeypatch.setattr(segnet, "unpool", unpool)
    SegNet(1, 2, width=2, depth=3).eval()(torch.randn(1, 1, 16, 24))
    assert [indices.shape[-2:] for indices in pooled] == [(8, 12), (4, 6), (2, 3)]
    assert [size for _, size in unpooled] == [(4, 6), (8, 12), (16, 24)]
    for stored, (used, _) in zip(reversed(pooled), unpooled, strict=True):
        assert used is stored


def test_other_indices_give_other_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = SegNet(1, 2, width=4, depth=2).eval()
    x = torch.randn(1, 1, 16, 16)
    true_unpool = segnet.unpool

    def always_top_left(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
        rows = torch.arange(0, size[0], 2)[:, None] * size[1]
        return true_unpool(x, (rows + torch.arange(0, size[1], 2)).expand_as(indices), size)

    with torch.no_grad():
        expected = network(x)
        monkeypatch.setattr(segnet, "unpool", always_top_left)
        assert (network(x) - expected).abs().max() > 0.01


def test_agrees_with_torchs_unpooling(monkeypatch: pytest.MonkeyPatch) -> None:
    network = SegNet(3, 2, width=4).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(x)
        monkeypatch.setattr(segnet, "unpool", lambda x, indices, size: nn.MaxUnpool2d(2)(x, indices, output_size=size))
        assert torch.equal(network(x), expected)


def test_all_wrong_numbers_are_named() -> None:
    with pytest.raises(UserError) as error:
        SegNet(3, 0, depth=6)
    assert [p.where for p in error.value.problems] == ["segnet, num_classes", "segnet, depth"]
