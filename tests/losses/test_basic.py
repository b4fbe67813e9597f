from __future__ import annotations

import math

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import nn
from torch.nn import functional

from autoseg.errors import UserError
from autoseg.losses.basic import CrossEntropy, CrossEntropyDice, Dice

ALL = [CrossEntropy, Dice, CrossEntropyDice]


def hard_logits(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Logits whose softmax is exactly 0 or 1 in float32."""
    return 400.0 * functional.one_hot(labels, num_classes).movedim(-1, 1).float()


def random_case(num_classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 6, 5, generator=random, dtype=torch.float64)
    return logits, torch.randint(0, num_classes, (2, 6, 5), generator=random)


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    """``(1, C, 1, W)`` logits from one list of class probabilities per pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T.reshape(1, -1, 1, len(probabilities))


def test_dice_is_0_when_right_and_1_when_disjoint():
    labels = torch.tensor([[[0, 1, 1, 0]]])
    assert Dice()(hard_logits(labels, 2), labels).item() == pytest.approx(0, abs=1e-6)
    assert Dice()(hard_logits(1 - labels, 2), labels).item() == pytest.approx(1, abs=1e-6)
    assert CrossEntropyDice()(hard_logits(labels, 2), labels).item() == pytest.approx(0, abs=1e-6)


def test_dice_by_hand():
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    target = torch.tensor([[[0, 0, 1]]])
    background = 2 * (0.9 + 0.6) / (0.9 + 0.6 + 0.3 + 2)
    foreground = 2 * 0.7 / (0.1 + 0.4 + 0.7 + 1)
    assert Dice()(logits, target).item() == pytest.approx(1 - (background + foreground) / 2, abs=1e-6)


def test_cross_entropy_by_hand():
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    target = torch.tensor([[[0, 255, 1]]])
    assert CrossEntropy()(logits, target).item() == pytest.approx(-(math.log(0.9) + math.log(0.7)) / 2)
    weighted = -(0.1 * math.log(0.9) + 0.8 * math.log(0.7)) / 2
    assert CrossEntropy(weight=[0.1, 0.8])(logits, target).item() == pytest.approx(weighted)


def test_the_sum_is_the_sum():
    logits, target = random_case()
    weight = [0.2, 1.0, 3.0]
    expected = CrossEntropy(weight)(logits, target) + 0.5 * Dice(1e-3)(logits, target)
    assert CrossEntropyDice(weight, smooth=1e-3, dice_weight=0.5)(logits, target).item() == pytest.approx(
        expected.item()
    )


def test_weights_of_a_half_halve_the_cross_entropy():
    logits, target = random_case(2)
    assert CrossEntropy([0.5, 0.5])(logits, target).item() == pytest.approx(0.5 * CrossEntropy()(logits, target).item())


def test_cross_entropy_equals_torch():
    logits, target = random_case()
    target[0, :2] = 255
    expected = functional.cross_entropy(logits, target, ignore_index=255)
    assert CrossEntropy()(logits, target).item() == pytest.approx(expected.item())


def test_for_hard_predictions_both_dice_forms_coincide():
    labels = random_case()[1]
    logits = hard_logits(labels.roll(1, dims=2), 3)
    p, y = logits.softmax(1), functional.one_hot(labels, 3).movedim(-1, 1).float()
    squared = 1 - 2 * (p * y).sum((0, 2, 3)) / ((p**2).sum((0, 2, 3)) + (y**2).sum((0, 2, 3)))
    assert Dice()(logits, labels).item() == pytest.approx(squared.mean().item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_dice_loss_never_exceeds_the_iou_loss(seed):
    logits, target = random_case(seed=seed)
    p, y = logits.softmax(1), functional.one_hot(target, 3).movedim(-1, 1).double()
    overlap, total = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    assert Dice()(logits, target) < (1 - overlap / (total - overlap)).mean()


def test_dice_sums_over_the_batch_not_per_image():
    logits = logits_of([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    target = torch.tensor([[[0, 0, 1]]])
    pixel_by_pixel = logits.movedim(3, 0).reshape(3, 2, 1, 1)
    assert Dice()(pixel_by_pixel, target.reshape(3, 1, 1)).item() == pytest.approx(Dice()(logits, target).item())


def test_a_class_absent_from_the_truth_is_left_out_of_the_mean():
    logits = logits_of([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    target = torch.tensor([[[0, 1]]])
    first, second = 1 - 2 * 0.8 / (1.0 + 1), 1 - 2 * 0.6 / (0.7 + 1)
    assert Dice()(logits, target).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_mass_on_an_absent_class_still_costs():
    target = torch.tensor([[[0, 0]]])
    good, bad = logits_of([[0.99, 0.01], [0.99, 0.01]]), logits_of([[0.5, 0.5], [0.5, 0.5]])
    assert Dice()(good, target).item() == pytest.approx(1 - 2 * 1.98 / 3.98, abs=1e-6)
    assert Dice()(bad, target).item() == pytest.approx(1 - 2 * 1.0 / 3.0, abs=1e-6)


def test_dice_equals_smp_when_all_classes_are_present_and_is_its_rescaling_else():
    logits, target = random_case()
    target[1] = 255
    smp = DiceLoss("multiclass", ignore_index=255, smooth=1e-6)
    assert Dice()(logits, target).item() == pytest.approx(smp(logits, target).item(), abs=1e-6)
    target[0] = target[0].clamp(max=1)
    assert Dice()(logits, target).item() == pytest.approx(3 / 2 * smp(logits, target).item(), abs=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_ignored_pixels_change_neither_value_nor_gradient(loss):
    logits, target = random_case()
    target[:, 3:] = 255
    changed = logits.clone()
    changed[:, :, 3:] += 50 * torch.rand(changed[:, :, 3:].shape)
    changed.requires_grad_()
    value = loss()(changed, target)
    value.backward()
    assert value.item() == pytest.approx(loss()(logits[:, :, :3], target[:, :3]).item())
    assert changed.grad[:, :, 3:].abs().max() == 0
    assert changed.grad[:, :, :3].abs().max() > 0


@pytest.mark.parametrize("loss", ALL)
def test_another_ignore_index(loss):
    logits, target = random_case()
    marked = target.where(target != 2, -1)
    assert loss(ignore_index=-1)(logits, marked).item() == pytest.approx(
        loss(ignore_index=255)(logits, target.where(target != 2, 255)).item()
    )


@pytest.mark.parametrize("loss", ALL)
def test_all_ignored_gives_zero_and_a_zero_gradient(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss()(logits, torch.full((2, 4, 4), 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_the_formula(loss):
    logits, target = random_case()
    target[0, 0] = 255
    assert torch.autograd.gradcheck(lambda x: loss()(x, target), logits.requires_grad_())


@pytest.mark.parametrize("loss", ALL)
def test_half_precision_does_not_overflow(loss):
    logits = torch.zeros(1, 2, 400, 400, dtype=torch.float16)  # sums of 160,000 are beyond float16
    target = torch.zeros(1, 400, 400, dtype=torch.int64)
    value = loss()(logits, target)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss()(logits.double(), target).item(), rel=1e-5)


@pytest.mark.parametrize("loss", ALL)
def test_a_network_learns_with_it(loss):
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8)
    target = (x[:, 0] > 0).long()
    net = nn.Conv2d(1, 2, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss()(net(x), target).backward()
        optimizer.step()
    assert (net(x).argmax(1) == target).float().mean() > 0.97


def test_class_weights_follow_the_module_and_stay_out_of_the_checkpoint():
    loss = CrossEntropyDice(weight=[1, 2])
    assert loss.double().cross_entropy.weight.dtype == torch.float64
    assert loss.state_dict() == {}


def test_every_wrong_option_is_named():
    with pytest.raises(UserError) as caught:
        CrossEntropyDice(weight=[1.0, -1.0, math.nan], smooth=0.0, dice_weight=-2.0)
    assert len(caught.value.problems) == 4
    assert {problem.where for problem in caught.value.problems} == {
        "loss option 'weight'",
        "loss option 'smooth'",
        "loss option 'dice_weight'",
    }
    with pytest.raises(UserError, match="no class has a weight above 0"):
        CrossEntropy(weight=[0, 0])
    with pytest.raises(UserError, match="2 class weights for 3 classes"):
        CrossEntropy(weight=[1, 1])(*random_case(3))
