from __future__ import annotations

import math

import pytest
import torch
from loss_cases import THREE, THREE_TARGET, logits_of, random_case
from torch import Tensor, nn
from torch.nn import functional

from autoseg.errors import UserError
from autoseg.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy


def test_by_hand() -> None:
    target = torch.tensor([[[0, 255, 1]]])
    assert CrossEntropy()(THREE, target).item() == pytest.approx(-(math.log(0.9) + math.log(0.7)) / 2)
    weighted = -(0.1 * math.log(0.9) + 0.8 * math.log(0.7)) / 2
    assert CrossEntropy(weight=[0.1, 0.8])(THREE, target).item() == pytest.approx(weighted, rel=1e-6)


def test_equals_torch() -> None:
    logits, target = random_case()
    target[0, :2] = 255
    expected = functional.cross_entropy(logits, target, ignore_index=255)
    assert CrossEntropy()(logits, target).item() == pytest.approx(expected.item())


def test_eq_4_of_the_tem_paper_by_hand() -> None:
    """Background pixels weigh 1 - beta, foreground pixels beta."""
    expected = -(0.1 * math.log(0.9) + 0.1 * math.log(0.6) + 0.9 * math.log(0.7)) / 3
    assert WeightedCrossEntropy(0.9)(THREE, THREE_TARGET).item() == pytest.approx(expected, rel=1e-6)
    assert WeightedCrossEntropy([0.1, 0.9])(THREE, THREE_TARGET).item() == pytest.approx(expected, rel=1e-6)
    doubled = WeightedCrossEntropy(0.9, weight=[2, 1])(THREE, THREE_TARGET).item()
    assert doubled == pytest.approx(expected - (0.1 * math.log(0.9) + 0.1 * math.log(0.6)) / 3, rel=1e-6)


def test_beta_of_a_half_is_half_the_cross_entropy() -> None:
    logits, target = random_case(2)
    target[1, 2:] = 255
    assert WeightedCrossEntropy(0.5)(logits, target).item() == pytest.approx(
        0.5 * CrossEntropy()(logits, target).item()
    )


def test_beta_from_training_is_the_fraction_of_background() -> None:
    assert WeightedCrossEntropy.from_training([0.91, 0.09]) == {"beta": 0.91}
    many = WeightedCrossEntropy.from_training([0.7, 0.2, 0.1])["beta"]
    assert many == pytest.approx([0.3, 0.8, 0.9])
    as_list = WeightedCrossEntropy([1 - 0.91, 1 - 0.09])  # the form for many classes, with two
    assert as_list(THREE, THREE_TARGET).item() == pytest.approx(
        WeightedCrossEntropy(0.91)(THREE, THREE_TARGET).item(), rel=1e-6
    )
    with pytest.raises(UserError, match="all of one class"):
        WeightedCrossEntropy.from_training([1.0, 0.0])


def test_beta_from_training_gives_both_classes_the_same_share() -> None:
    target = torch.zeros(1, 1, 100, dtype=torch.int64)
    target[..., :9] = 1
    loss = WeightedCrossEntropy(**WeightedCrossEntropy.from_training([0.91, 0.09]))
    logits = torch.zeros(1, 2, 1, 100, requires_grad=True)
    loss(logits, target).backward()
    assert logits.grad is not None
    push = logits.grad[0, 1, 0]
    assert push[:9].sum().item() == pytest.approx(-push[9:].sum().item(), rel=1e-5)


def learned_share(loss: nn.Module, target: Tensor) -> float:
    """The foreground probability that a network without any input comes to."""
    bias = torch.zeros(1, 2, 1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(bias.expand(1, 2, 1, target.shape[-1]), target)
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return bias.softmax(1)[0, 1].item()


def test_with_a_rare_foreground_beta_moves_the_decision() -> None:
    """Of 100 like pixels 9 are foreground: cross-entropy says 9 %; with beta the odds are 9 beta : 91 (1 - beta)."""
    target = torch.zeros(1, 1, 100, dtype=torch.int64)
    target[..., :9] = 1
    assert learned_share(CrossEntropy(), target) == pytest.approx(0.09, abs=0.002)
    assert learned_share(WeightedCrossEntropy(0.91), target) == pytest.approx(0.5, abs=0.002)
    moved = 9 * 0.95 / (9 * 0.95 + 91 * 0.05)
    assert moved > 0.6
    assert learned_share(WeightedCrossEntropy(0.95), target) == pytest.approx(moved, abs=0.002)


def test_weights_follow_the_module() -> None:
    weight = CrossEntropy(weight=[1, 2]).double().weight
    assert weight is not None and weight.dtype == torch.float64


def test_every_wrong_option_is_named() -> None:
    with pytest.raises(UserError, match="no class has a weight above 0"):
        CrossEntropy(weight=[0, 0])
    with pytest.raises(UserError, match="2 class weights for 3 classes"):
        CrossEntropy(weight=[1, 1])(*random_case(3))
    with pytest.raises(UserError, match="2 class weights for 3 classes"):
        WeightedCrossEntropy(0.5)(*random_case(3))
    with pytest.raises(UserError, match="the weight of the foreground is missing"):
        WeightedCrossEntropy()
    for beta in (0.0, 1.0, -0.5, math.nan, [1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(UserError, match="loss option 'beta'"):
            WeightedCrossEntropy(beta)
    with pytest.raises(UserError) as caught:
        WeightedCrossEntropy(1.5, weight=[1.0, math.inf, -1.0])
    assert [p.where for p in caught.value.problems] == [f"loss option '{o}'" for o in ("beta", *["weight"] * 3)]


def test_logits_of_a_sure_and_wrong_network_cost_their_distance() -> None:
    assert CrossEntropy()(logits_of([[1e-9, 1 - 1e-9]]), torch.tensor([[[0]]])).item() == pytest.approx(
        9 * math.log(10)
    )
