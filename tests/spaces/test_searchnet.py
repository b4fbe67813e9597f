from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import model_context
from nni.nas.strategy import DARTS, ENAS, GumbelDARTS, Proxyless, RandomOneShot
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation

from autoseg import registry
from autoseg.baselines.unet import UNet
from autoseg.errors import UserError
from autoseg.nn.ops import search_net_operations
from autoseg.nn.padding import pad_to_multiple
from autoseg.search.architecture import Architecture
from autoseg.spaces.base import decisions, plain
from autoseg.spaces.searchnet import SearchNet
from autoseg.spaces.searchnet_code import OPERATIONS, UNITS, from_choices, values
from autoseg.spaces.searchnet_unit import AllEdges, SearchUnit


def draw(seed: int, nodes: int = 2, extra: tuple[str, ...] = ()) -> dict[str, str]:
    rng = random.Random(seed)
    return {label: rng.choice(options) for label, options in values(nodes, extra).items()}


def everywhere(operation: str, nodes: int) -> dict[str, str]:
    return {label: operation if operation in options else options[0] for label, options in values(nodes).items()}


def build(choices: dict[str, Any], in_channels: int = 1, num_classes: int = 3, **kwargs: Any) -> SearchNet:
    with model_context(choices):
        return SearchNet(in_channels, num_classes, **kwargs)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def mutate(strategy: Any, **kwargs: Any) -> SearchNet:
    return strategy.mutate_model(SearchNet(1, 3, **{"width": 2, **kwargs}))


def supers(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, BaseSuperNetModule)]


def select(network: nn.Module, choices: dict[str, Any]) -> None:
    for module in supers(network):
        module.resample(dict(choices))


