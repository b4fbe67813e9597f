"""The card of a trained model: what it is, what it was trained on and how, what it reaches, and where not to trust it.

After M. Mitchell et al., Model Cards for Model Reporting, FAT* 2019. The facts are the ``card`` of ``model.json``;
``card.html`` beside it shows them. A card names no folder of the machine on which it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoseg.card_folders import without_folders
from autoseg.card_limits import limits
from autoseg.card_weights import licence_of
from autoseg.train.score_intervals import score_intervals

_PACKAGES = ("torch", "pytorch-lightning", "nni", "segmentation-models-pytorch", "timm")
_SCORES = ("miou", "dice", "accuracy", "iou_per_class", "dice_per_class")


def made_with(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a training ran on, as far as it is told to others.

    Args:
        environment: From :func:`autoseg.environment.describe_environment`, or environment.json.

    Returns:
        Versions and machine; no command line and no folder.

    Example:
        >>> made_with({"autoseg": "0.1.0", "command": ["run", "/home/x"], "packages": {"torch": "2.9.0", "pip": "25"}})
        {'autoseg': '0.1.0', 'python': None, 'git': None, 'packages': {'torch': '2.9.0'}, 'machine': {}}
    """
    packages = environment.get("packages") or {}
    return {
        **{key: environment.get(key) for key in ("autoseg", "python", "git")},
        "packages": {name: packages[name] for name in _PACKAGES if packages.get(name)},
        "machine": dict(environment.get("machine") or {}),
    }


def new_card(
    model: Mapping[str, Any], test: Mapping[str, Any], data: Mapping[str, Any], made: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of one training, as far as it is known when it has been tested.

    Args:
        model: The content of model.json.
        test: The content of test.json.
        data: From :func:`autoseg.data.facts.data_facts`.
        made: From :func:`made_with`.

    Returns:
        Plain values; fractions 0..1, None for what is not known.
    """
    build, training = model["build"], model["training"]
    architecture = build.get("architecture") or {}
    confusions = np.array([image["confusion"] for image in test["images"]], np.int64)
    options = {**(architecture.get("kwargs") or {}), **(build.get("options") or {})}
    card = {
        "model": {
            "label": build["label"],
            "role": build["role"],
            "name": build.get("model"),
            "space": architecture.get("space"),
            "code": architecture.get("code"),
            "options": options,
            "params": test["params"],
            "flops": None,
            "latency_ms": None,
        },
        "data": {key: value for key, value in data.items() if key != "notes"}
        | {"notes": list(data.get("notes") or [])},
        "normalisation": model["normalisation"],
        "protocol": {
            "recipe": training["recipe"],
            "seed": training["seed"],
            "best_epoch": training["best_epoch"],
            "best_miou": training["best_miou"],
            "seconds": training["seconds"],
            "notes": list(training.get("notes") or []),
        },
        "made": dict(made),
        "test": {
            "images": len(test["images"]),
            **{key: test[key] for key in _SCORES},
            "intervals": score_intervals(confusions),
        },
        "comparison": None,
        "limits": limits(data, training, len(test["images"]), iou=test["iou_per_class"]),
        "licence": licence_of(build),
        "usage": f"autoseg predict models/{build['label']}/seed-{training['seed']} IMAGE.png --out masks",
    }
    cleaned: dict[str, Any] = without_folders(card)
    return cleaned


def compared(card: Mapping[str, Any], comparison: Mapping[str, Any], cost: Mapping[str, Any]) -> dict[str, Any]:
    """The card when the run is over: with the other seeds, its place among the others, and what it costs.

    Args:
        card: From :func:`new_card`.
        comparison: The content of comparison.json.
        cost: The content of cost.json of this network; empty when it was not measured.

    Returns:
        A new card; the same but for the costs where the network is not in the comparison.
    """
    label = card["model"]["label"]
    model = {**card["model"], "flops": cost.get("flops"), "latency_ms": cost.get("latency_ms")}
    model |= {"image": cost.get("image") or cost.get("input"), "latency_device": cost.get("device")}
    entry = (comparison.get("models") or {}).get(label)
    if entry is None:
        return {**card, "model": model}
    scores = [other["miou"] for other in comparison["models"].values() if other["miou"] is not None]
    verdict = comparison.get("verdict") or {}
    finalist = card["model"]["role"] == "finalist"
    told = [str(note) for note in verdict.get("notes") or []] if finalist else []
    seeds = len(entry["seeds"])
    found = limits(card["data"], card["protocol"], card["test"]["images"], seeds, card["test"]["iou_per_class"])
    test = card["test"]
    if seeds == 1:  # one number has one interval, that of the comparison
        test = {**test, "intervals": {**test["intervals"], "miou": entry["miou_interval"]}}
    result: dict[str, Any] = without_folders(
        {
            **card,
            "model": model,
            "test": test,
            "comparison": {
                "seeds": seeds,
                "miou": entry["miou"],
                "miou_interval": entry["miou_interval"],
                "place": None if entry["miou"] is None else 1 + sum(score > entry["miou"] for score in scores),
                "models": len(comparison["models"]),
                "verdict": verdict.get("text") if finalist else None,
            },
            "limits": [*told, *found],
        }
    )
    return result
