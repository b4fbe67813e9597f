"""What must be said before runs are compared: where their protocols, data and networks differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoseg.card_folders import without_folders
from autoseg.card_weights import unequal_start
from autoseg.compare_read import FinishedRun
from autoseg.durations import format_duration

_EQUAL_SECONDS = 1.1  # times of a budget are measured; a tenth is no other protocol
_MANY = 3  # runs that are not named one by one
_SHOWN = 44  # characters of a value in a sentence
_NAMES = {
    "epochs": "epochs of a training",
    "seconds": "seconds of a training",
    "batch": "batch size",
    "patch": "patch size",
    "lr": "learning rate",
    "validate_every": "epochs between validations",
    "autoseg": "version of autoseg",
}


def protocol(run: FinishedRun) -> dict[str, Any]:
    """What was agreed on for all networks of a run, and where it was done, by name.

    Args:
        run: A finished run.

    Returns:
        Plain values: the budget, every entry of the training recipe, number of seeds, space and strategy with their
        options, device, versions, and the hash of the data. No folder of a machine.
    """
    recipe = run.plan.get("recipe")
    machine = run.environment.get("machine")
    packages = run.environment.get("packages")
    machine, packages = machine if isinstance(machine, dict) else {}, packages if isinstance(packages, dict) else {}
    found: dict[str, Any] = {"budget": run.config.get("budget")}
    found |= {
        _NAMES.get(key, key.replace("_", " ")): v for key, v in (recipe if isinstance(recipe, dict) else {}).items()
    }
    found["seeds"] = len(run.plan.get("seeds") or [])
    for key in ("space", "strategy"):
        section = run.config.get(key)
        if isinstance(section, dict):
            found[key] = section.get("name")
            found[f"options of the {key}"] = section.get("options") or {}
    found["device"] = machine.get("gpu") or machine.get("device")
    found["processor"] = machine.get("processor")
    found["torch"] = packages.get("torch")
    found[_NAMES["autoseg"]] = run.environment.get("autoseg")
    found["data"] = run.data_hash[:12]
    cleaned: dict[str, Any] = without_folders(found)
    return cleaned


def differences(runs: Sequence[FinishedRun], leave_out: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Entries of the protocol that are not the same in all runs.

    Args:
        runs: Finished runs.
        leave_out: Entries that do not matter.

    Returns:
        For each entry that differs its value by run name. Lengths in seconds within a tenth of each other count as
        equal, as a budget gives such. A run that does not know an entry is not compared by it.
    """
    protocols = {run.name: protocol(run) for run in runs}
    keys = dict.fromkeys(key for entries in protocols.values() for key in entries if key not in leave_out)
    found = {}
    for key in keys:
        values = {name: entries[key] for name, entries in protocols.items() if key in entries}
        if not _all_equal(key, list(values.values())):
            found[key] = values
    return found


def warnings(runs: Sequence[FinishedRun]) -> list[str]:
    """Sentences on what does not compare, the gravest first.

    Args:
        runs: Finished runs.

    Returns:
        Nothing when all runs have one protocol, each data set was the same wherever it has one name, no run is the
        copy of another, each name stands for one network, and all of these began from scratch.
    """
    found = []
    by_dataset: dict[str, list[FinishedRun]] = {}
    by_hash: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_dataset.setdefault(run.dataset, []).append(run)
        by_hash.setdefault(run.data_hash, []).append(run)
    for dataset, members in by_dataset.items():
        differing = differences(members)
        if differing:
            what = "have not the same images or protocol" if "data" in differing else "have not the same protocol"
            found.append(f"Not comparable: the runs on {dataset} {what}. They differ in {_listed(differing)}.")
    for members in by_hash.values():
        names = sorted({run.dataset for run in members})
        if len(names) > 1 and members[0].data_hash:
            found.append(
                f"Not independent: {' and '.join(names)} are the same images and masks, and count as several data sets."
            )
    for members in by_dataset.values():
        found += _copies(members)
    found += _other_networks(runs)
    found += _unequal_starts(runs)
    across = differences([members[0] for members in by_dataset.values()], leave_out=("data",))
    if len(by_dataset) > 1 and across:
        found.append(
            "Not comparable across data sets: the protocols differ, so a difference between two columns has several "
            f"causes; ranks within one column hold. The runs differ in {_listed(across)}."
        )
    return found


def _all_equal(key: str, values: Sequence[Any]) -> bool:
    if key in (_NAMES["seconds"], "budget") and all(isinstance(v, (int, float)) and v > 0 for v in values):
        return bool(max(values) <= _EQUAL_SECONDS * min(values))
    return all(value == values[0] for value in values)


def _copies(runs: Sequence[FinishedRun]) -> list[str]:
    """Runs on one data set that have the same seeds and scores, and so say one thing twice."""
    alike: list[list[FinishedRun]] = []
    for run in runs:
        group = next((group for group in alike if _same_scores(group[0], run)), None)
        if group is None:
            alike.append([run])
        else:
            group.append(run)
    return [
        f"Not independent: {' and '.join(run.name for run in group)} have the same seeds and scores on "
        f"{group[0].dataset}, as copies have. They count as {len(group)} runs, and are no repetition."
        for group in alike
        if len(group) > 1
    ]


def _same_scores(one: FinishedRun, other: FinishedRun) -> bool:
    """Whether all networks that both have scored agree, seed by seed."""
    common = [name for name in one.models if name in other.models and one.models[name].miou is not None]
    return bool(common) and all(_scored(one, name) == _scored(other, name) for name in common)


def _scored(run: FinishedRun, model: str) -> list[tuple[Any, ...]]:
    seeds = run.models[model].seeds
    return sorted((tuple(seed.get(key) for key in ("seed", "miou", "dice", "accuracy")) for seed in seeds), key=str)


def _unequal_starts(runs: Sequence[FinishedRun]) -> list[str]:
    """Runs in which some networks began from pretrained weights."""
    told: dict[str, list[str]] = {}
    for run in runs:
        if sentence := unequal_start(run.weights):
            told.setdefault(sentence, []).append(run.name)
    return [
        sentence if len(names) == len(runs) else f"{sentence.removesuffix('.')} (in {' and '.join(names)})."
        for sentence, names in told.items()
    ]


def _other_networks(runs: Sequence[FinishedRun]) -> list[str]:
    """Names that stand for different hand-designed networks in different runs."""
    known: dict[str, dict[str, str]] = {}
    for run in runs:
        for entry in run.baselines:
            if entry.get("as") in run.models:
                options = json.dumps(without_folders(entry.get("options") or {}), sort_keys=True)
                known.setdefault(str(entry["as"]), {})[run.name] = f"{entry.get('name')} {options}"
    return [
        f"Not comparable: {label} is not the same network in all runs ({_by_value(values)})."
        for label, values in known.items()
        if len(set(values.values())) > 1
    ]


def _listed(differing: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{key} ({_by_value({n: _shown(key, v) for n, v in values.items()})})" for key, values in differing.items()
    )


def _by_value(values: Mapping[str, str]) -> str:
    """Such as "40 in a, 20 in the others"; the value that most runs have comes last."""
    runs: dict[str, list[str]] = {}
    for name, value in values.items():
        runs.setdefault(value, []).append(name)
    *few, (most, names) = sorted(runs.items(), key=lambda item: len(item[1]))
    told = [f"{value} in {' and '.join(members)}" for value, members in few]
    return ", ".join([*told, f"{most} in {' and '.join(names) if len(names) < _MANY else 'the others'}"])


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "none"
    if key in (_NAMES["seconds"], "budget") and isinstance(value, (int, float)):
        return format_duration(round(value))
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
