from __future__ import annotations

import math

import pytest
import torch
from loss_cases import THREE, random_case
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

from autoseg.errors import UserError
from autoseg.losses.cross_entropy import CrossEntropy
from autoseg.losses.focal import Focal


def test_by_hand() -> None:
    target = torch.tensor([[[0, 255, 1]]])
    expected = -(0.1**2 * math.log(0.9) + 0.3**2 * math.log(0.7)) / 2
    assert Focal()(THREE, target).item() == pytest.approx(expected)
    weighted = -(0.5 * 0.1**3 * math.log(0.9) + 4 * 0.3**3 * math.log(0.7)) / 2
    assert Focal(3, weight=[0.5, 4])(THREE, target).item() == pytest.approx(weighted)


def test_gamma_0_is_the_cross_entropy() -> None:
    logits, target = random_case()
    target[0, 0] = 255
    for weight in (None, [1, 2, 3]):
        expected = CrossEntropy(weight)(logits, target).item()
        assert Focal(0, weight)(logits, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_equal_to_the_softmax_form_of_smp(gamma: float) -> None:
    logits, target = random_case()
    expected = softmax_focal_loss_with_logits(logits, target, gamma=gamma)
    assert Focal(gamma)(logits, target).item() == pytest.approx(expected.item())


def test_a_larger_gamma_turns_easy_pixels_down_more_than_hard_ones() -> None:
    easy, hard = THREE[..., :1], THREE[..., 2:]
    target = torch.zeros(1, 1, 1, dtype=torch.int64)

    def ratio(gamma: float) -> float:
        return Focal(gamma)(hard, target).item() / Focal(gamma)(easy, target).item()

    assert ratio(2) == pytest.approx(math.log(0.3) / math.log(0.9) * (0.7 / 0.1) ** 2)
    assert ratio(0) < ratio(1) < ratio(2)


def test_wrong_options_are_named() -> None:
    with pytest.raises(UserError) as caught:
        Focal(gamma=-1, weight=[0, 0])
    assert [p.where for p in caught.value.problems] == ["loss option 'gamma'", "loss option 'weight'"]
