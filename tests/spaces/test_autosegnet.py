from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import model_context
from nni.nas.strategy import DARTS, ENAS, GumbelDARTS, Proxyless, RandomOneShot
from torch import Tensor, nn
from torch.nn import functional

from autoseg.nn.hdc import hdc
from autoseg.nn.ops import separable
from autoseg.nn.padding import pad_to_multiple
from autoseg.search.architecture import Architecture
from autoseg.search.supernet import select, use_batch_statistics
from autoseg.spaces.autosegnet import AutoSegNet
from autoseg.spaces.autosegnet_blocks import Blocks, Calibration, Pointwise, Width
from autoseg.spaces.autosegnet_code import LAYERS, OPERATIONS, Genotype, Grammar, from_choices, parse, to_choices
from autoseg.spaces.autosegnet_layers import SearchedLayer
from autoseg.spaces.base import decisions, plain

ENCODINGS = ("enas", "binary")
ALL_LOOSE = ((0, 1), (0, 1), (0, 1))
CHAIN = ((0, 1), (2, 2), (3, 3))
FORK = ((0, 1), (2, 0), (2, 1))


def build(choices: dict[str, Any], in_channels: int = 1, num_classes: int = 2, **kwargs: Any) -> AutoSegNet:
    with model_context(choices):
        return AutoSegNet(in_channels, num_classes, **kwargs)


def draw(rng: random.Random, skips: int = 2, **kwargs: Any) -> dict[str, Any]:
    return plain({label: rng.choice(values) for label, values in Grammar.of(kwargs).decisions(skips).items()})


def uniform(op: str, wires: Any, skips: tuple[int, ...] = (1, 1)) -> dict[str, Any]:
    """All layers alike, with one operation everywhere and the given inputs per cell."""
    code = OPERATIONS.index(op)
    return to_choices(Genotype((tuple((a, code, b, code) for a, b in wires),) * 3, skips))


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def count_built(choices: dict[str, Any], **kwargs: Any) -> int:
    with torch.device("meta"):
        return count(build(choices, **kwargs))


@pytest.mark.parametrize("size", [32, 64, 160])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decisions_in_the_paper_s_order(encoding: str, size: int) -> None:
    space = AutoSegNet(1, 2, encoding=encoding, input_size=size, width=2)
    n = {32: 1, 64: 2, 160: 3}[size]
    found = decisions(space)
    assert list(found.items()) == list(Grammar(encoding).decisions(n).items())
    assert len(found) == {"enas": 36, "binary": 27}[encoding] + n
    assert space.size() == {"enas": 2_359_296, "binary": 32_768}[encoding] ** 3 * 2**n
    assert {label: v for label, v in found.items() if not label.startswith("skip")} == {
        label: v
        for label, v in decisions(AutoSegNet(3, 5, encoding=encoding, width=3, n_hdc=2, hdc="sum")).items()
        if not label.startswith("skip")
    }


