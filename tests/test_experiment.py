"""A whole run through the Python API: what it leaves, and that it can be repeated."""

from __future__ import annotations

import csv
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_experiment import EXPERIMENT, MODELS, SEEDS, comparison_of, timeless

import autoseg
from autoseg.config import load_config
from autoseg.data.base import SegmentationData
from autoseg.errors import UserError
from autoseg.experiment import Run
from autoseg.plan import Plan
from autoseg.prepare import Prepared, prepare
from autoseg.progress import Progress
from autoseg.search.architecture import Architecture

pytestmark = pytest.mark.usefixtures("one_core")
TEST_IMAGES = ["ceramic-00010", "ceramic-00011"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_run_folder_has_every_file_of_the_contract_and_nothing_else(tiny_folder: Path) -> None:
    expected = {"config.yaml", "environment.json", "plan.json", "architecture.json", "comparison.json", "report.html"}
    expected |= {"log.txt", ".lock", "architecture.svg", "architecture.png"}
    searched = ("journal.jsonl", "state.safetensors", "pool.json", "pareto.json", "found.json")
    expected |= {f"search/{name}" for name in searched}
    for model in MODELS:
        for seed in SEEDS:
            place = f"models/{model}/seed-{seed}"
            expected |= {
                f"{place}/{name}"
                for name in ("weights.safetensors", "model.json", "card.html", "history.csv", "test.json")
            }
        expected |= {f"models/{model}/seed-0/predictions/{name}.png" for name in TEST_IMAGES}
        expected.add(f"models/{model}/seed-0/cost.json")
    found = {str(path.relative_to(tiny_folder)) for path in tiny_folder.rglob("*") if path.is_file()}
    assert found == expected


def test_config_plan_and_environment_say_how_it_was_made(tiny_folder: Path) -> None:
    assert load_config(tiny_folder / "config.yaml") == load_config(EXPERIMENT)
    plan, environment = read(tiny_folder / "plan.json"), read(tiny_folder / "environment.json")
    assert plan["models"] == list(MODELS) and plan["seeds"] == environment["seeds"] == list(SEEDS)
    assert (plan["recipe"]["epochs"], plan["recipe"]["batch"], plan["recipe"]["patch"]) == (2, 4, 32)
    assert plan["seconds"] > 0 and plan["memory_bytes"] > 0 and plan["workers"] == 1
    assert plan["stages"][0]["name"] == "search" and plan["stages"][-1]["name"] == "report"
    assert environment["autoseg"] == autoseg.__version__
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert len(environment["data_hash"]) == 64 and environment["machine"]["device"] == "cpu"


def test_comparison_has_the_keys_types_and_ranges_of_the_contract(tiny_run: Run) -> None:
    comparison = read(tiny_run.folder / "comparison.json")
    assert comparison == tiny_run.comparison
    assert {name: model["role"] for name, model in comparison["models"].items()} == {
        "searched": "finalist",
        "unet": "baseline",
        "random": "control",
    }
    fractions: list[float | None] = []
    for model in comparison["models"].values():
        assert set(model) == {"role", "params", "flops", "latency_ms", "seeds", "miou", "miou_interval"}
        assert type(model["params"]) is int and model["params"] > 0
        assert type(model["flops"]) is int and model["flops"] > 0
        assert type(model["latency_ms"]) is float and model["latency_ms"] > 0
        low, high = model["miou_interval"]
        assert low <= model["miou"] <= high
        fractions += [model["miou"], low, high]
        assert [seed["seed"] for seed in model["seeds"]] == list(SEEDS)
        for seed in model["seeds"]:
            assert set(seed) == {"seed", "miou", "dice", "accuracy", "iou_per_class", "train_seconds"}
            assert seed["train_seconds"] > 0 and len(seed["iou_per_class"]) == 3
            fractions += [seed["miou"], seed["dice"], seed["accuracy"], *seed["iou_per_class"]]
    assert all(value is None or 0 <= value <= 1 for value in fractions) and None not in fractions[:3]
    verdict = comparison["verdict"]
    assert {"text", "gain", "interval", "against", "worth_it"} <= set(verdict)
    assert -1 <= verdict["interval"][0] <= verdict["gain"] <= verdict["interval"][1] <= 1
    assert verdict["against"] == "unet" and type(verdict["worth_it"]) is bool
    assert tiny_run.verdict == verdict["text"] and len(verdict["text"]) > 40


def scores_of(confusion: np.ndarray) -> tuple[list[float | None], list[float | None], float]:
    """IoU and Dice per class (None for a class that occurs nowhere) and accuracy, by their definitions."""
    iou: list[float | None] = []
    dice: list[float | None] = []
    for index in range(len(confusion)):
        hit, true, said = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
        iou.append(float(hit / (true + said - hit)) if true + said else None)
        dice.append(float(2 * hit / (true + said)) if true + said else None)
    return iou, dice, float(np.trace(confusion) / confusion.sum())


def mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def test_comparison_can_be_recomputed_from_the_test_results(tiny_folder: Path) -> None:
    comparison = read(tiny_folder / "comparison.json")
    for name, model in comparison["models"].items():
        for row in model["seeds"]:
            test = read(tiny_folder / "models" / name / f"seed-{row['seed']}" / "test.json")
            assert (test["model"], test["seed"], test["split"]) == (name, row["seed"], "test")
            assert [image["name"] for image in test["images"]] == TEST_IMAGES
            per_image = [np.array(image["confusion"]) for image in test["images"]]
            assert [counts.sum() for counts in per_image] == [32 * 32, 32 * 32]
            iou, dice, accuracy = scores_of(sum(per_image))
            assert row["iou_per_class"] == pytest.approx(iou) and test["dice_per_class"] == pytest.approx(dice)
            assert row["miou"] == pytest.approx(mean(iou)) and row["dice"] == pytest.approx(mean(dice))
            assert row["accuracy"] == pytest.approx(accuracy)
            for image, counts in zip(test["images"], per_image, strict=True):
                assert image["miou"] == pytest.approx(mean(scores_of(counts)[0]))
        assert model["miou"] == pytest.approx(mean([row["miou"] for row in model["seeds"]]))
    models = comparison["models"]
    assert comparison["verdict"]["gain"] == pytest.approx(models["searched"]["miou"] - models["unet"]["miou"])


def test_predictions_are_the_masks_that_were_scored(tiny_folder: Path) -> None:
    truth = dict(zip(TEST_IMAGES, (mask for _, mask in prepare(load_config(EXPERIMENT)).data.test), strict=True))
    for name in MODELS:
        images = read(tiny_folder / f"models/{name}/seed-0/test.json")["images"]
        for image in images:
            mask = cv2.imread(
                str(tiny_folder / f"models/{name}/seed-0/predictions/{image['name']}.png"), cv2.IMREAD_UNCHANGED
            )
            assert mask.dtype == np.uint8 and mask.shape == (32, 32)
            counts = np.bincount(3 * truth[image["name"]].astype(int).ravel() + mask.ravel(), minlength=9)
            assert counts.reshape(3, 3).tolist() == image["confusion"]


def test_history_has_one_row_per_epoch(tiny_folder: Path) -> None:
    for name in MODELS:
        with (tiny_folder / f"models/{name}/seed-1/history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["epoch", "seconds", "lr", "loss", "val_loss", "val_miou"]
        assert [row["epoch"] for row in rows] == ["0", "1"]
        assert float(rows[0]["seconds"]) < float(rows[1]["seconds"])
        assert all(math.isfinite(float(row["loss"])) and 0 <= float(row["val_miou"]) <= 1 for row in rows)


def test_the_journal_lists_epochs_and_candidates(tiny_folder: Path) -> None:
    rows = [json.loads(line) for line in (tiny_folder / "search/journal.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [0, 1]
    assert [row["phase"] for row in epochs] == ["warmup", "search"]
    assert epochs[0]["reward"] is None and 0 <= epochs[1]["reward"] <= 1 and 0 <= epochs[1]["entropy"] <= 1
    candidates = [row for row in rows if row["kind"] == "candidate"]
    assert {row["rank_source"] for row in candidates} == {"greedy", "sampled"}
    best = max(candidates, key=lambda row: (row["miou"], -row["params"]))
    assert read(tiny_folder / "architecture.json")["choices"] == best["choices"]


def test_the_architecture_rebuilds_as_the_trained_network(tiny_run: Run) -> None:
    value = read(tiny_run.folder / "architecture.json")
    assert {"space", "kwargs", "choices", "autoseg", "code"} <= set(value)
    assert (value["space"], value["autoseg"]) == ("ednas", autoseg.__version__)
    assert value["kwargs"] == {"width": 4, "layers": 2, "blocks": 2}
    assert Architecture.read(tiny_run.folder / "architecture.json") == tiny_run.architecture
    network = autoseg.build(tiny_run.folder / "architecture.json", in_channels=1, num_classes=3)
    assert sum(p.numel() for p in network.parameters()) == tiny_run.comparison["models"]["searched"]["params"]
    network.load_state_dict(load_file(tiny_run.folder / "models/searched/seed-0/weights.safetensors"))


def test_the_loaded_model_gives_the_tested_predictions(tiny_folder: Path) -> None:
    data = prepare(load_config(EXPERIMENT)).data
    seed = max(SEEDS, key=lambda s: read(tiny_folder / f"models/searched/seed-{s}/test.json")["val_miou"])
    segmenter = autoseg.load(tiny_folder)
    assert segmenter.description.spec.label == "searched" and segmenter.description.training["seed"] == seed
    assert segmenter.info.classes == ("background", "lath", "cylinder")
    for k, image in enumerate(read(tiny_folder / f"models/searched/seed-{seed}/test.json")["images"]):
        picture, truth = data.test[k]
        mask = segmenter.predict(picture)
        counts = np.bincount(3 * truth.astype(int).ravel() + mask.ravel(), minlength=9)
        assert counts.reshape(3, 3).tolist() == image["confusion"]
    wide = segmenter.predict(np.zeros((45, 70), np.uint8))
    assert wide.shape == (45, 70) and wide.dtype == np.uint8


def test_no_file_of_a_run_is_a_pickle(tiny_folder: Path) -> None:
    for path in tiny_folder.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:4]
            assert not head.startswith((b"PK", b"\x80")), f"{path} may be a pickle"
    for path in tiny_folder.rglob("weights.safetensors"):
        length = int.from_bytes(path.read_bytes()[:8], "little")
        header = json.loads(path.read_bytes()[8 : 8 + length])
        assert all(tensor["dtype"] in ("F32", "I64") for key, tensor in header.items() if key != "__metadata__")


def test_the_report_holds_the_verdict_and_loads_nothing(tiny_run: Run) -> None:
    page = (tiny_run.folder / "report.html").read_text()
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    assert tiny_run.verdict in text
    assert 'src="http' not in page and "<link" not in page
    assert all(name in page for name in MODELS)


def test_the_log_tells_the_stages(tiny_folder: Path) -> None:
    log = (tiny_folder / "log.txt").read_text()
    assert "Searching ednas with enas" in log and "unet, seed 1: best validation mIoU" in log
    assert "ERROR" not in log


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """The same experiment again: it fails of our own fault near its end, and is resumed; with its log until then."""

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    folder = tmp_path_factory.mktemp("runs") / "second"
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("autoseg.experiment.compare", fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            autoseg.run(EXPERIMENT, out=folder)
    assert not (folder / "comparison.json").exists()
    log = (folder / "log.txt").read_text()
    resumed = autoseg.run(EXPERIMENT, out=folder, resume=True)
    assert resumed is not None
    return resumed, log


def test_an_error_of_ours_goes_into_the_log(second: tuple[Run, str]) -> None:
    assert "ERROR autoseg.experiment: the run failed" in second[1]
    assert "Traceback" in second[1] and "RuntimeError: out of luck" in second[1]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny_run: Run, second: tuple[Run, str]) -> None:
    again = second[0]
    assert timeless(again.comparison) == timeless(tiny_run.comparison)
    assert again.architecture == tiny_run.architecture
    for name in MODELS:
        for seed in SEEDS:
            place = f"models/{name}/seed-{seed}/weights.safetensors"
            one, two = load_file(tiny_run.folder / place), load_file(again.folder / place)
            assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    weights = [load_file(tiny_run.folder / f"models/unet/seed-{s}/weights.safetensors") for s in SEEDS]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_odd_sides_are_padded_and_predicted_at_their_own_size(odd_images: Path, tmp_path: Path) -> None:
    config = {**EXPERIMENT, "data": {"path": str(odd_images)}, "repeats": 1, "baselines": []}
    run = autoseg.run(config, out=tmp_path / "odd", overrides=["strategy.options.epochs=1", "train.epochs=1"])
    assert run is not None
    test = read(run.folder / "models/searched/seed-0/test.json")
    assert test["images"]
    for image in test["images"]:
        mask = cv2.imread(
            str(run.folder / f"models/searched/seed-0/predictions/{image['name']}.png"), cv2.IMREAD_UNCHANGED
        )
        assert mask.shape == (37, 53)
        assert np.sum(image["confusion"]) == 37 * 53  # every pixel counts once, none of the padding
    assert run.comparison["verdict"]["against"] is None or run.comparison["verdict"]["against"] != "searched"


@pytest.fixture
def odd_images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(8):
        mask = np.zeros((37, 53), np.uint8)
        cv2.circle(mask, (int(rng.integers(10, 43)), 18), 8, 1, -1)
        image = np.clip(80 + 70 * mask + rng.normal(0, 9, mask.shape), 0, 255).astype(np.uint8)
        for kind, picture in (("images", image), ("masks", mask)):
            (tmp_path / "odd-images" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "odd-images" / kind / f"p{index}.png"), picture)
    return tmp_path / "odd-images"


def test_a_dry_run_plans_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[Plan, Prepared]] = []
    assert autoseg.run(EXPERIMENT, dry_run=True, on_plan=lambda plan, prepared: seen.append((plan, prepared))) is None
    assert seen[0][0].models == list(MODELS) and len(seen[0][1].data.train) == 9
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_finished_run_changes_nothing(tiny_run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_run.folder.glob("models/*/*/*")}
    again = autoseg.run(EXPERIMENT, out=tiny_run.folder, resume=True)
    assert again is not None and timeless(again.comparison) == comparison_of(tiny_run.folder)
    assert {path: path.stat().st_mtime_ns for path in tiny_run.folder.glob("models/*/*/*")} == before


def test_reading_the_data_counts_towards_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed: list[float] = []

    def slow(data: SegmentationData) -> dict[str, Any]:
        monkeypatch.setattr("autoseg.experiment.time.monotonic", lambda: 1000.0)
        return {"hash": "5f1d"}

    def plan(prepared: Prepared, spent: float) -> Plan:
        elapsed.append(spent)
        raise UserError("enough")

    monkeypatch.setattr("autoseg.experiment.data_facts", slow)
    monkeypatch.setattr("autoseg.experiment.make_plan", plan)
    with pytest.raises(UserError, match="enough"):
        autoseg.run(EXPERIMENT, out=tmp_path / "run", began=900.0)
    assert elapsed == [100.0]


def test_a_budget_that_is_too_short_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too short") as caught:
        autoseg.run(EXPERIMENT, out=tmp_path / "run", overrides=["budget=1s"], progress=Progress())
    assert "more time" in caught.value.problems[0].fix
    assert not (tmp_path / "run").exists()
