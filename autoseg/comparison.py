"""comparison.json: all models of a run side by side, and the verdict, read from their test results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autoseg.card_weights import pretrained_weights, unequal_start
from autoseg.runfolder import RunFolder, read_json
from autoseg.train.verdict import ModelResult, interval, verdict


def compare(folder: RunFolder, labels: list[str], seeds: list[int]) -> dict[str, Any]:
    """Collect the test results of all trainings and judge them.

    Args:
        folder: A run folder in which every model has a test.json for every seed; models whose training failed,
            as failures.json says, are left out.
        labels: Models in the order of the report.
        seeds: Training seeds.

    Returns:
        The content of comparison.json: fractions 0..1, None for what is not known. Times and latencies are
        measurements; everything else is a function of configuration, data and seeds. What the search noted in
        architecture.json, such as that it has not converged or that one of several failed, is said in the verdict,
        and so is that some networks did not begin from scratch.

    Raises:
        UserError: A test.json is missing or damaged, or architecture.json is damaged.
    """
    failures = read_json(folder.failures) if folder.failures.exists() else []
    failed = {failure["label"] for failure in failures if failure["kind"] == "training"}
    labels = [x for x in labels if x not in failed or all((folder.model(x, s) / "test.json").exists() for s in seeds)]
    models: dict[str, Any] = {}
    results: dict[str, ModelResult] = {}
    for label in labels:
        tests = [read_json(folder.model(label, seed) / "test.json") for seed in seeds]
        counts = np.array([[image["confusion"] for image in test["images"]] for test in tests], np.int64)
        result = ModelResult(tests[0]["role"], counts, tuple(seeds))
        results[label] = result
        cost_file = folder.model(label, seeds[0]) / "cost.json"
        costs = read_json(cost_file) if cost_file.exists() else {}
        models[label] = {
            "role": tests[0]["role"],
            "params": tests[0]["params"],
            "flops": costs.get("flops"),
            "latency_ms": costs.get("latency_ms"),
            "seeds": [
                {key: test[key] for key in ("seed", "miou", "dice", "accuracy", "iou_per_class", "train_seconds")}
                for test in tests
            ],
            "miou": _number(result.miou),
            "miou_interval": [_number(end) for end in interval(result)],
        }
    notes = _search_notes(folder) + [
        f"Left out because its training failed: {label}." for label in sorted(failed - set(labels))
    ]
    unequal = unequal_start({label: _weights(folder, label, seeds[0]) for label in models})
    notes += [unequal] if unequal else []
    return {"models": models, "verdict": verdict(results, notes=notes).to_json()}


def _weights(folder: RunFolder, label: str, seed: int) -> str | None:
    """Name of the pretrained weights from which a network began; None for none."""
    description = folder.model(label, seed) / "model.json"
    found = read_json(description) if description.exists() else {}
    build = found.get("build") if isinstance(found, dict) else None
    return pretrained_weights(build) if isinstance(build, dict) else None


def _search_notes(folder: RunFolder) -> list[str]:
    """The notes of the search; none where no architecture was searched."""
    if not folder.architecture.exists():
        return []
    found = read_json(folder.architecture)
    notes = found.get("notes") if isinstance(found, dict) else None
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _number(value: float) -> float | None:
    """JSON has no NaN: a score over no labelled pixel is null."""
    return None if math.isnan(value) else value
