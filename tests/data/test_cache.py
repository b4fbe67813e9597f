"""Images that stay in memory, as far as there is room."""

from __future__ import annotations

import numpy as np
import pytest
from counted_pairs import Pairs, flat

from autoseg.data.batches import RamCache
from autoseg.data.memory import available_memory
from autoseg.data.synthetic.ceramic import synthetic_ceramic


def test_cache_reads_each_item_once_and_keeps_the_dtype() -> None:
    split = Pairs([(np.full((4, 4), 60_000, np.uint16), np.ones((4, 4), np.uint8)) for _ in range(3)])
    cache = RamCache(split)
    for _ in range(3):
        for image, mask in cache:
            assert image.dtype == np.uint16 and image[0, 0] == 60_000 and mask.dtype == np.uint8
    assert split.reads == {0: 1, 1: 1, 2: 1}
    assert cache.held_bytes == 3 * (32 + 16) and list(cache.names) == split.names
    assert cache[-1][0] is cache[2][0]
    with pytest.raises(ValueError, match="read-only"):
        cache[0][0][0, 0] = 1
    split.items[0][0][0, 0] = 1  # the array of the split itself stays writable
    with pytest.raises(IndexError):
        cache[3]


def test_cache_reads_through_when_full() -> None:
    split = Pairs([flat(v) for v in range(4)])
    cache = RamCache(split, max_bytes=2 * 512)
    for _ in range(2):
        assert [int(image[0, 0]) for image, _ in cache] == [0, 1, 2, 3]
    assert split.reads == {0: 1, 1: 1, 2: 2, 3: 2} and cache.held_bytes == 1024


def test_cache_offers_the_truth_of_the_split() -> None:
    cache = RamCache(synthetic_ceramic(count=5, size=32).train)
    assert np.array_equal(cache.truth(1).mask, cache[1][1])
    with pytest.raises(AttributeError):
        _ = cache.no_such_thing


def test_cache_leaves_half_of_the_memory_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([4000, 4000, 2600, 2500])  # when made, then before each of three items of 512 bytes
    monkeypatch.setattr("autoseg.data.batches.available_memory", lambda: next(free))
    split = Pairs([flat(v) for v in range(3)])
    cache = RamCache(split)
    for _ in cache:
        pass
    assert cache.held_bytes == 1024  # 2500 - 512 would be less than 2000


def test_available_memory_is_plausible() -> None:
    assert 2**20 < available_memory() < 2**50
