from __future__ import annotations

import pytest
import torch

from autoseg.nn.padding import _source_pixels, crop_to, pad_to_multiple


def test_reflects_at_the_bottom_and_on_the_right() -> None:
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).view(1, 1, 3, 3)
    padded, size = pad_to_multiple(x, 4)
    assert padded[0, 0].tolist() == [[1, 2, 3, 2], [4, 5, 6, 5], [7, 8, 9, 8], [4, 5, 6, 5]]
    assert size == (3, 3)


def test_repeats_the_edge_where_the_image_is_too_small() -> None:
    padded, _ = pad_to_multiple(torch.tensor([[1.0, 2], [3, 4]]).view(1, 1, 2, 2), 4)
    assert padded[0, 0].tolist() == [[1, 2, 2, 2], [3, 4, 4, 4], [3, 4, 4, 4], [3, 4, 4, 4]]


def test_height_and_width_decide_separately() -> None:
    x = torch.arange(10.0).view(1, 1, 2, 5)
    padded, _ = pad_to_multiple(x, 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert padded[0, 0, :, 0].tolist() == [0, 5, 5, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (64, 37), (16, 32)])
@pytest.mark.parametrize("divisor", [1, 2, 16, 32])
def test_round_trip(size: tuple[int, int], divisor: int) -> None:
    x = torch.randn(2, 3, *size)
    padded, original = pad_to_multiple(x, divisor)
    for side, before in zip(padded.shape[-2:], size, strict=True):
        assert side % divisor == 0
        assert 0 <= side - before < divisor
    assert original == size
    assert torch.equal(crop_to(padded, original), x)


def test_nothing_to_do_copies_nothing() -> None:
    x = torch.randn(1, 1, 16, 32)
    padded, size = pad_to_multiple(x, 16)
    assert padded is x
    assert crop_to(x, size) is x


def test_channels_last_stays() -> None:
    x = torch.randn(2, 3, 37, 53).to(memory_format=torch.channels_last)
    padded, _ = pad_to_multiple(x, 16)
    assert padded.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("divisor", [1, 2, 3, 8, 32])
def test_a_recorded_graph_takes_the_same_pixels(divisor: int) -> None:
    for length in range(1, 40):
        x = torch.arange(float(length)).view(1, 1, 1, length).expand(1, 1, divisor, length)
        expected, _ = pad_to_multiple(x, divisor)
        pixels = _source_pixels(length, divisor, x.device)
        assert pixels.tolist() == expected[0, 0, 0].int().tolist(), length
