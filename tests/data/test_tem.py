from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from scipy import ndimage, stats

from autoseg.data.base import Split
from autoseg.data.synthetic import tem
from autoseg.data.synthetic.drawn import DrawnSplit
from autoseg.data.synthetic.particles import CoreTruth, draw_diameters, place_cores, raster_cores
from autoseg.data.synthetic.tem import TemImage, draw_tem, particle_statistics, synthetic_tem
from autoseg.errors import UserError

EIGHT = np.ones((3, 3), int)


@pytest.fixture(scope="module")
def fields() -> list[TemImage]:
    return [draw_tem(256, seed=5, index=i) for i in range(60)]


@pytest.fixture(scope="module")
def apart() -> list[tuple[np.ndarray, list[CoreTruth]]]:
    """Instance maps and cores of 150 fields without touching cores; the grey values are not needed."""
    fields = []
    for index in range(150):
        cores = place_cores(np.random.default_rng([9, index]), 256, 0.12, 0.0, 1.15)
        fields.append(raster_cores(cores, 256, 0.12))
    return fields


def test_data_set_of_the_papers_size() -> None:
    data = synthetic_tem()
    assert (len(data.train), len(data.val), len(data.test)) == (89, 13, 26)
    names = [*data.train.names, *data.val.names, *data.test.names]
    assert names[0] == "tem-00000" and names[127] == "tem-00127" and len(set(names)) == 128
    assert data.info.classes == ("background", "nanoparticle") and data.info.channels == 1
    assert (data.info.pixel_size, data.info.pixel_unit) == (0.12, "nm")
    assert synthetic_tem(pixel_size=0.2).info.pixel_size == 0.2
    assert isinstance(data.train, Split) and data.test[25][0].shape == (256, 256)


def test_image_depends_on_seed_and_index_only() -> None:
    image, mask = synthetic_tem(count=20, seed=3, size=96).train[5]
    again, mask_again = synthetic_tem(count=50, seed=3, size=96).train[5]
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    small = synthetic_tem(count=6, seed=3, size=96)
    assert np.array_equal(small.test[0][0], again) and small.test.names[0] == "tem-00005"
    for other in (draw_tem(96, 4, 5), draw_tem(96, 3, 6)):
        assert not np.array_equal(mask, other.mask)


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counting(size: int, seed: int, index: int, **options: object) -> TemImage:
        drawn.append(index)
        return draw_tem(size, seed, index)

    monkeypatch.setattr(tem, "draw_tem", counting)
    data = synthetic_tem(count=100_000, size=32)
    assert drawn == []
    assert data.val[1][0].shape == (32, 32)
    assert drawn == [70_001]


def test_a_split_travels_to_another_process() -> None:
    split = synthetic_tem(count=5, size=48, difficulty="hard", touching=0.5).train
    there = pickle.loads(pickle.dumps(split))
    assert isinstance(there, DrawnSplit)
    assert np.array_equal(there[1][0], split[1][0])


def test_instances_agree_with_mask_and_records(fields: list[TemImage]) -> None:
    for field in fields[:20]:
        assert np.array_equal(field.instances > 0, field.mask == 1)
        assert [core.label for core in field.cores] == list(range(1, len(field.cores) + 1))
        pixels = np.bincount(field.instances.ravel(), minlength=len(field.cores) + 1)
        inner = np.bincount(field.instances[1:-1, 1:-1].ravel(), minlength=len(field.cores) + 1)
        for core in field.cores:
            assert core.pixels == pixels[core.label] > 0
            assert core.border == (inner[core.label] < pixels[core.label])
            assert core.area_nm2 == pytest.approx(np.pi / 4 * core.diameter_nm**2)
            assert 1.0 <= core.diameter_nm <= 2.8 and 1.0 <= core.shell_nm <= 3.0 and 1.0 <= core.ratio <= 1.15


def test_foreground_and_count_are_the_papers(fields: list[TemImage]) -> None:
    assert np.mean([field.mask.mean() for field in fields]) == pytest.approx(0.097, abs=0.006)
    # About 29 border-free cores per image; the standard error of the mean of 60 Poisson counts is 0.7.
    assert np.mean([sum(not core.border for core in field.cores) for field in fields]) == pytest.approx(29, abs=2.1)


