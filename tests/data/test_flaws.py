from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from scipy import ndimage, stats

from autoseg.data.base import Split
from autoseg.data.synthetic import flaws
from autoseg.data.synthetic.drawn import DrawnSplit
from autoseg.data.synthetic.flaws import FlawsImage, draw_flaws, flaw_statistics, synthetic_flaws
from autoseg.data.synthetic.flawshapes import draw_flaw
from autoseg.data.synthetic.imaging import brushed_noise, expose
from autoseg.data.synthetic.surface import paint_flaw
from autoseg.errors import UserError


@pytest.fixture(scope="module")
def images() -> list[FlawsImage]:
    return [draw_flaws(160, seed=6, index=i) for i in range(200)]


def test_data_set_of_the_papers_size() -> None:
    data = synthetic_flaws()
    assert (len(data.train), len(data.val), len(data.test)) == (82, 12, 23)
    names = [*data.train.names, *data.val.names, *data.test.names]
    assert names[0] == "flaws-00000" and names[116] == "flaws-00116" and len(set(names)) == 117
    assert data.info.classes == ("background", "flaw") and data.info.pixel_size is None
    assert isinstance(data.train, Split) and data.train[0][0].shape == (160, 160)


def test_crops_of_the_papers_number_tile_the_images() -> None:
    data = synthetic_flaws(crop=32)
    assert len(data.train) + len(data.val) + len(data.test) == 2925
    assert (len(data.train), len(data.val), len(data.test)) == (82 * 25, 12 * 25, 23 * 25)
    assert isinstance(data.test, DrawnSplit)
    whole = draw_flaws(160, 0, 94)  # the first image of the test split
    crops = [data.test[i] for i in range(25)]
    tiled = np.block([[crops[5 * row + column][1] for column in range(5)] for row in range(5)])
    assert np.array_equal(tiled, whole.mask)
    first = data.test.truth(0)
    assert np.array_equal(first.image, whole.image[:32, :32])
    areas = np.zeros(len(whole.flaws) + 1, int)
    for i in range(25):
        for flaw in data.test.truth(i).flaws:
            areas[flaw.label] += flaw.area
    assert areas[1:].tolist() == [flaw.area for flaw in whole.flaws]


def test_a_crop_is_the_callers_own() -> None:
    first = draw_flaws(64, 0, 0, crop=32)
    first.image[:] = 0
    first.mask[:] = 7
    again = draw_flaws(64, 0, 0, crop=32)
    assert again.image.max() > 0.2 and again.mask.max() <= 1


def test_what_is_left_over_at_the_border_is_not_used() -> None:
    data = synthetic_flaws(count=4, size=100, crop=32)
    assert len(data.train) == 2 * 9
    assert np.array_equal(data.train[13][1], draw_flaws(100, 0, 1).mask[32:64, 32:64])


def test_image_depends_on_seed_and_index_only() -> None:
    image, mask = synthetic_flaws(count=20, seed=3, size=96).train[5]
    again, mask_again = synthetic_flaws(count=50, seed=3, size=96).train[5]
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    for other in (draw_flaws(96, 4, 5), draw_flaws(96, 3, 6)):
        assert not np.array_equal(mask, other.mask)


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counting(size: int, seed: int, index: int, **options: object) -> FlawsImage:
        drawn.append(index)
        return draw_flaws(size, seed, index)

    monkeypatch.setattr(flaws, "draw_flaws", counting)
    data = synthetic_flaws(count=100_000, size=32)
    assert drawn == []
    assert data.val[1][0].shape == (32, 32)
    assert drawn == [70_001]


def test_a_split_travels_to_another_process() -> None:
    split = synthetic_flaws(count=5, size=64, difficulty="hard", crop=32).train
    assert np.array_equal(pickle.loads(pickle.dumps(split))[7][0], split[7][0])


def test_each_flaws_area_is_its_count_in_the_mask(images: list[FlawsImage]) -> None:
    for drawn in images:
        assert 1 <= len(drawn.flaws) <= 3
        counts = np.bincount(drawn.instances.ravel())
        assert [flaw.area for flaw in drawn.flaws] == counts[1:].tolist()
        assert sum(flaw.area for flaw in drawn.flaws) == drawn.mask.sum()
        assert np.array_equal(drawn.instances > 0, drawn.mask == 1)
        inner = np.bincount(drawn.instances[1:-1, 1:-1].ravel(), minlength=len(counts))
        assert [flaw.border for flaw in drawn.flaws] == (inner < counts)[1:].tolist()


def test_flaws_do_not_touch_each_other(images: list[FlawsImage]) -> None:
    for drawn in images:
        for flaw in drawn.flaws:
            grown = ndimage.binary_dilation(drawn.instances == flaw.label, np.ones((3, 3)))
            assert set(np.unique(drawn.instances[grown])) <= {0, flaw.label}


def test_foreground_is_two_to_ten_percent(images: list[FlawsImage]) -> None:
    fraction = np.array([drawn.mask.mean() for drawn in images])
    assert 0.02 < fraction.mean() < 0.10
    assert np.median(fraction) > 0.02 and np.quantile(fraction, 0.95) < 0.10
    assert fraction.min() > 0


def test_kinds_and_numbers_are_mixed(images: list[FlawsImage]) -> None:
    numbers = np.bincount([len(drawn.flaws) for drawn in images], minlength=4)[1:]
    assert stats.chisquare(numbers).pvalue > 0.001
    kinds = [flaw.kind for drawn in images for flaw in drawn.flaws]
    assert min(kinds.count(kind) for kind in ("scratch", "pit", "stain")) > 0.2 * len(kinds)


