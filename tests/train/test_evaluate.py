"""Whole-image evaluation, checked with a network whose answer is known for every pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import CPU, Pairs
from torch import Tensor, nn

from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.train import evaluate as module
from autoseg.train.evaluate import evaluate, logits_of

INFO = DatasetInfo("levels", 1, ("low", "middle", "high"), ((0, 0, 0),) * 3, ignore_index=9)
AS_IT_IS = Normalisation((0.0,), (1.0,))
SIZES = [(5, 7), (5, 7), (8, 4), (1, 1), (5, 7), (13, 6)]


class Levels(nn.Module):
    """Logits are largest for the class that is the grey value, rounded; it accepts multiples of 4 only."""

    size_divisor = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        assert x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0
        self.shapes.append(tuple(x.shape))
        return -self.scale * (x - torch.arange(3.0).view(1, 3, 1, 1)).square()


def levels(sizes: list[tuple[int, int]] = SIZES, seed: int = 0) -> Pairs:
    """Images of grey values 0, 1 and 2, and masks that agree in about half of the pixels."""
    rng = np.random.default_rng(seed)
    pairs = []
    for size in sizes:
        image = rng.integers(0, 3, size).astype(np.uint8)
        mask = np.where(rng.random(size) < 0.5, image, rng.integers(0, 3, size)).astype(np.uint8)
        mask[rng.random(size) < 0.2] = 9
        pairs.append((image, mask))
    return Pairs(pairs)


def count(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    found = np.zeros((3, 3), int)
    for truth, prediction in zip(mask.flat, image.flat, strict=True):
        if truth != 9:
            found[truth, prediction] += 1
    return found


def test_counts_equal_counting_by_hand() -> None:
    split = levels()
    done: list[int] = []
    result = evaluate(Levels(), split, INFO, AS_IT_IS, CPU, keep_predictions=True, on_image=done.append)
    by_hand = np.array([count(image, mask) for image, mask in split])
    assert result.names == split.names
    assert np.array_equal(result.confusions, by_hand) and result.confusions.dtype == np.int64
    for name, (image, _) in zip(split.names, split, strict=True):
        assert result.predictions[name].dtype == np.uint8
        assert np.array_equal(result.predictions[name], image)
    assert done == [2, 3, 4, 5, 6]
    assert result.loss is None


def test_scores_are_of_the_pooled_counts() -> None:
    split = levels()
    result = evaluate(Levels(), split, INFO, AS_IT_IS, CPU)
    total = np.sum([count(image, mask) for image, mask in split], axis=0)
    ious = [total[c, c] / (total[c].sum() + total[:, c].sum() - total[c, c]) for c in range(3)]
    assert result.scores.miou == pytest.approx(np.mean(ious), rel=1e-12)
    assert result.scores.accuracy == pytest.approx(np.trace(total) / total.sum(), rel=1e-12)
    rows = result.images()
    assert [row["name"] for row in rows] == split.names
    assert rows[2]["confusion"] == count(*split[2]).tolist()


def test_neighbours_of_one_size_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Levels()
    evaluate(network, levels(), INFO, AS_IT_IS, CPU)
    assert network.shapes == [(2, 1, 8, 8), (1, 1, 8, 4), (1, 1, 4, 4), (1, 1, 8, 8), (1, 1, 16, 8)]
    network.shapes.clear()
    monkeypatch.setattr(module, "_PIXELS_PER_BATCH", 60)
    split = levels([(5, 7)] * 5)
    result = evaluate(network, split, INFO, AS_IT_IS, CPU)
    assert network.shapes == [(2, 1, 8, 8), (2, 1, 8, 8), (1, 1, 8, 8)]
    assert np.array_equal(result.confusions, [count(*pair) for pair in split])


def test_the_loss_is_the_mean_over_the_images() -> None:
    split = levels()
    loss = nn.CrossEntropyLoss(ignore_index=255, reduction="sum")
    result = evaluate(Levels(), split, INFO, AS_IT_IS, CPU, loss=loss)
    by_hand = []
    for image, mask in split:
        logits = -np.square(image[None].astype(float) - np.arange(3.0).reshape(3, 1, 1))
        log_softmax = logits - np.log(np.exp(logits).sum(0))
        labels = np.where(mask == 9, 0, mask)
        by_hand.append(-np.take_along_axis(log_softmax, labels[None].astype(int), 0)[0][mask != 9].sum())
    assert result.loss == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_an_image_without_a_counted_pixel() -> None:
    split = Pairs([(np.ones((3, 3), np.uint8), np.full((3, 3), 9, np.uint8)), levels()[0]])
    result = evaluate(Levels(), split, INFO, AS_IT_IS, CPU)
    assert result.images()[0]["miou"] is None and result.confusions[0].sum() == 0
    assert result.images()[1]["miou"] is not None


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Conv2d(1, 3, 1)).train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    first, second = (evaluate(network, levels(), INFO, AS_IT_IS, CPU) for _ in range(2))
    assert [part.training for part in network.modules()] == [training] * 4
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert np.array_equal(first.confusions, second.confusions)


def test_normalisation_is_applied() -> None:
    split = Pairs([(image.astype(np.uint16) * 500 + 7000, mask) for image, mask in levels()])
    result = evaluate(Levels(), split, INFO, Normalisation((7000.0,), (500.0,)), CPU)
    assert np.array_equal(result.confusions, [count(*pair) for pair in levels()])


def test_logits_have_the_size_of_the_image() -> None:
    network = Levels().eval()
    x = torch.tensor(levels()[0][0]).float()[None, None]
    with torch.no_grad():
        logits = logits_of(network, x, CPU)
    assert logits.shape == (1, 3, 5, 7)
    assert torch.equal(logits[0, 1], -(x[0, 0] - 1).square())


def test_low_precision_gives_float32_logits() -> None:
    from dataclasses import replace

    network = nn.Conv2d(1, 3, 1).eval()
    with torch.no_grad():
        logits = logits_of(network, torch.rand(2, 1, 5, 7), replace(CPU, precision="bf16"))
    assert logits.dtype == torch.float32 and logits.shape == (2, 3, 5, 7)
    assert torch.equal(logits, logits.bfloat16().float())


def test_logits_need_not_be_of_the_padded_size_only() -> None:
    """A network without ``size_divisor`` is padded to multiples of 32, which fits nearly all."""
    shapes = []
    network = nn.Conv2d(1, 3, 1).eval()
    network.register_forward_pre_hook(lambda layer, x: shapes.append(tuple(x[0].shape)))
    with torch.no_grad():
        assert logits_of(network, torch.rand(1, 1, 33, 20), CPU).shape == (1, 3, 33, 20)
    assert shapes == [(1, 1, 64, 32)]