def export(network: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in supers(network):
        found |= module.export(found)
    return plain(found)


def units(network: SearchNet) -> dict[str, SearchUnit]:
    return dict(zip(UNITS, [*network.encoder, network.bottom, *network.decoder], strict=True))


def test_registered() -> None:
    assert registry.load("space", "searchnet") is SearchNet


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_decisions_and_size(nodes: int) -> None:
    space = SearchNet(1, 3, width=1, nodes=nodes)
    assert decisions(space) == values(nodes)
    assert space.size() == [7, 343, 50_421, 14_823_774][nodes - 1] ** 8
    choices = [module for module in space.modules() if isinstance(module, LayerChoice)]
    assert len(choices) == len(values(nodes))  # no label occurs twice: the units are independent
    assert sum(len(choice) == 7 for choice in choices) == 8 * nodes * (nodes + 1) // 2


def test_decisions_do_not_depend_on_the_network() -> None:
    small = decisions(SearchNet(1, 3, width=1, nodes=3))
    options: dict[str, Any] = {"expand": 1, "calibration": 3, "up": "transposed", "c4c5_skip": True}
    assert decisions(SearchNet(4, 7, width=3, nodes=3, **options)) == small


def test_size_with_extra_operations() -> None:
    space = SearchNet(1, 3, width=4, nodes=1, extra=["context", "se"])
    assert space.extra == ("se", "context") and space.size() == 9**8
    assert decisions(space)["c3_0_1"] == [*OPERATIONS, "se", "context"]
    assert SearchNet(1, 3, width=4, nodes=1, extra=["context"]).size() == 8**8


@pytest.mark.parametrize("options", [{}, {"up": "transposed", "calibration": 3}, {"c4c5_skip": True}])
def test_channels_and_scales_of_the_units(options: dict[str, Any]) -> None:
    network = build(draw(3), width=4, **options).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for name, unit in units(network).items():
        unit.register_forward_hook(lambda m, args, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    assert network(torch.randn(1, 1, 16, 24)).shape == (1, 3, 16, 24)
    scales = [1, 2, 4, 8, 8, 4, 2, 1]
    assert seen == {name: (4 * s, 16 // s, 24 // s) for name, s in zip(UNITS, scales, strict=True)}


@pytest.mark.parametrize(("in_channels", "num_classes"), [(1, 2), (3, 5), (4, 11)])
def test_logits(in_channels: int, num_classes: int) -> None:
    network = build(draw(num_classes, nodes=3), in_channels, num_classes, width=3, nodes=3)
    x = torch.randn(2, in_channels, 8, 24)
    assert network(x).shape == (2, num_classes, 8, 24)
    network.eval().double()  # so that the order of sums does not matter
    x = x.double()
    assert torch.allclose(network(x), network(x.contiguous(memory_format=torch.channels_last)), atol=1e-9)
    assert network.size_divisor == 8


def test_training_on_one_image_of_the_smallest_size() -> None:
    network = build(everywhere("conv3", 2), width=2).train()
    network(torch.randn(1, 1, 8, 8)).square().mean().backward()  # C4 and C5 see a single pixel
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(value.isfinite().all() for value in network.state_dict().values())


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 9), (8, 25)])
def test_images_of_other_sizes_are_padded(height: int, width: int) -> None:
    network = build(draw(1), width=1).eval()
    x = torch.randn(1, 1, height, width)
    padded, size = pad_to_multiple(x, 8)
    with torch.no_grad():
        assert torch.equal(network(x), network(padded)[..., : size[0], : size[1]])


def in_order(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state, layer by layer; within a layer by name."""
    state = network.state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {name: state[name] for layer in layers for name in sorted(state) if name.rpartition(".")[0] == layer}


@pytest.mark.parametrize(("width", "in_channels"), [(4, 3), (4, 4), (6, 1)])
def test_the_u_net_is_a_point_of_the_space(width: int, in_channels: int) -> None:
    """Same layers in the same order, the same start from the same seed, and the same logits.

    The space's normalisation also learns a scale.
    """
    point = SearchNet.unet(width)
    torch.manual_seed(5)
    searched = point.build(in_channels, 5).eval()
    torch.manual_seed(5)
    baseline = UNet(in_channels, 5, width=width, depth=3).eval()
    mine, theirs = in_order(searched), in_order(baseline)
    assert [v.shape for v in mine.values()] == [v.shape for v in theirs.values()]
    assert all(torch.equal(a, b) for a, b in zip(mine.values(), theirs.values(), strict=True))
    assert sum(isinstance(m, nn.Conv2d) for m in searched.modules()) == 15
    baseline.load_state_dict({name: torch.rand_like(v) if v.is_floating_point() else v for name, v in theirs.items()})
    searched.load_state_dict(dict(zip(mine, in_order(baseline).values(), strict=True)))
    x = torch.randn(2, in_channels, 16, 24)
    assert torch.allclose(searched(x), baseline(x), atol=1e-5, rtol=1e-4)
    assert baseline(x).std() > 0


def test_architecture_of_the_u_net() -> None:
    point = SearchNet.unet()
    assert point.kwargs == {"width": 16, "nodes": 1, "calibration": 3, "up": "transposed", "c4c5_skip": False}
    assert Counter(point.choices.values()) == {"conv3": 7, "identity": 1}
    assert Architecture.from_json(point.to_json()) == point
    unet = UNet(1, 3, width=8, depth=3)
    scales = sum(norm.num_features for norm in unet.modules() if isinstance(norm, nn.BatchNorm2d))
    assert count(point.build(1, 3, width=8)) == count(unet) + scales


def test_parameters_of_all_identity_and_of_large_operations() -> None:
    sizes = {op: count(build(everywhere(op, 2), 3, 2, width=4, nodes=2)) for op in OPERATIONS}
    c = [4, 8, 16, 32]
    calibrations = [(3, 4), (4, 8), (8, 16), (16, 32), (48, 16), (24, 8), (12, 4)]  # none in C5
    merges = [(2 * k, k) for k in (*c, 32, 16, 8, 4)]
    assert sizes["identity"] == sum(a * b + 2 * b for a, b in calibrations + merges) + 4 * 2 + 2
    assert sizes["conv5"] > sizes["conv3"] > sizes["identity"]
    assert sizes["dil3"] == sizes["conv3"] and sizes["dil5"] == sizes["conv5"]
    edges = 3 * sum(9 * k * k + 2 * k for k in (*c, 32, 16, 8, 4))
    assert sizes["conv3"] - sizes["identity"] == edges


def test_skip_from_c4_to_c5() -> None:
    network = build(draw(4), width=2, c4c5_skip=True).eval()
    entered: list[Tensor] = []
    network.bottom.calibrate.register_forward_hook(lambda m, args, out: entered.append(args[0]))
    c4: list[tuple[Tensor, Tensor]] = []
    network.encoder[3].register_forward_hook(lambda m, args, out: c4.append((args[0], out)))
    network(torch.randn(1, 1, 16, 16))
    assert torch.equal(entered[0], torch.cat(c4[0], 1))
    assert isinstance(build(draw(4), width=2).bottom.calibrate, nn.Identity)


@pytest.mark.parametrize("up", ["bilinear", "transposed"])
def test_what_the_decoder_is_given(up: str) -> None:
    network = build(draw(6), width=2, up=up).eval()
    outputs: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for name, unit in units(network).items():
        unit.register_forward_hook(lambda m, args, out, name=name: outputs.update({name: out}))
        unit.calibrate.register_forward_hook(lambda m, args, out, name=name: inputs.update({name: args[0]}))
    network(torch.randn(1, 1, 16, 16))
    for name, below, mirror, layer in zip(
        ("c6", "c7", "c8"), ("c5", "c6", "c7"), ("c3", "c2", "c1"), network.up, strict=True
    ):
        if up == "bilinear":
            risen = F.interpolate(outputs[below], scale_factor=2, mode="bilinear")
        else:
            assert layer.weight.shape[2:] == (2, 2)
            risen = layer(outputs[below])
        assert torch.allclose(inputs[name], torch.cat([outputs[mirror], risen], 1))
    assert torch.equal(inputs["c2"], F.max_pool2d(outputs["c1"], 2))


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_unit_computes_what_its_tuples_say(nodes: int) -> None:
    for seed in range(3):
        choices = draw(seed, nodes)
        network = build(choices, nodes=nodes, width=4).eval()
        unit = network.encoder[1]
        edges = from_choices(choices, nodes).units[1]
        assert list(unit.edges) == [f"{source}_{node}" for node, source, _ in edges]  # nothing else is built
        x = torch.randn(1, 8, 8, 8)
        states = {0: x}
        for node, source, name in edges:
            operation = unit.edges[f"{source}_{node}"]
            assert repr(operation) == repr(search_net_operations()[name](8, "conv-bn-relu"))
            states[node] = states.get(node, 0) + operation(states[source])
        joined = torch.cat([states[node] for node in range(1, nodes + 1)], 1)
        assert torch.allclose(unit(x), unit.merge(joined) if nodes > 1 else joined, atol=1e-5)


def test_operations_on_dropped_edges_change_nothing() -> None:
    choices = everywhere("mb3", 3) | {"c2_3_in": "0+2"}
    torch.manual_seed(0)
    one = build(choices, nodes=3, width=2).state_dict()
    torch.manual_seed(0)
    two = build(choices | {"c2_1_3": "conv5"}, nodes=3, width=2).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_built_network_has_nothing_of_nni() -> None:
    network = build(draw(2, 3), nodes=3, width=2)
    assert not any(type(module).__module__.startswith("nni") for module in network.modules())


def test_gradients_reach_every_parameter() -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        extra = ("se", "context")
        network = build(draw(seed, 3, extra), 2, 3, nodes=3, width=8, extra=extra)
        for module in network.modules():
            if isinstance(module, SqueezeExcitation):
                nn.init.ones_(module.fc1.bias)  # else chance may close the ReLU
        network(torch.randn(2, 2, 16, 16)).square().mean().backward()
        dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        dead = [name for name in dead if not name.endswith("conv_attn.bias")]  # a softmax does not feel it
        assert not dead


def test_found_small_and_built_large() -> None:
    found = Architecture("searchnet", {"nodes": 3, "width": 2}, draw(8, 3))
    small, large = found.build(1, 3), found.build(1, 3, width=8, calibration=3, up="transposed", c4c5_skip=True)
    for a, b in zip(units(small).values(), units(large).values(), strict=True):
        assert list(a.edges) == list(b.edges)
        assert [type(e) for e in a.edges.values()] == [type(e) for e in b.edges.values()]
        assert b.merge[0].out_channels == 4 * a.merge[0].out_channels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width, nodes, expand >= 1, got width=0"),
        ({"nodes": 0}, "nodes=0"),
        ({"expand": 0}, "expand=0"),
        ({"calibration": 5}, r"calibration must be one of \(1, 3\), got 5"),
        ({"up": "nearest"}, r"up must be one of \('bilinear', 'transposed'\), got 'nearest'"),
        ({"extra": ["pool"]}, "extra must be a list of .* got 'pool'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchNet(1, 3, **options)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (draw(0, 3), "a space with nodes=2 has no decisions c1_0_3"),
        (draw(0, 1), "c1_0_2"),
        (draw(0, 2) | {"c1_0_1": "se"}, "se not found in"),
    ],
)
def test_choices_of_another_space(choices: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=f"the choices do not fit the space 'searchnet': .*{message}"):
        Architecture("searchnet", {"nodes": 2, "width": 1}, choices).build(1, 2)


@pytest.mark.parametrize(("nodes", "alphas"), [(1, 56), (2, 168), (3, 336), (4, 560)])
def test_alphas_of_darts(nodes: int, alphas: int) -> None:
    network = mutate(DARTS(), nodes=nodes)
    found = {name: p for name, p in network.named_parameters() if "_arch_alpha" in name}
    assert sum(p.numel() for p in found.values()) == alphas
    assert len({id(p) for p in found.values()}) == len(found) == alphas // 7
    assert not any(p is found["encoder.0.edges.0_1._arch_alpha"] for n, p in found.items() if n.startswith("decoder.2"))
    y = network(torch.randn(1, 1, 8, 16))
    assert y.shape == (1, 3, 8, 16)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in found.values())
    assert set(export(network)) == set(values(nodes))


@pytest.mark.parametrize("strategy", [GumbelDARTS, Proxyless])
def test_other_gradient_strategies(strategy: Any) -> None:
    network = mutate(strategy(), nodes=3)
    assert sum(p.numel() for name, p in network.named_parameters() if "_arch_alpha" in name) == 336
    select(network, {})
    assert network.eval()(torch.randn(1, 1, 8, 8)).shape == (1, 3, 8, 8)
    assert SearchNet.code(export(network), {"nodes": 3}).startswith("C1[in>1 ")


def test_uniform_alphas_weigh_all_operations_alike() -> None:
    network = mutate(DARTS(), nodes=3).eval()
    edge = network.encoder[0].edges["0_1"]
    for module in supers(network):
        for label, weights in module.export_probs({}).items():
            assert not label.endswith("_in")
            assert sum(weights.values()) == pytest.approx(1)
            assert list(weights.values()) == pytest.approx([1 / 7] * 7, abs=1e-3)
    nn.init.zeros_(edge._arch_alpha)
    x = torch.randn(1, 2, 8, 8)
    assert torch.allclose(edge(x), torch.stack([edge[name](x) for name in OPERATIONS]).mean(0), atol=1e-5)


def test_gradient_strategies_train_all_edges_and_export_two() -> None:
    """What stock NNI exports is what the derivation rule says."""
    torch.manual_seed(2)
    network = mutate(DARTS(), nodes=3).eval()
    assert sum(isinstance(module, AllEdges) for module in network.modules()) == 8
    for name, p in network.named_parameters():
        if "_arch_alpha" in name:
            nn.init.normal_(p)
    probabilities: dict[str, Any] = {}
    for module in supers(network):
        probabilities |= {"".join(label): row for label, row in module.export_probs({}).items()}
    argmax = {label: max(row, key=row.__getitem__) for label, row in probabilities.items()}
    derived = SearchNet.derive(argmax, probabilities, {"nodes": 3})
    assert export(network) == derived
    assert len({derived[f"{unit}_3_in"] for unit in UNITS}) == 3
    unit, x = network.encoder[0], torch.randn(1, 2, 8, 8)
    states = [x]
    for node in range(1, 4):
        states.append(sum(unit.edges[f"{source}_{node}"](states[source]) for source in range(node)))
    assert torch.allclose(unit(x), unit.merge(torch.cat(states[1:], 1)), atol=1e-4)


def called_edges(network: SearchNet) -> Counter[str]:
    calls: Counter[str] = Counter()
    for unit, module in units(network).items():
        for key, edge in module.edges.items():
            edge.register_forward_hook(lambda m, args, out, label=f"{unit}_{key}": calls.update([label]))
    network.eval()(torch.randn(1, 1, 8, 8))
    return calls


def test_path_strategies_compute_only_the_edges_that_are_kept() -> None:
    choices = draw(5, 3)
    network = mutate(RandomOneShot(), nodes=3)
    select(network, choices)
    kept = {
        f"{unit}_{s}_{n}"
        for unit, edges in zip(UNITS, from_choices(choices, 3).units, strict=True)
        for n, s, _ in edges
    }
    assert called_edges(network) == Counter(kept)
    assert len(kept) == 8 * 5
    assert len(called_edges(mutate(DARTS(), nodes=3))) == 8 * 6


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_path_computes_what_the_built_and_the_frozen_network_compute(nodes: int) -> None:
    space = SearchNet(1, 3, width=2, nodes=nodes).eval()
    choices = draw(9, nodes)
    frozen = space.freeze(choices).eval()
    built = build(choices, width=2, nodes=nodes).eval()
    shared = frozen.state_dict()
    assert built.state_dict().keys() <= shared.keys()
    built.load_state_dict({key: shared[key] for key in built.state_dict()})
    x = torch.randn(1, 1, 16, 16)
    expected = built(x)
    assert torch.allclose(frozen(x), expected, atol=1e-6)
    network = RandomOneShot().mutate_model(space)  # takes over the modules of the space
    select(network, choices)
    assert torch.allclose(network(x), expected, atol=1e-6)
    select(network, draw(10, nodes))
    assert not torch.allclose(network(x), expected, atol=1e-3)


@pytest.mark.parametrize("strategy", [RandomOneShot, ENAS])
def test_random_paths_are_choices_of_the_space(strategy: Any) -> None:
    network = mutate(strategy(), nodes=3).eval()
    seen = set()
    for _ in range(5):
        drawn: dict[str, Any] = {}
        for module in supers(network):
            drawn |= module.resample(drawn)
        seen.add(SearchNet.code(plain(drawn), {"nodes": 3}))
        assert network(torch.randn(1, 1, 8, 8)).isfinite().all()
    assert len(seen) == 5


def test_what_only_hands_its_input_on() -> None:
    assert SearchNet.pass_through == {"identity"}
    x = torch.randn(1, 4, 3, 3)
    assert search_net_operations()["identity"](4, "conv-bn-relu")(x) is x
