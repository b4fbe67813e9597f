from __future__ import annotations

import itertools
import math
import random
import re
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import model_context
from nni.nas.strategy import RandomOneShot
from torch import Tensor, nn
from torch.nn import functional

from autoseg.errors import UserError
from autoseg.nn.ops import ED_NAS_OPERATIONS
from autoseg.nn.padding import pad_to_multiple
from autoseg.search.architecture import Architecture
from autoseg.spaces import ednas
from autoseg.spaces.base import decisions, plain
from autoseg.spaces.ednas import EdNas
from autoseg.spaces.ednas_code import (
    DECODERS,
    ED_NAS_N3,
    ED_NAS_N4,
    OPERATIONS,
    READINGS,
    Genotype,
    from_choices,
    labels,
    to_choices,
)
from autoseg.spaces.ednas_named import ed_nas_n3, ed_nas_n4


def build(choices: dict[str, Any], in_channels: int = 1, num_classes: int = 3, **kwargs: Any) -> EdNas:
    with model_context(choices):
        return EdNas(in_channels, num_classes, **kwargs)


def draw(rng: random.Random, **kwargs: Any) -> dict[str, Any]:
    space = EdNas(1, 2, **{**kwargs, "width": 1, "layers": 1})
    return plain({label: rng.choice(values) for label, values in decisions(space).items()})


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def genotype(*encoder: tuple[int, int, int, int], inputs: str = "enas") -> dict[str, Any]:
    """Choices with the given encoder cell and a chain of 3x3 separable convolutions."""
    return to_choices(Genotype(encoder, tuple((b, 0) for b in range(len(encoder))), inputs))


