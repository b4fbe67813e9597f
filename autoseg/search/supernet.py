"""Supernets: shared weights, and scoring one path of them on validation images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autoseg.data.base import DatasetInfo, Split
from autoseg.data.batches import Normalisation
from autoseg.train.compute import Compute
from autoseg.train.evaluate import evaluate


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


def score_paths(
    supernet: nn.Module,
    select: Callable[[dict[str, Any]], None],
    choices: list[dict[str, Any]],
    *,
    val: Split,
    info: DatasetInfo,
    normalisation: Normalisation,
    compute: Compute,
) -> list[float]:
    """Validation mIoU of several paths through a supernet, on whole images.

    Normalisation takes its statistics from the images that are evaluated together, so the scores are good
    for ranking paths, not for comparison with a network trained by itself.

    Args:
        supernet: The network with all paths, batch statistics in use, on the device of ``compute``.
        select: Makes the supernet follow the given choices.
        choices: The paths.
        val: Validation images.
        info: Classes.
        normalisation: From the training split.
        compute: Device and precision.

    Returns:
        mIoU, 0..1, per path; 0 where nothing could be scored.
    """
    scores = []
    for path in choices:
        select(path)
        with torch.no_grad():
            miou = evaluate(supernet, val, info, normalisation, compute).scores.miou
        scores.append(0.0 if miou != miou else miou)
    return scores
