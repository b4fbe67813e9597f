"""The checks that the folder data set runs: every bad input is named with its cure, all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from autoseg.data import checks
from autoseg.data.checks import absent_classes, check_pairs, inspect_pair
from autoseg.data.folder import folder
from autoseg.data.pairing import Pair, find_pairs, list_some
from autoseg.errors import Problem, UserError

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)
MASK = (IMAGE % 3).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(pixels).save(path)
    return path


def _tree(root: Path, count: int = 6, mask: np.ndarray = MASK) -> Path:
    for index in range(count):
        _save(root / "images" / f"i{index}.png", IMAGE)
        _save(root / "masks" / f"i{index}.png", mask)
    return root


def _refused(root: Path, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        folder(path=root, **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert all(problem.fix for problem in caught.value.problems)
    return caught.value


def _only(root: Path, **options: object) -> Problem:
    error = _refused(root, **options)
    assert len(error.problems) == 1, str(error)
    return error.problems[0]


def test_missing_folders(tmp_path: Path) -> None:
    assert _only(tmp_path / "nowhere").where == str(tmp_path / "nowhere")
    error = _refused(tmp_path)
    assert [problem.where for problem in error.problems] == [str(tmp_path / "images"), str(tmp_path / "masks")]
    with pytest.raises(UserError, match=r"either path .* or both images and masks"):
        folder(images=tmp_path)
    with pytest.raises(UserError, match="either path"):
        folder(path=tmp_path, images=tmp_path, masks=tmp_path)
    with pytest.raises(UserError, match="either path"):
        folder()


def test_no_images_names_what_was_found_instead(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.dm3").touch()
    (tmp_path / "images" / "b.dm3").touch()
    problem = _only(tmp_path)
    assert problem.what == "no images" and "found only 2 .dm3 files, convert those" in problem.fix


def test_unpaired_files(tmp_path: Path) -> None:
    _tree(tmp_path)
    for index in range(12):
        _save(tmp_path / "images" / f"extra{index:02d}.png", IMAGE)
    _save(tmp_path / "masks" / "orphan.png", MASK)
    images, masks = _refused(tmp_path).problems
    assert images.what.startswith("12 images without a mask: extra00.png, extra01.png")
    assert images.what.endswith("extra09.png and 2 more")
    assert masks.what == "1 mask without an image: orphan.png" and masks.where == str(tmp_path / "masks")


def test_masks_with_a_suffix_in_the_name(tmp_path: Path) -> None:
    for name in "abc":
        _save(tmp_path / "images" / f"{name}.png", IMAGE)
        _save(tmp_path / "masks" / f"{name}_mask.png", MASK)
    assert "rename a_mask.png to a.png" in _refused(tmp_path).problems[0].fix


def test_duplicate_stems(tmp_path: Path) -> None:
    _tree(tmp_path)
    _save(tmp_path / "images" / "i0.bmp", IMAGE)
    problem = _only(tmp_path)
    assert problem.what == "files share one name with different endings: i0.bmp, i0.png"


def test_size_difference(tmp_path: Path) -> None:
    _tree(tmp_path)
    _save(tmp_path / "masks" / "i3.png", MASK[:5])
    problem = _only(tmp_path)
    assert problem.where.endswith("i3.png") and "image is 8x6" in problem.what and "is 8x5" in problem.what


def test_values_outside_the_classes(tmp_path: Path) -> None:
    _tree(tmp_path)
    wrong = MASK.copy()
    wrong[0, :5] = [7, 7, 7, 9, 255]
    _save(tmp_path / "masks" / "i2.png", wrong)
    problem = _only(tmp_path, classes=["a", "b", "c"])
    assert problem.what == "mask values outside the 3 classes: 7 (3 px), 9 (1 px)"
    assert problem.where == str(tmp_path / "masks" / "i2.png") and "255 for pixels to ignore" in problem.fix


def test_indices_that_start_at_one(tmp_path: Path) -> None:
    _tree(tmp_path, count=12, mask=MASK + 1)
    problems = _refused(tmp_path, classes=["a", "b", "c"]).problems
    assert "subtract 1" in problems[0].fix
    assert len(problems) == 11 and problems[-1].what == "and 2 more masks with values outside the classes"


def test_jpeg_and_colour_masks(tmp_path: Path) -> None:
    _tree(tmp_path)
    for name in ("i0", "i1"):
        (tmp_path / "masks" / f"{name}.png").unlink()
        _save(tmp_path / "masks" / f"{name}.jpg", MASK)
    _save(tmp_path / "masks" / "i2.png", np.dstack([MASK, MASK, 2 * MASK]))
    jpeg, colour = _refused(tmp_path).problems
    assert "JPEG" in jpeg.what and jpeg.where == f"{tmp_path}/masks/i0.jpg, {tmp_path}/masks/i1.jpg"
    assert "in colour" in colour.what and colour.where.endswith("i2.png") and "class indices" in colour.fix


def test_grey_saved_as_rgb_is_accepted(tmp_path: Path) -> None:
    _tree(tmp_path, mask=np.dstack([MASK] * 3))
    assert folder(path=tmp_path).info.num_classes == 3


def test_truncated_image_and_mask_of_one_pair(tmp_path: Path) -> None:
    _tree(tmp_path)
    for kind in ("images", "masks"):
        path = tmp_path / kind / "i4.png"
        path.write_bytes(path.read_bytes()[:-20])
    text = str(_refused(tmp_path))
    assert f"{tmp_path}/images/i4.png" in text and f"{tmp_path}/masks/i4.png" in text and "truncated" in text


def test_mixed_channels_and_pixel_types(tmp_path: Path) -> None:
    _tree(tmp_path)
    _save(tmp_path / "images" / "i1.png", np.dstack([IMAGE] * 3))
    _save(tmp_path / "images" / "i2.png", IMAGE.astype(np.uint16) * 200)
    channels, types = _refused(tmp_path).problems
    assert channels.what == "mixed channels: 5 grey, 1 RGB" and channels.where == f"RGB: {tmp_path}/images/i1.png"
    assert types.what == "mixed pixel types: 5 uint8, 1 uint16" and types.where.endswith("i2.png")


def test_binary_masks_of_0_and_255(tmp_path: Path) -> None:
    _tree(tmp_path, mask=np.where(MASK == 2, 255, 0).astype(np.uint8))
    for options in ({}, {"classes": ["matrix", "crack"]}):
        data = folder(path=tmp_path, **options)  # type: ignore[arg-type]
        assert data.info.num_classes == 2
        assert any("255 is read as class 1" in note for note in data.notes)
        assert np.array_equal(data.train[0][1], MASK == 2)
    assert "255 means 'ignore' here" in _only(tmp_path, classes=["a", "b", "c"]).fix
    (tmp_path / "dataset.yaml").write_text("classes: [matrix, crack]\nignore_index: 255\n")
    problem = _only(tmp_path)
    assert problem.what == "all masks together hold only class 0" and "no ignore_index in dataset.yaml" in problem.fix


def test_binary_masks_with_another_ignore_value(tmp_path: Path) -> None:
    mask = np.where(MASK == 2, 255, 0).astype(np.uint8)
    mask[0, 0] = 100
    _tree(tmp_path, mask=mask)
    data = folder(path=tmp_path, ignore_index=100)
    assert (data.info.num_classes, data.info.ignore_index) == (2, 100)
    assert np.unique(data.train[0][1]).tolist() == [0, 1, 100]


def test_one_class_only(tmp_path: Path) -> None:
    _tree(tmp_path, mask=np.zeros((6, 8), np.uint8))
    assert _only(tmp_path).what == "all masks together hold only class 0"


def test_grey_levels_instead_of_indices(tmp_path: Path) -> None:
    _tree(tmp_path, mask=MASK * 100)
    problem = _only(tmp_path)
    assert problem.what == "mask values 0, 100, 200 leave most class indices unused"
    assert "0 to 2" in problem.fix and "all 201 classes" in problem.fix


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_images(tmp_path: Path, count: int) -> None:
    assert _only(_tree(tmp_path, count=count)).what == f"only {count} image(s) with a mask"


def test_empty_split_and_missing_train(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for kind in ("images", "masks"):
            for index in range(3):
                _save(tmp_path / kind / split / f"{index}.png", MASK)
    (tmp_path / "images" / "val").mkdir()
    (tmp_path / "masks" / "val").mkdir()
    problem = _only(tmp_path)
    assert problem.what == "no images" and problem.where == str(tmp_path / "images" / "val")
    assert "remove the folder val" in problem.fix
    (tmp_path / "images" / "val").rmdir()
    assert _only(tmp_path).what == "folder does not exist"
    (tmp_path / "masks" / "val").rmdir()
    (tmp_path / "images" / "train").rename(tmp_path / "images" / "training")
    (tmp_path / "masks" / "train").rename(tmp_path / "masks" / "training")
    assert _only(tmp_path).what == "there is test but no train"


def test_option_problems_come_with_the_file_problems(tmp_path: Path) -> None:
    _tree(tmp_path, count=8)
    _save(tmp_path / "images" / "lonely.png", IMAGE)
    _save(tmp_path / "masks" / "i0.png", MASK[:5])
    _save(tmp_path / "masks" / "i1.png", MASK + 40)
    (tmp_path / "images" / "i2.png").write_bytes(b"text")
    (tmp_path / "dataset.yaml").write_text("classes: [{name: a, color: [0, 0, 999]}]\npixel_size: 3 parsec\n")
    text = str(
        _refused(tmp_path, classes=["a", "b", "c"], ignore_index=300, pixel_size="12", groups="(", val_fraction=0.0)
    )
    for part in (
        "ignore_index is 300",
        "'12' is no pixel size",
        "dataset.yaml, classes.0.color.2",
        "'(' is no regular expression",
        "val_fraction is 0.0",
        "lonely.png",
        "i0.png is 8x5",
        "40 (16 px), 41 (16 px), 42 (16 px)",
        "images/i2.png: file is no image",
    ):
        assert part in text, text


def test_group_in_two_split_folders(tmp_path: Path) -> None:
    for split, name in (("train", "s1_a"), ("train", "s2_a"), ("val", "s3_a"), ("test", "s1_b")):
        for kind in ("images", "masks"):
            _save(tmp_path / kind / split / f"{name}.png", MASK)
    assert folder(path=tmp_path).train.names == ["s1_a", "s2_a"]
    problem = _only(tmp_path, groups=r"^(s\d)_")
    assert problem.what == "groups lie in more than one split: s1 (test, train)"


def test_facts_and_absent_classes(tmp_path: Path) -> None:
    pairs = [
        Pair("a", _save(tmp_path / "a.png", IMAGE), _save(tmp_path / "ma.png", MASK)),
        Pair("b", _save(tmp_path / "b.png", IMAGE), _save(tmp_path / "mb.png", np.minimum(MASK, 1))),
    ]
    assert inspect_pair(pairs[0]).values == {0: 16, 1: 16, 2: 16}
    checked = check_pairs(pairs, classes=None, ignore_index=255)
    assert (checked.channels, checked.num_classes, checked.binary, checked.problems) == (1, 3, False, [])
    assert checked.facts["b"].values == {0: 16, 1: 32}
    names = ["matrix", "crack", "pore"]
    notes = absent_classes({"train": pairs[1:], "val": pairs[:1]}, checked, names, 255)
    assert notes == ["No train mask has a pixel of: pore; they cannot be learned."]


def test_every_file_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path)
    seen: list[Path] = []

    def counting(read: Callable[[Path], np.ndarray]) -> Callable[[Path], np.ndarray]:
        def wrapped(path: Path) -> np.ndarray:
            seen.append(path)
            return read(path)

        return wrapped

    monkeypatch.setattr(checks, "read_image", counting(checks.read_image))
    monkeypatch.setattr(checks, "read_mask", counting(checks.read_mask))
    folder(path=tmp_path)
    assert len(seen) == len(set(seen)) == 12


def test_pairing_ignores_hidden_and_other_files(tmp_path: Path) -> None:
    _tree(tmp_path, count=3)
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "images" / "Thumbs.db").touch()
    pairing = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert not pairing.problems and [pair.name for pair in pairing.parts["all"]] == ["i0", "i1", "i2"]
    assert list_some([str(i) for i in range(12)]).endswith("9 and 2 more")
