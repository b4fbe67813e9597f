"""What every loss must do, as tests to subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg import registry
from autoseg.errors import UserError
from autoseg.plugin_options import options_of

_IGNORED = 255


class LossContract:
    """Subclass it in a test file under a name that starts with ``Test``, and say which loss.

    Attributes:
        loss: The plugin: a class or callable that gives the loss module, or the name of a registered loss.
        options: Options to build it with in every test.

    Example:
        >>> class TestDice(LossContract):
        ...     loss = "dice"
        ...     options = {"smooth": 1e-3}
        >>> TestDice().test_perfect_is_better_than_wrong(num_classes=2)
        >>> TestDice().test_ignored_pixels_do_not_count()
    """

    loss: ClassVar[Callable[..., nn.Module] | str]
    options: ClassVar[dict[str, Any]] = {}

    def build(self, **more: Any) -> nn.Module:
        """The loss under test, with more options."""
        built: nn.Module = self.plugin()(**(self.options | more))
        return built

    @classmethod
    def plugin(cls) -> Any:
        """The plugin under test, loaded."""
        return registry.load("loss", cls.loss) if isinstance(cls.loss, str) else cls.loss

    @staticmethod
    def case(num_classes: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Random logits ``(2, num_classes, 6, 5)`` and targets in which all classes and no ignored pixel are."""
        random = torch.Generator().manual_seed(num_classes)
        logits = torch.randn(2, num_classes, 6, 5, generator=random, dtype=dtype)
        return logits, torch.arange(60)[torch.randperm(60, generator=random)].view(2, 6, 5) % num_classes

    def test_a_finite_scalar(self) -> None:
        """One finite number, for a batch and for a single pixel."""
        for logits, target in (self.case(), (torch.randn(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.int64))):
            value = self.build()(logits, target)
            assert value.shape == ()
            assert value.isfinite()

    @pytest.mark.parametrize("num_classes", [2, 5])
    def test_perfect_is_better_than_wrong(self, num_classes: int) -> None:
        """The surer of the truth, the lower."""
        _, target = self.case(num_classes)
        right = 40.0 * functional.one_hot(target, num_classes).movedim(-1, 1).float()
        wrong = right.roll(1, dims=1)
        loss = self.build()
        perfect, half, worst = (loss(logits, target).item() for logits in (right, right + wrong, wrong))
        assert perfect < half < worst

    def test_ignored_pixels_do_not_count(self) -> None:
        """Nothing there changes the value, and no gradient comes from there."""
        logits, target = self.case()
        target[:, 3:] = _IGNORED
        changed = logits.clone()
        changed[:, :, 3:] += 30 * torch.rand(changed[:, :, 3:].shape, generator=torch.Generator().manual_seed(0))
        changed.requires_grad_()
        value = self.build()(changed, target)
        value.backward()
        torch.testing.assert_close(value.detach(), self.build()(logits[:, :, :3], target[:, :3]))
        assert changed.grad is not None
        assert changed.grad[:, :, 3:].abs().max() == 0
        assert changed.grad[:, :, :3].abs().max() > 0

    def test_another_value_can_mean_ignored(self) -> None:
        """The option ``ignore_index`` is honoured."""
        logits, target = self.case()
        first = torch.arange(30).view(6, 5) < 10
        usual, other = target.where(~first, _IGNORED), target.where(~first, -1)
        torch.testing.assert_close(self.build(ignore_index=-1)(logits, other), self.build()(logits, usual))

    def test_a_batch_without_a_label_does_no_harm(self) -> None:
        """A finite value and a gradient of 0, not NaN, where all pixels are ignored."""
        logits = torch.randn(2, 2, 4, 4, requires_grad=True)
        value = self.build()(logits, torch.full((2, 4, 4), _IGNORED))
        value.backward()
        assert value.isfinite()
        assert logits.grad is not None
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_the_gradient_is_that_of_the_value(self) -> None:
        """Against finite differences, in double precision."""
        logits, target = self.case()
        target[0, 0] = _IGNORED
        loss = self.build()
        assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_raised_to_float32(self, dtype: torch.dtype) -> None:
        """Sums over many pixels do not overflow; the value is that of the same logits in float32."""
        torch.manual_seed(0)
        logits = torch.randn(1, 2, 400, 400).to(dtype).requires_grad_()  # sums of 160,000 are beyond float16
        target = (torch.rand(1, 400, 400) < 0.3).long()
        value = self.build()(logits, target)
        value.backward()
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, self.build()(logits.float(), target))
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_autocast_changes_nothing(self) -> None:
        """The loss computes in float32 inside autocast as well."""
        logits, target = self.case(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            value = self.build()(logits, target)
        torch.testing.assert_close(value, self.build()(logits, target))

    def test_the_order_in_memory_does_not_matter(self) -> None:
        """Networks give their logits channels last."""
        logits, target = self.case()
        last = logits.to(memory_format=torch.channels_last)
        torch.testing.assert_close(self.build()(last, target), self.build()(logits, target))

    def test_what_goes_in_stays_as_it_is(self) -> None:
        """Logits and targets are used again after the loss."""
        logits, target = self.case()
        target[0, 0] = _IGNORED
        before = logits.clone(), target.clone()
        self.build()(logits, target)
        assert torch.equal(logits, before[0])
        assert torch.equal(target, before[1])

    def test_deterministic_algorithms_suffice(self) -> None:
        """A training can be repeated bit for bit."""
        logits, target = self.case()
        torch.use_deterministic_algorithms(True)
        try:
            self.build()(logits.requires_grad_(), target).backward()
        finally:
            torch.use_deterministic_algorithms(False)

    def test_a_network_learns_with_it(self) -> None:
        """60 steps solve a problem that one weight solves."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            images, network = torch.randn(4, 1, 8, 8), nn.Conv2d(1, 2, 1)
        target = (images[:, 0] > 0).long()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        loss = self.build()
        for _ in range(60):
            optimizer.zero_grad()
            loss(network(images), target).backward()
            optimizer.step()
        assert (network(images).argmax(1) == target).float().mean() > 0.95

    def test_class_weights(self) -> None:
        """Only for losses that have an option ``weight``."""
        if "weight" not in options_of(self.plugin()):
            pytest.skip("the loss has no option 'weight'")
        logits, target = self.case()
        torch.testing.assert_close(self.build(weight=[1, 1])(logits, target), self.build()(logits, target))
        assert not torch.isclose(self.build(weight=[1, 5])(logits, target), self.build()(logits, target))
        with pytest.raises(UserError, match="-1"):
            self.build(weight=[1, -1])
        with pytest.raises(UserError, match="3 class weights"):
            self.build(weight=[1, 1, 1])(logits, target)