def test_diameters_follow_the_truncated_normal_distribution() -> None:
    drawn = draw_diameters(np.random.default_rng(1), 5000)
    assert drawn.min() >= 1.0 and drawn.max() <= 2.8
    limits = ((1.0 - 1.85) / 0.30, (2.8 - 1.85) / 0.30)
    assert stats.kstest(drawn, stats.truncnorm(*limits, 1.85, 0.30).cdf).pvalue > 0.01
    assert np.mean((drawn > 1.2) & (drawn < 2.5)) == pytest.approx(0.97, abs=0.01)


def test_components_are_the_border_free_cores_when_none_touch(
    apart: list[tuple[np.ndarray, list[CoreTruth]]],
) -> None:
    for instances, cores in apart:
        labels, components = ndimage.label(instances > 0, EIGHT)
        cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        assert components - np.count_nonzero(cut) == sum(not core.border for core in cores)
        assert len({core.cluster for core in cores}) == len(cores)


def test_diameter_from_pixels_is_the_true_one(apart: list[tuple[np.ndarray, list[CoreTruth]]]) -> None:
    whole = [core for _, cores in apart for core in cores if not core.border]
    error = np.array([2 * np.sqrt(core.pixels / np.pi) * 0.12 - core.diameter_nm for core in whole])
    assert len(error) > 4000
    assert abs(error.mean()) < 0.001 and error.std() < 0.02  # nanometres; 0.08 pixels at 15 pixels


def test_leaving_out_cut_cores_biases_the_mean_and_weights_mend_it(
    apart: list[tuple[np.ndarray, list[CoreTruth]]],
) -> None:
    # Exact for diameters N(1.85, 0.30): E[D (W - D)^2] / E[(W - D)^2] with W = 30.72 nm is 1.844 nm.
    diameter = np.array([core.diameter_nm for _, cores in apart for core in cores if not core.border])
    weight = 1 / (30.72 - diameter) ** 2
    mended = np.average(diameter, weights=weight)
    assert mended - diameter.mean() == pytest.approx(1.850 - 1.844, abs=0.001)
    assert mended == pytest.approx(1.850, abs=4 * 0.30 / np.sqrt(len(diameter)))


def test_border_bias_is_in_the_true_statistics() -> None:
    found = particle_statistics([draw_tem(128, seed=2, index=i, touching=0) for i in range(60)])["nanoparticle"]
    # 15.36 nm: 1.837 against 1.850 nm.
    assert found["diameter_unbiased_nm"] - found["diameter_nm"] == pytest.approx(0.013, abs=0.003)


def test_touching_cores_are_counted_too_few(fields: list[TemImage]) -> None:
    of_group = sum(particle_statistics([field])["nanoparticle"]["touching"] for field in fields)
    cores = sum(len(field.cores) for field in fields)
    assert of_group / cores == pytest.approx(0.15, abs=0.03)
    components = sum(int(ndimage.label(field.mask, EIGHT)[1]) for field in fields)
    clusters = sum(len({core.cluster for core in field.cores}) for field in fields)
    assert clusters < cores
    assert components == pytest.approx(clusters, rel=0.01)  # a group cut by the border may fall apart


def test_groups_overlap_by_at_most_fifteen_percent() -> None:
    distances = []
    for index in range(40):
        cores = place_cores(np.random.default_rng([4, index]), 256, 0.12, 1.0, 1.0)  # all in groups, all round
        for first in cores:
            for other in cores:
                if other is not first and other.cluster == first.cluster:
                    apart = np.hypot(first.centre[0] - other.centre[0], first.centre[1] - other.centre[1])
                    distances.append(apart / (first.diameter / 2 + other.diameter / 2))
    nearest = np.array(distances)
    assert nearest.min() >= 0.85 - 1e-9
    assert np.mean(nearest <= 1.0) > 0.7  # the rest are first and third cores of triples


@pytest.mark.parametrize("touching", [0.15, 0.5])
def test_share_of_touching_cores_is_the_one_asked_for(touching: float) -> None:
    grouped = cores = 0
    for index in range(60):
        placed = place_cores(np.random.default_rng([8, index]), 256, 0.12, touching, 1.15)
        members = np.bincount([core.cluster for core in placed])
        grouped += int(members[members > 1].sum())
        cores += len(placed)
    assert grouped / cores == pytest.approx(touching, abs=0.05)


