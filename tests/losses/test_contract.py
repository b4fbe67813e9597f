"""All our losses fulfil the contract, and the contract finds what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_cases import random_case
from torch import Tensor, nn
from torch.nn import functional

from autoseg.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy
from autoseg.losses.dice import Dice, DiceSquared
from autoseg.losses.focal import Focal
from autoseg.losses.iou import Iou
from autoseg.losses.lovasz import Lovasz
from autoseg.losses.sums import resolve
from autoseg.losses.tversky import Tversky
from autoseg.testing import LossContract


class TestCrossEntropy(LossContract):
    loss = CrossEntropy


class TestWeightedCrossEntropy(LossContract):
    loss = WeightedCrossEntropy
    options = {"beta": 0.7}  # noqa: RUF012

    def test_perfect_is_better_than_wrong(self, num_classes: int = 2) -> None:
        super().test_perfect_is_better_than_wrong(2)  # this beta is for two classes


class TestDice(LossContract):
    loss = Dice


class TestDicePerImage(LossContract):
    loss = Dice
    options = {"per_image": True, "smooth": 1e-3}  # noqa: RUF012


class TestDiceSquared(LossContract):
    loss = DiceSquared


class TestIou(LossContract):
    loss = Iou


class TestFocal(LossContract):
    loss = Focal


class TestSlowFocal(LossContract):
    loss = Focal
    options = {"gamma": 0.5}  # noqa: RUF012


class TestLovasz(LossContract):
    loss = Lovasz


class TestLovaszPerImage(LossContract):
    loss = Lovasz
    options = {"per_image": True}  # noqa: RUF012


class TestTversky(LossContract):
    loss = Tversky


class TestSum(LossContract):
    loss = resolve("focal+dice+lovasz")
    options = {"factors": [1, 0.5, 2]}  # noqa: RUF012


ALL = [
    CrossEntropy,
    lambda: WeightedCrossEntropy([0.2, 0.5, 0.9]),
    Dice,
    DiceSquared,
    Iou,
    Focal,
    Lovasz,
    Tversky,
    resolve("ce+dice"),
]


@pytest.mark.parametrize("build", ALL)
def test_all_ignored_gives_zero(build: Callable[[], nn.Module]) -> None:
    assert build()(torch.randn(2, 3, 4, 4), torch.full((2, 4, 4), 255)).item() == 0


@pytest.mark.parametrize("build", ALL)
def test_no_state_goes_into_a_checkpoint(build: Callable[[], nn.Module]) -> None:
    assert build().state_dict() == {}


@pytest.mark.parametrize("build", ALL)
def test_certain_and_right_is_zero_with_a_finite_gradient(build: Callable[[], nn.Module]) -> None:
    _, target = random_case()
    logits = (400.0 * functional.one_hot(target, 3).movedim(-1, 1).float()).requires_grad_()
    value = build()(logits, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None and logits.grad.isfinite().all()


class Broken(nn.Module):
    """Cross-entropy with one fault."""

    def __init__(self, fault: str, ignore_index: int = 255) -> None:
        super().__init__()
        self.fault, self.ignore_index = fault, 255 if fault == "deaf" else ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        counted = target != self.ignore_index
        if self.fault == "counts everything":
            counted = torch.ones_like(counted)
        if self.fault == "in place":
            logits.data.add_(1.0)
        if self.fault != "half":
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels = target.clamp(0, logits.shape[1] - 1)
        term = functional.cross_entropy(logits, labels, reduction="none") * counted
        if self.fault == "no sum":
            return term
        total = -term.sum() if self.fault == "backwards" else term.sum()
        if self.fault == "wrong slope":
            total = total + 0.5 * (total - total.detach())
        return total / (counted.sum() if self.fault == "nan" else counted.sum().clamp(min=1))


def contract_of(fault: str) -> Any:
    def make(**options: Any) -> nn.Module:
        return Broken(fault, **options)

    return type("Contract", (LossContract,), {"loss": staticmethod(make)})()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("no sum", "test_a_finite_scalar"),
        ("counts everything", "test_ignored_pixels_do_not_count"),
        ("deaf", "test_another_value_can_mean_ignored"),
        ("nan", "test_a_batch_without_a_label_does_no_harm"),
        ("wrong slope", "test_the_gradient_is_that_of_the_value"),
        ("in place", "test_what_goes_in_stays_as_it_is"),
        ("backwards", "test_a_network_learns_with_it"),
    ],
)
def test_the_contract_catches(fault: str, test: str) -> None:
    getattr(contract_of("none"), test)()
    with pytest.raises((AssertionError, RuntimeError)):
        getattr(contract_of(fault), test)()


def test_the_contract_catches_half_precision_and_a_wrong_sign() -> None:
    contract_of("none").test_half_precision_is_raised_to_float32(torch.bfloat16)
    with pytest.raises(AssertionError):
        contract_of("half").test_half_precision_is_raised_to_float32(torch.bfloat16)
    contract_of("none").test_perfect_is_better_than_wrong(3)
    with pytest.raises(AssertionError):
        contract_of("backwards").test_perfect_is_better_than_wrong(3)