def test_sizes_of_the_flaws(images: list[FlawsImage]) -> None:
    seen = [flaw for drawn in images for flaw in drawn.flaws]
    for flaw in seen:
        assert 0.12 <= abs(flaw.contrast) <= 0.35
        if flaw.kind == "scratch":
            assert 1.5 <= flaw.width <= 4
            assert flaw.length <= 160
        elif flaw.kind == "pit":
            assert 2 <= flaw.width / 2 <= 16
    whole = [flaw for flaw in seen if flaw.kind == "scratch" and not flaw.border]
    ratio = np.array([flaw.area / (flaw.length * flaw.width) for flaw in whole])
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)  # jagged to both sides alike
    assert min(flaw.contrast for flaw in seen) < -0.2 and max(flaw.contrast for flaw in seen) > 0.2
    assert np.mean([flaw.contrast > 0 for flaw in seen]) == pytest.approx(0.5, abs=0.1)


def test_a_fifth_of_the_flaws_is_discontinuous(images: list[FlawsImage]) -> None:
    broken = [flaw.discontinuous for drawn in images for flaw in drawn.flaws]
    assert np.mean(broken) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / len(broken)))


def test_a_discontinuity_takes_the_contrast_and_leaves_the_mask() -> None:
    for seed, kind in enumerate(("scratch", "pit", "stain")):
        flaw = draw_flaw(np.random.default_rng(seed), kind, 160)
        share = []
        for discontinuous in (False, True):
            grey = np.full((160, 160), 0.5, np.float32)
            paint_flaw(np.random.default_rng(0), grey, flaw, 0.3, discontinuous)
            share.append(np.mean(grey[flaw.mask] < 0.5 + 0.3 * 0.3))
        assert share[0] < 0.05
        assert 0.1 < share[1] < 0.5


def test_contrast_is_that_of_the_record() -> None:
    errors = []
    for index in range(40):
        drawn = draw_flaws(160, 3, index, difficulty="easy")
        for flaw in drawn.flaws:
            own = drawn.instances == flaw.label
            middle = ndimage.binary_erosion(own, iterations=3)
            ring = ndimage.binary_dilation(own, iterations=14) & ~ndimage.binary_dilation(drawn.mask == 1, iterations=9)
            if flaw.kind == "pit" and middle.sum() > 50:
                errors.append(drawn.image[middle].mean() - drawn.image[ring].mean() - flaw.contrast)
    assert len(errors) > 10
    assert abs(np.mean(errors)) < 0.02 and np.max(np.abs(errors)) < 0.10


def test_brush_has_the_direction_asked_for() -> None:
    for angle in (0.3, 1.2, 2.5):
        noise = brushed_noise(np.random.default_rng(1), (160, 160), 8.0, 1.0, angle)
        down, across = np.gradient(noise)
        # The gradient is large across the brush: its second moments have their small axis along it.
        along = 0.5 * np.arctan2(2 * np.mean(down * across), np.mean(across**2) - np.mean(down**2)) + np.pi / 2
        assert np.cos(2 * (along - angle)) > 0.98
        assert noise.std() == pytest.approx(1.0, abs=0.1)


def test_exposure_without_counting_has_read_noise_only() -> None:
    flat = np.full((100, 100), 0.5, np.float32)
    taken = expose(np.random.default_rng(0), flat, blur=0.8, dose=None, read_noise=0.02)
    assert taken.std() == pytest.approx(0.02, rel=0.05)


def test_difficulty_changes_the_picture_not_the_mask() -> None:
    def separation(difficulty: str) -> float:
        """|Grey of a flaw less grey around it| in standard deviations of the surroundings."""
        values = []
        for index in range(30):
            drawn = draw_flaws(128, seed=2, index=index, difficulty=difficulty)
            away = ndimage.distance_transform_edt(drawn.mask == 0)
            ring = drawn.image[(away > 4) & (away < 12)]
            for flaw in drawn.flaws:
                values.append(abs(drawn.image[drawn.instances == flaw.label].mean() - ring.mean()) / ring.std())
        return float(np.median(values))

    easy, paper, hard = (separation(difficulty) for difficulty in ("easy", "paper", "hard"))
    assert easy > 1.5 * paper
    assert paper > 1.5 * hard > 0.5
    masks = [draw_flaws(96, seed=2, difficulty=difficulty).mask for difficulty in ("easy", "paper", "hard")]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[1], masks[2])


def test_statistics_truth_counts_and_averages() -> None:
    split = synthetic_flaws(count=10).train
    assert isinstance(split, DrawnSplit)
    found, truths = split.statistics_truth(), [split.truth(i) for i in range(7)]
    assert found["pixel_fraction"]["flaw"] == pytest.approx(np.mean([truth.mask for truth in truths]))
    for kind in ("scratch", "pit", "stain"):
        own = [flaw for truth in truths for flaw in truth.flaws if flaw.kind == kind]
        assert found[kind]["flaws"] == len(own) > 0
        assert found[kind]["area"] == pytest.approx(np.mean([flaw.area for flaw in own]))
        assert found[kind]["contrast"] == pytest.approx(np.mean([abs(flaw.contrast) for flaw in own]))
    assert flaw_statistics([])["pit"] == {"flaws": 0, "area": None, "length": None, "width": None, "contrast": None}


def test_all_bad_options_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        synthetic_flaws(count=2, size=31, difficulty="papr", seed=-1, crop=40)
    keys = ["count", "size", "seed", "difficulty", "crop"]
    assert [problem.where.rsplit(".", 1)[1] for problem in caught.value.problems] == keys
    with pytest.raises(UserError, match="from 8 to 64"):
        draw_flaws(64, crop=7)


def test_fast_enough() -> None:
    draw_flaws(128)
    start = time.process_time()
    for index in range(20):
        draw_flaws(128, index=index)
    assert (time.process_time() - start) / 20 < 3 * 0.030  # 30 ms, times three for a slow machine
