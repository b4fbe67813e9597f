from __future__ import annotations

import time

import numpy as np
import pytest

from autoseg.data.base import Split
from autoseg.data.synthetic import ceramic
from autoseg.data.synthetic.ceramic import CeramicImage, CeramicSplit, draw_ceramic, synthetic_ceramic
from autoseg.data.synthetic.grains import CYLINDER, LATH, draw_classes
from autoseg.errors import UserError


@pytest.fixture(scope="module")
def crops() -> list[CeramicImage]:
    return [draw_ceramic(128, seed=7, index=i) for i in range(150)]


def test_paper_sized_set_splits_as_the_paper() -> None:
    data = synthetic_ceramic(count=629)
    assert (len(data.train), len(data.val), len(data.test)) == (440, 63, 126)
    names = [*data.train.names, *data.val.names, *data.test.names]
    assert names[0] == "ceramic-00000" and names[628] == "ceramic-00628" and len(set(names)) == 629
    assert data.info.classes == ("background", "lath", "cylinder") and data.info.channels == 1
    assert isinstance(data.train, Split)


@pytest.mark.parametrize(("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (7, 1, 2)), (120, (84, 12, 24))])
def test_no_split_is_empty(count: int, sizes: tuple[int, int, int]) -> None:
    data = synthetic_ceramic(count=count, size=32)
    assert (len(data.train), len(data.val), len(data.test)) == sizes


def test_image_depends_on_seed_and_index_only() -> None:
    image, mask = synthetic_ceramic(count=20, seed=3).train[5]
    again, mask_again = synthetic_ceramic(count=50, seed=3).train[5]
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    small = synthetic_ceramic(count=5, seed=3)
    assert np.array_equal(small.test[0][0], CeramicSplit([4], seed=3)[0][0])
    for other in (CeramicSplit([5], seed=4), CeramicSplit([6], seed=3)):
        assert not np.array_equal(image, other[0][0]) and not np.array_equal(mask, other[0][1])


def test_items_are_uint8_and_match_the_truth() -> None:
    split = CeramicSplit(range(3), size=96, seed=1)
    image, mask = split[2]
    truth = split.truth(2)
    assert image.shape == mask.shape == (96, 96) and image.dtype == mask.dtype == np.uint8
    assert truth.image.dtype == np.float32 and truth.image.min() >= 0 and truth.image.max() <= 1
    assert np.array_equal(mask, truth.mask)
    assert np.abs(image / 255 - truth.image).max() <= 0.5 / 255 + 1e-6
    assert len(list(split)) == 3
    with pytest.raises(IndexError):
        split[3]


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    real = ceramic.draw_ceramic

    def counting(size: int, seed: int, index: int, **options: object) -> CeramicImage:
        drawn.append(index)
        return real(size, seed, index, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ceramic, "draw_ceramic", counting)
    data = synthetic_ceramic(count=100_000, size=32)
    assert drawn == []
    assert data.val[1][0].shape == (32, 32)
    assert drawn == [70_001]


def test_class_absence_rates_follow_the_paper() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_classes(rng, scene=False) for _ in range(20_000)]
    assert {len(d) for d in draws} == {2, 3}
    no_lath, no_cylinder = (sum(c not in d for d in draws) for c in (LATH, CYLINDER))
    # four standard deviations of a binomial: 900 +- 117 and 200 +- 56
    assert abs(no_lath - 900) < 117
    assert abs(no_cylinder - 200) < 56


def test_absence_in_the_masks() -> None:
    masks = [draw_ceramic(48, seed=0, index=i).mask for i in range(629)]
    with_lath = sum(bool((m == LATH).any()) for m in masks)
    with_cylinder = sum(bool((m == CYLINDER).any()) for m in masks)
    # paper: 601 and 623 of 629; four standard deviations are 21 and 10
    assert abs(with_lath - 601) <= 21
    assert abs(with_cylinder - 623) <= 10
    assert with_lath < 629 and with_cylinder < 629


def test_instances_agree_with_mask_and_records(crops: list[CeramicImage]) -> None:
    for crop in crops:
        assert crop.instances.dtype == np.uint16 and crop.mask.dtype == np.uint8
        assert np.array_equal(crop.instances > 0, crop.mask > 0)
        assert np.array_equal(np.unique(crop.instances), np.arange(len(crop.grains) + 1))
        assert 2 <= len(crop.grains) <= 3
        for grain in crop.grains:
            own = crop.instances == grain.label
            assert set(np.unique(crop.mask[own])) == {grain.class_index}
            assert own.sum() == grain.visible_area


def test_equivalent_diameter_of_complete_grains(crops: list[CeramicImage]) -> None:
    errors = [
        np.sqrt(grain.visible_area / grain.analytic_area) - 1
        for crop in crops
        for grain in crop.grains
        if grain.complete
    ]
    assert len(errors) > 100
    assert np.abs(errors).max() < 0.02
    assert abs(np.mean(errors)) < 0.002  # no bias


def test_analytic_area_is_the_nominal_area_less_the_groove(crops: list[CeramicImage]) -> None:
    for grain in (g for crop in crops for g in crop.grains):
        if grain.radius is not None:
            # Eroding a disc by g leaves pi (r - g)^2; a hexagon has a little more outline and blunt corners.
            assert grain.analytic_area == pytest.approx(np.pi * (grain.radius - grain.groove) ** 2, rel=0.08)
            assert 0.1 * 128 <= grain.radius <= 0.22 * 128 and grain.length is None
        else:
            assert grain.length is not None and grain.width is not None
            bar = (grain.length - 2 * grain.groove) * (grain.width - 2 * grain.groove)
            assert 0.85 * bar <= grain.analytic_area <= bar * 1.001
            assert 0.40 * 128 <= grain.length <= 0.80 * 128 and grain.width <= 0.20 * 128


def test_grains_do_not_touch_and_are_hidden_by_a_quarter_at_most(crops: list[CeramicImage]) -> None:
    hidden = []
    for crop in crops:
        labels = crop.instances.astype(int)
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            assert not np.any((a != b) & (a > 0) & (b > 0))  # a groove lies between any two grains
        inner = crop.instances[1:-1, 1:-1]
        for grain in crop.grains:
            if (inner == grain.label).sum() == grain.visible_area:  # not cut by the border
                hidden.append(1 - grain.visible_area / grain.analytic_area)
    assert max(hidden) < 0.25 + 0.04  # the share is of pixels, the area analytic
    assert sum(h > 0.05 for h in hidden) > 3  # some grains are hidden in part


def test_difficulty_changes_the_picture_not_the_grains() -> None:
    def separation(difficulty: str) -> float:
        """Mean over images of |grain - background| grey, in standard deviations of the noisy background."""
        values = []
        for i in range(40):
            drawn = draw_ceramic(96, seed=2, index=i, difficulty=difficulty)
            grain, background = drawn.image[drawn.mask > 0], drawn.image[drawn.mask == 0]
            values.append(abs(grain.mean() - background.mean()) / background.std())
        return float(np.mean(values))

    easy, paper, hard = (separation(d) for d in ("easy", "paper", "hard"))
    assert easy > 1.5 * paper
    assert paper > 1.5 * hard
    masks = [draw_ceramic(96, seed=2, index=0, difficulty=d).mask for d in ("easy", "paper", "hard")]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[1], masks[2])