@pytest.mark.parametrize("inputs", READINGS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_size_is_the_product_over_the_decisions(blocks: int, decoder: str, inputs: str) -> None:
    space = EdNas(1, 2, blocks=blocks, decoder=decoder, inputs=inputs, layers=2, width=2)
    found = decisions(space)
    assert space.size() == math.prod(len(values) for values in found.values())
    assert sorted(found) == labels(blocks, decoder, inputs)
    assert all(found[label] == list(OPERATIONS) for label in found if "_op" in label)


def test_number_of_decisions_of_the_paper() -> None:
    assert len(decisions(EdNas(1, 3, width=2))) == 20
    fig = decisions(EdNas(1, 3, width=2, inputs="fig"))
    assert len(fig) == 18
    assert not {"enc0_in1", "enc0_in2"} & fig.keys()
    assert fig["enc3_in2"] == [[0], [1], [2], [3]]


def test_size_of_the_paper_s_space() -> None:
    assert EdNas(1, 3, blocks=4, layers=2, width=2).size() == 3_515_625_000_000
    assert EdNas(1, 3, blocks=4, layers=2, width=2, inputs="fig").size() == 140_625_000_000


def test_labels_do_not_depend_on_depth_and_width() -> None:
    small = decisions(EdNas(1, 3, layers=3, width=2))
    large = decisions(EdNas(3, 5, layers=6, width=3, max_width=16, pooling_indices=False, encdec_skip=True))
    assert small == large


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_output_shape(layers: int) -> None:
    rng = random.Random(layers)
    for decoder, inputs in itertools.product(DECODERS, READINGS):
        kwargs = {"decoder": decoder, "inputs": inputs, "blocks": 3}
        net = build(draw(rng, **kwargs), 2, 3, **kwargs, layers=layers, width=3, max_width=10)
        assert net.size_divisor == 2**layers
        height, width = 2 ** (layers + 1), 3 * 2**layers
        assert net(torch.randn(2, 2, height, width)).shape == (2, 3, height, width)


def test_channels_double_up_to_the_limit() -> None:
    net = ed_nas_n4(1, 3, layers=5, width=4)
    assert [cell.merge.norm.num_features for cell in net.encoder] == [4, 8, 16, 32, 64]
    net = build(to_choices(ED_NAS_N4), layers=5, width=4, max_width=20)
    assert [cell.merge.norm.num_features for cell in net.encoder] == [4, 8, 16, 20, 20]
    # Decoder cell i works at the width of its mirror and ends at the width of the next.
    assert [cell.calibrate[0].out_channels for cell in net.decoder] == [20, 20, 16, 8, 4]
    assert net.head.in_channels == 4


@pytest.mark.parametrize(("layers", "height", "width"), [(3, 20, 16), (3, 16, 9), (5, 33, 65)])
def test_images_of_other_sizes_are_padded(layers: int, height: int, width: int) -> None:
    net = build(to_choices(ED_NAS_N3), blocks=3, layers=layers, width=2).eval()
    x = torch.randn(1, 1, height, width)
    padded, size = pad_to_multiple(x, 2**layers)
    with torch.no_grad():
        assert torch.equal(net(x), net(padded)[..., : size[0], : size[1]])


@pytest.mark.parametrize("layers", [1, 3])
def test_training_on_one_image_of_the_smallest_size(layers: int) -> None:
    kwargs: dict[str, Any] = {"blocks": 2, "decoder": "multi", "extra": ["se", "context"]}
    choices = draw(random.Random(layers), **kwargs) | {"enc0_op1": "context", "enc1_op1": "conv3", "dec1_op1": "se"}
    net = build(choices, **kwargs, layers=layers, width=2).train()
    net(torch.randn(1, 1, 2**layers, 2**layers)).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert all(value.isfinite().all() for value in net.state_dict().values())


@pytest.mark.parametrize("decoder", DECODERS)
def test_unpooling_uses_the_mirror_s_indices(monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    pooled: list[tuple[Tensor, Tensor]] = []
    unpooled: list[tuple[Tensor, tuple[int, int], Tensor]] = []
    pool, unpool = ednas.pool_with_indices, ednas.unpool

    def spy_pool(x: Tensor) -> tuple[Tensor, Tensor]:
        result = pool(x)
        pooled.append((x, result[1]))
        return result

    def spy_unpool(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
        unpooled.append((indices, size, x))
        return unpool(x, indices, size)

    monkeypatch.setattr(ednas, "pool_with_indices", spy_pool)
    monkeypatch.setattr(ednas, "unpool", spy_unpool)
    choices = draw(random.Random(1), decoder=decoder)
    build(choices, layers=4, width=2, decoder=decoder)(torch.randn(1, 1, 32, 48))
    assert len(pooled) == len(unpooled) == 4
    for (y, where), (indices, size, x) in zip(reversed(pooled), unpooled, strict=True):
        assert indices is where
        assert size == (y.shape[2], y.shape[3])
        assert x.shape == where.shape


def test_without_pooling_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = to_choices(ED_NAS_N3)
    with_indices = build(choices, blocks=3, layers=3, width=4)
    without = build(choices, blocks=3, layers=3, width=4, pooling_indices=False)
    assert without.load_state_dict(with_indices.state_dict())  # the same parameters
    x = torch.randn(1, 1, 16, 16)
    assert (with_indices(x) - without(x)).abs().max() > 0.1

    def refuse(*args: Any) -> Tensor:
        raise AssertionError("unpooled")

    monkeypatch.setattr(ednas, "unpool", refuse)
    assert without(x).shape == (1, 3, 16, 16)
    with pytest.raises(AssertionError, match="unpooled"):
        with_indices(x)


def test_skip_from_encoder_to_decoder() -> None:
    choices = to_choices(ED_NAS_N3)
    plain_net = build(choices, blocks=3, layers=3, width=4)
    skip = build(choices, blocks=3, layers=3, width=4, encdec_skip=True)
    # One calibration from 2C to C per level, normalisation included.
    assert count(skip) - count(plain_net) == sum(2 * c * c + 2 * c for c in (4, 8, 16))
    skip.load_state_dict(plain_net.state_dict(), strict=False)
    x = torch.randn(1, 1, 16, 16)
    # The last fusion gets the unpooled map and, beside it, what the first encoder cell gave.
    features: list[Tensor] = []
    skip.fuse[-1].register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    mirrors: list[Tensor] = []
    skip.encoder[0].register_forward_hook(lambda module, inputs, output: mirrors.append(output))
    assert skip(x).shape == (1, 3, 16, 16)
    assert features[0].shape == (1, 8, 16, 16)
    assert torch.equal(features[0][:, 4:], mirrors[0])


def e_cell_parameters(pairs: tuple[tuple[int, int], ...], width: int) -> int:
    """Parameters of a network in which nothing but the operations of the encoder cell varies."""
    choices = genotype(*((0, 0, p, q) for p, q in pairs))
    return count(build(choices, blocks=len(pairs), layers=1, width=width))


@pytest.mark.parametrize("width", [4, 8])
def test_smallest_and_largest_encoder_cells(width: int) -> None:
    """Exhaustively for one block, with one of two blocks fixed for two."""
    pool, large, dw5 = OPERATIONS.index("pool3"), {OPERATIONS.index("conv3"), OPERATIONS.index("dil3")}, 1
    one = {pair: e_cell_parameters((pair,), width) for pair in itertools.product(range(5), repeat=2)}
    least, most = min(one.values()), max(one.values())
    assert [pair for pair, n in one.items() if n == least] == [(pool, pool)]  # the strict minimum
    assert {pair for pair, n in one.items() if n == most} == set(itertools.product(large, repeat=2))  # ties
    assert least < one[dw5, dw5] < most
    operation = {"dw3": 9 * width + width**2, "dw5": 25 * width + width**2, "conv3": 9 * width**2, "pool3": 0}
    operation["dil3"] = operation["conv3"]
    sizes = [operation[name] + (2 * width if name != "pool3" else 0) for name in OPERATIONS]
    assert {pair: n - least for pair, n in one.items()} == {(p, q): sizes[p] + sizes[q] for p, q in one}
    two = {pair: e_cell_parameters((pair, (pool, pool)), width) for pair in one}
    # What a second block of pools adds: a wider merge in the encoder, and one more dw3 in the decoder.
    added = width * width + sizes[OPERATIONS.index("dw3")]
    assert {pair: n - one[pair] for pair, n in two.items()} == dict.fromkeys(one, added)


def test_dw5_is_larger_than_conv3_below_four_channels() -> None:
    assert e_cell_parameters(((1, 1),), 3) > e_cell_parameters(((2, 2),), 3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_found_small_and_built_large(decoder: str) -> None:
    kwargs = {"blocks": 3, "layers": 3, "width": 16, "decoder": decoder}
    found = Architecture("ednas", kwargs, draw(random.Random(3), blocks=3, decoder=decoder))
    small, large = found.build(1, 3), found.build(1, 3, layers=5, width=32)
    assert (small.size_divisor, large.size_divisor) == (8, 32)
    assert [cell.merge.norm.num_features for cell in small.encoder] == [16, 32, 64]
    assert [cell.merge.norm.num_features for cell in large.encoder] == [32, 64, 128, 256, 512]
    with torch.no_grad():
        assert large(torch.randn(2, 1, 32, 32)).shape == (2, 3, 32, 32)

    def operations(network: EdNas) -> list[str]:
        """The first cells, written as modules without their widths."""
        texts = [
            repr([cell.operations, cell.inputs if hasattr(cell, "inputs") else None])
            for cell in (network.encoder[0], network.decoder[-1])
        ]
        return [re.sub(r"\d+", lambda m: "c" if int(m[0]) >= 16 else m[0], text) for text in texts]

    assert operations(small) == operations(large)
    assert not any(isinstance(module, LayerChoice) for module in large.modules())


@pytest.mark.parametrize("inputs", READINGS)
def test_cell_computes_what_its_code_says(inputs: str) -> None:
    """Against the formula, written out from the codes: y = OP1(x_I1) + OP2(x_I2), then the loose blocks."""
    rng = random.Random(21)
    for _ in range(6):
        choices = draw(rng, inputs=inputs, blocks=4)
        codes = from_choices(choices, inputs).encoder
        cell = build(choices, inputs=inputs, blocks=4, layers=2, width=3).encoder[1]
        previous, before = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
        tensors = [cell.calibrate(previous)] if cell.calibrate is not None else [None]
        if inputs == "enas":
            tensors.append(cell.calibrate_before(before) if cell.calibrate_before is not None else None)
        first = len(tensors)
        for b, (in1, in2, op1, op2) in enumerate(codes):
            one, two = cell.operations[f"{b}_1"], cell.operations[f"{b}_2"]
            for module, op in ((one, op1), (two, op2)):
                assert repr(module) == repr(ED_NAS_OPERATIONS[OPERATIONS[op]](6, "relu-conv-bn"))
            tensors.append(one(tensors[in1]) + two(tensors[in2]))
        read = {code for block in codes for code in block[:2]}
        loose = [tensor for i, tensor in enumerate(tensors) if i >= first and i not in read]
        expected = cell.merge.norm(cell.merge.conv(torch.cat(loose, 1))).relu()
        assert torch.allclose(cell(previous, before), expected, atol=1e-5)


def test_chain_computes_one_operation_after_another() -> None:
    cell = build(to_choices(ED_NAS_N4), layers=2, width=3).decoder[0]
    assert [repr(operation) for operation in cell.operations] == [
        repr(ED_NAS_OPERATIONS[name](6, "relu-conv-bn")) for name in ("dw3", "conv3", "dw3", "conv3")
    ]
    x = torch.randn(2, 6, 8, 8)
    y = cell.calibrate(x)
    for operation in cell.operations:
        y = operation(y)
    assert torch.allclose(cell(x, x), cell.project(y), atol=1e-5)
    assert cell(x, x).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_the_cells_are_given(decoder: str) -> None:
    net = build(draw(random.Random(2), decoder=decoder, blocks=3), blocks=3, layers=3, width=2, decoder=decoder)
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    for name, module in net.named_modules():
        if name == "stem" or name in {f"{side}.{i}" for side in ("encoder", "decoder") for i in range(3)}:
            module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: (args, out)}))
    net.eval()(torch.randn(1, 1, 16, 16))
    stem, e0, e1, e2 = (seen[name][1] for name in ("stem", "encoder.0", "encoder.1", "encoder.2"))
    half = [functional.max_pool2d(e, 2) for e in (e0, e1, e2)]
    for i, (previous, before) in enumerate(
        [
            (stem, stem),
            (half[0], functional.max_pool2d(stem, 2)),
            (half[1], functional.max_pool2d(half[0], 2)),
        ]
    ):
        assert torch.equal(seen[f"encoder.{i}"][0][0], previous)
        assert torch.equal(seen[f"encoder.{i}"][0][1], before)
    ups = [seen[f"decoder.{i}"][0][0] for i in range(3)]
    below = [half[2], seen["decoder.0"][1], seen["decoder.1"][1]]
    for up, source, mirror in zip(ups, below, (e2, e1, e0), strict=True):
        _, where = functional.max_pool2d(mirror, 2, return_indices=True)
        assert torch.equal(up, functional.max_unpool2d(source, where, 2))
    befores = [seen[f"decoder.{i}"][0][1] for i in range(3)]
    assert torch.equal(befores[0], ups[0])
    for i in (1, 2):
        assert torch.equal(befores[i], ups[i - 1].repeat_interleave(2, 2).repeat_interleave(2, 3))


def copy_weights(built: EdNas, source: dict[str, Tensor]) -> None:
    """Give a built network the weights that the same path has in a network with all paths."""
    source = dict(source)
    own = built.state_dict()
    for cell_name, cell in built.named_modules():
        weight = f"{cell_name}.merge.conv.weight"
        if weight in own:  # only the slices of the loose blocks
            blocks = source[weight].unflatten(1, (built.blocks, -1))
            source[weight] = blocks[:, cell.loose].flatten(1, 2)
    assert own.keys() <= source.keys()
    built.load_state_dict({key: source[key] for key in own})


@pytest.mark.parametrize("inputs", READINGS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_frozen_and_built_compute_the_same(decoder: str, inputs: str) -> None:
    rng = random.Random(11)
    kwargs = {"decoder": decoder, "inputs": inputs, "blocks": 3, "layers": 2, "width": 4}
    for _ in range(2):
        choices = draw(rng, **kwargs)
        frozen = EdNas(1, 3, **kwargs).freeze(choices)
        built = Architecture("ednas", kwargs, choices).build(1, 3)
        copy_weights(built, frozen.state_dict())
        x = torch.randn(2, 1, 16, 24)
        for mode in (True, False):
            assert torch.allclose(built.train(mode)(x), frozen.train(mode)(x), atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_path_of_the_supernet_and_built_compute_the_same(decoder: str) -> None:
    rng = random.Random(12)
    kwargs: dict[str, Any] = {"decoder": decoder, "blocks": 3, "layers": 2, "width": 4}
    supernet = RandomOneShot().mutate_model(EdNas(1, 3, **kwargs))
    paths = [module for module in supernet.modules() if isinstance(module, BaseSuperNetModule)]
    # 2 encoder cells with 4 choices per block; 2 decoder cells with 1 or 4 per block.
    assert len(paths) == 2 * 12 + 2 * (3 if decoder == "chain" else 12)
    own = dict(supernet.named_modules())
    for _ in range(4):
        choices = draw(rng, **kwargs)
        for module in paths:
            module.resample(memo=dict(choices))
        built = build(choices, **kwargs)
        state = {}
        for name, tensor in supernet.state_dict().items():
            parts = name.split(".")
            if "operations" in parts:  # drop the name of the operation, leave out those that were not chosen
                place = parts.index("operations") + 2
                choice = own[".".join(parts[:place])]
                if parts[place] != choices[str(choice.label)]:
                    continue
                del parts[place]
            state[".".join(parts)] = tensor

        copy_weights(built, state)
        x = torch.randn(2, 1, 16, 16)
        assert torch.allclose(built(x), supernet(x), atol=1e-5)


def merged_channels(net: EdNas) -> list[int]:
    return [cell.merge.conv.in_channels for cell in net.encoder]


def test_only_loose_blocks_are_concatenated() -> None:
    chain = genotype((0, 1, 0, 0), (2, 2, 0, 0), (3, 0, 0, 0))  # block 1 reads 0, block 2 reads 1
    fork = genotype((0, 1, 0, 0), (2, 1, 0, 0), (0, 2, 0, 0))  # blocks 1 and 2 read block 0
    kwargs: dict[str, Any] = {"blocks": 3, "layers": 3, "width": 4}
    assert merged_channels(build(chain, **kwargs)) == [4, 8, 16]
    assert merged_channels(build(fork, **kwargs)) == [8, 16, 32]
    assert merged_channels(build(to_choices(ED_NAS_N3), **kwargs)) == [12, 24, 48]
    assert merged_channels(EdNas(1, 3, **kwargs)) == [12, 24, 48]  # in a supernet every block may be loose
    seen: list[int] = []
    net = build(fork, **kwargs)
    net.encoder[0].merge.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    net(torch.randn(1, 1, 8, 8))
    assert seen == [2]
    assert net.encoder[0].loose == [1, 2]


def test_inputs_that_nobody_reads_have_no_parameters() -> None:
    kwargs: dict[str, Any] = {"blocks": 2, "layers": 2, "width": 4}
    both = build(genotype((0, 1, 0, 0), (0, 1, 0, 0)), **kwargs)
    only_previous = build(genotype((0, 0, 0, 0), (0, 2, 0, 0)), **kwargs)
    only_before = build(genotype((1, 1, 0, 0), (1, 1, 0, 0)), **kwargs)
    for cell in both.encoder:
        assert cell.calibrate is not None and cell.calibrate_before is not None
    assert [cell.calibrate_before for cell in only_previous.encoder] == [None, None]
    assert [cell.calibrate for cell in only_before.encoder] == [None, None]
    # Calibrations of the cell before: 4 to 4 channels at level 0, 4 to 8 at level 1.
    assert count(both) - count(build(genotype((0, 0, 0, 0), (0, 0, 0, 0)), **kwargs)) == 4 * 4 + 8 + 4 * 8 + 16
    x = torch.randn(1, 1, 8, 8)
    assert only_previous(x).shape == only_before(x).shape == (1, 3, 8, 8)


def without_gradient(net: EdNas) -> set[str]:
    net(torch.randn(2, 1, 32, 32)).square().sum().backward()
    return {".".join(name.split(".")[:2]) for name, p in net.named_parameters() if p.grad is None}


def reads_previous(choices: dict[str, Any], cell: str) -> bool:
    return any(choices[label] == [0] for label in choices if label.startswith(cell) and "_in" in label)


@pytest.mark.parametrize("inputs", READINGS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_of_a_derived_network_gets_a_gradient(decoder: str, inputs: str) -> None:
    rng = random.Random(5)
    kwargs = {"decoder": decoder, "inputs": inputs, "blocks": 3, "layers": 3, "width": 3}
    done = 0
    while done < 5:
        choices = draw(rng, **kwargs)
        if inputs == "enas" and not (
            reads_previous(choices, "enc") and (decoder == "chain" or reads_previous(choices, "dec"))
        ):
            continue  # see the next test
        assert without_gradient(build(choices, **kwargs)) == set()
        done += 1


def test_cells_that_read_only_the_cell_before_leave_every_other_cell_aside() -> None:
    """A corner of the published space: no block reads the previous cell, so the last cell but one has no reader."""
    choices = genotype((1, 1, 2, 2), (1, 2, 2, 2))
    net = build(choices, blocks=2, layers=4, width=3)
    assert without_gradient(net) == {"encoder.0", "encoder.2"}  # only their pooling indices are used
    net = build(choices, blocks=2, layers=4, width=3, encdec_skip=True)
    assert without_gradient(net) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks=0"),
        ({"layers": 0}, "layers=0"),
        ({"width": 0}, "width=0"),
        ({"width": 16, "max_width": 8}, "max_width=8"),
        ({"decoder": "tree"}, "decoder must be one of"),
        ({"inputs": "both"}, "inputs must be one of"),
        ({"order": "bn-first"}, "order must be one of"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EdNas(1, 3, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"blocks": 3}, "dec3_op1, enc3_in1"), ({"inputs": "fig"}, "enc0_in1, enc0_in2"), ({"blocks": 2}, "dec2_op1")],
)
def test_options_that_would_drop_choices(options: dict[str, Any], named: str) -> None:
    """NNI would ignore the choices that are too many, and build another network than the one found."""
    found = Architecture("ednas", {"layers": 2, "width": 2}, to_choices(ED_NAS_N4))
    with pytest.raises(UserError, match=f"has no decisions {named}"):
        found.build(1, 3, **options)


def test_a_wrong_order_is_refused_whatever_the_operations() -> None:
    pools = {label: "pool3" if "_op" in label else [0] for label in labels(1)}
    with pytest.raises(ValueError, match=r"order must be one of .* got 'bn-first'"):
        build(pools, blocks=1, order="bn-first")


def test_orders_of_the_operations() -> None:
    first = build(to_choices(ED_NAS_N4), layers=1, width=4)
    last = build(to_choices(ED_NAS_N4), layers=1, width=4, order="conv-bn-relu")
    assert isinstance(first.encoder[0].operations["0_1"][0], nn.ReLU)
    assert isinstance(last.encoder[0].operations["0_1"][0], nn.Conv2d)
    assert count(first) == count(last)


def test_one_layer() -> None:
    assert build(to_choices(ED_NAS_N4), layers=1, width=2)(torch.zeros(1, 1, 2, 2)).shape == (1, 3, 2, 2)


def test_named_points() -> None:
    assert EdNas.named({}) == {"ed-nas-n4 (assumed wiring)": to_choices(ED_NAS_N4)}
    assert EdNas.named({"blocks": 3, "width": 99}) == {"ed-nas-n3 (assumed wiring)": to_choices(ED_NAS_N3)}
    for kwargs in ({"blocks": 5}, {"decoder": "multi"}, {"inputs": "fig"}):
        assert EdNas.named(kwargs) == {}


def test_code_and_cells() -> None:
    choices = to_choices(ED_NAS_N4)
    code = "E=[(0,0,2,0),(0,0,4,3),(0,0,0,0),(0,0,2,2)] D=[(0,0),(1,2),(2,0),(3,2)]"
    assert EdNas.code(choices, {}) == code
    encoder, decoder = EdNas.cells(choices, {})
    assert [node["label"] for node in decoder["nodes"] if node["kind"] == "op"] == [
        "3x3 separable",
        "3x3 conv",
        "3x3 separable",
        "3x3 conv",
    ]
    assert sum(node["kind"] == "op" for node in encoder["nodes"]) == 8
    fig = genotype((0, 0, 1, 2), (1, 0, 3, 4), inputs="fig")
    assert EdNas.code(fig, {"inputs": "fig"}) == "E=[(0,0,1,2),(1,0,3,4)] D=[(0,0),(1,0)]"


@pytest.mark.parametrize(
    ("found", "kwargs", "message"),
    [
        ({"blocks": 3}, {"blocks": 4}, "with blocks=4: they have blocks=3, decoder='chain'"),
        ({"blocks": 4}, {"blocks": 3}, "with blocks=3: they have blocks=4"),
        ({"blocks": 3}, {"decoder": "multi"}, "with decoder='multi': they have blocks=3, decoder='chain'"),
        ({"decoder": "multi"}, {"decoder": "chain"}, "with decoder='chain': they have blocks=4, decoder='multi'"),
        ({"blocks": 3}, {"blocks": 2, "decoder": "multi"}, "with blocks=2, decoder='multi': they have"),
        ({"blocks": 1}, {"inputs": "fig"}, "enc0_in1, enc0_in2 not among the decisions"),
        ({"inputs": "fig"}, {}, "'enc0_in1' is missing"),
    ],
)
def test_code_and_cells_refuse_choices_of_other_options(
    found: dict[str, Any], kwargs: dict[str, Any], message: str
) -> None:
    choices = draw(random.Random(6), **found)
    for call in (EdNas.code, EdNas.cells):
        with pytest.raises(ValueError, match=f"these are not choices of the ED-NAS space.*{message}"):
            call(choices, kwargs)
        assert call(choices, found)


def test_published_networks() -> None:
    n3, n4 = ed_nas_n3(1, 3, width=4), ed_nas_n4(2, 5, width=4)
    assert (n3.size_divisor, n4.size_divisor) == (16, 32)
    assert n3(torch.zeros(1, 1, 16, 16)).shape == (1, 3, 16, 16)
    assert n4(torch.zeros(1, 2, 32, 32)).shape == (1, 5, 32, 32)
    # One level, by hand, C = 4: stem 36 + 8; encoder calibration 16 + 8;
    # dw5 116 + conv3 144 + dw3 52 + dw3 52 + dw5 116 + dw3 52 and six normalisations of 8; merge 3 * 16 + 8;
    # decoder calibration 16 + 8, dw3 52 + dw3 52 + conv3 144 and three normalisations; head 3 * 4 + 3.
    expected = 44 + 24 + 532 + 48 + 56 + 24 + 248 + 24 + 15
    assert count(ed_nas_n3(1, 3, layers=1, width=4)) == expected


def test_decisions_of_other_kinds_are_refused() -> None:
    class Two(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = InputChoice(3, 2, label="two")

    with pytest.raises(TypeError, match="decision 'two'"):
        decisions(Two())


def test_plain_choices() -> None:
    found = {label: mutable.default() for label, mutable in EdNas(1, 2, blocks=1, layers=1, width=1).simplify().items()}
    assert {type(label) for label in found} != {str}
    cleaned = plain(found)
    assert cleaned == {"dec0_op1": "dw3", "enc0_in1": [0], "enc0_in2": [0], "enc0_op1": "dw3", "enc0_op2": "dw3"}
    assert list(cleaned) == sorted(cleaned)
    assert {type(label) for label in cleaned} == {str}
    assert plain({"b": (1,), "a": "x"}) == {"a": "x", "b": [1]}


@pytest.mark.parametrize("decoder", DECODERS)
def test_extra_operations(decoder: str) -> None:
    kwargs = {"blocks": 2, "decoder": decoder, "extra": ["context", "se"]}
    space = EdNas(1, 2, layers=2, width=8, **kwargs)
    found = decisions(space)
    assert all(found[label] == [*OPERATIONS, "se", "context"] for label in found if "_op" in label)
    assert space.size() == math.prod(len(values) for values in found.values())
    choices = draw(random.Random(4), **kwargs) | {"enc0_op1": "se", "enc1_op2": "context", "dec1_op1": "se"}
    net = build(choices, 1, 3, **kwargs, layers=2, width=8)
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 3, 8, 8)
    assert EdNas.code(choices, kwargs).startswith("E=[(")
    assert {"squeeze-excite", "global context"} <= {n["label"] for n in EdNas.cells(choices, kwargs)[0]["nodes"]}
    for call in (EdNas.code, EdNas.cells):
        with pytest.raises(ValueError, match=r"these are not choices of the ED-NAS space: .*OP1=5 is not in 0\.\.4"):
            call(choices, {**kwargs, "extra": []})
    with pytest.raises(UserError, match="se not found in"):
        Architecture("ednas", {**kwargs, "extra": []}, choices).build(1, 2)


def test_extra_operations_are_off_by_default() -> None:
    assert decisions(EdNas(1, 2, width=2)) == decisions(EdNas(1, 2, width=2, extra=[]))
    assert EdNas(1, 2, width=2, extra=["se"]).size() == 120**2 * 36**4 * 6**4
    assert EdNas.pass_through == frozenset()
    with pytest.raises(ValueError, match=r"extra must be a list of .* got 'attention'"):
        EdNas(1, 2, extra=["attention"])