def test_number_of_cores_grows_with_the_field() -> None:
    def mean_cores(size: int, pixel_size: float) -> float:
        rng = np.random.default_rng(7)
        return float(np.mean([len(place_cores(rng, size, pixel_size, 0.0, 1.0)) for _ in range(50)]))

    # 40 cores in (30.72 + 2.8)^2 nm^2, the margin included.
    for size, pixel_size in ((256, 0.08), (256, 0.20), (128, 0.12)):
        wanted = 40 * ((size * pixel_size + 2.8) / 33.52) ** 2
        assert mean_cores(size, pixel_size) == pytest.approx(wanted, abs=4 * np.sqrt(wanted / 50))


def test_grey_of_background_shell_and_core() -> None:
    for index in range(4):
        drawn = draw_tem(256, seed=1, index=index, touching=0)
        rows, columns = np.mgrid[:256, :256]
        film, shell, middle = np.ones((256, 256), bool), np.zeros((256, 256), bool), []
        for core in drawn.cores:
            away = np.hypot(columns - core.centre[0], rows - core.centre[1]) * 0.12
            film &= away > core.diameter_nm / 2 + core.shell_nm + 0.5
            shell |= (away > core.diameter_nm / 2 + 0.4) & (away < core.diameter_nm / 2 + 0.7)
            if not core.border and 1.7 < core.diameter_nm < 2.0:
                middle.append(drawn.image[away < 0.3].mean())
        assert drawn.image[film].mean() == pytest.approx(0.80, abs=0.06)
        assert 0.50 < drawn.image[shell & (drawn.mask == 0)].mean() < 0.72
        assert 0.10 < np.mean(middle) < 0.42


def test_difficulty_changes_the_picture_not_the_cores() -> None:
    def separation(difficulty: str) -> float:
        """Grey of the ring around the cores less grey of the cores, in standard deviations of the ring."""
        values = []
        for index in range(8):
            drawn = draw_tem(192, seed=2, index=index, difficulty=difficulty)
            ring = ndimage.binary_dilation(drawn.mask, iterations=6) & ~ndimage.binary_dilation(
                drawn.mask, iterations=3
            )
            values.append((drawn.image[ring].mean() - drawn.image[drawn.mask == 1].mean()) / drawn.image[ring].std())
        return float(np.mean(values))

    easy, paper, hard = (separation(difficulty) for difficulty in ("easy", "paper", "hard"))
    assert easy > 1.5 * paper
    assert paper > 1.5 * hard > 0.5
    masks = [draw_tem(96, seed=2, difficulty=difficulty).mask for difficulty in ("easy", "paper", "hard")]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[1], masks[2])


def test_statistics_truth_counts_and_averages() -> None:
    split = synthetic_tem(count=10, size=128).train
    assert isinstance(split, DrawnSplit)
    found, images = split.statistics_truth(), [split.truth(i) for i in range(7)]
    assert found["pixel_fraction"]["nanoparticle"] == pytest.approx(np.mean([image.mask for image in images]))
    whole = [core for image in images for core in image.cores if not core.border]
    assert found["nanoparticle"]["complete"] == len(whole)
    assert found["nanoparticle"]["diameter_nm"] == pytest.approx(np.mean([core.diameter_nm for core in whole]))
    assert found["nanoparticle"]["area_nm2"] == pytest.approx(np.mean([core.area_nm2 for core in whole]))
    assert images[0].statistics_truth()["nanoparticle"]["particles"] == len(images[0].cores)
    assert particle_statistics([])["nanoparticle"]["diameter_nm"] is None


def test_all_bad_options_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        synthetic_tem(count=2, size=31, difficulty="hart", seed=-1, pixel_size=0, touching=1.1, ellipticity=0.9)
    keys = ["count", "size", "seed", "difficulty", "pixel_size", "touching", "ellipticity"]
    assert [problem.where.rsplit(".", 1)[1] for problem in caught.value.problems] == keys
    assert caught.value.problems[3].fix == "did you mean 'hard'?"


def test_fast_enough() -> None:
    draw_tem(128)
    start = time.process_time()
    for index in range(20):
        draw_tem(128, index=index)
    assert (time.process_time() - start) / 20 < 3 * 0.030  # 30 ms, times three for a slow machine
