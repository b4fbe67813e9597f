"""What an experiment file says beyond types: short forms, plugins and their options, combinations.

Everything here works on the raw content and skips what is malformed, because the schema reports that; so
all problems of a file come out together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from inspect import Parameter
from typing import Any

from autoseg import plugin_options, registry
from autoseg.config_yaml import Document, Key
from autoseg.durations import format_duration, parse_duration
from autoseg.errors import Problem, UserError, did_you_mean

IGNORED = 255
"""What the batches of a training have for a pixel that does not count, whatever the masks have."""
CONTROL = "random"
"""The baseline that is not a plugin: a random architecture of the space that was searched."""


def expand(data: dict[str, Any], train_keys: Collection[str]) -> None:
    """Write short forms out in place.

    ``space: ednas`` becomes ``{name: ednas}``, ``data: {images: a, masks: b}`` the data set ``folder`` with
    these options, a key under ``train`` that is not in ``train_keys`` an option of the space; sections left
    empty are dropped so that their defaults apply.

    Example:
        >>> data = {"data": {"path": "a"}, "space": "ednas", "train": {"epochs": 3, "layers": 5}}
        >>> expand(data, ["epochs"])
        >>> data["data"], data["train"]
        ({'dataset': 'folder', 'options': {'path': 'a'}}, {'epochs': 3, 'space_options': {'layers': 5}})
    """
    for key in [key for key, value in data.items() if value is None]:
        del data[key]
    dataset = data.get("data")
    if isinstance(dataset, str):
        data["data"] = {"dataset": dataset}
    elif isinstance(dataset, dict) and "dataset" not in dataset:
        own = dataset.get("options")
        options = {**(own if isinstance(own, dict) else {}), **{k: v for k, v in dataset.items() if k != "options"}}
        if {"images", "masks", "path"} & options.keys():
            data["data"] = {"dataset": "folder", "options": options}
    for section in ("space", "strategy"):
        _expand_name(data, section)
    train = data.get("train")
    if isinstance(train, dict):
        _expand_name(train, "loss")
        _expand_name(train, "schedule")
        extra = {key: train.pop(key) for key in list(train) if key not in train_keys}
        if train.get("space_options") is None:
            train.pop("space_options", None)
        if extra and isinstance(train.setdefault("space_options", {}), dict):
            train["space_options"] |= extra
    baselines = data.get("baselines")
    for index in range(len(baselines) if isinstance(baselines, list) else 0):
        _expand_name(baselines, index)
    for part in _sections(data):
        if "options" in part and part["options"] is None:
            del part["options"]


def check_plugins(document: Document, defaults: dict[str, str], train_keys: Collection[str]) -> list[Problem]:
    """Look up every plugin that the file names and compare its options; make ``Path`` options absolute.

    Args:
        document: The file, expanded; its path options are replaced in place.
        defaults: Names of the space, strategy, loss and schedule that stand for a missing one.
        train_keys: Keys of ``train``, for suggestions.
    """
    data, problems = document.data, list[Problem]()
    known: dict[str, Parameter] | None = None
    for kind, key, field in (
        ("dataset", ("data",), "dataset"),
        ("space", ("space",), "name"),
        ("strategy", ("strategy",), "name"),
        ("loss", ("train", "loss"), "name"),
    ):
        found, options = _check_plugin(document, kind, key, field, defaults.get(kind))
        problems += found
        if kind == "space":
            known = options
    baselines = data.get("baselines")
    for index in range(len(baselines) if isinstance(baselines, list) else 0):
        problems += _check_baseline(document, index)
    problems += _check_schedule(document, defaults["schedule"])
    problems += _check_ignored(document, ("train", "loss", "options"))
    return problems + _check_space_options(document, known, train_keys)


def check_combinations(document: Document, default_repeats: int) -> list[Problem]:
    """Settings that exclude each other, and labels used twice."""
    data, problems = document.data, list[Problem]()
    train = data.get("train")
    train = train if isinstance(train, dict) else {}
    if train.get("epochs") is not None and train.get("seconds") is not None:
        what = "train.epochs and train.seconds are both given"
        problems.append(Problem(what, document.where("train", "seconds"), "keep the one that shall end the training"))
    budget, seconds = _seconds(data.get("budget")), _seconds(train.get("seconds"))
    repeats = data.get("repeats", default_repeats)
    if budget and seconds and type(repeats) is int and repeats >= 1 and seconds * repeats > budget:
        what = (
            f"training the winner takes {format_duration(seconds * repeats)} ({repeats} x train.seconds), "
            f"more than the budget of {format_duration(budget)}"
        )
        problems.append(Problem(what, document.where("train", "seconds"), "raise the budget or lower train.seconds"))
    return problems + _check_labels(document)


def default_label(name: str) -> str:
    """What a baseline is called when the file does not say: its name without the distribution.

    Example:
        >>> default_label("some-package:unet")
        'unet'
    """
    return name.rpartition(":")[2]


def value_at(data: Any, key: Key) -> Any:
    """The value at ``key``, or None when some part of the way is missing.

    Example:
        >>> value_at({"baselines": [{"name": "unet"}]}, ("baselines", 0, "name")), value_at({}, ("train", "lr"))
        ('unet', None)
    """
    for part in key:
        if isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def _check_plugin(
    document: Document, kind: str, key: Key, field: str, default: str | None = None
) -> tuple[list[Problem], dict[str, Parameter] | None]:
    """Problems of one plugin choice, and the options it has (None when it cannot be loaded)."""
    section = value_at(document.data, key)
    section = {} if section is None else section
    names_alone = kind == "model" and document.installed_only  # to load a family of networks takes seconds
    if isinstance(section, dict) and default is not None:
        section.setdefault(field, default)  # only options are given, as by --set space.options.width=4
    name = section.get(field) if isinstance(section, dict) else None
    if not isinstance(name, str):
        return [], None
    try:
        plugin = registry.get(kind, name)
        known = None if names_alone else registry.options_of(plugin.load())
    except UserError as error:
        slip = any(problem.fix.startswith("did you mean") for problem in error.problems)
        if document.installed_only and not slip:
            return [], None
        return [replace(problem, where=document.where(*key, field)) for problem in error.problems], None
    given = section.get("options", {})
    if not isinstance(given, dict) or known is None:
        return [], known
    inside = (*key, "options")
    problems = plugin_options.check_against(known, given, partial(document.where, *inside))
    if given:
        section["options"] = plugin_options.resolve_paths(known, given, partial(document.base, *inside))
    return problems, known


def _check_schedule(document: Document, default: str) -> list[Problem]:
    """The schedule of the learning rate, which is no plugin, and its options."""
    section = value_at(document.data, ("train", "schedule"))
    if not isinstance(section, dict):
        return []
    name, options = section.setdefault("name", default), section.get("options", {})
    if not isinstance(name, str) or not isinstance(options, dict):
        return []
    from autoseg.train.schedules import make_schedule

    def where(option: str) -> str:
        return document.where("train", "schedule", *(("name",) if option == "name" else ("options", option)))

    try:
        make_schedule(name, options, where)
    except UserError as error:
        return list(error.problems)
    return []


def _check_ignored(document: Document, inside: Key) -> list[Problem]:
    """The loss's ``ignore_index`` is that of the targets, also in the parts of a sum."""
    options, problems = value_at(document.data, inside), list[Problem]()
    for name, value in options.items() if isinstance(options, dict) else ():
        if name == "ignore_index" and value != IGNORED:
            what = f"the pixels that do not count are {IGNORED} in the targets of every training, not {value}"
            problems.append(Problem(what, document.where(*inside, name), "leave it out"))
        elif isinstance(value, dict):
            problems += _check_ignored(document, (*inside, name))
    return problems


