from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from autoseg.nn.pool import pool_with_indices, unpool, upsample_like


def test_by_hand() -> None:
    x = torch.tensor([[1.0, 5, 2, 0], [3, 4, 9, 1], [0, 0, 7, 6], [8, 0, 0, 0]]).view(1, 1, 4, 4)
    y, where = pool_with_indices(x)
    assert y[0, 0].tolist() == [[5, 9], [8, 7]]
    assert where[0, 0].tolist() == [[1, 6], [12, 10]]
    assert where.dtype == torch.int64
    assert unpool(y, where, (4, 4))[0, 0].tolist() == [[0, 5, 0, 0], [0, 0, 9, 0], [0, 0, 7, 0], [8, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 5, 8, 12), (2, 4, 16, 6)])
def test_keeps_exactly_one_position_in_four(shape: tuple[int, int, int, int]) -> None:
    x = torch.rand(shape) + 0.5
    y, where = pool_with_indices(x)
    assert y.shape == where.shape == (*shape[:2], shape[2] // 2, shape[3] // 2)
    back = unpool(y, where, shape[2:])
    kept = back > 0
    assert kept.sum() == x.numel() // 4
    assert torch.equal(back[kept], x[kept])
    # One of each 2x2 square, and it is the largest.
    assert torch.equal(F.avg_pool2d(kept.float(), 2), torch.full_like(y, 0.25))
    assert torch.equal(F.max_pool2d(back, 2), F.max_pool2d(x, 2))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_torch(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 6, 8, 10).to(memory_format=memory_format)
    y, where = pool_with_indices(x)
    expected, positions = F.max_pool2d(x, 2, 2, return_indices=True)
    assert torch.equal(y, expected)
    assert torch.equal(where, positions)
    other = torch.randn_like(y)  # a decoder unpools other values than those that were pooled
    assert torch.equal(unpool(other, where, (8, 10)), F.max_unpool2d(other, where, 2, 2))


def test_gradient() -> None:
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    y, where = pool_with_indices(x)
    unpool(y, where, (4, 6)).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == x.numel() / 4  # one for each maximum, nothing for the others
    assert torch.equal(x.grad.flatten(2).gather(2, where.flatten(2)), torch.ones(1, 2, 6, dtype=torch.float64))
    values = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: unpool(v, where, (4, 6)), (values,))


def test_upsample_like() -> None:
    x = torch.tensor([[1.0, 2], [3, 4]]).view(1, 1, 2, 2)
    up = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert upsample_like(x, (4, 4))[0, 0].tolist() == up
