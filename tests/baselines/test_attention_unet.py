from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import nn

from autoseg.baselines.attention_unet import AttentionGate, AttentionUNet
from autoseg.errors import UserError
from autoseg.testing.models import ModelContract, parameters


class TestAttentionUNet(ModelContract):
    model = AttentionUNet
    options: ClassVar = {"width": 8}


def stored(module: nn.Module) -> int:
    """Parameters and running statistics, the numbers that Keras counts."""
    return parameters(module) + sum(b.numel() for b in module.buffers() if b.is_floating_point())


def convolution(kernel: int, before: int, after: int) -> int:
    """Weights, bias, and scale, shift, mean, variance of the normalisation."""
    return kernel**2 * before * after + after + 4 * after


@pytest.fixture(scope="module")
def full_size() -> AttentionUNet:
    with torch.device("meta"):
        return AttentionUNet(3, 1)


def test_number_of_parameters(full_size: AttentionUNet) -> None:
    assert stored(full_size) == 34_894_197
    normalised = 3_968 + 960 + 960 + 4 + 1_920  # encoder, up, W_g and W_x, psi, decoder
    assert parameters(full_size) == 34_894_197 - 2 * normalised == 34_878_573


def test_parameters_of_each_group(full_size: AttentionUNet) -> None:
    encoder = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    encoder += [(512, 1024), (1024, 1024)]
    assert stored(full_size.encoder) == sum(convolution(3, a, b) for a, b in encoder) == 18_859_072
    widths = [1024, 512, 256, 128, 64]
    assert stored(full_size.up) == sum(convolution(3, a, b) for a, b in pairwise(widths)) == 6_271_680
    gates = sum(2 * convolution(1, c, c // 2) + convolution(1, c // 2, 1) for c in widths[1:])
    assert stored(full_size.gates) == gates == 353_460
    decoder = sum(convolution(3, 2 * c, c) + convolution(3, c, c) for c in widths[1:])
    assert stored(full_size.decoder) == decoder == 9_409_920
    assert stored(full_size.head) == 65


def test_the_gap_to_the_papers_count_is_in_the_bias_and_normalisation_of_psi(full_size: AttentionUNet) -> None:
    psi = sum(stored(gate.psi) - gate.psi[0].weight.numel() for gate in full_size.gates)
    assert psi == 4 * (1 + 4)
    assert stored(full_size) - psi == 34_894_177  # the paper's U-Net has 34,894,178


def test_gate_by_hand() -> None:
    gate = AttentionGate(2).eval()  # fresh statistics: normalisation divides by the root of 1 + 1e-5
    with torch.no_grad():
        gate.gating[0].weight.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1))
        gate.feature[0].weight.copy_(torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1))
        gate.psi[0].weight.fill_(3.0)
        gate.psi[0].bias.fill_(-1.0)
        for convolution_ in (gate.gating[0], gate.feature[0]):
            convolution_.bias.zero_()
        g = torch.tensor([[0.5, -4.0], [0.25, 0.0]]).view(1, 2, 1, 2)
        x = torch.tensor([[2.0, 2.0], [1.0, 1.0]]).view(1, 2, 1, 2)
        # pixel 0: W_g g = 1, W_x x = -1, so relu 0 and psi -1; pixel 1: -4 - 1 is cut to 0 as well
        expected = x * torch.sigmoid(torch.tensor(-1.0))
        torch.testing.assert_close(gate(g, x), expected, rtol=1e-4, atol=1e-5)
        g[0, 1, 0, 0] = 0.75  # pixel 0: W_g g = 2, relu 1, psi 2
        expected[..., 0] = x[..., 0] * torch.sigmoid(torch.tensor(2.0))
        torch.testing.assert_close(gate(g, x), expected, rtol=1e-4, atol=1e-5)


def test_closed_gates_cut_the_skips() -> None:
    """What the copied maps carry reaches the output through the gates alone."""
    torch.manual_seed(0)
    network = AttentionUNet(1, 2, width=4, depth=1).eval()
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        for parameter in network.up.parameters():
            parameter.zero_()  # nothing comes from below, and the gate sees the copied map only
        assert network(x).std() > 0.01
        for gate in network.gates:
            gate.psi[1].bias.fill_(-200.0)
        logits = network(x)
    # the decoder now sees zeros, the same at every pixel that its two convolutions reach from inside
    assert logits[..., 3:-3, 3:-3].flatten(2).std(dim=2).max() == 0


def test_all_wrong_numbers_are_named() -> None:
    with pytest.raises(UserError) as error:
        AttentionUNet(3, 2, width=0, depth=-1)
    assert [p.where for p in error.value.problems] == ["attention-unet, width", "attention-unet, depth"]
