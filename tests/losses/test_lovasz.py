from __future__ import annotations

import pytest
import torch
from loss_cases import THREE, THREE_TARGET, hard_logits, random_case
from segmentation_models_pytorch.losses import LovaszLoss

from autoseg.losses.iou import Iou
from autoseg.losses.lovasz import Lovasz


def test_by_hand() -> None:
    """Background: errors 0.4, 0.3, 0.1 of pixels that are in, out, in: the IoU falls to 1/2, 1/3, 0.

    Foreground: errors 0.4, 0.3, 0.1 of pixels that are out, in, out: 1/2, 0, 0.
    """
    background = 0.4 * (1 / 2) + 0.3 * (1 / 2 - 1 / 3) + 0.1 * (1 / 3)
    foreground = 0.4 * (1 / 2) + 0.3 * (1 / 2)
    assert Lovasz()(THREE, THREE_TARGET).item() == pytest.approx((background + foreground) / 2)
    weighted = Lovasz(weight=[1, 3])(THREE, THREE_TARGET).item()
    assert weighted == pytest.approx((background + 3 * foreground) / 4)


@pytest.mark.parametrize("per_image", [False, True])
def test_for_hard_predictions_it_is_the_iou_loss(per_image: bool) -> None:
    labels = random_case()[1]
    logits = hard_logits(labels.roll(1, dims=2), 3)
    expected = Iou(per_image=per_image)(logits, labels).item()
    assert 0.1 < expected < 0.95
    assert Lovasz(per_image=per_image)(logits, labels).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_equal_to_smp_in_value_and_gradient(per_image: bool, num_classes: int) -> None:
    logits, target = random_case(num_classes, seed=4)
    target[:, :2] = 255
    target[1] = target[1].where(target[1] != 1, 0)  # a class that is absent from one image
    logits = logits.float()  # smp's cannot take doubles
    ours, smp = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = Lovasz(per_image=per_image)(ours, target)
    expected = LovaszLoss("multiclass", per_image=per_image, ignore_index=255)(smp, target)
    assert value.item() == pytest.approx(expected.item())
    value.backward()
    expected.backward()
    assert ours.grad is not None and smp.grad is not None
    torch.testing.assert_close(ours.grad, smp.grad)


def test_an_image_without_a_label_is_left_out_of_the_mean() -> None:
    logits, target = random_case()
    alone = Lovasz(per_image=True)(logits[:1], target[:1]).item()
    target[1] = 255
    assert Lovasz(per_image=True)(logits, target).item() == pytest.approx(alone)
