"""comparison.json from test results made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.comparison import compare
from autoseg.errors import UserError
from autoseg.runfolder import RunFolder, write_json

KEYS = {"role", "params", "flops", "latency_ms", "seeds", "miou", "miou_interval"}


def write_result(
    folder: RunFolder, label: str, role: str, seed: int, confusions: list[list[list[int]]], miou: float | None
) -> None:
    write_json(
        folder.model(label, seed) / "test.json",
        {
            "model": label, "role": role, "seed": seed, "split": "test", "miou": miou, "dice": 0.7, "accuracy": 0.8,
            "iou_per_class": [0.5, None], "dice_per_class": [0.6, None], "train_seconds": 10.0 + seed, "best_epoch": 3,
            "val_miou": 0.4, "params": 1000 + len(label),
            "images": [{"name": f"i{k}", "miou": 0.5, "confusion": counts} for k, counts in enumerate(confusions)],
        },
    )  # fmt: skip


def counts(right: int, wrong: int) -> list[list[int]]:
    """Two classes of equal size; IoU of both is ``right / (right + 2 wrong)`` when as many err on either side."""
    return [[right, wrong], [wrong, right]]


def make(tmp_path: Path) -> RunFolder:
    """A finalist with IoU 0.6 and 0.8 in its two seeds, a baseline with 0.5 in both; two equal images."""
    folder = RunFolder(tmp_path)
    for seed, (right, wrong) in enumerate([(6, 2), (8, 1)]):
        write_result(folder, "searched", "finalist", seed, [counts(right, wrong)] * 2, right / (right + 2 * wrong))
        write_result(folder, "unet", "baseline", seed, [counts(4, 2)] * 2, 0.5)
    return folder


def strict(value: Any) -> Any:
    """Through JSON that has no NaN."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_numbers_by_hand(tmp_path: Path) -> None:
    folder = make(tmp_path)
    write_json(folder.model("unet", 0) / "cost.json", {"flops": 123, "latency_ms": 4.5, "input": [1, 8, 8]})
    found = strict(compare(folder, ["searched", "unet"], [0, 1]))
    assert list(found) == ["models", "verdict"] and list(found["models"]) == ["searched", "unet"]
    searched, unet = found["models"].values()
    assert set(searched) == set(unet) == KEYS
    assert searched["role"] == "finalist" and unet["role"] == "baseline"
    assert searched["params"] == 1008 and unet["params"] == 1004
    assert (searched["flops"], searched["latency_ms"]) == (None, None)
    assert (unet["flops"], unet["latency_ms"]) == (123, 4.5)
    assert searched["miou"] == pytest.approx(0.7) and unet["miou"] == pytest.approx(0.5)
    assert searched["miou_interval"] == pytest.approx([0.6, 0.8])  # one of the two seeds is drawn, the images are equal
    assert unet["miou_interval"] == pytest.approx([0.5, 0.5])
    assert searched["seeds"][1] == {
        "seed": 1, "miou": 0.8, "dice": 0.7, "accuracy": 0.8, "iou_per_class": [0.5, None], "train_seconds": 11.0,
    }  # fmt: skip
    verdict = found["verdict"]
    assert verdict["gain"] == pytest.approx(0.2) and verdict["interval"] == pytest.approx([0.1, 0.3])
    assert verdict["against"] == "unet" and verdict["worth_it"] is True
    assert "searched reaches 70.0 % mIoU" in verdict["text"]


def test_pretrained_weights_are_said_in_the_verdict(tmp_path: Path) -> None:
    folder = make(tmp_path)
    described = {"build": {"label": "unet", "options": {"weights": "/home/me/resnet18.pth"}}}
    write_json(folder.model("unet", 0) / "model.json", described)
    write_json(folder.model("searched", 0) / "model.json", {"build": {"label": "searched", "options": {}}})
    verdict = compare(folder, ["searched", "unet"], [0, 1])["verdict"]
    said = "No equal comparison: unet (resnet18.pth) began with pretrained weights, the others from scratch."
    assert verdict["notes"] == [said] and verdict["text"].endswith(said)
    write_json(folder.model("unet", 0) / "model.json", {"build": {"label": "unet", "options": {"weights": None}}})
    assert compare(folder, ["searched", "unet"], [0, 1])["verdict"]["notes"] == []


