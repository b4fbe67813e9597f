from __future__ import annotations

import random

import pytest

from autoseg.data.base import SPLITS
from autoseg.data.splits import group_ids, make_splits
from autoseg.errors import UserError

NAMES = [f"image{i:03d}" for i in range(100)]


def test_counts_follow_the_fractions() -> None:
    parts = make_splits(NAMES, None, 0.15, 0.2, seed=0)
    assert [len(parts[split]) for split in SPLITS] == [65, 15, 20]
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == list(range(100))


def test_same_seed_same_split_whatever_the_file_order() -> None:
    def named(order: list[str], seed: int) -> dict[str, list[str]]:
        return {split: [order[i] for i in ids] for split, ids in make_splits(order, None, 0.15, 0.2, seed).items()}

    shuffled = NAMES.copy()
    random.Random(1).shuffle(shuffled)
    assert shuffled != NAMES
    assert named(NAMES, 7) == named(shuffled, 7)
    assert named(NAMES, 7)["test"] != named(NAMES, 8)["test"]
    assert named(shuffled, 0)["val"] == sorted(named(shuffled, 0)["val"])


def test_the_split_is_the_same_on_every_machine() -> None:
    # the sha256 sums of "0/a" to "0/f" rise in the order f c b e d a: one for test, one for val
    assert make_splits(list("abcdef"), None, 0.2, 0.2, seed=0) == {"train": [0, 1, 3, 4], "val": [2], "test": [5]}


@pytest.mark.parametrize("seed", range(40))
def test_groups_never_straddle(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(3, 60)
    groups = [f"g{rng.randrange(rng.randint(3, 12))}" for _ in range(count)] + ["x", "y", "z"]
    names = [f"n{i}" for i in range(len(groups))]
    val_fraction, test_fraction = rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.4)
    parts = make_splits(names, groups, val_fraction, test_fraction, seed)
    assert all(parts[split] for split in SPLITS)
    assert sorted(i for ids in parts.values() for i in ids) == list(range(len(names)))
    of = {split: {groups[i] for i in ids} for split, ids in parts.items()}
    assert not (of["train"] & of["val"] or of["train"] & of["test"] or of["val"] & of["test"])


def test_a_giant_group_goes_to_train() -> None:
    groups = ["giant"] * 80 + ["a"] * 10 + ["b"] * 10
    for seed in range(10):
        parts = make_splits(NAMES, groups, 0.15, 0.2, seed)
        assert [len(parts[split]) for split in SPLITS] == [80, 10, 10]


def test_three_groups_are_the_least() -> None:
    parts = make_splits(["a", "b", "c"], None, 0.15, 0.2, seed=3)
    assert [len(parts[split]) for split in SPLITS] == [1, 1, 1]
    with pytest.raises(UserError, match=r"2 group\(s\) \(p, q\) cannot fill 3 splits") as caught:
        make_splits(["a", "b", "c"], ["p", "p", "q"], 0.15, 0.2, seed=3)
    assert caught.value.exit_code == 2 and "make smaller groups" in str(caught.value)
    with pytest.raises(UserError, match=r"2 image\(s\) cannot fill 3 splits\n  -> add images"):
        make_splits(["a", "b"], None, 0.15, 0.2, seed=3)


def test_fraction_zero_leaves_a_split_empty() -> None:
    parts = make_splits(["a", "b", "c", "d"], None, 0.0, 0.25, seed=0)
    assert [len(parts[split]) for split in SPLITS] == [3, 0, 1]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.2), (float("nan"), 0.2), (0.2, 1.0)])
def test_bad_fractions(fractions: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="sum is below 1"):
        make_splits(NAMES, None, *fractions, seed=0)


def test_group_ids() -> None:
    assert group_ids(["s1_a", "s1_b", "s22_a"], r"^(s\d+)_") == ["s1", "s1", "s22"]
    assert group_ids(["s1_a", "s22_a"], r"s\d+") == ["s1", "s22"]
    with pytest.raises(UserError, match=r"finds no group in 1 file name\(s\): other"):
        group_ids(["s1_a", "other"], r"^(s\d+)_")
    with pytest.raises(UserError, match="is no regular expression"):
        group_ids(["a"], "(")
