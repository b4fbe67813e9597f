"""What the ranks of a training do together: share batches and images, and decide alike.

A *rank* is one of several processes that train one network, each on its own device (started by
:mod:`autoseg.train.ranks`). All ranks draw the same batches and each computes every N-th item. The logits are
then gathered, so that every rank has the loss and the score of the whole batch, whatever the loss is, and
Lightning's DDP adds up the gradients. So a training on several ranks is that of one process, but for what a
network draws at random and for the statistics of batch normalisation: they are those of the whole batch when
a network is trained on GPUs; on a CPU and in a supernet each rank takes those of its own items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from autoseg.data.base import DatasetInfo, Image, Mask, Split
from autoseg.data.batches import Normalisation
from autoseg.errors import AutosegError, Problem, UserError
from autoseg.train.compute import Compute
from autoseg.train.evaluate import Evaluation, evaluate

T = TypeVar("T")


class RanksDiffer(AutosegError):
    """The ranks of a training do not do the same, so that its result would be worth nothing."""


def agreed(compute: Compute, make: Callable[[], T]) -> T:
    """What rank 0 makes, on all ranks.

    Args:
        compute: Says which rank this is.
        make: Called on rank 0 only.

    Example:
        >>> agreed(Compute(), lambda: 3)
        3
    """
    if compute.ranks == 1:
        return make()
    box: list[Any] = [make() if compute.rank == 0 else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    made: T = box[0]
    return made


def confirm(compute: Compute, what: str, value: object) -> None:
    """Make sure that a value is the same on all ranks.

    Args:
        compute: Says which rank this is.
        what: Names the value in the message.
        value: Its text is compared.

    Raises:
        RanksDiffer: It is not that of rank 0.

    Example:
        >>> confirm(Compute(), "the path", {"op": "conv"})
    """
    if compute.ranks > 1 and (first := agreed(compute, lambda: str(value))) != str(value):
        raise RanksDiffer(f"{what} of rank {compute.rank} is {str(value)[:200]}, that of rank 0 is {first[:200]}")


def check_batch(compute: Compute, batch: int) -> None:
    """Make sure that every rank has something to do.

    Raises:
        UserError: The batch has fewer items than there are ranks.

    Example:
        >>> check_batch(Compute(), batch=1)
    """
    if batch < compute.ranks:
        what = f"a batch of {batch} cannot be shared by {compute.ranks} devices"
        raise UserError(Problem(what, "compute.devices", "give fewer devices or a larger train.batch"))


def forward(compute: Compute, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Logits of a whole batch, of which each rank computes its share: items ``rank``, ``rank + ranks``, and so on.

    Gradients reach the own share only, multiplied by the number of ranks: DDP, which takes the mean over the
    ranks, then has the gradient of the whole batch, also when the shares are not equal. Random numbers in the
    network are other ones on each rank, and leave torch's generator the same on all.

    Args:
        compute: Says which rank this is.
        network: From ``(n, C, H, W)`` to logits ``(n, K, H, W)``.
        x: ``(N, C, H, W)``, the same on all ranks, N at least their number.

    Returns:
        ``(N, K, H, W)``, the same bits on all ranks.

    Example:
        >>> forward(Compute(), torch.nn.Conv2d(1, 2, 1), torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 2, 8, 8])
    """
    ranks, rank = compute.ranks, compute.rank
    if ranks == 1:
        return network(x)
    seed = int(torch.randint(1 << 31, ()))
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed + rank)
        own = network(x[rank::ranks]).float()
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * ranks)
    sent = own.new_zeros((math.ceil(len(x) / ranks), *own.shape[1:]))
    sent[: len(own)] = own.detach()
    received = [torch.empty_like(sent) for _ in range(ranks)]
    dist.all_gather(received, sent)
    shares = [range(number, len(x), ranks) for number in range(ranks)]
    parts = [own if number == rank else received[number][: len(shares[number])] for number in range(ranks)]
    order = torch.tensor([item for share in shares for item in share], device=x.device).argsort()
    return torch.cat(parts)[order].contiguous(memory_format=torch.channels_last)


class _Part:
    """Some items of a split."""

    def __init__(self, split: Split, items: Sequence[int]) -> None:
        self.split, self.items = split, items
        self.names = [split.names[i] for i in items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image, Mask]:
        return self.split[self.items[index]]


def evaluate_together(
    network: nn.Module,
    split: Split,
    info: DatasetInfo,
    normalisation: Normalisation,
    compute: Compute,
    loss: nn.Module | None = None,
) -> Evaluation:
    """:func:`autoseg.train.evaluate.evaluate` with the images shared among the ranks.

    Returns:
        Counts of all images, the same on all ranks; their loss as well.
    """
    if compute.ranks == 1:
        return evaluate(network, split, info, normalisation, compute, loss=loss)
    items = range(compute.rank, len(split), compute.ranks)
    own = evaluate(network, _Part(split, items), info, normalisation, compute, loss=loss)  # type: ignore[arg-type]
    counts = np.zeros((len(split), *own.confusions.shape[1:]), np.int64)
    counts[items.start :: items.step] = own.confusions
    summed = torch.from_numpy(counts)
    dist.all_reduce(summed)
    losses = torch.tensor((own.loss or 0.0) * len(items), dtype=torch.float64)
    dist.all_reduce(losses)
    return Evaluation(list(split.names), summed.numpy(), None if loss is None else float(losses) / len(split))
