"""Supernets: shared weights for every path, and the score of a path on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.strategy import RandomOneShot
from torch import nn

from autoseg.spaces.base import Choices
from autoseg.train.evaluate import evaluate

if TYPE_CHECKING:
    from autoseg.search.task import SearchTask


def use_batch_statistics(network: nn.Module) -> nn.Module:
    """Make batch normalisation use the statistics of the batch at hand, always.

    Running statistics of a supernet mix all paths and fit none; with batch statistics a path is scored
    the same whatever was sampled before it.

    Args:
        network: A supernet; it is changed in place, and its state no longer holds statistics.

    Returns:
        ``network``.

    Example:
        >>> norm = use_batch_statistics(nn.BatchNorm2d(1)).eval()
        >>> norm(torch.tensor([3.0, 5.0]).view(2, 1, 1, 1)).flatten().round().tolist()  # not 3 and 5
        [-1.0, 1.0]
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network


def select(network: nn.Module, choices: Choices) -> None:
    """Make a path supernet follow the given choices.

    Args:
        network: A module whose choices NNI has made into sampled layers, or a module around it.
        choices: A value for every decision.
    """
    for module in network.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=dict(choices))


class PathSupernet:
    """A trained supernet that answers what a path scores.

    Normalisation takes its statistics from the images that are evaluated together, so the scores are good
    for ranking paths, not for comparison with a network trained by itself.

    Args:
        task: The search.
        weights: Its shared weights by name; entries that are not weights of paths, such as the numbers of a
            gradient strategy, are left out.
    """

    def __init__(self, task: SearchTask, weights: Mapping[str, torch.Tensor]) -> None:
        self.task = task
        self.network: nn.Module = RandomOneShot().mutate_model(use_batch_statistics(task.build_space()))
        wanted = self.network.state_dict().keys()
        self.network.load_state_dict({name: value for name, value in weights.items() if name in wanted})
        self.network.to(task.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def score(self, choices: Choices) -> float:
        """Validation mIoU of a path on whole images, 0..1; 0 where nothing could be scored."""
        task = self.task
        select(self.network, choices)
        with torch.no_grad():
            result = evaluate(self.network, task.val, task.info, task.normalisation, task.compute)
        miou: Any = result.scores.miou
        return 0.0 if miou != miou else float(miou)
