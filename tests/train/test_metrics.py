from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from autoseg.train import metrics
from autoseg.train.metrics import accuracy, confusion, dice, iou, miou, scores

TRUTH = np.array([[0, 0, 0, 1], [1, 1, 2, 2]], dtype=np.uint8)
PREDICTION = np.array([[0, 0, 1, 1], [1, 2, 2, 0]], dtype=np.uint8)
COUNTS = [[2, 1, 0], [0, 2, 1], [1, 0, 1]]


def test_two_classes_by_hand():
    found = confusion(np.array([[0, 1], [1, 1]]), np.array([[0, 0], [1, 1]]), 2)
    assert found.dtype == np.int64
    assert found.tolist() == [[1, 1], [0, 2]]
    result = scores(found)
    assert result.iou_per_class == pytest.approx((1 / 2, 2 / 3))
    assert result.dice_per_class == pytest.approx((2 / 3, 4 / 5))
    assert result.miou == pytest.approx(7 / 12)
    assert result.dice == pytest.approx(11 / 15)
    assert result.accuracy == 0.75


def test_three_classes_by_hand():
    found = confusion(PREDICTION, TRUTH, 3)
    assert found.tolist() == COUNTS
    result = scores(found)
    assert result.iou_per_class == pytest.approx((2 / 4, 2 / 4, 1 / 3))
    assert result.miou == pytest.approx(4 / 9)
    assert result.accuracy == pytest.approx(5 / 8)


def test_rows_are_the_truth():
    assert confusion([1, 1, 1], [0, 0, 1], 2).tolist() == [[0, 2], [0, 1]]


def test_absent_class_is_left_out_and_none_in_json():
    result = scores(confusion([0, 0, 1, 1], [0, 0, 1, 0], 3))
    assert math.isnan(result.iou_per_class[2])
    assert math.isnan(result.dice_per_class[2])
    assert result.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result.dice == pytest.approx((4 / 5 + 2 / 3) / 2)
    written = result.to_json()
    assert written["iou_per_class"] == [pytest.approx(2 / 3), 0.5, None]
    assert written["dice_per_class"][2] is None


def test_class_that_is_only_predicted_scores_zero():
    assert scores(confusion([0, 0, 2], [0, 0, 0], 3)).iou_per_class == pytest.approx((2 / 3, math.nan, 0), nan_ok=True)


def test_ignored_pixels_do_not_count_whatever_is_predicted_there():
    target = TRUTH.copy()
    target[0, 2] = 255
    prediction = PREDICTION.copy()
    prediction[0, 2] = 200
    assert confusion(prediction, target, 3).tolist() == [[2, 0, 0], [0, 2, 1], [1, 0, 1]]


def test_a_class_can_be_the_ignored_value():
    assert confusion(PREDICTION, TRUTH, 3, ignore_index=2).tolist() == [[2, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert confusion([0, 1], [-1, 1], 2, ignore_index=-1).tolist() == [[0, 0], [0, 1]]


def test_nothing_to_score_is_none_without_a_warning(recwarn):
    result = scores(confusion([0, 1], [255, 255], 2))
    assert result.to_json() == {
        "miou": None,
        "dice": None,
        "accuracy": None,
        "iou_per_class": [None, None],
        "dice_per_class": [None, None],
    }
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.dtype(">u2")])
def test_every_integer_type(dtype):
    assert confusion(PREDICTION.astype(dtype), TRUTH.astype(dtype), 3).tolist() == COUNTS


def test_tensors_arrays_views_and_booleans():
    assert confusion(torch.from_numpy(PREDICTION), TRUTH, 3).tolist() == COUNTS
    assert confusion(PREDICTION, torch.from_numpy(TRUTH).long(), 3).tolist() == COUNTS
    assert confusion(PREDICTION[::-1, ::-1], TRUTH[::-1, ::-1], 3).tolist() == COUNTS
    assert confusion(PREDICTION.T, TRUTH.T, 3).tolist() == COUNTS
    assert confusion(np.array([True, False]), np.array([True, True]), 2).tolist() == [[0, 0], [1, 1]]
    assert confusion(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8), 2).tolist() == [[0, 0], [0, 0]]


