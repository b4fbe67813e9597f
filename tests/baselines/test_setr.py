from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from autoseg.baselines.setr import setr
from autoseg.errors import UserError
from autoseg.testing.models import parameters, train_step

VIT_TINY = 5_524_416  # 12 blocks of 444,864, the patches 147,648, 197 positions and a class token of 192, a norm of 384


class TestParameters:
    channels: ClassVar[int] = 256

    def test_encoder(self) -> None:
        block = 2 * 384 + (192 * 576 + 576) + (192 * 192 + 192) + (192 * 768 + 768) + (768 * 192 + 192)
        assert block == 444_864
        assert 12 * block + (3 * 256 * 192 + 192) + 197 * 192 + 192 + 384 == VIT_TINY

    def test_naive(self) -> None:
        assert parameters(setr(3, 2)) == VIT_TINY + 192 * 256 + 2 * 256 + (256 * 2 + 2)

    def test_progressive(self) -> None:
        convolutions = 9 * 192 * 256 + 3 * 9 * 256 * 256 + 4 * 2 * 256
        assert parameters(setr(3, 2, head="pup")) == VIT_TINY + convolutions + (256 * 2 + 2)


@pytest.mark.parametrize("head", ["naive", "pup"])
def test_any_size_and_a_batch_of_one(head: Any) -> None:
    torch.manual_seed(0)
    network = setr(5, 4, head=head, encoder="deit_tiny_patch16_224", decoder_channels=16)
    train_step(network, torch.randn(1, 5, 8, 8), 4)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    network.eval()
    with torch.no_grad():
        for size in ((37, 53), (1, 1), (240, 230)):
            assert network(torch.randn(1, 5, *size)).shape == (1, 4, *size)
    assert (network.size_divisor, network.smallest) == (16, 16)


def test_a_distilled_encoder_with_two_tokens_beside_the_patches() -> None:
    network = setr(1, 2, encoder="deit_tiny_distilled_patch16_224", decoder_channels=8).eval()
    assert network.network.prefix == 2
    with torch.no_grad():
        assert network(torch.randn(1, 1, 33, 20)).shape == (1, 2, 33, 20)


def test_positions_matter_at_any_size() -> None:
    """With its position embeddings, the encoder tells equal patches apart; without them it cannot."""
    torch.manual_seed(0)
    network = setr(1, 2, decoder_channels=16).eval()
    x = torch.ones(1, 1, 64, 96)
    with torch.no_grad():
        assert network(x).std(dim=(2, 3)).min() > 1e-4
        network.network.encoder.pos_embed.zero_()  # type: ignore[union-attr, operator]
        assert network(x).std(dim=(2, 3)).max() < 1e-5


def test_patches_that_are_no_power_of_two() -> None:
    network = setr(3, 2, head="pup", encoder="vit_small_patch14_dinov2", decoder_channels=8).eval()
    assert network.size_divisor == 14
    with torch.no_grad():
        assert network(torch.randn(1, 3, 30, 20)).shape == (1, 2, 30, 20)


@pytest.mark.parametrize(
    ("options", "where", "text"),
    [
        ({"encoder": "resnet18"}, "setr, encoder", "vit_tiny_patch16_224"),
        ({"encoder": "vit_tyny_patch16_224"}, "setr, encoder", "did you mean 'vit_tiny_patch16_224'?"),
        ({"head": "mla"}, "setr, head", "use 'naive' or 'pup'"),
        ({"decoder_channels": 0}, "setr, decoder_channels", "at least 1"),
        ({"weights": "imagnet"}, "setr, weights", "did you mean 'imagenet'?; for a file write ./imagnet"),
    ],
)
def test_mistakes_are_explained(options: dict[str, Any], where: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        setr(3, 2, **options)
    assert error.value.problems[0].where == where
    assert text in str(error.value)
