from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from autoseg.baselines.erfnet import ERFNet, NonBottleneck1D
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestERFNet(ModelContract):
    model = ERFNet
    options: ClassVar = {"width": 8}


def test_number_of_parameters_follows_table_1() -> None:
    def block(c: int) -> int:
        return 4 * 3 * c * c + 2 * c + 2 * 2 * c  # four factors, two biases, two normalisations

    classes = 20
    halvings = (9 * 3 * 13 + 2 * 16) + (9 * 16 * 48 + 2 * 64) + (9 * 64 * 64 + 2 * 128)
    doublings = (9 * 128 * 64 + 2 * 64) + (9 * 64 * 16 + 2 * 16)
    blocks = 5 * block(64) + 8 * block(128) + 2 * block(64) + 2 * block(16)
    head = 4 * 16 * classes + classes
    with torch.device("meta"):
        network = ERFNet(3, classes)
    assert parameters(network) == halvings + doublings + blocks + head == 2_061_043
    assert parameters(ERFNet(3, 2)) == 2_061_043 - 18 * 65 == 2_059_873
    # the authors keep the biases that normalisation cancels: 125 in halvings, 3,008 in blocks, 80 in doublings
    convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert sum(m.out_channels for m in convolutions if m.bias is None) == 125 + 3_008 + 80


def test_blocks_are_those_of_table_1() -> None:
    network = ERFNet(3, 2)

    def dilations(part: nn.Module) -> list[int]:
        return [m.layers[5].dilation[0] for m in part if isinstance(m, NonBottleneck1D)]

    assert dilations(network.encoder) == [1] * 5 + [2, 4, 8, 16] * 2
    assert dilations(network.decoder) == [1] * 4
    dropouts = [m.p for m in network.modules() if isinstance(m, nn.Dropout2d)]
    assert dropouts == pytest.approx([0.03] * 5 + [0.3] * 8 + [0.0] * 4)
    blocks = [i for i, m in enumerate(network.encoder) if isinstance(m, NonBottleneck1D)]
    assert blocks == [2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_block_sees_a_square_of_both_pairs(dilation: int) -> None:
    torch.manual_seed(0)
    block = NonBottleneck1D(3, dilation, dropout=0.3).eval()
    x = torch.randn(1, 3, 31, 31)
    changed = x.clone()
    changed[0, :, 15, 15] += 10
    with torch.no_grad():
        seen = (block(changed) - block(x)).abs().sum(1)[0] > 0
    rows, columns = seen.nonzero().T
    reach = 1 + dilation
    assert (rows.min(), rows.max()) == (15 - reach, 15 + reach)
    assert (columns.min(), columns.max()) == (15 - reach, 15 + reach)


def test_a_block_without_its_branch_is_a_relu() -> None:
    block = NonBottleneck1D(4, 2, dropout=0.0).eval()
    nn.init.zeros_(block.layers[-2].weight)
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        assert torch.equal(block(x), x.relu())


def test_dropout_takes_whole_maps() -> None:
    torch.manual_seed(0)
    block = NonBottleneck1D(64, 1, dropout=0.5)
    with torch.no_grad():
        branch = block.layers(torch.randn(4, 64, 8, 8))
    dead = (branch == 0).flatten(2).all(2)
    assert torch.equal(dead, (branch == 0).flatten(2).any(2))
    assert 0.35 < dead.float().mean() < 0.65


def test_more_channels_than_the_first_block_has() -> None:
    network = ERFNet(9, 2, width=2).eval()
    assert network.encoder[0].conv.out_channels == 2
    with torch.no_grad():
        assert network(torch.randn(1, 9, 10, 7)).shape == (1, 2, 10, 7)


def test_logits_of_a_new_network_are_of_the_order_of_one() -> None:
    """Before the normalisation has learned its statistics, the initialisation alone keeps the scale."""
    torch.manual_seed(0)
    network = ERFNet(3, 4).eval()
    with torch.no_grad():
        spread = network(torch.randn(1, 3, 64, 64)).std().item()
    assert 0.05 < spread < 5


def test_all_mistakes_are_named() -> None:
    with pytest.raises(UserError) as error:
        ERFNet(0, 2, width=1.5, dropout=-0.1)  # type: ignore[arg-type]
    assert [p.where for p in error.value.problems] == ["erfnet, in_channels", "erfnet, width", "erfnet, dropout"]
