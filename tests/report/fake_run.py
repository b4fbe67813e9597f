"""Writes a small finished run folder, the way a real run leaves it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from autoseg.data.base import DatasetInfo, SegmentationData

CLASSES = ("background", "lath", "cylinder")
CODE = "E=[(0,0,2,0) (0,0,4,3) (0,1,0,0) (0,2,2,2)] D=[0 2 0 2]"
MODELS: tuple[tuple[str, str, int, int | None, float], ...] = (
    ("ed-nas", "finalist", 1_940_000, 1_200_000_000, 0.0),
    ("unet", "baseline", 31_031_810, 54_700_000_000, 0.05),
    ("random", "control", 2_210_000, None, 0.09),
)


class Images:
    """A split in memory: a list of ``(name, image, mask)``."""

    def __init__(self, items: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> None:
        self.names = [name for name, _, _ in items]
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._items[index][1], self._items[index][2]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))


def make_data(count: int = 6, size: int = 48) -> SegmentationData:
    """Grey pictures of one bar and one disc; a strip of the first truth is not counted."""
    items = []
    for index in range(count):
        rng = np.random.default_rng(index)
        mask = np.zeros((size, size), np.uint8)
        start = (int(rng.integers(0, size // 2)), int(rng.integers(0, size // 3)))
        cv2.line(mask, start, (size - 4, int(rng.integers(size // 2, size))), 1, max(4, size // 7))
        centre = (int(rng.integers(size // 4, 3 * size // 4)), int(rng.integers(size // 2, 3 * size // 4)))
        cv2.circle(mask, centre, size // 6, 2, -1)
        grey = np.choose(mask, [90.0, 130.0, 165.0]) + 9 * cv2.GaussianBlur(rng.normal(size=mask.shape), (0, 0), 1.0)
        image = np.clip(cv2.GaussianBlur(grey, (0, 0), 0.8), 0, 255).astype(np.uint8)
        if index == 0:
            mask[:2] = 255
        items.append((f"grain_{index:02d}", image, mask))
    info = DatasetInfo("synthetic-ceramic", 1, CLASSES, ((30, 34, 42), (230, 159, 0), (86, 180, 233)))
    test = Images(items)
    return SegmentationData(info, Images(items[:2]), Images(items[:1]), test)


def confusion(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    counted = truth != 255
    return np.bincount(3 * truth[counted].astype(int) + prediction[counted], minlength=9).reshape(3, 3)


def iou(matrix: np.ndarray) -> list[float | None]:
    hit = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - hit
    return [float(h / u) if u else None for h, u in zip(hit, union, strict=True)]


def make_run(
    folder: Path,
    data: SegmentationData,
    models: Sequence[tuple[str, str, int, int | None, float]] = MODELS,
    epochs: int = 12,
) -> Path:
    """Write all files of a run whose models are worse the larger the last number of their entry is."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"name": "ceramic", "seed": 0, "data": {"dataset": "synthetic-ceramic", "options": {"count": 120}}}
    _write(
        folder / "config.yaml", yaml.safe_dump(config | {"repeats": 2, "space": {"name": "my-space"}}, sort_keys=False)
    )
    stages = [{"name": "search", "seconds": 240}, {"name": f"train {models[0][0]}", "seconds": 180.0}]
    plan = {"stages": stages, "memory_bytes": 2_040_109_466, "notes": ["patch size 48 fits the images"]}
    _write(folder / "plan.json", json.dumps(plan))
    environment = {
        "command": ["autoseg", "run", "my file.yaml"],
        "started": "2026-03-04T10:00:00",
        "packages": {"autoseg": "0.1.0", "torch": "2.9.0", "nni": "3.0"},
        "git": "0df6c59",
        "machine": {"cpu": "8 cores", "gpu": None},
        "seeds": [0, 1],
        "data_hash": "sha256:5f1d",
    }
    _write(folder / "environment.json", json.dumps(environment))
    choices = {"e0_op1": "conv3", "e0_op2": "dw3", "d0": "dw3"}
    architecture = {"space": "my-space", "kwargs": {"blocks": 4, "width": 16}, "choices": choices, "code": CODE}
    _write(folder / "architecture.json", json.dumps(architecture))
    journal: list[dict[str, Any]] = []
    for number in range(1, epochs + 1):
        warm = number <= epochs // 4
        reward = None if warm else 0.6 - 0.4 / number**0.5
        line = {
            "seconds": 4.0 * number,
            "loss": 1.1 / number**0.5,
            "reward": reward,
            "entropy": None if warm else 9.7 - 0.1 * number,
        }
        journal.append({"kind": "epoch", "epoch": number - 1, "phase": "warmup" if warm else "search", **line})
    for rank, (code, miou) in enumerate([(CODE, 0.566), ("E=[(0,0,1,1)] D=[0 0]", 0.549), (CODE, 0.51)]):
        line = {"choices": choices, "code": code, "miou": miou, "params": 1_940_000 - rank}
        journal.append({"kind": "candidate", "rank_source": "greedy" if rank == 0 else "sampled", **line})
    _write(folder / "search/journal.jsonl", "".join(json.dumps(line) + "\n" for line in journal))
    comparison: dict[str, Any] = {"models": {}}
    for order, (name, role, params, flops, noise) in enumerate(models):
        seeds = []
        for seed in (0, 1):
            base = folder / "models" / name / f"seed-{seed}"
            result = _test_result(base, data, name, seed, noise, order)
            _write(base / "test.json", json.dumps(result))
            _write(base / "model.json", json.dumps({"build": {"label": name, "role": role}, "info": asdict(data.info)}))
            _write(base / "history.csv", _history(epochs, noise, seed))
            if seed == 0:
                cost = {"flops": flops, "latency_ms": 3.42 + order, "input": [1, 48, 64], "device": "cpu"}
                _write(base / "cost.json", json.dumps(cost))
            seeds.append({k: v for k, v in result.items() if k not in ("images", "model", "split", "dice_per_class")})
        miou = sum(s["miou"] for s in seeds) / 2
        costs = {"params": params, "flops": flops, "latency_ms": 3.42 + order}
        score = {"seeds": seeds, "miou": miou, "miou_interval": [miou - 0.02, miou + 0.015]}
        comparison["models"][name] = {"role": role} | costs | score
    text = (
        "The search was worth it: ed-nas reaches 79.0 % mIoU, 1.4 points above the baseline unet (95 % interval of the "
        "gain 0.6 to 2.1). It is 3.0 points above the control random (95 % interval of the gain 1.1 to 4.8)."
    )
    verdict = {"text": text, "gain": 0.014, "interval": [0.006, 0.021], "against": "unet", "worth_it": True}
    _write(folder / "comparison.json", json.dumps(comparison | {"verdict": verdict}))
    return folder


