"""The losses over sets of pixels: dice, dice-squared, iou, tversky."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from loss_cases import THREE, THREE_TARGET, counts, hard_logits, logits_of, random_case
from segmentation_models_pytorch.losses import DiceLoss, JaccardLoss, TverskyLoss
from torch import Tensor

from autoseg.errors import UserError
from autoseg.losses.dice import Dice, DiceSquared
from autoseg.losses.iou import Iou
from autoseg.losses.region import RegionLoss
from autoseg.losses.tversky import Tversky

ALL: list[type[RegionLoss]] = [Dice, DiceSquared, Iou, Tversky]


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("per_image", [False, True])
def test_0_when_right_and_1_when_disjoint(loss: type[RegionLoss], per_image: bool) -> None:
    labels = torch.tensor([[[0, 1, 1, 0]], [[1, 1, 1, 0]]])
    assert loss(per_image=per_image)(hard_logits(labels, 2), labels).item() == pytest.approx(0, abs=1e-6)
    assert loss(per_image=per_image)(hard_logits(1 - labels, 2), labels).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "background", "foreground"),
    [
        (Dice(), 2 * 1.5 / (1.8 + 2), 2 * 0.7 / (1.2 + 1)),
        (DiceSquared(), 2 * 1.5 / (0.81 + 0.36 + 0.09 + 2), 2 * 0.7 / (0.01 + 0.16 + 0.49 + 1)),
        (Iou(), 1.5 / (1.8 + 2 - 1.5), 0.7 / (1.2 + 1 - 0.7)),
        (Tversky(0.2, 0.6), 1.5 / (1.5 + 0.2 * 0.3 + 0.6 * 0.5), 0.7 / (0.7 + 0.2 * 0.5 + 0.6 * 0.3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, RegionLoss) else "",
)
def test_by_hand(loss: RegionLoss, background: float, foreground: float) -> None:
    assert loss(THREE, THREE_TARGET).item() == pytest.approx(1 - (background + foreground) / 2, abs=1e-6)
    options: dict[str, Any] = {"alpha": 0.2, "beta": 0.6} if isinstance(loss, Tversky) else {}
    weighted = type(loss)(weight=[1, 3], **options)(THREE, THREE_TARGET).item()
    assert weighted == pytest.approx(1 - (background + 3 * foreground) / 4, abs=1e-6)
    alone = type(loss)(weight=[0, 1], **options)(THREE, THREE_TARGET).item()
    assert alone == pytest.approx(1 - foreground, abs=1e-6)


def test_for_hard_predictions_both_dice_forms_coincide() -> None:
    labels = random_case()[1]
    logits = hard_logits(labels.roll(1, dims=2), 3)
    assert 0.1 < Dice()(logits, labels) < 0.9
    assert DiceSquared()(logits, labels).item() == pytest.approx(Dice()(logits, labels).item(), abs=1e-6)
    soft = logits * 0.001
    assert DiceSquared()(soft, labels) < Dice()(soft, labels) - 0.05


@pytest.mark.parametrize("seed", range(5))
def test_dice_never_exceeds_iou_and_gives_it_class_by_class(seed: int) -> None:
    logits, target = random_case(seed=seed)
    assert Dice()(logits, target) < Iou()(logits, target)
    for label in range(3):
        weight = [float(c == label) for c in range(3)]
        dice = 1 - Dice(weight=weight)(logits, target).item()
        assert 1 - Iou(weight=weight)(logits, target).item() == pytest.approx(dice / (2 - dice), abs=1e-6)


def test_tversky_holds_dice_and_iou() -> None:
    logits, target = random_case()
    assert Tversky(0.5, 0.5)(logits, target).item() == pytest.approx(Dice()(logits, target).item(), abs=1e-6)
    assert Tversky(1, 1)(logits, target).item() == pytest.approx(Iou()(logits, target).item(), abs=1e-6)


def test_missed_pixels_cost_more_than_false_ones_with_the_default_tversky() -> None:
    target = torch.tensor([[[0, 0, 1, 1, 0, 0]]])
    small, large = torch.tensor([[[0, 0, 1, 0, 0, 0]]]), torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    foreground = Tversky(weight=[0, 1])
    assert foreground(hard_logits(small, 2), target).item() == pytest.approx(1 - 1 / 1.7, abs=1e-6)
    assert foreground(hard_logits(large, 2), target).item() == pytest.approx(1 - 2 / 2.3, abs=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_sums_run_over_the_batch_not_per_image(loss: type[RegionLoss]) -> None:
    pixel_by_pixel, targets = THREE.movedim(3, 0).reshape(3, 2, 1, 1), THREE_TARGET.reshape(3, 1, 1)
    whole = loss()(THREE, THREE_TARGET).item()
    assert loss()(pixel_by_pixel, targets).item() == pytest.approx(whole)
    each = [loss()(pixel_by_pixel[i : i + 1], targets[i : i + 1]).item() for i in range(3)]
    assert loss(per_image=True)(pixel_by_pixel, targets).item() == pytest.approx(sum(each) / 3)
    assert abs(sum(each) / 3 - whole) > 0.01


@pytest.mark.parametrize("loss", ALL)
def test_an_image_without_a_label_is_left_out_of_the_mean_over_images(loss: type[RegionLoss]) -> None:
    logits, target = random_case()
    alone = loss(per_image=True)(logits[:1], target[:1]).item()
    target[1] = 255
    assert loss(per_image=True)(logits, target).item() == pytest.approx(alone)


def test_a_class_absent_from_the_truth_is_left_out_of_the_mean() -> None:
    logits = logits_of([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2]])
    first, second = 1 - 2 * 0.8 / (1.0 + 1), 1 - 2 * 0.6 / (0.7 + 1)
    target = torch.tensor([[[0, 1]]])
    assert Dice()(logits, target).item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert Dice(weight=[3, 1, 50])(logits, target).item() == pytest.approx((3 * first + second) / 4, abs=1e-6)
    assert Dice(weight=[0, 0, 1])(logits, target).item() == 0


def test_mass_on_an_absent_class_still_costs() -> None:
    target = torch.tensor([[[0, 0]]])
    good, bad = logits_of([[0.99, 0.01], [0.99, 0.01]]), logits_of([[0.5, 0.5], [0.5, 0.5]])
    assert Dice()(good, target).item() == pytest.approx(1 - 2 * 1.98 / 3.98, abs=1e-6)
    assert Dice()(bad, target).item() == pytest.approx(1 - 2 * 1.0 / 3.0, abs=1e-6)


@pytest.mark.parametrize(
    ("ours", "smp"),
    [
        (Dice(), DiceLoss("multiclass", ignore_index=255, smooth=1e-6)),
        (Dice(weight=[1, 2, 5]), DiceLoss("multiclass", ignore_index=255, smooth=1e-6, class_weights=[1, 2, 5])),
        (Tversky(), TverskyLoss("multiclass", ignore_index=255, smooth=1e-6, alpha=0.3, beta=0.7)),
    ],
)
def test_equal_to_smp_when_all_classes_are_present(ours: RegionLoss, smp: Any) -> None:
    logits, target = random_case()
    target[1] = 255
    assert ours(logits, target).item() == pytest.approx(smp(logits, target).item(), abs=1e-6)


def test_iou_is_equal_to_smp_where_that_one_can_be_used() -> None:
    logits, target = random_case()
    smp = JaccardLoss("multiclass", smooth=1e-6)  # it has no ignore_index
    assert Iou()(logits, target).item() == pytest.approx(smp(logits, target).item(), abs=1e-6)


def test_smp_shrinks_the_loss_where_a_class_is_absent() -> None:
    logits, target = random_case()
    target = target.clamp(max=1)
    smp = DiceLoss("multiclass", ignore_index=255, smooth=1e-6)
    assert Dice()(logits, target).item() == pytest.approx(3 / 2 * smp(logits, target).item(), abs=1e-6)


@pytest.mark.parametrize("loss", ALL)
def test_soft_counts_are_those_of_the_definition(loss: type[RegionLoss]) -> None:
    logits, target = random_case(4, seed=3)
    overlap, predicted, true, squares = counts(logits, target)
    scores: dict[type[RegionLoss], Tensor] = {
        Dice: 2 * overlap / (predicted + true),
        DiceSquared: 2 * overlap / (squares + true),
        Iou: overlap / (predicted + true - overlap),
        Tversky: overlap / (overlap + 0.3 * (predicted - overlap) + 0.7 * (true - overlap)),
    }
    assert loss()(logits, target).item() == pytest.approx(1 - scores[loss].mean().item(), abs=1e-6)


def test_every_wrong_option_is_named() -> None:
    with pytest.raises(UserError) as caught:
        Tversky(alpha=-1.0, beta=math.nan, smooth=0.0, weight=[1.0, -1.0])
    assert [p.where for p in caught.value.problems] == [
        f"loss option '{option}'" for option in ("alpha", "beta", "smooth", "weight")
    ]
    with pytest.raises(UserError, match="mistakes cost nothing"):
        Tversky(0, 0)
    for loss in ALL:
        with pytest.raises(UserError, match="2 class weights for 3 classes"):
            loss(weight=[1, 1])(*random_case(3))
        with pytest.raises(UserError, match="loss option 'smooth'"):
            loss(smooth=-1.0)
