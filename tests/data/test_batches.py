from __future__ import annotations

import json
import time
from collections import Counter

import numpy as np
import pytest
import torch
from counted_pairs import Pairs, flat

from autoseg.data.augment import Augment, crop
from autoseg.data.batches import Normalisation, PatchLoader
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.errors import UserError

PLAIN = Normalisation((0.0,), (1.0,))
GEOMETRY = Augment(brightness=0, contrast=0, noise=0)


def loader(split: Pairs, **options: object) -> PatchLoader:
    defaults = {
        "channels": 1, "patch": 16, "batch_size": 4, "normalisation": PLAIN, "augment": Augment.none(), "seed": 0,
    }  # fmt: skip
    return PatchLoader(split, **{**defaults, **options})  # type: ignore[arg-type]


# --- normalisation


def test_normalisation_by_hand() -> None:
    split = Pairs([
        (np.array([[0, 2]], np.uint8), np.zeros((1, 2), np.uint8)),
        (np.array([[4], [6], [8], [10]], np.uint8), np.zeros((4, 1), np.uint8)),
    ])  # fmt: skip
    norm = Normalisation.from_split(split, 1)
    assert norm.mean == pytest.approx((5.0,))
    assert norm.std == pytest.approx((np.sqrt(70 / 6),))  # deviations 5, 3, 1, 1, 3, 5
    assert norm.apply(split.items[0][0]).tolist()[0][0] == pytest.approx([-5 / np.sqrt(70 / 6), -3 / np.sqrt(70 / 6)])
    assert Normalisation.from_json(json.loads(json.dumps(norm.to_json()))) == norm


def test_normalisation_reads_the_training_split_only() -> None:
    train, test = Pairs([flat(10), flat(30)]), Pairs([flat(250)])
    norm = Normalisation.from_split(train, 1)
    assert norm == Normalisation((20.0,), (10.0,))
    assert train.reads == {0: 1, 1: 1} and not test.reads


def test_normalisation_of_colour_and_of_constant_channels() -> None:
    image = np.zeros((2, 2, 3), np.uint16)
    image[..., 0] = [[0, 60000], [0, 60000]]
    image[..., 1] = 7
    image[0, :, 2] = 4
    norm = Normalisation.from_split(Pairs([(image, np.zeros((2, 2), np.uint8))]), 3)
    assert norm == Normalisation((30000.0, 7.0, 2.0), (30000.0, 1.0, 2.0))
    x = norm.apply(image)
    assert x.shape == (3, 2, 2) and x.dtype == torch.float32
    assert (
        x[0].tolist() == [[-1, 1], [-1, 1]]
        and x[1].tolist() == [[0, 0], [0, 0]]
        and x[2].tolist() == [[1, 1], [-1, -1]]
    )


def test_wrong_channels_are_named() -> None:
    with pytest.raises(UserError, match="item-0"):
        Normalisation.from_split(Pairs([flat(1)]), 3)


# --- geometry


def test_crop_outside_mirrors_the_image_and_ignores_the_mask() -> None:
    image = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    mask = np.ones((3, 4), np.uint8)
    cut, cut_mask = crop(image, mask, -1, 2, 5)
    assert (cut // 5000).tolist() == [
        [6, 7, 6, 5, 4],
        [2, 3, 2, 1, 0],
        [6, 7, 6, 5, 4],
        [10, 11, 10, 9, 8],
        [6, 7, 6, 5, 4],
    ]
    assert cut.dtype == np.uint16
    assert cut_mask.tolist() == [[255] * 5, *[[1, 1, 255, 255, 255]] * 3, [255] * 5]
    wide, _ = crop(np.array([[3]], np.uint8), np.ones((1, 1), np.uint8), -5, -5, 11)
    assert (wide == 3).all()