def test_counting_in_pieces_equals_counting_at_once(monkeypatch):
    random = np.random.default_rng(0)
    target, prediction = random.integers(0, 4, (2, 37, 41))
    target[:3] = 255
    at_once = confusion(prediction, target, 4)
    monkeypatch.setattr(metrics, "_PIXELS_PER_STEP", 100)
    assert (confusion(prediction, target, 4) == at_once).all()
    assert at_once.sum() == 34 * 41


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 3], [0, 1], r"prediction holds 3; the classes are 0 to 2$"),
        ([0, -1], [0, 1], r"prediction holds -1"),
        ([0, 1], [0, 7], r"target holds 7; the classes are 0 to 2 or 255 \(ignored\)"),
        ([0, 255], [0, 1], r"prediction holds 255"),
        (list(range(3, 10)), [0] * 7, r"prediction holds 3, 4, 5, 6, 7, \.\.\.;"),
        ([0.0, 1.0], [0, 1], r"prediction must hold class indices \(integers\), not float64"),
        ([0, 1], torch.tensor([0.0, 1.0]), r"target must hold class indices"),
        ([0, 1, 1], [0, 1], r"prediction \(3,\) and target \(2,\) differ in shape"),
        ([[0], [1]], [[0, 1]], r"differ in shape"),
    ],
)
def test_wrong_values_are_named(prediction, target, message):
    with pytest.raises(ValueError, match=message):
        confusion(prediction, target, 3)


def test_wrong_matrices_and_class_numbers_are_refused():
    with pytest.raises(ValueError, match="num_classes must be 1 or more"):
        confusion([0], [0], 0)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2\)"):
        scores(np.ones((2, 2, 2), int))
    with pytest.raises(ValueError, match="negative"):
        scores([[1, -1], [0, 1]])


@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_agrees_with_torchmetrics(num_classes):
    random = torch.Generator().manual_seed(num_classes)
    target = torch.randint(0, num_classes, (4, 50, 60), generator=random)
    noise = torch.randint(0, num_classes, target.shape, generator=random)
    prediction = torch.where(torch.rand(target.shape, generator=random) < 0.7, target, noise)
    target[:, :5] = 255
    result = scores(confusion(prediction, target, num_classes))

    jaccard = MulticlassJaccardIndex(num_classes, average="none", ignore_index=255)(prediction, target)
    assert result.iou_per_class == pytest.approx(jaccard.tolist(), abs=1e-6)
    f1 = MulticlassF1Score(num_classes, average="none", ignore_index=255)(prediction, target)
    assert result.dice_per_class == pytest.approx(f1.tolist(), abs=1e-6)
    share_right = MulticlassAccuracy(num_classes, average="micro", ignore_index=255)(prediction, target)
    assert result.accuracy == pytest.approx(share_right.item(), abs=1e-6)
    macro = MulticlassJaccardIndex(num_classes, average="macro", ignore_index=255)(prediction, target)
    assert result.miou == pytest.approx(macro.item(), abs=1e-6)


def test_images_are_pooled_not_averaged():
    first, second = np.array([[90, 0], [0, 10]]), np.array([[98, 0], [2, 0]])
    pooled = scores(first + second).miou
    assert pooled == pytest.approx((188 / 190 + 10 / 12) / 2)
    assert pooled != pytest.approx((scores(first).miou + scores(second).miou) / 2, abs=0.1)


def test_stacks_equal_one_by_one():
    random = np.random.default_rng(1)
    stack = random.integers(0, 20, (2, 5, 3, 3))
    stack[0, 0, 2, :] = stack[0, 0, :, 2] = 0
    stack[1, 1] = 0
    assert iou(stack).shape == dice(stack).shape == (2, 5, 3)
    assert miou(stack).shape == accuracy(stack).shape == (2, 5)
    for i, j in np.ndindex(2, 5):
        one = scores(stack[i, j])
        assert miou(stack)[i, j] == pytest.approx(one.miou, nan_ok=True)
        assert accuracy(stack)[i, j] == pytest.approx(one.accuracy, nan_ok=True)
        assert tuple(dice(stack)[i, j]) == pytest.approx(one.dice_per_class, nan_ok=True)
    assert math.isnan(miou(stack)[1, 1])
    assert math.isnan(iou(stack)[0, 0, 2])


def test_dice_follows_from_iou_and_is_never_smaller():
    stack = np.random.default_rng(2).integers(1, 50, (100, 4, 4))
    assert dice(stack) == pytest.approx(2 * iou(stack) / (1 + iou(stack)))
    assert (dice(stack) >= iou(stack)).all()


def test_weighted_counts_scale_out():
    counts = np.array(COUNTS)
    assert miou(counts * 2.5) == pytest.approx(miou(counts))
