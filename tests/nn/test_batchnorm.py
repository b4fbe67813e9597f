from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.nn.batchnorm import BatchNorm2d, tolerate_single_values
from autoseg.search.supernet import use_batch_statistics


def pair() -> tuple[nn.BatchNorm2d, BatchNorm2d]:
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(3), BatchNorm2d(3)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    theirs.running_mean = torch.tensor([1.0, 2.0, 3.0])
    theirs.running_var = torch.tensor([4.0, 1.0, 0.25])
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_is_the_ordinary_layer_with_more_than_one_value() -> None:
    theirs, ours = pair()
    for x in (torch.randn(2, 3, 1, 1), torch.randn(1, 3, 2, 1)):
        assert torch.equal(ours.train()(x), theirs.train()(x))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    x = torch.randn(1, 3, 1, 1)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_lone_value_uses_the_running_statistics_and_leaves_them() -> None:
    _, ours = pair()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    x = torch.randn(1, 3, 1, 1, requires_grad=True)
    y = ours.train()(x)
    scale = ours.weight / torch.sqrt(torch.tensor([4.0, 1.0, 0.25]) + ours.eps)
    expected = (x[0, :, 0, 0] - torch.tensor([1.0, 2.0, 3.0])) * scale + ours.bias
    torch.testing.assert_close(y[0, :, 0, 0], expected)
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key])
    y.sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0, 0], scale)


@pytest.mark.parametrize("training", [True, False])
def test_a_lone_value_without_running_statistics_is_only_scaled_and_shifted(training: bool) -> None:
    theirs, ours = (use_batch_statistics(layer).train(training) for layer in pair())
    x = torch.randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        theirs(x)
    expected = x[0, :, 0, 0] / (1 + ours.eps) ** 0.5 * ours.weight + ours.bias
    torch.testing.assert_close(ours(x)[0, :, 0, 0], expected)
    assert ours.running_mean is None
    two = torch.randn(2, 3, 1, 1)
    assert torch.equal(ours(two), theirs(two))


def test_replaces_plain_layers_only() -> None:
    class Special(nn.BatchNorm2d):
        pass

    network = nn.Sequential(nn.BatchNorm2d(3), Special(3), nn.BatchNorm2d(3, track_running_stats=False))
    keys = list(network.state_dict())
    assert tolerate_single_values(network) is network
    assert [type(m) for m in network] == [BatchNorm2d, Special, nn.BatchNorm2d]
    assert list(network.state_dict()) == keys
