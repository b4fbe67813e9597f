from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from autoseg.baselines import enet
from autoseg.baselines.enet import Bottleneck, DownBottleneck, ENet, UpBottleneck
from autoseg.baselines.layers import DownsamplingBlock
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestENet(ModelContract):
    model = ENet
    options: ClassVar = {"width": 8}
    learning_rate = 1e-2


def bottleneck(channels: int, inner: int) -> int:
    """Weights of the three convolutions, scale and shift of three normalisations, slopes of three PReLUs."""
    inside = channels // 4
    return 2 * channels * inside + inner * inside**2 + 2 * (2 * inside + channels) + 2 * inside + channels


def test_number_of_parameters_follows_table_1() -> None:
    classes = 19
    initial = 9 * 3 * 13 + 2 * 16 + 16
    down1 = 4 * 16 * 16 + 9 * 16 * 16 + 16 * 64 + 2 * (16 + 16 + 64) + (16 + 16 + 64)
    down2 = 4 * 64 * 32 + 9 * 32 * 32 + 32 * 128 + 2 * (32 + 32 + 128) + (32 + 32 + 128)
    stage1 = 4 * bottleneck(64, 9)
    stage2 = 6 * bottleneck(128, 9) + 2 * bottleneck(128, 10)  # 5x1 and 1x5 have ten weights, 3x3 has nine
    up4 = 128 * 64 + 2 * 64 + 128 * 16 + 9 * 16 * 16 + 16 * 64 + 2 * (16 + 16 + 64) + (16 + 16 + 64)
    up5 = 64 * 16 + 2 * 16 + 64 * 4 + 9 * 4 * 4 + 4 * 16 + 2 * (4 + 4 + 16) + (4 + 4 + 16)
    decoder = up4 + 2 * bottleneck(64, 9) + up5 + bottleneck(16, 9)
    head = 4 * 16 * classes + classes
    with torch.device("meta"):
        network = ENet(3, classes)
    assert parameters(network) == initial + down1 + stage1 + down2 + 2 * stage2 + decoder + head == 363_954
    assert parameters(ENet(3, 2)) == 363_954 - 17 * 65 == 362_849
    # the paper says 0.37 M; so it is with the running statistics of the normalisation, which are stored too
    stored = parameters(network) + sum(b.numel() for b in network.buffers() if b.is_floating_point())
    assert stored == 372_306


def test_bottlenecks_are_those_of_table_1() -> None:
    network = ENet(3, 2)

    def middle(block: nn.Module) -> list[tuple[tuple[int, ...], int]]:
        return [(m.kernel_size, m.dilation[0]) for m in block.extension if isinstance(m, nn.Conv2d)][1:-1]

    context = [
        [((3, 3), 1)],
        [((3, 3), 2)],
        [((5, 1), 1), ((1, 5), 1)],
        [((3, 3), 4)],
        [((3, 3), 1)],
        [((3, 3), 8)],
        [((5, 1), 1), ((1, 5), 1)],
        [((3, 3), 16)],
    ]
    assert [middle(block) for block in network.stage2] == context
    assert [middle(block) for block in network.stage3] == context
    assert [middle(block) for block in network.stage1] == [[((3, 3), 1)]] * 4
    assert len(network.stage4) == 2
    dropouts = [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)]
    assert dropouts == pytest.approx([0.01] * 5 + [0.1] * 22)


def test_normalised_convolutions_have_no_bias() -> None:
    network = ENet(3, 2)
    biased = [
        n for n, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)) and m.bias is not None
    ]
    assert biased == ["head"]


def test_initial_block_keeps_the_pooled_image() -> None:
    block = DownsamplingBlock(3, 16, nn.Identity()).eval()
    x = torch.randn(1, 3, 6, 8)
    with torch.no_grad():
        copied = block(x)[:, 13:] * (1 + 1e-5) ** 0.5
    torch.testing.assert_close(copied, nn.functional.max_pool2d(x, 2))


def test_more_channels_than_the_initial_block_has() -> None:
    network = ENet(20, 2, width=4).eval()
    assert not network.initial.pools and network.initial.conv.out_channels == 4
    with torch.no_grad():
        assert network(torch.randn(1, 20, 9, 9)).shape == (1, 2, 9, 9)


def silence(block: nn.Module) -> None:
    """Without its extension, a block is its main branch and the PReLU."""
    nn.init.zeros_(block.extension[-2].weight)
    block.eval()


def test_main_branches() -> None:
    x = torch.rand(1, 8, 4, 4) + 1
    regular, down, up = Bottleneck(8, 1, 0.0), DownBottleneck(8, 12, 0.0), UpBottleneck(12, 8, 0.0)
    for block in (regular, down, up):
        silence(block)
    nn.init.zeros_(up.main[0].weight)
    for channel in range(8):
        up.main[0].weight.data[channel, channel] = (1 + 1e-5) ** 0.5
    with torch.no_grad():
        assert torch.equal(regular(x), x)
        y, indices = down(x)
        assert torch.equal(y[:, :8], nn.functional.max_pool2d(x, 2))
        assert torch.equal(y[:, 8:], torch.zeros(1, 4, 2, 2))
        restored = up(y, indices)
    assert int((restored > 0).sum()) == 8 * 4
    torch.testing.assert_close(restored[restored > 0], x[restored > 0])


def test_unpooling_uses_the_indices_of_the_mirrored_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    pooled: list[Tensor] = []
    unpooled: list[tuple[Tensor, tuple[int, int]]] = []
    true_pool, true_unpool = enet.pool_with_indices, enet.unpool

    def pool(x: Tensor) -> tuple[Tensor, Tensor]:
        y, indices = true_pool(x)
        pooled.append(indices)
        return y, indices

    def unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
        unpooled.append((indices, size))
        return true_unpool(x, indices, size)

    monkeypatch.setattr(enet, "pool_with_indices", pool)
    monkeypatch.setattr(enet, "unpool", unpool)
    ENet(1, 2, width=4).eval()(torch.randn(1, 1, 16, 24))
    assert [tuple(indices.shape[1:]) for indices in pooled] == [(4, 4, 6), (16, 2, 3)]
    assert [size for _, size in unpooled] == [(4, 6), (8, 12)]
    assert unpooled[0][0] is pooled[1] and unpooled[1][0] is pooled[0]


def test_logits_of_a_new_network_are_of_the_order_of_one() -> None:
    """Before the normalisation has learned its statistics, the initialisation alone keeps the scale."""
    torch.manual_seed(0)
    network = ENet(3, 4).eval()
    with torch.no_grad():
        spread = network(torch.randn(1, 3, 64, 64)).std().item()
    assert 0.05 < spread < 5


def test_all_mistakes_are_named() -> None:
    with pytest.raises(UserError) as error:
        ENet(3, 0, width=-4, dropout=1.0)
    assert [p.where for p in error.value.problems] == ["enet, num_classes", "enet, width", "enet, dropout"]
