"""What every network must do, as tests: subclass :class:`ModelContract` and say how to build yours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg import registry
from autoseg.nn.padding import pad_to_multiple
from autoseg.predict.onnx import export_onnx

ODD = (37, 53)
"""Rows and columns of most test images: no network halves them without padding."""


def parameters(network: nn.Module) -> int:
    """Number of values in all parameters, frozen ones too; running statistics are not counted.

    Example:
        >>> parameters(nn.Conv2d(3, 2, 1))
        8
    """
    return sum(p.numel() for p in network.parameters())


def train_step(network: nn.Module, x: Tensor, num_classes: int) -> float:
    """One backward pass of the cross entropy with a fixed target, without a change of the weights.

    Args:
        network: Set to training mode; its gradients are replaced.
        x: Images ``(N, C, H, W)``.
        num_classes: Classes of the network.

    Returns:
        The loss.

    Example:
        >>> network = nn.Conv2d(3, 2, 1)
        >>> nn.init.zeros_(network.weight), nn.init.zeros_(network.bias)  # doctest: +ELLIPSIS
        (...
        >>> round(train_step(network, torch.rand(1, 3, 4, 4), 2), 4)
        0.6931
    """
    target = torch.arange(x[:, 0].numel(), device=x.device).view(x[:, 0].shape) % num_classes
    network.train().zero_grad()
    loss = F.cross_entropy(network(x), target)
    loss.backward()
    return loss.item()


class ModelContract:
    """The tests of a model; a subclass in a test file is all that an author writes.

    Attributes:
        model: The callable ``(in_channels, num_classes, **options)``, or the name of a registered model.
        options: Options to build it with. Take a small width: the whole contract then needs some 10 seconds.
        learning_rate: Of the short training in :meth:`test_loss_falls_when_trained`; lower it where Adam diverges.
        unused: Names of parameters that get no gradient for a reason.
        fixed_size: ``(height, width)`` where the network's ONNX file cannot be for images of any size.

    Example:
        In the test file of a package (``pip install 'autoseg[test]'``):

        >>> class Pixelwise(nn.Conv2d):
        ...     size_divisor = 1
        ...
        ...     def __init__(self, in_channels, num_classes, *, kernel=1):
        ...         super().__init__(in_channels, num_classes, kernel, padding=kernel // 2)
        >>> class TestPixelwise(ModelContract):
        ...     model = Pixelwise
        ...     options = {"kernel": 3}

        ``pytest`` finds the class by its name and runs every test of the contract, for example:

        >>> TestPixelwise().test_logits_have_the_size_of_the_input(in_channels=5, num_classes=4)
    """

    model: ClassVar[Callable[..., nn.Module] | str]
    options: ClassVar[dict[str, Any]] = {}
    learning_rate: ClassVar[float] = 3e-3
    unused: ClassVar[frozenset[str]] = frozenset()
    fixed_size: ClassVar[tuple[int, int] | None] = None

    def build(self, in_channels: int = 3, num_classes: int = 2, seed: int = 0) -> nn.Module:
        """A new network; the same weights for the same seed."""
        model = type(self).model
        made: Callable[..., nn.Module] = registry.load("model", model) if isinstance(model, str) else model
        torch.manual_seed(seed)
        return made(in_channels, num_classes, **self.options)

    @pytest.mark.parametrize("in_channels", [1, 3, 5])
    @pytest.mark.parametrize("num_classes", [2, 4])
    def test_logits_have_the_size_of_the_input(self, in_channels: int, num_classes: int) -> None:
        """Any height and width from 1 pixel on, any number of channels and classes."""
        network = self.build(in_channels, num_classes).eval()
        assert isinstance(network.size_divisor, int) and network.size_divisor >= 1
        with torch.no_grad():
            for size in (ODD, (1, 1), (2 * network.size_divisor, network.size_divisor)):
                logits = network(torch.randn(2, in_channels, *size))
                assert logits.shape == (2, num_classes, *size)
                assert logits.dtype == torch.float32 and logits.isfinite().all()

    def test_padding_inside_equals_padding_outside(self) -> None:
        """Pixel (y, x) of the logits is pixel (y, x) of the image, however it is padded."""
        network = self.build().eval()
        x = torch.randn(1, 3, *ODD)
        assert isinstance(network.size_divisor, int)
        padded, _ = pad_to_multiple(x, network.size_divisor)
        with torch.no_grad():
            torch.testing.assert_close(network(x), network(padded)[..., : ODD[0], : ODD[1]], rtol=1e-4, atol=1e-5)

    def test_the_image_is_left_alone(self) -> None:
        """A first operation that works in place would change the caller's batch."""
        network, x = self.build(), torch.randn(2, 3, 64, 64)  # a multiple: padding would copy it
        for mode in (True, False):
            seen = x.clone()
            with torch.no_grad():
                network.train(mode)(seen)
            assert torch.equal(seen, x), "the network writes into its input"

    def test_gradients_reach_every_parameter(self) -> None:
        """A weight without a gradient is never learned: it is not wired to the output.

        In the second of two steps those get theirs, too, that stand before weights which begin at zero.
        """
        network = self.build(num_classes=4)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        dead = {name for name, _ in network.named_parameters()}
        for _ in range(2):
            train_step(network, torch.randn(2, 3, *ODD), 4)
            for name, parameter in network.named_parameters():
                if parameter.grad is not None:
                    assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
                    if parameter.grad.any():
                        dead.discard(name)
            optimizer.step()
        assert dead == set(self.unused), f"parameters without a gradient: {sorted(dead)}"

    @pytest.mark.parametrize("size", [ODD, (8, 8)])
    def test_trains_on_a_batch_of_one(self, size: tuple[int, int]) -> None:
        """The last batch of an epoch may hold a single image, and that may be small."""
        network = self.build()
        train_step(network, torch.randn(1, 3, *size), 2)
        for name, parameter in network.named_parameters():
            assert name in self.unused or (parameter.grad is not None and parameter.grad.isfinite().all()), name
        for name, value in network.state_dict().items():
            assert value.isfinite().all(), name

    def test_loss_falls_when_trained(self) -> None:
        """25 steps on two images with one bright rectangle."""
        network = self.build()
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 3, 32, 32, generator=generator)
        target = torch.zeros(2, 32, 32, dtype=torch.int64)
        target[:, 8:24, :16] = 1
        x[:, 0] += 4 * target
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
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
        """Weights are drawn from torch's generator and from nothing else."""
        first, same, other = self.build(seed=3), self.build(seed=3), self.build(seed=4)
        for name, value in first.state_dict().items():
            assert torch.equal(value, same.state_dict()[name]), name
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))

    def test_evaluation_is_deterministic_and_looks_at_one_image_at_a_time(self) -> None:
        """Dropout and batch statistics are off in evaluation."""
        network = self.build()
        train_step(network, torch.randn(2, 3, *ODD), 2)
        network.eval()
        x = torch.randn(3, 3, *ODD)
        with torch.no_grad():
            together = network(x)
            assert torch.equal(network(x), together), "two passes differ"
            torch.testing.assert_close(network(x[1:2]), together[1:2], rtol=1e-4, atol=1e-4)

    def test_state_dict_round_trip(self) -> None:
        """Weights and statistics are all that a trained network is."""
        trained = self.build(num_classes=4)
        train_step(trained, torch.randn(2, 3, *ODD), 4)  # moves the running statistics
        restored = self.build(num_classes=4, seed=1)
        x = torch.randn(1, 3, *ODD)
        with torch.no_grad():
            expected = trained.eval()(x)
            assert not torch.allclose(restored.eval()(x), expected)
            restored.load_state_dict(trained.state_dict())
            assert torch.equal(restored(x), expected)

    def test_state_dict_is_tensors_of_their_own(self) -> None:
        """Run folders keep weights as safetensors, where every name has its own memory."""
        owner: dict[int, str] = {}
        for name, value in self.build().state_dict().items():
            assert isinstance(value, Tensor), f"{name} is no tensor"
            if value.numel():
                where = value.untyped_storage().data_ptr()
                assert where not in owner, f"{name} and {owner.get(where)} are one tensor"
                owner[where] = name

    def test_channels_last_gives_the_same_logits(self) -> None:
        """Training and prediction on the CPU run in this memory format."""
        network = self.build().eval()
        x = torch.randn(2, 3, *ODD)
        with torch.no_grad():
            expected = network(x)
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            actual = network(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)

    def test_deterministic_algorithms_suffice(self) -> None:
        """A run can be repeated to the last bit."""
        network = self.build()
        torch.use_deterministic_algorithms(True)
        try:
            assert train_step(network, torch.randn(2, 3, *ODD), 2) > 0
        finally:
            torch.use_deterministic_algorithms(False)

    def test_onnx_gives_the_same_logits(self, tmp_path: Path) -> None:
        """Written once, the file is right for other batches and, unless ``fixed_size``, images of other sizes."""
        runtime = pytest.importorskip("onnxruntime")
        network = self.build(num_classes=3)
        train_step(network, torch.randn(2, 3, *ODD), 3)  # moves the running statistics
        network.eval()
        file = tmp_path / "model.onnx"
        export_onnx(network, file, 3, self.fixed_size)
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for shape in (
            [(1, *self.fixed_size), (3, *self.fixed_size)] if self.fixed_size else [(1, 64, 40), (3, 19, 70), (1, 1, 1)]
        ):
            x = torch.randn(shape[0], 3, *shape[1:])
            with torch.no_grad():
                expected = network(x)
            (logits,) = session.run(["logits"], {"image": x.numpy()})
            torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
