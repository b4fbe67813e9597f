from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from autoseg.baselines.ds_unet import DSUNet
from autoseg.baselines.unet import UNet
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestDSUNet(ModelContract):
    model = DSUNet
    options: ClassVar = {"width": 8}
    learning_rate = 1e-2


def statistics(module: nn.Module) -> int:
    return sum(b.numel() for b in module.buffers() if b.is_floating_point())


@pytest.fixture(scope="module")
def paper() -> DSUNet:
    with torch.device("meta"):
        return DSUNet(1, 2)


def test_number_of_parameters(paper: DSUNet) -> None:
    assert parameters(paper) == 5_970_434
    assert parameters(paper) + statistics(paper) == 5_982_210
    with torch.device("meta"):
        text = DSUNet(1, 2, stem_plain=2)
    assert parameters(text) + statistics(text) == 6_014_402
    assert parameters(text) - parameters(paper) == 9 * 64 * 64 - (9 * 64 + 64 * 64) == 32_192


@pytest.mark.parametrize(
    ("row", "weights", "normalisation"),
    [
        ("encoder.0.0", 576, 256),
        ("encoder.0.1", 4_672, 256),
        ("encoder.1.0", 8_768, 512),
        ("encoder.1.1", 17_536, 512),
        ("encoder.2.0", 33_920, 1_024),
        ("encoder.2.1", 67_840, 1_024),
        ("encoder.3.0", 133_376, 2_048),
        ("encoder.3.1", 266_752, 2_048),
        ("encoder.4.0", 528_896, 4_096),
        ("encoder.4.1", 1_057_792, 4_096),
        ("up.0", 2_097_152, 0),
        ("fuse.0", 524_288, 2_048),
        ("decoder.0", 266_752, 2_048),
        ("up.1", 524_288, 0),
        ("fuse.1", 131_072, 1_024),
        ("decoder.1", 67_840, 1_024),
        ("up.2", 131_072, 0),
        ("fuse.2", 32_768, 512),
        ("decoder.2", 17_536, 512),
        ("up.3", 32_768, 0),
        ("fuse.3", 8_192, 256),
        ("decoder.3", 4_672, 256),
        ("head", 130, 0),
    ],
)
def test_each_layer_has_the_papers_weights(paper: DSUNet, row: str, weights: int, normalisation: int) -> None:
    layer = paper.get_submodule(row)
    normalised = sum(parameters(m) + statistics(m) for m in layer.modules() if isinstance(m, nn.BatchNorm2d))
    assert normalised == normalisation
    assert parameters(layer) + statistics(layer) - normalised == weights


def test_the_rows_are_the_whole_network(paper: DSUNet) -> None:
    assert [name for name, _ in paper.named_children()] == ["encoder", "up", "fuse", "decoder", "head"]
    assert [len(part) for part in (paper.encoder, paper.up, paper.fuse, paper.decoder)] == [5, 4, 4, 4]
    assert [len(level) for level in paper.encoder] == [2] * 5
    assert parameters(paper) + statistics(paper) - 5_958_658 == 4 * 5_888


def test_a_sixth_of_the_plain_network() -> None:
    assert round(5_982_210 / 34_894_178, 4) == 0.1714  # the paper's own two counts
    with torch.device("meta"):
        plain = parameters(UNet(1, 2, batch_norm=False))
    assert plain == 31_030_658
    assert round(5_970_434 / plain, 4) == 0.1924


def test_separable_convolutions_have_nothing_in_between() -> None:
    depthwise = [m for m in DSUNet(3, 2, width=2).modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == 9 + 4  # all but the first convolution of the encoder, one per scale of the decoder
    block = DSUNet(3, 2, width=2).encoder[1][0]
    assert [type(m).__name__ for m in block] == ["Conv2d", "Conv2d", "BatchNorm2d", "ReLU"]
    biased = [n for n, m in DSUNet(3, 2, width=2).named_modules() if getattr(m, "bias", None) is not None]
    assert [n for n in biased if not n.rsplit(".", 1)[-1].isdigit()] == ["head"]


def test_plain_stem_is_counted_from_the_input() -> None:
    assert [m.groups for m in DSUNet(1, 2, width=4).encoder[0].modules() if isinstance(m, nn.Conv2d)] == [1, 4, 1]
    plain = DSUNet(1, 2, width=4, stem_plain=2)
    assert [m.groups for m in plain.encoder[0].modules() if isinstance(m, nn.Conv2d)] == [1, 1]


def test_logits_of_a_new_network_are_of_the_order_of_one() -> None:
    """Before the normalisation has learned its statistics, the initialisation alone keeps the scale."""
    torch.manual_seed(0)
    network = DSUNet(3, 4).eval()
    with torch.no_grad():
        spread = network(torch.randn(1, 3, 64, 64)).std().item()
    assert 0.05 < spread < 5


def test_all_mistakes_are_named() -> None:
    with pytest.raises(UserError) as error:
        DSUNet(1, 2, width=0, stem_plain=3)
    assert [p.where for p in error.value.problems] == ["ds-unet, width", "ds-unet, stem_plain"]