@pytest.mark.parametrize("size", [32, 64, 160])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_output_shape_and_sizes_of_the_maps(encoding: str, size: int) -> None:
    rng = random.Random(size)
    n = {32: 1, 64: 2, 160: 3}[size]
    net = build(draw(rng, n, encoding=encoding), 2, 3, encoding=encoding, input_size=size, width=3)
    seen: dict[str, tuple[int, int]] = {}
    for name, module in net.named_modules():
        if isinstance(module, SearchedLayer):
            module.register_forward_hook(lambda m, a, out, name=name: seen.update({name: tuple(out.tensor.shape[-2:])}))
    assert net.size_divisor == 2**n
    assert net(torch.randn(2, 2, size, size)).shape == (2, 3, size, size)
    assert seen["bridge"] == (size // 2**n,) * 2
    assert size / 2**n >= 16
    for i in range(n):
        assert seen[f"down.{i}"] == seen[f"up.{n - 1 - i}"] == (size // 2**i,) * 2
    height, width = 2 ** (n + 1), 3 * 2**n  # any multiple of 2**n needs no padding
    assert net(torch.randn(1, 2, height, width)).shape == (1, 3, height, width)
    x = torch.randn(1, 2, height, width + 1)  # and other images are padded
    net.eval()
    with torch.no_grad():
        assert torch.equal(net(x), net(pad_to_multiple(x, 2**n)[0])[..., : width + 1])


def test_number_of_layers() -> None:
    choices = uniform("identity", ALL_LOOSE)
    for options, layers in [({"input_size": 64}, 6), ({"input_size": 160}, 8), ({"input_size": 512, "ratio": 16}, 10)]:
        net = build(choices, width=1, **options)
        assert len(net.down) + len(net.hdc) + 1 + len(net.up) == layers == net.shape.layers
    net = build(choices, width=2, depth=5)
    assert [len(part) for part in (net.down, net.hdc, net.up)] == [2, 3, 2]
    assert net(torch.randn(1, 1, 8, 8)).shape == (1, 2, 8, 8)
    assert len(build(choices, width=2, n_hdc=0).hdc) == 0


def test_channels() -> None:
    net = build(uniform("sep3", ALL_LOOSE), width=4, input_size=512, max_width=50)
    assert net.stem[0].out_channels == 12
    assert [layer.width.channels for layer in net.down] == [4, 8, 16, 32, 50]
    assert net.bridge.width.channels == net.hdc[0].width.channels == 50
    assert [layer.width.channels for layer in net.up] == [50, 32, 16, 8, 4]


@pytest.mark.parametrize(("wires", "loose"), [(ALL_LOOSE, [0, 1, 2]), (FORK, [1, 2]), (CHAIN, [2])])
def test_width_of_a_layer_is_that_of_its_loose_cells(wires: Any, loose: list[int]) -> None:
    net = build(uniform("sep3", wires), width=4)
    k = len(loose)
    layers = [*net.down, net.bridge, *net.up]
    assert [layer.loose for layer in layers] == [loose] * 5
    assert [layer.width.blocks * layer.width.channels for layer in layers] == [k * c for c in (4, 8, 16, 8, 4)]
    assert [layer.calibrate.conv.conv.in_channels for layer in layers] == [12, 4 * k, 16, 16 * k, 8 * k]
    assert [layer.calibrate_before.conv.conv.in_channels for layer in layers] == [12, 12, 8 * k, 16, 16 * k]
    assert [net.skips[key][1].in_channels for key in "01"] == [8 * k, 4 * k]
    assert net.head.conv.in_channels == 4 * k
    seen: list[int] = []
    net.bridge.register_forward_hook(lambda module, args, out: seen.append(out.tensor.shape[1]))
    net(torch.randn(1, 1, 8, 8))
    assert seen == [16 * k]


def test_identity_layers_have_calibrations_only() -> None:
    net = build(uniform("identity", FORK, (0, 0)), width=4)
    for layer in [*net.down, net.bridge, *net.up]:
        assert count(layer) == count(layer.calibrate) + count(layer.calibrate_before)
        assert count(layer.cells) == 0
    # By hand, C = 4, two loose cells: stem 9 * 12 + 24; calibrations with two values per channel of normalisation;
    # HDC layer 16 -> 16 and 9 * 16 * 16; head 8 * 2 + 2.
    calibrations = (
        (2 * 12 * 4 + 16)  # down, both inputs are the stem
        + (8 * 8 + 12 * 8 + 32)
        + (16 * 16 + 16 * 16 + 64)  # bridge: the HDC layer, and 16 of the last down layer
        + (32 * 8 + 16 * 8 + 32)  # up: the bridge, and the HDC layer
        + (16 * 4 + 32 * 4 + 16)
    )
    hdc_layer = 16 * 16 + 32 + 9 * 16 * 16 + 32
    assert count(net) == 108 + 24 + calibrations + hdc_layer + 18


def test_inputs_that_nobody_reads_have_no_calibration() -> None:
    both = build(uniform("sep3", CHAIN), width=4)
    previous = build(uniform("sep3", ((1, 1), (2, 2), (3, 3))), width=4)
    before = build(uniform("sep3", ((0, 0), (2, 2), (3, 3))), width=4)
    assert [layer.calibrate_before for layer in [*previous.down, previous.bridge, *previous.up]] == [None] * 5
    assert [layer.calibrate for layer in [*before.down, before.bridge, *before.up]] == [None] * 5
    assert len(before.skips) == 0  # nothing would read them
    unread = sum(count(layer.calibrate_before) for layer in [*both.down, both.bridge, *both.up])
    assert count(both) - count(previous) == unread
    x = torch.randn(1, 1, 8, 8)
    assert previous(x).shape == before(x).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("wires", [ALL_LOOSE, CHAIN])
def test_order_of_the_operations_in_parameters(wires: Any) -> None:
    sizes = {op: count_built(uniform(op, wires), width=16) for op in OPERATIONS[:4]}
    assert sizes["hdc"] > sizes["sep5"] > sizes["sep3"] > sizes["identity"]
    # Six operations per layer; C of the five layers is 16, 32, 64, 32, 16, of which the squares add to 6656.
    assert sizes["hdc"] - sizes["identity"] == 6 * (9 * 6656 + 2 * 160)
    assert sizes["sep3"] - sizes["identity"] == 6 * (6656 + (9 + 2) * 160)
    assert sizes["sep5"] - sizes["sep3"] == 6 * 16 * 160
    assert count_built(uniform("hdc", wires), width=16, hdc="sum") - sizes["hdc"] == 18 * (6 * 6656 + 64 * 64)


def test_zero_bits_remove_exactly_the_calibrations_of_the_skips() -> None:
    for wires, k in ((ALL_LOOSE, 3), (CHAIN, 1)):
        full = count_built(uniform("sep3", wires, (1, 1)), width=4)
        # k * C channels of the down layer to C of the up layer: C = 8 at the coarsest pair, then 4.
        assert full - count_built(uniform("sep3", wires, (0, 1)), width=4) == 8 * k * 8
        assert full - count_built(uniform("sep3", wires, (1, 0)), width=4) == 4 * k * 4
        assert full - count_built(uniform("sep3", wires, (0, 0)), width=4) == 80 * k
    names = [set(build(uniform("sep3", FORK, bits), width=4).state_dict()) for bits in ((1, 1), (0, 1), (1, 0))]
    assert names[0] - names[1] == {"skips.0.1.weight"}
    assert names[0] - names[2] == {"skips.1.1.weight"}


def test_parameters_of_the_published_network() -> None:
    """41.93 M lies between the extremes that follow from the paper, 13.4 M and 113.4 M."""
    kwargs = {"width": 64, "input_size": 512, "ratio": 16}
    least = count_built(uniform("identity", CHAIN, (0,) * 4), **kwargs)
    most = count_built(uniform("hdc", ALL_LOOSE, (1,) * 4), **kwargs)
    assert (least, most) == (13_420_226, 113_410_498)
    assert (round(least / 1e6, 1), round(most / 1e6, 1)) == (13.4, 113.4)
    rng = random.Random(0)
    drawn = sorted(count_built(draw(rng, 4), **kwargs) for _ in range(20))
    assert least < drawn[0] < 41_930_000 < drawn[-1] < most
    assert 40e6 < drawn[10] < 50e6  # the median: about 45 M
    # Below 13.4 M are only networks in which a layer leaves one of the previous layers unread.
    before, previous = (0, 3, 0, 3), (1, 3, 1, 3)
    rest = ((2, 3, 2, 3), (3, 3, 3, 3))
    smallest = Genotype(((before, *rest), (before, *rest), (previous, *rest)), (0,) * 4)
    assert count_built(to_choices(smallest), **kwargs) == 11_313_090


def test_one_genotype_serves_all_layers_of_a_name() -> None:
    choices = uniform("sep3", ALL_LOOSE)
    net = build({**choices, "down_c1_op2": "hdc"}, width=4, input_size=160)
    expected = repr(hdc(4, "split"))
    assert [len(layer.cells[1].decisions["op2"]) for layer in net.down] == [3, 3, 3]
    assert repr(net.down[0].cells[1].decisions["op2"]) == expected
    assert {
        repr(layer.cells[1].decisions["op2"]) == repr(hdc(c, "split"))
        for layer, c in zip(net.down, (4, 8, 16), strict=True)
    } == {True}
    changed = [
        name
        for name, module in net.named_modules()
        if name.endswith("decisions.op2") and type(module[1]).__name__ == "DilatedBranches"
    ]
    assert changed == [f"down.{i}.cells.1.decisions.op2" for i in range(3)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_found_at_64_and_built_for_512(encoding: str) -> None:
    rng = random.Random(5)
    for bits, expected in [("01", "01111"), ("10", "10000"), ("11", "11111"), ("00", "00000")]:
        choices = draw(rng, 2, encoding=encoding)
        for layer in LAYERS:  # every layer reads the previous one, so that skips count
            choices |= {f"{layer}_c0_in1": [1]} if encoding == "enas" else {}
        choices |= {f"skip{i}": "skip" if bit == "1" else "none" for i, bit in enumerate(bits)}
        found = Architecture("autosegnet", {"encoding": encoding, "input_size": 64, "width": 16}, choices)
        small, large = found.build(1, 2, width=2), found.build(1, 2, input_size=512, width=2)
        assert [key in small.skips for key in "01"] == [bit == "1" for bit in bits]
        assert [key in large.skips for key in "01234"] == [bit == "1" for bit in expected]
        assert [layer.loose for layer in large.down] == [small.down[0].loose] * 5
        assert [layer.loose for layer in large.up] == [small.up[0].loose] * 5
        assert not any(isinstance(module, LayerChoice) for module in large.modules())
        with torch.no_grad():
            assert large(torch.randn(2, 1, 64, 32)).shape == (2, 2, 64, 32)


def test_found_at_64_with_a_fixed_depth_and_built_for_512() -> None:
    found = Architecture("autosegnet", {"depth": 4, "width": 2}, uniform("sep3", CHAIN))
    small, large = found.build(1, 2), found.build(1, 2, input_size=512)
    assert [len(part) for part in (small.down, small.hdc, small.up)] == [2, 2, 2]
    assert [len(part) for part in (large.down, large.hdc, large.up)] == [5, 0, 5]
    with torch.no_grad():
        assert large(torch.randn(2, 1, 32, 64)).shape == (2, 2, 32, 64)


@pytest.mark.parametrize("operation", ["sep3", "hdc", "identity"])
def test_training_on_one_image_of_the_smallest_size(operation: str) -> None:
    net = build(uniform(operation, FORK), width=3).train()
    net(torch.randn(1, 1, 4, 4)).square().mean().backward()  # the HDC layer and the bridge see a single pixel
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert all(value.isfinite().all() for value in net.state_dict().values())


def test_training_a_path_of_the_supernet_on_one_image_of_the_smallest_size() -> None:
    supernet = RandomOneShot().mutate_model(AutoSegNet(1, 2, width=3)).train()
    select(supernet, uniform("sep3", FORK))
    x = torch.randn(1, 1, 4, 4)
    assert supernet(x).isfinite().all()
    assert use_batch_statistics(supernet)(x).isfinite().all()
    assert supernet.eval()(x).isfinite().all()


@pytest.mark.parametrize("wires", [ALL_LOOSE, ((0, 0), (0, 2), (3, 3)), FORK])
def test_long_skips_are_drawn_where_they_are_built(wires: Any) -> None:
    for bits in ((1, 1), (0, 1), (1, 0), (0, 0)):
        choices = uniform("sep3", wires, bits)
        for size in (64, 160):
            kwargs = {"input_size": size, "width": 2}
            drawn = AutoSegNet.cells(choices, kwargs)[0]
            n = len(build(choices, **kwargs).up)
            skips = {f"up{n - 1 - int(key)}" for key in build(choices, **kwargs).skips}
            lines = [edge for edge in drawn["edges"] if edge[0].startswith("down") and edge[1].startswith("up")]
            assert sorted(lines) == sorted([end.replace("up", "down"), end] for end in skips)


def test_found_deep_and_built_shallow() -> None:
    choices = uniform("sep3", CHAIN, (1, 0, 1, 1, 1))
    net = build(choices, width=2, input_size=64)
    assert (list(net.skips), net.size_divisor) == (["0"], 4)
    assert net(torch.randn(1, 1, 8, 8)).shape == (1, 2, 8, 8)


def test_calibration_with_a_skip_is_a_convolution_of_the_concatenation() -> None:
    torch.manual_seed(0)
    calibration = Calibration(Width(2, 3, level=2), 4, level=1, order="conv-bn-relu").eval()
    low, high = torch.randn(1, 6, 4, 4), torch.randn(1, 5, 8, 8)
    skip = nn.Conv2d(5, 4, 1, bias=False)
    up = functional.interpolate(low, scale_factor=2, mode="nearest")
    weight = torch.cat([calibration.conv.conv.weight, skip.weight], 1)
    expected = functional.relu(calibration.norm(functional.conv2d(torch.cat([up, high], 1), weight)))
    assert torch.allclose(calibration(Blocks(low), skip(high)), expected, atol=1e-6)


def test_calibration_pools_before_and_follows_the_order() -> None:
    x = torch.randn(2, 3, 8, 8)
    first = Calibration(Width(1, 3, level=0), 4, level=2, order="relu-conv-bn")
    expected = first.norm(first.conv.conv(functional.max_pool2d(x, 4).relu()))
    assert torch.allclose(first(Blocks(x)), expected, atol=1e-6)
    last = Calibration(Width(1, 3, level=0), 4, level=2, order="conv-bn-relu")
    assert torch.allclose(last(Blocks(x)), last.norm(last.conv.conv(functional.max_pool2d(x, 4))).relu(), atol=1e-6)


def test_missing_blocks_count_as_zeros() -> None:
    conv = Pointwise(Width(3, 2, 0), 5, bias=True)
    x = torch.randn(1, 4, 3, 3)
    some = Blocks(x, [0, 2])
    full = some.filled(conv.width)
    assert torch.equal(full[:, [0, 1, 4, 5]], x) and not full[:, 2:4].any()
    assert torch.allclose(conv(some), conv(Blocks(full)), atol=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_layer_computes_what_its_code_says(encoding: str) -> None:
    """Against the formula: y = op1(a) + op2(b), then the concatenation of the loose cells."""
    rng = random.Random(8)
    for _ in range(6):
        choices = draw(rng, encoding=encoding)
        genotype = from_choices(choices, {"encoding": encoding})
        layer = build(choices, encoding=encoding, width=3).bridge
        before, previous = torch.randn(2, layer_channels(layer, "before"), 8, 8), torch.randn(2, 12, 4, 4)
        tensors = [
            layer.calibrate_before(Blocks(before)) if layer.calibrate_before is not None else None,
            layer.calibrate(Blocks(previous)) if layer.calibrate is not None else None,
        ]
        sources, names = genotype.sources("bridge"), genotype.operations("bridge")
        makers = {"sep3": separable(12, 3), "sep5": separable(12, 5), "hdc": hdc(12), "identity": nn.Identity()}
        for cell, (codes, ops) in enumerate(zip(sources, names, strict=True)):
            parts = []
            for side, (read, op) in enumerate(zip(codes, ops, strict=True)):
                module = layer.cells[cell].decisions[f"op{side + 1}"]
                assert repr(module) == repr(makers[op])
                parts.append(module(sum(tensors[code] for code in read)))
            tensors.append(parts[0] + parts[1])
        read = {code for pair in sources for codes in pair for code in codes}
        loose = [tensor for code, tensor in enumerate(tensors) if code >= 2 and code not in read]
        result = layer(Blocks(before), Blocks(previous))
        assert result.taken is None
        assert torch.allclose(result.tensor, torch.cat(loose, 1), atol=1e-5)


def layer_channels(layer: SearchedLayer, which: str) -> int:
    calibration = layer.calibrate_before if which == "before" else layer.calibrate
    return 6 if calibration is None else calibration.conv.conv.in_channels


def test_what_the_layers_are_given() -> None:
    net = build(uniform("sep3", ALL_LOOSE), width=2)
    given: dict[str, tuple[Any, ...]] = {}
    made: dict[str, Tensor] = {}

    def spy(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            given[name] = args
            made[name] = out if isinstance(out, Tensor) else out.tensor

        return hook

    names = ["stem", "down.0", "down.1", "hdc.0", "bridge", "up.0", "up.1", "skips.0", "skips.1"]
    for name, module in net.named_modules():
        if name in names:
            module.register_forward_hook(spy(name))
    net.eval()(torch.randn(1, 1, 8, 8))
    order = ["stem", "stem", "down.0", "down.1", "hdc.0", "bridge", "up.0", "up.1"]
    for i, name in enumerate(order[2:], start=2):
        sources = [order[i - 1]] if name == "hdc.0" else [order[i - 2], order[i - 1]]
        assert all(blocks.tensor is made[source] for blocks, source in zip(given[name], sources, strict=False))
    assert given["skips.0"][0] is made["down.1"] and given["up.0"][2] is made["skips.0"]
    assert given["skips.1"][0] is made["down.0"] and given["up.1"][2] is made["skips.1"]


def without_gradient(net: AutoSegNet) -> set[str]:
    net(torch.randn(2, 1, 16, 16)).square().sum().backward()
    return {".".join(name.split(".")[:2]) for name, p in net.named_parameters() if p.grad is None}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_parameter_of_a_derived_network_gets_a_gradient(encoding: str) -> None:
    rng = random.Random(5)
    done = 0
    while done < 8:
        choices = draw(rng, encoding=encoding)
        genotype = from_choices(choices, {"encoding": encoding})
        if not all(any(1 in codes for pair in genotype.sources(layer) for codes in pair) for layer in LAYERS):
            continue  # see the next test
        assert without_gradient(build(choices, encoding=encoding, width=3)) == set()
        done += 1


def test_layers_that_leave_the_previous_one_unread() -> None:
    """A corner of the published space: the last up layer reads h[t-1] only, so the one before it has no reader."""
    choices = uniform("sep3", ALL_LOOSE)
    up = {f"up_c{i}_in{j}": [0] for i in range(3) for j in (1, 2)}
    assert without_gradient(build({**choices, **up}, width=3)) == {"up.0"}
    assert without_gradient(build({**choices, **up, "up_c2_in2": [1]}, width=3)) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 20}, "input_size=20"),
        ({"min_size": 0}, "min_size must be"),
        ({"ratio": 1}, "ratio=1"),
        ({"width": 0}, "width must be"),
        ({"max_width": 8}, "max_width must be"),
        ({"encoding": "lstm"}, "encoding must be one of"),
        ({"hdc": "parallel"}, "hdc must be one of"),
        ({"n_hdc": -1}, "n_hdc must be"),
        ({"depth": 0}, "depth must be"),
        ({"cells": 0}, "cells must be"),
        ({"extra": ["attention"]}, "extra must be"),
        ({"order": "bn-first"}, "order must be one of"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoSegNet(1, 2, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "binary"}, "up_c2_skip1 missing"),
        ({"cells": 2}, "no decisions bridge_c2_in1"),
        ({"use_hdc": False}, "down_c0_op1='hdc' is not one of"),
    ],
)
def test_options_that_do_not_belong_to_the_choices(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(uniform("hdc", ALL_LOOSE), width=2, **options)


def test_choices_of_another_space() -> None:
    with pytest.raises(ValueError, match="no decisions enc0_op1"):
        build({**uniform("sep3", CHAIN), "enc0_op1": "dw3"}, width=2)
    with pytest.raises(ValueError, match="skip0 missing"):
        build({k: v for k, v in uniform("sep3", CHAIN).items() if not k.startswith("skip")}, width=2)
    for method in (AutoSegNet.code, AutoSegNet.cells):
        with pytest.raises(ValueError, match="not choices of the AutoSegNet space"):
            method({"op": "conv3"}, {})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_named_points_build(encoding: str) -> None:
    kwargs = {"encoding": encoding, "input_size": 160, "width": 3}
    named = AutoSegNet.named(kwargs)
    assert len(named) == 3
    for choices in named.values():
        net = build(choices, **kwargs)
        assert (len(net.skips), net.head.width.blocks) == (3, 1)
        assert net(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)
        assert without_gradient(net) == set()
        assert parse(AutoSegNet.code(choices, kwargs), kwargs) == from_choices(choices, kwargs)
        assert len(AutoSegNet.cells(choices, kwargs)) == 4


def test_extra_operations() -> None:
    kwargs = {"extra": ["se", "context"], "cells": 1, "width": 16}
    space = AutoSegNet(1, 2, **kwargs)
    assert decisions(space)["up_c0_op2"] == ["sep3", "sep5", "hdc", "identity", "se", "context"]
    assert space.size() == (4 * 36) ** 3 * 4
    choices = {**AutoSegNet.named(kwargs)["sep3 chain, all skips"], "up_c0_op2": "se", "down_c0_op1": "context"}
    net = build(choices, **kwargs)
    assert AutoSegNet.code(choices, kwargs).startswith("down=[(1,5,1,0)]")
    assert without_gradient(net) == set()


def test_depth_of_the_search_does_not_matter_to_code() -> None:
    choices = uniform("sep3", CHAIN, (1, 0, 1))
    assert AutoSegNet.code(choices, {"input_size": 64}).endswith("skips=[1,0,1]")
    assert AutoSegNet.cells(choices, {"input_size": 64})[0]["title"] == "Network (6 layers)"
    assert AutoSegNet.pass_through == {"identity"}


def copy_weights(built: AutoSegNet, source: dict[str, Tensor]) -> None:
    """Give a built network the weights that the same path has in a network with all paths."""
    readers: dict[str, SearchedLayer | None] = {"head.conv.weight": built.up[-1]}
    outputs: list[Any] = [None, None, *built.down, *(None for _ in built.hdc), built.bridge, *built.up]
    names = ["", "", *(f"down.{i}" for i in range(len(built.down))), "hdc.0", "bridge"]
    names += [f"up.{i}" for i in range(len(built.up))]
    for i, name in enumerate(names[2:], start=2):
        readers[f"{name}.calibrate.conv.conv.weight"] = outputs[i - 1]
        readers[f"{name}.calibrate_before.conv.conv.weight"] = outputs[i - 2]
    for i, down in enumerate(reversed(built.down)):
        readers[f"skips.{i}.1.weight"] = down
    source, own = dict(source), built.state_dict()
    for name, layer in readers.items():
        if name in own and layer is not None:  # only the slices of the loose cells
            source[name] = source[name].unflatten(1, (len(layer.cells), -1))[:, layer.loose].flatten(1, 2)
    assert own.keys() <= source.keys()
    built.load_state_dict({key: source[key] for key in own})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frozen_and_built_compute_the_same(encoding: str) -> None:
    rng = random.Random(11)
    kwargs: dict[str, Any] = {"encoding": encoding, "width": 4, "input_size": 32}
    for _ in range(2):
        choices = draw(rng, **kwargs)
        frozen = AutoSegNet(1, 3, **kwargs).freeze(choices)
        built = build(choices, num_classes=3, **kwargs)
        copy_weights(built, frozen.state_dict())
        x = torch.randn(2, 1, 16, 24)
        for mode in (True, False):
            assert torch.allclose(built.train(mode)(x), frozen.train(mode)(x), atol=1e-5)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_path_of_the_supernet_and_built_compute_the_same(encoding: str) -> None:
    rng = random.Random(12)
    kwargs: dict[str, Any] = {"encoding": encoding, "width": 4}
    supernet = RandomOneShot().mutate_model(AutoSegNet(1, 2, **kwargs))
    paths = {name: module for name, module in supernet.named_modules() if isinstance(module, BaseSuperNetModule)}
    assert len(paths) == 5 * {"enas": 12, "binary": 9}[encoding] + 2
    for _ in range(5):
        choices = draw(rng, **kwargs)
        for module in paths.values():
            module.resample(memo=dict(choices))
        built = build(choices, **kwargs)
        state = {}
        for name, tensor in supernet.state_dict().items():
            place = next((path for path in paths if name.startswith(f"{path}.")), None)
            if place is not None:  # drop the name of the operation, leave out those that were not chosen
                chosen, _, rest = name[len(place) + 1 :].partition(".")
                if chosen != choices[str(paths[place].label)]:
                    continue
                name = f"{place}.{rest}"
            state[name] = tensor
        copy_weights(built, state)
        x = torch.randn(2, 1, 16, 16)
        assert torch.allclose(built(x), supernet(x), atol=1e-4)


@pytest.mark.parametrize("strategy", [DARTS, GumbelDARTS, Proxyless, ENAS, RandomOneShot])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_supernets_of_nni(encoding: str, strategy: Any) -> None:
    supernet = strategy().mutate_model(AutoSegNet(1, 2, encoding=encoding, width=3))
    modules = [module for module in supernet.modules() if isinstance(module, BaseSuperNetModule)]
    memo: dict[str, Any] = {}
    for module in modules:
        memo.update(module.resample(memo=memo))
    supernet(torch.randn(2, 1, 16, 16)).square().mean().backward()
    exported: dict[str, Any] = {}
    for module in modules:
        exported.update(module.export(memo=exported))
    choices = plain(exported)
    assert choices.keys() == Grammar(encoding).decisions(2).keys()
    assert without_gradient(build(choices, encoding=encoding, width=3)) <= {"up.0", "down.1", "down.0", "hdc.0"}
    if strategy in (DARTS, GumbelDARTS):
        alphas = {id(p): p for name, p in supernet.named_parameters() if "_arch_alpha" in name}
        assert len(alphas) == {"enas": 36, "binary": 27}[encoding] + 2
        assert all(p.grad is not None for p in supernet.parameters())
    elif strategy is not Proxyless:
        assert memo.keys() == exported.keys()
        reached = {name for name, p in supernet.named_parameters() if p.grad is not None}
        assert {"head.conv.weight", "head.conv.bias"} <= reached