def test_scores_are_pooled_over_the_images_not_averaged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    # Image one: 9 of 10 right; image two: all 90 of class 0 wrong. Pooled: IoU 5 / (5 + 90 + 0) and 4 / (4 + 1 + 90).
    write_result(folder, "searched", "finalist", 0, [[[5, 0], [1, 4]], [[0, 90], [0, 0]]], 0.0)
    found = compare(folder, ["searched"], [0])
    assert found["models"]["searched"]["miou"] == pytest.approx((5 / 96 + 4 / 95) / 2)


def test_only_the_named_models_and_seeds_are_read(tmp_path: Path) -> None:
    folder = make(tmp_path)
    found = compare(folder, ["unet", "searched"], [1])
    assert list(found["models"]) == ["unet", "searched"]
    assert found["models"]["searched"]["miou"] == pytest.approx(0.8)
    assert [seed["seed"] for seed in found["models"]["searched"]["seeds"]] == [1]


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    nothing = [[0, 0], [0, 0]]
    for label, role in (("searched", "finalist"), ("unet", "baseline")):
        write_result(folder, label, role, 0, [nothing, nothing], None)
    found = strict(compare(folder, ["searched", "unet"], [0]))
    for model in found["models"].values():
        assert model["miou"] is None and model["miou_interval"] == [None, None]
        assert model["seeds"][0]["miou"] is None
    assert found["verdict"]["gain"] is None and found["verdict"]["interval"] is None
    assert found["verdict"]["worth_it"] is False


def test_a_finalist_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    found = strict(compare(make(tmp_path), ["searched"], [0, 1]))
    assert found["verdict"]["against"] is None and found["verdict"]["gain"] is None


def test_a_result_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder.model("unet", 1) / "test.json").unlink()
    with pytest.raises(UserError, match=r"unet/seed-1/test\.json: is missing"):
        compare(folder, ["searched", "unet"], [0, 1])


def test_what_the_search_noted_is_said_in_the_verdict(tmp_path: Path) -> None:
    folder = make(tmp_path)
    before = compare(folder, ["searched", "unet"], [0, 1])["verdict"]
    note = "The search has not converged: it is still undecided (entropy 0.97 of 1)."
    write_json(folder.architecture, {"space": "ednas", "choices": {}, "notes": [note]})
    after = strict(compare(folder, ["searched", "unet"], [0, 1]))["verdict"]
    assert before["notes"] == [] and after["notes"] == [note]
    assert after["text"] == f"{before['text']} {note}"
    assert (after["gain"], after["worth_it"]) == (before["gain"], before["worth_it"])


@pytest.mark.parametrize("content", [{"space": "ednas"}, {"notes": None}, {"notes": "text"}, []])
def test_an_architecture_without_notes_changes_nothing(tmp_path: Path, content: Any) -> None:
    folder = make(tmp_path)
    write_json(folder.architecture, content)
    assert compare(folder, ["searched", "unet"], [0, 1])["verdict"]["notes"] == []


def test_only_trainings_are_left_out(tmp_path: Path) -> None:
    folder = make(tmp_path)
    kinds = {"training": ("unet", "unet, seed 1"), "search": ("search, seed 1", "search, seed 1")}
    write_json(
        folder.failures,
        [
            {"job": job, "kind": kind, "label": label, "message": f"{job} failed", "log": ""}
            for kind, (label, job) in {**kinds, "candidate": ("", "candidate 3")}.items()
        ],
    )
    (folder.model("unet", 1) / "test.json").unlink()
    found = compare(folder, ["searched", "unet"], [0, 1])
    assert list(found["models"]) == ["searched"]
    assert found["verdict"]["notes"] == ["Left out because its training failed: unet."]
