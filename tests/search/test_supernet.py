from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nni.nas.strategy import DARTS
from torch import nn
from toy import planted_task

from autoseg.search.supernet import PathSupernet, select, use_batch_statistics
from autoseg.search.task import SearchTask
from autoseg.train import metrics

PATHS = [{"op": op, "op2": "identity"} for op in ("conv1", "conv3")]


@pytest.fixture
def task(tmp_path: Path) -> SearchTask:
    return planted_task(tmp_path, 0)


@pytest.fixture
def trained(task: SearchTask) -> nn.Module:
    """A network whose weights were shared, with those of a gradient strategy beside them."""
    torch.manual_seed(0)
    return DARTS().mutate_model(use_batch_statistics(task.build_space()))


@pytest.fixture
def supernet(task: SearchTask, trained: nn.Module) -> PathSupernet:
    return PathSupernet(task, trained.state_dict())


def test_weights_are_the_shared_ones(supernet: PathSupernet, trained: nn.Module) -> None:
    weights = trained.state_dict()
    assert any("_arch_alpha" in name for name in weights)  # these are no weights of paths
    mine = supernet.network.state_dict()
    assert set(mine) == {name for name in weights if "_arch_alpha" not in name}
    assert len(mine) == 10  # two layers with weight and bias, two convolutions with normalisation
    assert all(torch.equal(value, weights[name]) for name, value in mine.items())


def test_weights_that_are_missing_are_an_error(task: SearchTask, trained: nn.Module) -> None:
    weights = {name: value for name, value in trained.state_dict().items() if "head" not in name}
    with pytest.raises(RuntimeError, match=r"head\.weight"):
        PathSupernet(task, weights)


def test_scores_are_the_miou_of_the_whole_set(supernet: PathSupernet, task: SearchTask) -> None:
    scores = [supernet.score(path) for path in PATHS]
    x = torch.stack([task.normalisation.apply(image) for image, _ in task.val])
    target = np.stack([mask for _, mask in task.val])
    for path, value in zip(PATHS, scores, strict=True):
        select(supernet.network, path)
        with torch.no_grad():
            prediction = supernet.network(x).argmax(1).numpy()
        assert value == pytest.approx(float(metrics.miou(metrics.confusion(prediction, target, 2))))
    assert scores[0] != scores[1]


def test_scores_do_not_depend_on_what_went_before(supernet: PathSupernet) -> None:
    forth, back = [supernet.score(path) for path in PATHS], [supernet.score(path) for path in PATHS[::-1]]
    supernet.network.train()
    for path in PATHS:
        select(supernet.network, path)
        supernet.network(torch.randn(4, 1, 16, 16) * 100)
    assert forth == back[::-1] == [supernet.score(path) for path in PATHS]


def test_nothing_to_score_is_zero(supernet: PathSupernet, task: SearchTask) -> None:
    task.val.masks = [np.full_like(mask, task.info.ignore_index) for mask in task.val.masks]
    assert [supernet.score(path) for path in PATHS] == [0.0, 0.0]


def test_mode_and_gradients_stay(supernet: PathSupernet) -> None:
    for mode in (True, False):
        supernet.network.train(mode)
        supernet.score(PATHS[0])
        assert supernet.network.training is mode
    assert all(p.grad is None for p in supernet.network.parameters())


def test_select_follows_a_value_for_every_decision(supernet: PathSupernet) -> None:
    x = torch.randn(2, 1, 16, 16)
    network = supernet.network.eval()
    for op in ("conv1", "conv3"):
        select(network, {"op": op, "op2": "identity"})
        layer = dict(network.named_modules())["op"]
        assert torch.equal(network(x), network.head(layer[op](network.stem(x))))


def test_batch_statistics() -> None:
    network = use_batch_statistics(
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(3)))
    )
    assert sorted(network.state_dict()) == ["0.bias", "0.weight", "1.bias", "1.weight", "2.0.bias", "2.0.weight"]
    norm = network[1].eval()
    x = torch.randn(4, 2, 8, 8) * 3 + 7
    y = norm(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert torch.allclose(y.std((0, 2, 3)), torch.ones(2), atol=0.01)
    assert torch.equal(y, norm.train()(x))
