"""Logits and targets for the tests of losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def hard_logits(labels: Tensor, num_classes: int) -> Tensor:
    """Logits whose softmax is exactly 0 or 1 in float32."""
    return 400.0 * functional.one_hot(labels, num_classes).movedim(-1, 1).float()


def random_case(num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, num_classes, 6, 5, generator=random, dtype=torch.float64)
    return logits, torch.randint(0, num_classes, (2, 6, 5), generator=random)


def logits_of(probabilities: list[list[float]]) -> Tensor:
    """``(1, C, 1, W)`` logits from one list of class probabilities per pixel."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T.reshape(1, -1, 1, len(probabilities))


def counts(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By the definitions: per class sum(p y), sum(p), sum(y), sum(p^2) over the whole batch."""
    p = logits.softmax(1)
    y = functional.one_hot(target, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    return tuple(x.sum((0, 2, 3)) for x in (p * y, p, y, p**2))  # type: ignore[return-value]


THREE = logits_of([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
"""Three pixels, two classes."""
THREE_TARGET = torch.tensor([[[0, 0, 1]]])
