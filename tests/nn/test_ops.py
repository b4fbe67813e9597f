from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.nn.ops import (
    ED_NAS_OPERATIONS,
    EXTRA_OPERATIONS,
    ORDERS,
    MBConv,
    conv,
    global_context,
    max_pool,
    pointwise,
    search_net_operations,
    separable,
    squeeze_excitation,
)
from autoseg.spaces.ednas_code import OPERATIONS


def weights(module: nn.Module) -> int:
    """Convolution weights, normalisation left out."""
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


def impulse(operation: nn.Module) -> set[tuple[int, int]]:
    """Where the answer to one bright pixel differs from the answer to none, relative to the pixel."""
    for p in operation.parameters():
        nn.init.constant_(p, 1.0)
    operation.eval()
    black = torch.zeros(1, 3, 11, 11)
    bright = black.clone()
    bright[:, :, 5, 5] = 1
    with torch.no_grad():
        rows, columns = (operation(bright) - operation(black))[0, 0].nonzero(as_tuple=True)
    return {(int(r) - 5, int(c) - 5) for r, c in zip(rows, columns, strict=True)}


def square(reach: int, step: int = 1) -> set[tuple[int, int]]:
    positions = range(-reach, reach + 1, step)
    return {(r, c) for r in positions for c in positions}


def test_the_five_operations_have_the_paper_s_order() -> None:
    assert tuple(ED_NAS_OPERATIONS) == OPERATIONS == ("dw3", "dw5", "conv3", "dil3", "pool3")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("c", [1, 4, 7, 16])
def test_weights(c: int, order: str) -> None:
    counted = {name: weights(make(c, order)) for name, make in ED_NAS_OPERATIONS.items()}
    assert counted == {
        "dw3": 9 * c + c * c,
        "dw5": 25 * c + c * c,
        "conv3": 9 * c * c,
        "dil3": 9 * c * c,
        "pool3": 0,
    }


@pytest.mark.parametrize("order", ORDERS)
def test_each_convolution_adds_one_normalisation_and_no_bias(order: str) -> None:
    for name, make in ED_NAS_OPERATIONS.items():
        rest = sum(p.numel() for p in make(8, order).parameters() if p.dim() != 4)
        assert rest == (0 if name == "pool3" else 2 * 8), name


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_shape_stays_and_the_input_is_not_changed(name: str, order: str) -> None:
    for shape in [(2, 6, 8, 8), (1, 6, 5, 9), (2, 6, 1, 1)]:
        x = torch.randn(shape)
        kept = x.clone()
        assert ED_NAS_OPERATIONS[name](6, order)(x).shape == x.shape
        assert torch.equal(x, kept)


