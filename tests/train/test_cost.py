from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from autoseg.train.cost import count_flops, count_parameters, latency_ms


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 3*8*9 + 8 = 224 parameters; 2*3*8*9*H*W operations
        nn.BatchNorm2d(8),  # 16 parameters, not counted as operations
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),  # 8*9 = 72; 2*8*9*H*W
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8*4*4 + 4 = 132; 2*8*4*4*(H/2)*(W/2)
    )


def test_parameters_by_hand():
    assert count_parameters(small_net()) == 224 + 16 + 72 + 132


def test_frozen_parameters_count_and_shared_ones_count_once():
    layer = nn.Conv2d(4, 4, 1, bias=False)
    layer.weight.requires_grad_(False)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 16


def test_flops_by_hand():
    height, width = 6, 10
    expected = 2 * 3 * 8 * 9 * 60 + 2 * 8 * 9 * 60 + 2 * 8 * 4 * 4 * 15
    assert count_flops(small_net(), 3, height, width) == expected


def test_strided_and_dilated_convolutions_by_hand():
    assert count_flops(nn.Conv2d(2, 6, 3, stride=2, padding=1), 2, 8, 8) == 2 * 2 * 6 * 9 * 16
    assert count_flops(nn.Conv2d(2, 6, 3, dilation=2, padding=2), 2, 8, 8) == 2 * 2 * 6 * 9 * 64


def test_layers_without_products_have_no_flops():
    assert count_flops(nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU()), 3, 4, 4) == 0


class PixelAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, num_heads=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        return self.attention(pixels, pixels, pixels, need_weights=False)[0]


def test_attention_is_counted_in_parts():
    pixels, width = 16, 4
    projections = 2 * pixels * width * (3 * width) + 2 * pixels * width * width
    products = 2 * (2 * pixels * pixels * width)
    before = torch.backends.mha.get_fastpath_enabled()
    assert count_flops(PixelAttention(), 4, 4, 4) == projections + products
    assert torch.backends.mha.get_fastpath_enabled() == before


class Deformable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return deform_conv2d(x, torch.zeros(1, 18, *x.shape[2:]), torch.ones(2, 1, 3, 3), padding=1)


@torch.library.custom_op("autoseg_tests::smooth", mutates_args=())
def smooth(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5


class FromAnotherLibrary(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return smooth(x)


class Unfinished(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no kernel for this device")


def test_uncountable_networks_give_none():
    assert count_flops(nn.Sequential(nn.Conv2d(1, 1, 1), Deformable()), 1, 4, 4) is None
    assert count_flops(FromAnotherLibrary(), 1, 4, 4) is None
    assert count_flops(Unfinished(), 1, 4, 4) is None


def test_a_failing_network_still_raises_and_is_restored():
    net = small_net()
    with pytest.raises(RuntimeError):
        count_flops(net, 5, 4, 4)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize(
    "measure", [lambda net: count_flops(net, 3, 4, 4), lambda net: latency_ms(net, 3, 4, 4, "cpu", runs=1)]
)
def test_the_model_is_left_as_it_was(measure):
    net = small_net()
    net[1].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layout = net[0].weight.stride()
    measure(net)
    assert [module.training for module in net.modules()] == [True, True, False, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net[0].weight.stride() == layout
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert not any(parameter.is_inference() for parameter in net.parameters())


def test_statistics_of_normalisation_stay_as_they_were():
    net = small_net()
    count_flops(net, 3, 4, 4)
    assert net[1].num_batches_tracked.item() == 0


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, bool, bool, tuple[int, ...]]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Recorder:
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        self.calls.append((self.training, torch.is_inference_mode_enabled(), channels_last, tuple(x.shape)))
        return x


def test_latency_warms_up_and_runs_in_inference_mode_with_channels_last():
    net = Recorder()
    latency_ms(net, 3, 8, 16, "cpu", runs=4)
    assert net.calls == [(False, True, True, (1, 3, 8, 16))] * (3 + 4)


def test_latency_is_the_median_in_milliseconds(monkeypatch):
    ticks = iter([0.0, 9.0] * 3 + [10.0, 10.002, 20.0, 20.5, 30.0, 30.004])
    monkeypatch.setattr("autoseg.train.cost.time.perf_counter", lambda: next(ticks))
    assert latency_ms(nn.Identity(), 1, 4, 4, "cpu", runs=3) == pytest.approx(4.0)


def test_latency_needs_a_run():
    with pytest.raises(ValueError, match="runs must be 1 or more"):
        latency_ms(nn.Identity(), 1, 4, 4, "cpu", runs=0)
