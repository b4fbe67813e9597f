from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import RandomOneShot
from torch import nn
from toy import planted_task

from autoseg.search.supernet import score_paths, use_batch_statistics
from autoseg.search.task import SearchTask
from autoseg.train import metrics

PATHS = [{"op": op, "op2": "identity"} for op in ("conv1", "conv3")]


@pytest.fixture
def task(tmp_path: Path) -> SearchTask:
    return planted_task(tmp_path, 0)


@pytest.fixture
def supernet(task: SearchTask) -> nn.Module:
    torch.manual_seed(0)
    return RandomOneShot().mutate_model(use_batch_statistics(task.build_space()))


def select(supernet: nn.Module, choices: dict[str, Any]) -> None:
    for module in supernet.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=dict(choices))


def score(supernet: nn.Module, task: SearchTask, paths: list[dict[str, Any]]) -> list[float]:
    return score_paths(
        supernet,
        lambda choices: select(supernet, choices),
        paths,
        val=task.val,
        info=task.info,
        normalisation=task.normalisation,
        compute=task.compute,
    )


def test_scores_are_the_miou_of_the_whole_set(supernet: nn.Module, task: SearchTask) -> None:
    scores = score(supernet, task, PATHS)
    x = torch.stack([task.normalisation.apply(image) for image, _ in task.val])
    target = np.stack([mask for _, mask in task.val])
    for path, value in zip(PATHS, scores, strict=True):
        select(supernet, path)
        with torch.no_grad():
            prediction = supernet(x).argmax(1).numpy()
        assert value == pytest.approx(float(metrics.miou(metrics.confusion(prediction, target, 2))))
    assert scores[0] != scores[1]


def test_scores_do_not_depend_on_what_went_before(supernet: nn.Module, task: SearchTask) -> None:
    forth, back = score(supernet, task, PATHS), score(supernet, task, PATHS[::-1])
    supernet.train()
    for path in PATHS:
        select(supernet, path)
        supernet(torch.randn(4, 1, 16, 16) * 100)
    assert forth == back[::-1] == score(supernet, task, PATHS)


def test_nothing_to_score_is_zero(supernet: nn.Module, task: SearchTask) -> None:
    task.val.masks = [np.full_like(mask, task.info.ignore_index) for mask in task.val.masks]
    assert score(supernet, task, PATHS) == [0.0, 0.0]


def test_mode_and_gradients_stay(supernet: nn.Module, task: SearchTask) -> None:
    for mode in (True, False):
        supernet.train(mode)
        score(supernet, task, PATHS[:1])
        assert supernet.training is mode
    assert all(p.grad is None for p in supernet.parameters())


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