def test_order_of_relu_and_normalisation() -> None:
    x = torch.randn(4, 3, 8, 8)
    before = conv(3, 3, order="relu-conv-bn")
    after = conv(3, 3, order="conv-bn-relu")
    assert [type(m) for m in before] == [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
    assert [type(m) for m in after] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert before(x).mean((0, 2, 3)).abs().max() < 1e-5  # normalised last: the mean is zero
    assert before(x).min() < 0
    assert after(x).min() == 0
    # A ReLU in front makes negative values and zero one and the same.
    assert torch.allclose(before(x), before(x.clamp(min=0)))
    assert not torch.allclose(after(x), after(x.clamp(min=0)))


@pytest.mark.parametrize(
    ("name", "reached"),
    [("dw3", square(1)), ("dw5", square(2)), ("conv3", square(1)), ("dil3", square(2, 2)), ("pool3", square(1))],
)
def test_which_pixels_an_operation_sees(name: str, reached: set[tuple[int, int]]) -> None:
    assert impulse(ED_NAS_OPERATIONS[name](3, "relu-conv-bn")) == reached


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (5, 1), (3, 3), (5, 2)])
def test_other_kernels(kernel: int, dilation: int) -> None:
    operation = conv(3, kernel, dilation)
    assert weights(operation) == kernel * kernel * 9
    assert impulse(operation) == square(dilation * (kernel // 2), dilation)


def test_depthwise_part_does_not_mix_channels() -> None:
    depthwise, mixing = (m for m in separable(5, 3) if isinstance(m, nn.Conv2d))
    assert (depthwise.groups, depthwise.kernel_size) == (5, (3, 3))
    assert (mixing.groups, mixing.kernel_size) == (1, (1, 1))


def test_max_pool_takes_the_largest_of_nine() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert max_pool(1)(x)[0, 0].tolist() == [[5, 6, 7, 7], [9, 10, 11, 11], [13, 14, 15, 15], [13, 14, 15, 15]]


def test_pointwise() -> None:
    layer = pointwise(6, 4)
    assert sum(p.numel() for p in layer.parameters()) == 6 * 4 + 2 * 4
    y = layer(torch.randn(2, 6, 3, 5))
    assert y.shape == (2, 4, 3, 5)
    assert y.min() == 0


def test_unknown_order() -> None:
    for make in (lambda: conv(4, 3, order="bn-conv-relu"), lambda: separable(4, 3, "relu")):
        with pytest.raises(ValueError, match=r"order must be one of \('relu-conv-bn', 'conv-bn-relu'\)"):
            make()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("expand", [1, 2, 4])
@pytest.mark.parametrize(("c", "squeezed"), [(4, 8), (32, 8), (50, 12)])
def test_parameters_of_mbconv(c: int, squeezed: int, expand: int, kernel: int) -> None:
    inside = expand * c
    widen = c * inside + 2 * inside if expand > 1 else 0
    depthwise = kernel * kernel * inside + 2 * inside
    gate = 2 * inside * squeezed + squeezed + inside
    assert parameters(MBConv(c, kernel, expand)) == widen + depthwise + gate + inside * c + 2 * c


def test_mbconv_adds_to_its_input() -> None:
    block = MBConv(4, 3).eval()
    x = torch.randn(2, 4, 6, 6)
    kept = x.clone()
    assert not torch.allclose(block(x), x)
    nn.init.zeros_(block.layers[-1][1].weight)  # the last normalisation, which no ReLU follows
    assert torch.equal(block(x), x)
    nn.init.constant_(block.layers[-1][1].bias, -1.0)
    assert torch.allclose(block(x), x - 1)
    assert torch.equal(x, kept)


def test_mbconv_of_one_channel() -> None:
    assert MBConv(1, 3, expand=1)(torch.randn(2, 1, 4, 4)).shape == (2, 1, 4, 4)


def test_operations_of_search_net() -> None:
    c = 8
    counted = {name: parameters(make(c, "conv-bn-relu")) for name, make in search_net_operations(expand=1).items()}
    assert counted == {
        "conv3": 9 * c * c + 2 * c,
        "conv5": 25 * c * c + 2 * c,
        "dil3": 9 * c * c + 2 * c,
        "dil5": 25 * c * c + 2 * c,
        "mb3": 9 * c + 2 * c + (16 * c + 8 + c) + c * c + 2 * c,
        "mb5": 25 * c + 2 * c + (16 * c + 8 + c) + c * c + 2 * c,
        "identity": 0,
    }


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("conv3", square(1)),
        ("conv5", square(2)),
        ("dil3", square(2, 2)),
        ("dil5", square(4, 2)),
        ("identity", {(0, 0)}),
    ],
)
def test_which_pixels_an_operation_of_search_net_sees(name: str, reached: set[tuple[int, int]]) -> None:
    assert impulse(search_net_operations()[name](3, "conv-bn-relu")) == reached


@pytest.mark.parametrize("name", [*search_net_operations(), *EXTRA_OPERATIONS])
def test_shape_stays(name: str) -> None:
    operation = (search_net_operations() | EXTRA_OPERATIONS)[name](8, "conv-bn-relu")
    for shape in [(2, 8, 8, 8), (1, 8, 5, 9), (2, 8, 1, 1)]:
        x = torch.randn(shape)
        kept = x.clone()
        assert operation(x).shape == x.shape
        assert torch.equal(x, kept)


def test_squeeze_excitation_scales_whole_channels() -> None:
    gate = squeeze_excitation(8)
    assert parameters(gate) == 8 * 8 + 8 + 8 * 8 + 8
    assert parameters(squeeze_excitation(64)) == 64 * 16 + 16 + 16 * 64 + 64
    x = torch.rand(2, 8, 5, 5) + 1
    scales = gate(x) / x
    assert scales.min() > 0 and scales.max() < 1
    assert torch.allclose(scales.amax((2, 3)), scales.amin((2, 3)))
    # The scales come from the means alone: pixels may change places.
    assert torch.allclose(gate(x.flip(2, 3)).flip(2, 3), gate(x), atol=1e-6)


def test_global_context_adds_one_vector_per_image() -> None:
    context = global_context(8)
    assert parameters(context) == (8 + 1) + (8 * 8 + 8) + 2 * 8 + (8 * 8 + 8)
    assert parameters(global_context(64)) == (64 + 1) + (64 * 16 + 16) + 2 * 16 + (16 * 64 + 64)
    nn.init.normal_(context.mlp_add.fc2.weight)
    x = torch.randn(2, 8, 5, 5)
    added = context(x) - x
    assert torch.allclose(added, added.mean((2, 3), keepdim=True).expand_as(added), atol=1e-5)
    assert (added[0] - added[1]).abs().max() > 1e-3
    far = x.clone()
    far[:, :, 4, 4] += 3.0
    assert (context(far)[:, :, 0, 0] - context(x)[:, :, 0, 0]).abs().max() > 1e-3