def test_image_and_mask_stay_aligned() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 2, (8, 8)), np.ones((12, 12), int)).astype(np.uint8)
    split = Pairs([(blocks * 200, blocks)])
    turned = set()
    for step in range(12):
        x, y = loader(split, patch=32, augment=GEOMETRY, seed=1).batch(0, step)
        agree = (x[:, 0] > 100).long() == y
        assert agree.float().mean() > 0.995  # bilinear against nearest: ties on an edge only
        turned.add(y[0].numpy().tobytes())
    assert len(turned) == 12
    exact = Augment(scale=(1, 1), brightness=0, contrast=0, noise=0)
    x, y = loader(split, patch=32, batch_size=64, augment=exact).batch(0, 0)
    assert torch.equal(x[:, 0], 200.0 * y)


def test_all_eight_orientations_occur() -> None:
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)
    exact = Augment(scale=(1, 1), brightness=0, contrast=0, noise=0)

    def seen(augment: Augment) -> set[tuple[int, ...]]:
        rng = np.random.default_rng(0)
        return {tuple(augment.patch(image, image, 2, rng)[0].ravel().tolist()) for _ in range(200)}

    assert len(seen(exact)) == 8
    assert seen(Augment.none()) == {(0, 1, 2, 3)}


def test_no_class_is_invented() -> None:
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 7, 200], np.uint8), (40, 56))
    split = Pairs([(rng.integers(0, 256, (40, 56), np.uint8), mask)])
    batches = loader(split, patch=48, batch_size=8, augment=Augment(scale=(0.5, 2.0)), steps=10)
    values = {int(v) for _, y in batches for v in y.unique()}
    assert values == {0, 7, 200, 255}


def test_padding_is_ignored_and_only_the_padding() -> None:
    split = Pairs([flat(9, 10, 12)])
    x, y = loader(split, patch=16).batch(0, 0)
    assert (y == 255).sum(dim=(1, 2)).tolist() == [256 - 120] * 4
    assert (x == 9).all()  # mirrored, not black


def test_other_ignore_index_becomes_255() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    _, y = loader(Pairs([(mask, mask)]), patch=12, ignore_index=0).batch(0, 0)
    assert sorted(y.unique().tolist()) == [1, 255] and (y[0] == 1).sum() == 32


def test_sixteen_bits_are_kept() -> None:
    image = np.arange(40_000, 40_000 + 32 * 32, dtype=np.uint16).reshape(32, 32)
    x, _ = loader(Pairs([(image, np.zeros((32, 32), np.uint8))]), patch=32).batch(0, 0)
    assert torch.equal(x[0, 0], torch.arange(40_000, 40_000 + 1024, dtype=torch.float32).reshape(32, 32))
    zoom = Augment(scale=(2, 2), brightness=0, contrast=0, noise=0)
    zoomed, _ = loader(Pairs([(image, np.zeros((32, 32), np.uint8))]), patch=32, augment=zoom).batch(0, 0)
    assert zoomed.unique().numel() > 600 and zoomed.min() >= 40_000  # no rounding to 8 bits


def test_channels_survive() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    image[...] = [10, 20, 30]
    norm = Normalisation((0.0,) * 3, (10.0,) * 3)
    x, y = loader(Pairs([(image, image[..., 0])]), channels=3, normalisation=norm, augment=GEOMETRY).batch(0, 0)
    assert x.shape == (4, 3, 16, 16) and y.shape == (4, 16, 16) and y.dtype == torch.int64
    assert x.mean(dim=(0, 2, 3)).tolist() == pytest.approx([1, 2, 3])


def test_intensity_stays_within_its_ranges() -> None:
    ones = torch.ones(500, 1, 2, 2)
    shifted = Augment(brightness=0.3, contrast=0, noise=0).intensity(ones.clone(), np.random.default_rng(0))
    assert 0.28 < (shifted - 1).abs().max() <= 0.3
    assert torch.equal(shifted[:, 0, 0, 0], shifted[:, 0, 1, 1])  # one shift per patch
    stretched = Augment(brightness=0, contrast=0.5, noise=0).intensity(3 * ones, np.random.default_rng(0))
    assert 1.5 <= stretched.min() < 1.55 and 4.45 < stretched.max() <= 4.5
    noisy = Augment(brightness=0, contrast=0, noise=0.2).intensity(
        torch.zeros(200, 1, 50, 50), np.random.default_rng(0)
    )
    assert 0.18 < noisy.flatten(1).std(dim=1).max() < 0.21


