from __future__ import annotations

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from autoseg.data.base import Split
from autoseg.data.synthetic import membranes
from autoseg.data.synthetic.drawn import DrawnSplit
from autoseg.data.synthetic.membranes import (
    DIFFICULTIES,
    MembranesImage,
    draw_membranes,
    membrane_statistics,
    synthetic_membranes,
)
from autoseg.data.synthetic.staining import Stain, stain
from autoseg.data.synthetic.tissue import Section, Tissue
from autoseg.errors import UserError


@pytest.fixture(scope="module")
def images() -> list[MembranesImage]:
    return [draw_membranes(192, seed=4, index=i, sections=1) for i in range(30)]


def membrane_iou(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sum((one == 0) & (other == 0)) / np.sum((one == 0) | (other == 0)))


def test_whole_stacks_come_into_one_split() -> None:
    data = synthetic_membranes(count=118, size=32, sections=4)
    assert (len(data.train), len(data.val), len(data.test)) == (84, 12, 22)
    stacks = []
    for split, start in ((data.train, 0), (data.val, 84), (data.test, 96)):
        assert isinstance(split, DrawnSplit) and isinstance(split, Split)
        assert list(split.names) == [f"membranes-{start + i:05d}" for i in range(len(split))]
        truths = [split.truth(i) for i in range(len(split))]
        assert [4 * truth.stack + truth.section for truth in truths] == list(range(start, start + len(split)))
        stacks.append({truth.stack for truth in truths})
    assert [len(s) for s in stacks] == [21, 3, 6]
    assert not stacks[0] & stacks[1] and not (stacks[0] | stacks[1]) & stacks[2]
    assert data.info.classes == ("membrane", "cell") and (data.info.pixel_size, data.info.pixel_unit) == (4.0, "nm")


def test_the_smallest_set_has_three_stacks() -> None:
    data = synthetic_membranes(count=9, size=32, sections=4)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 4, 1)
    with pytest.raises(UserError, match="9 or more"):
        synthetic_membranes(count=8, size=32, sections=4)


def test_image_depends_on_seed_index_and_sections_only() -> None:
    image, mask = synthetic_membranes(count=20, seed=3, size=64).train[5]
    again, mask_again = synthetic_membranes(count=50, seed=3, size=64).train[5]
    assert image.dtype == mask.dtype == np.uint8
    assert np.array_equal(image, again) and np.array_equal(mask, mask_again)
    for other in (draw_membranes(64, 4, 5), draw_membranes(64, 3, 6), draw_membranes(64, 3, 5, sections=3)):
        assert not np.array_equal(mask, other.mask)


def test_nothing_is_drawn_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counting(size: int, seed: int, index: int, **options: object) -> MembranesImage:
        drawn.append(index)
        return draw_membranes(size, seed, index)

    monkeypatch.setattr(membranes, "draw_membranes", counting)
    data = synthetic_membranes(count=100_000, size=32)
    assert drawn == []
    assert data.val[1][0].shape == (32, 32)
    assert drawn == [70_001]


def test_a_split_travels_to_another_process() -> None:
    split = synthetic_membranes(count=12, size=48, difficulty="hard").train
    assert np.array_equal(pickle.loads(pickle.dumps(split))[1][0], split[1][0])


def test_instances_are_the_components_of_the_cells(images: list[MembranesImage]) -> None:
    for drawn in images:
        labels, components = ndimage.label(drawn.mask)
        assert components == len(drawn.cells)
        assert [cell.label for cell in drawn.cells] == list(range(1, components + 1))
        assert len(np.unique(np.stack([labels, drawn.instances]).reshape(2, -1), axis=1).T) == components + 1
        inner = np.bincount(drawn.instances[1:-1, 1:-1].ravel(), minlength=components + 1)
        for cell in drawn.cells:
            own = drawn.instances == cell.label
            assert cell.pixels == own.sum() and cell.border == (inner[cell.label] < cell.pixels)


def test_a_cell_is_one_piece_unless_the_border_cuts_it(images: list[MembranesImage]) -> None:
    extra = complete = 0
    for index, drawn in enumerate(images):
        inside = drawn.mask == 1
        section = Tissue(192, 4, index).cut(0)
        for piece in drawn.cells:
            assert set(np.unique(section.cells[drawn.instances == piece.label])) == {piece.cell}
        assert {piece.cell for piece in drawn.cells} == set(np.unique(section.cells[inside]))
        inner = [piece.cell for piece in drawn.cells if not piece.border]
        assert len(inner) == len(set(inner))
        complete += len(inner)
        extra += len(drawn.cells) - len({piece.cell for piece in drawn.cells})
    assert complete > 80
    assert extra < 0.05 * sum(len(drawn.cells) for drawn in images)


@pytest.mark.parametrize("warped", [False, True])
def test_membrane_width_from_the_distance_transform(warped: bool) -> None:
    errors = []
    for stack in range(20):
        tissue = Tissue(192, 1, stack)
        section = tissue.cut(0, warped=warped)
        membrane = section.depth < tissue.width / 2
        inward = ndimage.distance_transform_edt(membrane)  # to the nearest cell pixel: half a pixel beyond the edge
        errors.append(2 * float(np.median(inward[section.middle < 0.5])) - 0.5 - tissue.width)
    assert np.abs(errors).max() < 0.7
    assert abs(np.mean(errors)) < 0.35