def test_scene_holds_many_grains() -> None:
    counts = []
    for index in range(4):
        scene = draw_ceramic(256, seed=0, index=index, scene=True)
        counts.append(len(scene.grains))
        assert {g.class_index for g in scene.grains} == {LATH, CYLINDER}
        assert np.array_equal(np.unique(scene.instances), np.arange(len(scene.grains) + 1))
    assert min(counts) >= 20 and max(counts) <= 60 and len(set(counts)) > 1


def test_statistics_truth_counts_and_averages() -> None:
    split = CeramicSplit(range(6), size=64)
    truth = split.statistics_truth()
    images = [split.truth(i) for i in range(6)]
    lath_pixels = np.mean([np.mean(image.mask == LATH) for image in images])
    assert truth["pixel_fraction"]["lath"] == pytest.approx(lath_pixels)
    complete = [g.analytic_area for image in images for g in image.grains if g.complete and g.class_index == CYLINDER]
    assert truth["cylinder"]["complete"] == len(complete) > 0
    assert truth["cylinder"]["area"] == pytest.approx(np.mean(complete))
    assert truth["lath"]["grains"] + truth["cylinder"]["grains"] == sum(len(image.grains) for image in images)
    assert images[0].statistics_truth()["pixel_fraction"]["background"] == np.mean(images[0].mask == 0)


def test_all_bad_options_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        synthetic_ceramic(count=2, size=31, difficulty="papr", seed=-1)
    assert [p.where.rsplit(".", 1)[1] for p in caught.value.problems] == ["count", "size", "seed", "difficulty"]
    assert caught.value.problems[3].fix == "did you mean 'paper'?"
    with pytest.raises(UserError, match="128 pixels or more"):
        synthetic_ceramic(size=64, scene=True)


def test_fast_enough() -> None:
    split = CeramicSplit(range(30))
    split[0]
    start = time.process_time()
    for i in range(30):
        split[i]
    assert (time.process_time() - start) / 30 < 3 * 0.030  # 30 ms, times three for a slow machine