OPERATIONS = ("conv3", "dil3", "dw3", "dw5", "pool3")
COSTS = ((0.55, 0.9), (0.58, 1.4), (0.57, 1.7), (0.62, 2.6), (0.60, 2.9), (0.63, 4.8), (0.61, 4.1))
"""mIoU and millions of parameters of the candidates; the first, second, fourth and sixth are the front."""


def make_journal_of_now(folder: Path, epochs: int = 12) -> Path:
    """Replace the journal by one with all columns, and add the Pareto list and a note, as searches write them now."""
    rows: list[dict[str, Any]] = []
    for epoch in range(epochs):
        warm, done = epoch < epochs // 4, epoch / max(1, epochs - 1)
        rows.append({
            "kind": "epoch", "epoch": epoch, "phase": "warmup" if warm else "search", "seconds": 4.0 * (epoch + 1),
            "cpu_seconds": 7.0 * (epoch + 1), "loss": 1.1 / (epoch + 1) ** 0.5,
            "reward": None if warm else 0.3 + 0.3 * done, "best": None if warm else 0.4 + 0.25 * done,
            "median": None if warm else 0.25 + 0.3 * done,
            "entropy": None if warm else 1 - 0.4 * done, "stability": None if warm else 0.5 + 0.45 * done,
            "histogram": histogram(done),
        })  # fmt: skip
    front = []
    for number, (miou, params) in enumerate(COSTS):
        cost = {"params": int(params * 1e6), "flops": int(params * 4e8), "latency_ms": 3 + 2 * params}
        code = CODE.replace("0,0,2", f"0,{number % 2},{number}")
        line = {"choices": {"d0": "dw3"}, "code": code, "miou": miou, **cost}
        rows.append({"kind": "candidate", "number": number, "rank_source": "sampled", **line})
        front.append({**line, "pareto": number in (0, 1, 3, 5)})
    _write(folder / "search/journal.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    front.sort(key=lambda line: -float(line["miou"]))
    limits = {"max_params": 5_000_000, "max_flops": None, "max_latency_ms": None}
    _write(folder / "search/pareto.json", json.dumps({"objective": limits, "candidates": front}))
    _note(folder, "The search has not converged: it is still undecided (entropy 0.85 of 1).")
    return folder


def make_trials(folder: Path, count: int = 20) -> Path:
    """Replace the journal by that of a multi-trial search."""
    rng, rows = np.random.default_rng(0), []
    scores = [0.3 + 0.3 * (1 - 0.9**k) + 0.05 * float(rng.normal()) for k in range(count)]
    for number, miou in enumerate(scores):
        rows.append({
            "kind": "candidate", "number": number, "rank_source": "named" if number == 0 else "sampled", "choices": {},
            "code": f"E=[{number}] D=[0 0]", "miou": miou, "params": 1_000_000 + 50_000 * number, "flops": None,
            "latency_ms": None, "seconds": 6.0 * (number + 1), "cpu_seconds": 9.0 * (number + 1),
            "best": max(scores[: number + 1]), "median": float(np.median(scores[: number + 1])), "entropy": None,
            "stability": None, "histogram": histogram(number / count),
        })  # fmt: skip
    _write(folder / "search/journal.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    (folder / "search/pareto.json").unlink(missing_ok=True)
    return folder


def make_uniform_supernet(folder: Path, operations: Sequence[str], *, watched: bool = False, epochs: int = 4) -> Path:
    """Replace the journal by that of a search that learns nothing while it trains: evolution, or random paths.

    Args:
        folder: The run folder; its architecture tells which decisions there are.
        operations: One candidate each, with this operation everywhere.
        watched: Whether some paths were scored in each epoch.
        epochs: Of the supernet.
    """
    choices = json.loads((folder / "architecture.json").read_text())["choices"]
    scored = dict.fromkeys(("reward", "best", "median"), 0.3 if watched else None)
    nothing = {**scored, "entropy": None, "stability": None, "histogram": {}}
    rows: list[dict[str, Any]] = [
        {"kind": "epoch", "epoch": i, "phase": "search", "seconds": 4.0 * (i + 1), "loss": 1 / (i + 1), **nothing}
        for i in range(epochs)
    ]
    scores = [0.3 + 0.02 * number for number in range(len(operations))]
    for number, operation in enumerate(operations):
        chosen = {label: operation if isinstance(value, str) else value for label, value in choices.items()}
        rows.append({
            "kind": "candidate", "number": number, "rank_source": "sampled", "choices": chosen,
            "code": f"E=[{number}] D=[0 0]", "miou": scores[number], "params": 1_000_000, "flops": None,
            "latency_ms": None, "seconds": 20.0 + number, "best": max(scores[: number + 1]),
            "median": float(np.median(scores[: number + 1])),
        })  # fmt: skip
    _write(folder / "search/journal.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder


def histogram(done: float) -> dict[str, float]:
    """Shares that start equal and end with most on the first operation."""
    weights = [0.2 + 0.5 * done * (place == 0) - 0.125 * done * (place > 0) for place in range(len(OPERATIONS))]
    return dict(zip(OPERATIONS, (round(w, 6) for w in weights), strict=True))


def _note(folder: Path, note: str) -> None:
    content = json.loads((folder / "architecture.json").read_text())
    _write(folder / "architecture.json", json.dumps(content | {"notes": [note], "search_seconds": 50.0}))


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _test_result(base: Path, data: SegmentationData, name: str, seed: int, noise: float, order: int) -> dict[str, Any]:
    """Predict every test image with errors that grow with ``noise`` and, out of order, with the image."""
    images, total = [], np.zeros((3, 3), int)
    for index, (image_name, (_, truth)) in enumerate(zip(data.test.names, data.test, strict=True)):
        rng = np.random.default_rng([seed, order, index])
        field = cv2.GaussianBlur(rng.normal(size=truth.shape), (0, 0), len(truth) / 24)
        bad = field > np.quantile(field, 1 - 0.02 - noise - 0.12 * ((index * 5 + 2) % len(data.test)) / len(data.test))
        prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
        prediction = np.where(bad, (prediction + 1) % 3, prediction).astype(np.uint8)
        matrix = confusion(truth, prediction)
        total += matrix
        score = float(np.mean([v for v in iou(matrix) if v is not None]))
        images.append({"name": image_name, "miou": score, "confusion": matrix.tolist()})
        if seed == 0:
            (base / "predictions").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(base / "predictions" / f"{image_name}.png"), prediction)
    per_class = iou(total)
    dice = [2 * v / (1 + v) for v in per_class if v is not None]
    return {
        "model": name, "seed": seed, "split": "test", "miou": float(np.mean(per_class)), "dice": float(np.mean(dice)),
        "accuracy": float(np.trace(total) / total.sum()), "iou_per_class": per_class, "dice_per_class": dice,
        "train_seconds": 80.0 + 20 * order + seed, "images": images,
    }  # fmt: skip


def _history(epochs: int, noise: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    lines = ["epoch,seconds,lr,loss,val_loss,val_miou"]
    for epoch in range(1, epochs + 1):
        loss = 0.9 * epoch**-0.5 + noise + 0.02 * rng.normal()
        val = f"{loss + 0.05:.4f},{0.85 - noise - 0.5 / epoch + 0.01 * rng.normal():.4f}" if epoch % 2 == 0 else ","
        lines.append(f"{epoch - 1},{2.5 * epoch},0.001,{loss:.4f},{val}")
    return "\n".join(lines) + "\n"