def test_length_times_width_is_the_area_of_the_membranes(images: list[MembranesImage]) -> None:
    ratio = [np.sum(drawn.mask == 0) / (drawn.length * drawn.width) for drawn in images]
    # Rounded corners add a few percent, overlap where three membranes meet takes some away.
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.05)
    assert np.std(ratio) < 0.05


def test_about_a_fifth_is_membrane(images: list[MembranesImage]) -> None:
    fraction = [float(np.mean(drawn.mask == 0)) for drawn in images]
    assert 0.18 < np.mean(fraction) < 0.25
    assert min(fraction) > 0.10 and max(fraction) < 0.36


def test_neighbouring_sections_resemble_each_other() -> None:
    near, far, other = [], [], []
    for stack in range(6):
        masks = [draw_membranes(128, 2, 12 * stack + z, sections=12).mask for z in (0, 1, 10)]
        near.append(membrane_iou(masks[0], masks[1]))
        far.append(membrane_iou(masks[0], masks[2]))
        other.append(membrane_iou(masks[0], draw_membranes(128, 2, 12 * (stack + 6), sections=12).mask))
    assert np.mean(near) > np.mean(far) + 0.15
    assert np.mean(near) > 0.4
    assert np.mean(other) < 0.2  # another stack is no twin: 1 / 9 is the chance of two independent fifths


def test_a_cell_keeps_its_number_through_the_stack() -> None:
    first, second = (Tissue(128, 0, 3).cut(z) for z in (0, 1))
    assert np.mean(first.cells == second.cells) > 0.85
    moved = np.hypot(*(second.points - first.points).T)
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(2.0, abs=0.4)


@pytest.fixture(scope="module")
def plain() -> tuple[Tissue, Section, Stain]:
    tissue = Tissue(192, 0, 1)
    look = replace(DIFFICULTIES["paper"], faded=0, organelles=0, patches=0, vesicles=0)
    return tissue, tissue.cut(0), look


@pytest.mark.parametrize(("what", "amount"), [("organelles", 1.0), ("patches", 1.0), ("vesicles", 5.0)])
def test_distractors_lie_in_the_cells(plain: tuple[Tissue, Section, Stain], what: str, amount: float) -> None:
    tissue, section, look = plain
    without = stain(np.random.default_rng(0), tissue, section, replace(look, texture=0.0))
    with_them = stain(np.random.default_rng(0), tissue, section, replace(look, texture=0.0, **{what: amount}))
    cell = section.depth >= tissue.width / 2 + 1
    darker = (without - with_them)[cell] > 0.1
    assert 0.005 < darker.mean() < 0.5


def test_faded_gaps_are_in_the_picture_only(plain: tuple[Tissue, Section, Stain]) -> None:
    tissue, section, look = plain
    without, faded = (
        stain(np.random.default_rng(0), tissue, section, replace(look, faded=share)) for share in (0.0, 0.3)
    )
    brighter = faded - without > 0.1
    assert 0.01 < brighter[section.depth < tissue.width / 2].mean() < 0.4
    assert not np.any(brighter[section.depth > tissue.width])


def test_difficulty_changes_the_picture_not_the_mask() -> None:
    def separation(difficulty: str) -> float:
        """Grey of cells less grey of membranes, in standard deviations of the cells."""
        values = []
        for index in range(12):
            drawn = draw_membranes(96, 5, index, difficulty=difficulty, sections=1)
            cell, membrane = drawn.image[drawn.mask == 1], drawn.image[drawn.mask == 0]
            values.append((cell.mean() - membrane.mean()) / cell.std())
        return float(np.mean(values))

    easy, paper, hard = (separation(difficulty) for difficulty in ("easy", "paper", "hard"))
    assert easy > 1.5 * paper
    assert paper > 1.5 * hard > 0.3
    masks = [draw_membranes(64, 5, 1, difficulty=difficulty).mask for difficulty in ("easy", "paper", "hard")]
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[1], masks[2])


def test_statistics_truth_counts_and_averages() -> None:
    split = synthetic_membranes(count=12, size=192).train
    assert isinstance(split, DrawnSplit)
    found, truths = split.statistics_truth(), [split.truth(i) for i in range(len(split))]
    assert len(truths) == 4
    assert found["pixel_fraction"]["cell"] == pytest.approx(np.mean([truth.mask for truth in truths]))
    assert found["membrane"]["length"] == pytest.approx(sum(truth.length for truth in truths))
    assert found["membrane"]["width"] == pytest.approx(truths[0].width)  # one stack, one width
    complete = [cell.pixels for truth in truths for cell in truth.cells if not cell.border]
    assert found["cell"]["complete"] == len(complete) > 0
    assert found["cell"]["area"] == pytest.approx(np.mean(complete))
    assert membrane_statistics([])["cell"] == {"pieces": 0, "complete": 0, "area": None}


def test_all_bad_options_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        synthetic_membranes(count=2, size=31, difficulty="papr", seed=-1, sections=0)
    keys = ["count", "size", "seed", "difficulty", "sections"]
    assert [problem.where.rsplit(".", 1)[1] for problem in caught.value.problems] == keys
    with pytest.raises(UserError, match="sections is 'four'"):
        draw_membranes(64, sections="four")  # type: ignore[arg-type]


def test_fast_enough() -> None:
    draw_membranes(128)
    start = time.process_time()
    for index in range(20):
        draw_membranes(128, index=index)
    assert (time.process_time() - start) / 20 < 3 * 0.030  # 30 ms, times three for a slow machine