def _check_baseline(document: Document, index: int) -> list[Problem]:
    baseline = document.data["baselines"][index]
    if not isinstance(baseline, dict) or baseline.get("name") != CONTROL:
        return _check_plugin(document, "model", ("baselines", index), "name")[0]
    if not baseline.get("options"):
        return []
    what = f"'{CONTROL}' is a random architecture of the space and takes no options"
    return [Problem(what, document.where("baselines", index, "options"), "remove the options")]


def _check_space_options(
    document: Document, known: dict[str, Parameter] | None, train_keys: Collection[str]
) -> list[Problem]:
    """Extra keys of ``train`` must be options of the space."""
    given = value_at(document.data, ("train", "space_options"))
    if not isinstance(given, dict):
        return []
    problems = []
    inside = ("train", "space_options")
    for option, value in given.items():
        place = document.where(*inside, option)
        if known is None:  # the space itself is a problem; only a slip of the pen can be told apart
            fix = did_you_mean(option, train_keys)
            if fix.startswith("did you mean"):
                problems.append(Problem(f"unknown key '{option}'", place, fix))
        elif option in known or plugin_options.accepts_anything(known):
            where = partial(document.where, *inside)
            problems += plugin_options.check_against(known, {option: value}, where, complete=False)
        else:
            what = f"'{option}' is neither a setting of train nor an option of the space"
            problems.append(Problem(what, place, did_you_mean(option, {*train_keys, *known})))
    if known:
        resolved = plugin_options.resolve_paths(known, given, partial(document.base, *inside))
        document.data["train"]["space_options"] = resolved
    return problems


def _check_labels(document: Document) -> list[Problem]:
    baselines = document.data.get("baselines")
    labels: list[tuple[int, str, str]] = []
    for index, item in enumerate(baselines if isinstance(baselines, list) else []):
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            label = item.get("as")
            labels.append((index, item["name"], label if isinstance(label, str) else default_label(item["name"])))
    counts = Counter(label for _, _, label in labels)
    problems, seen = list[Problem](), set[str]()
    for index, name, label in labels:
        place = document.where("baselines", index)
        fix = f"give it a label of its own: {{name: {name}, as: {label}-2}}"
        if label in seen:
            problems.append(Problem(f"{counts[label]} baselines are called '{label}'", place, fix))
        elif label == CONTROL and name != CONTROL:
            problems.append(Problem(f"the label '{CONTROL}' belongs to the control", place, fix))
        seen.add(label)
    return problems


def _expand_name(holder: Any, key: Any) -> None:
    """Write ``name`` out as ``{name: name}`` and drop an empty section."""
    if isinstance(holder, dict) and holder.get(key) is None:
        holder.pop(key, None)
    elif isinstance(holder[key], str):
        holder[key] = {"name": holder[key]}


def _sections(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Every section that may have ``options``."""
    keys = (("data",), ("space",), ("strategy",), ("train", "loss"), ("train", "schedule"))
    found = [value_at(data, key) for key in keys]
    baselines = data.get("baselines")
    found += baselines if isinstance(baselines, list) else []
    return [section for section in found if isinstance(section, dict)]


def _seconds(value: Any) -> float | None:
    try:
        return parse_duration(value)
    except UserError:
        return None