def test_bad_augmentation_is_reported_in_full() -> None:
    with pytest.raises(UserError) as caught:
        Augment(flips=1, scale=(2, 1), contrast=1.5, noise=-1)  # type: ignore[arg-type]
    assert [p.where for p in caught.value.problems] == [
        "augment.flips", "augment.scale", "augment.contrast", "augment.noise",
    ]  # fmt: skip
    assert Augment(scale=[0.5, 2]).scale == (0.5, 2.0)  # type: ignore[arg-type]


# --- order and resume


def test_same_step_twice_is_bit_identical() -> None:
    data = synthetic_ceramic(count=10, size=64)
    norm = Normalisation.from_split(data.train, 1)

    def make(seed: int = 5) -> PatchLoader:
        return PatchLoader(
            data.train, channels=1, patch=48, batch_size=3, normalisation=norm, augment=Augment(), seed=seed
        )

    first = make()
    first.set_epoch(2)
    whole = list(first)
    assert len(whole) == len(first) == 5  # 7 images of round(4096 / 2304) = 2 patches, in threes
    resumed = make().batch(2, 3)  # another loader, straight to the middle
    assert torch.equal(whole[3][0], resumed[0]) and torch.equal(whole[3][1], resumed[1])
    for other in (make().batch(3, 3), make().batch(2, 4), make(6).batch(2, 3)):
        assert not torch.equal(resumed[0], other[0])


def test_epoch_is_read_at_the_first_next() -> None:
    split = Pairs([(np.arange(400, dtype=np.uint8).reshape(20, 20), np.zeros((20, 20), np.uint8))])
    one = loader(split, patch=8)
    iterator = iter(one)
    one.set_epoch(4)
    assert torch.equal(next(iterator)[0], one.batch(4, 0)[0])
    one.set_epoch(5)
    assert torch.equal(next(iterator)[0], one.batch(4, 1)[0])  # a started epoch is not torn


def test_images_are_drawn_in_proportion_to_their_area() -> None:
    split = Pairs([flat(1), flat(2, 32, 48), flat(3, 5, 5)])  # 1, 6 and at least 1 patches
    batches = loader(split, batch_size=4)
    assert len(batches) == 2
    counts = Counter(int(v) for x, _ in batches for v in x[:, 0, 0, 0])
    assert counts == {1: 1, 2: 6, 3: 1}


def test_few_steps_still_reach_every_image() -> None:
    batches = loader(Pairs([flat(v) for v in range(12)]), batch_size=2, steps=3)
    counts: Counter[int] = Counter()
    for epoch in range(4):  # 24 patches: every image exactly twice
        batches.set_epoch(epoch)
        counts.update(int(v) for x, _ in batches for v in x[:, 0, 0, 0])
    assert counts == {v: 2 for v in range(12)}


def test_loader_reports_all_bad_arguments_and_items() -> None:
    with pytest.raises(UserError) as caught:
        loader(Pairs([]), patch=0, batch_size=0, steps=0, seed=-1)
    assert len(caught.value.problems) == 5
    zeros = np.zeros((4, 4), np.uint8)
    bad = Pairs([flat(0), (zeros, np.zeros((4, 5), np.uint8)), (np.zeros((4, 4, 3)), zeros)])
    with pytest.raises(UserError) as caught:
        loader(bad)
    assert [p.where for p in caught.value.problems] == ["item-1", "item-2"]


def test_fast_enough() -> None:
    rng = np.random.default_rng(0)
    split = Pairs([(rng.integers(0, 256, (512, 512), np.uint8), np.zeros((512, 512), np.uint8)) for _ in range(4)])
    batches = loader(split, patch=128, batch_size=8, augment=Augment())
    batches.batch(0, 0)
    times = []
    for epoch in range(1, 4):  # the best of three: threads that wait for a core count as well
        start = time.process_time()
        for step in range(30):
            batches.batch(epoch, step)
        times.append((time.process_time() - start) / 30)
    assert min(times) < 3 * 0.008  # 8 ms, times three for a slow machine
