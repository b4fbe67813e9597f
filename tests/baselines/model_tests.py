"""What every baseline must do; a test class for one network subclasses ``ModelTests`` and says how to build it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoseg.nn.padding import pad_to_multiple

ODD = (37, 53)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def train_step(network: nn.Module, x: torch.Tensor, num_classes: int) -> float:
    """One backward pass of the cross entropy with a fixed target; returns the loss."""
    target = torch.arange(x[:, 0].numel()).view(x[:, 0].shape) % num_classes
    network.train().zero_grad()
    loss = F.cross_entropy(network(x), target)
    loss.backward()
    return loss.item()


class ModelTests:
    """Subclass, name it ``Test...`` and set ``model`` (a class or function) and narrow ``options``."""

    model: ClassVar[Any]
    options: ClassVar[dict[str, Any]]

    def build(self, in_channels: int = 3, num_classes: int = 2, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return type(self).model(in_channels, num_classes, **self.options)

    @pytest.mark.parametrize("in_channels", [1, 3, 5])
    @pytest.mark.parametrize("num_classes", [2, 4])
    def test_logits_have_the_size_of_the_input(self, in_channels: int, num_classes: int) -> None:
        network = self.build(in_channels, num_classes).eval()
        with torch.no_grad():
            for size in (ODD, (1, 1), (2 * network.size_divisor, network.size_divisor)):
                assert network(torch.randn(2, in_channels, *size)).shape == (2, num_classes, *size)

    def test_padding_inside_equals_padding_outside(self) -> None:
        network = self.build().eval()
        x = torch.randn(1, 3, *ODD)
        padded, _ = pad_to_multiple(x, network.size_divisor)
        assert padded.shape != x.shape
        with torch.no_grad():
            assert torch.equal(network(x), network(padded)[..., : ODD[0], : ODD[1]])

    def test_gradients_reach_every_parameter(self) -> None:
        network = self.build(num_classes=4)
        train_step(network, torch.randn(2, 3, *ODD), 4)
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    @pytest.mark.parametrize("size", [ODD, (8, 8)])
    def test_trains_on_a_batch_of_one(self, size: tuple[int, int]) -> None:
        network = self.build()
        train_step(network, torch.randn(1, 3, *size), 2)
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        for name, value in network.state_dict().items():
            assert value.isfinite().all(), name

    def test_loss_falls_when_trained(self) -> None:
        network = self.build()
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 3, 32, 32, generator=generator)
        target = torch.zeros(2, 32, 32, dtype=torch.int64)
        target[:, 8:24, :16] = 1
        x[:, 0] += 4 * target
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        losses = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = F.cross_entropy(network.train()(x), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert losses[-1] < 0.35  # ln 2 = 0.69 is the loss of guessing

    def test_same_seed_gives_the_same_weights(self) -> None:
        first, same, other = self.build(seed=3), self.build(seed=3), self.build(seed=4)
        for name, value in first.state_dict().items():
            assert torch.equal(value, same.state_dict()[name]), name
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))

    def test_evaluation_is_deterministic_and_looks_at_one_image_at_a_time(self) -> None:
        network = self.build()
        train_step(network, torch.randn(2, 3, *ODD), 2)
        network.eval()
        x = torch.randn(3, 3, *ODD)
        with torch.no_grad():
            together = network(x)
            assert torch.equal(network(x), together)
            torch.testing.assert_close(network(x[1:2]), together[1:2], rtol=1e-4, atol=1e-4)

    def test_state_dict_round_trip(self) -> None:
        trained = self.build(num_classes=4)
        train_step(trained, torch.randn(2, 3, *ODD), 4)  # moves the running statistics
        restored = self.build(num_classes=4, seed=1)
        x = torch.randn(1, 3, *ODD)
        with torch.no_grad():
            expected = trained.eval()(x)
            assert not torch.allclose(restored.eval()(x), expected)
            restored.load_state_dict(trained.state_dict())
            assert torch.equal(restored(x), expected)

    def test_channels_last_gives_the_same_logits(self) -> None:
        network = self.build().eval()
        x = torch.randn(2, 3, *ODD)
        with torch.no_grad():
            expected = network(x)
            network.to(memory_format=torch.channels_last)
            actual = network(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)

    def test_deterministic_algorithms_suffice(self) -> None:
        network = self.build()
        torch.use_deterministic_algorithms(True)
        try:
            assert train_step(network, torch.randn(2, 3, *ODD), 2) > 0
        finally:
            torch.use_deterministic_algorithms(False)

    def test_exports_as_a_graph(self) -> None:
        network = self.build().eval()
        x = torch.randn(1, 3, *ODD)
        with torch.no_grad():
            graph = torch.export.export(network, (x,)).module()
            torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-4)
