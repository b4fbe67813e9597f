"""Options that come from the training split: the same in plan, workers, models and a resumed run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_experiment import EXPERIMENT

import autoseg
from autoseg.config import load_config
from autoseg.data.base import DatasetInfo, SegmentationData, default_colors
from autoseg.errors import UserError
from autoseg.job import Job
from autoseg.jobs import run_job
from autoseg.losses.training import class_fractions, completed
from autoseg.plan import Plan, infer_recipe
from autoseg.prepare import load_data, prepare
from autoseg.progress import Progress
from autoseg.terminal.commands import train_one


class Masks:
    """A split of given masks."""

    def __init__(self, *rows: list[int]) -> None:
        self.names: Sequence[str] = [str(i) for i in range(len(rows))]
        self._masks = [np.array([row], np.uint8) for row in rows]
        self.read = 0

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.read += 1
        return self._masks[index], self._masks[index]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))


def data_of(*rows: list[int], classes: int = 2) -> SegmentationData:
    names = ("background", "core", "shell")[:classes]
    info = DatasetInfo("masks", 1, names, default_colors(classes))
    return SegmentationData(info, Masks(*rows), Masks([0, 0]), Masks([1, 1]))


def test_fractions_by_hand() -> None:
    assert class_fractions(Masks([0, 0, 1, 255], [0, 0, 0, 2]), 3, 255) == [5 / 7, 1 / 7, 1 / 7]
    assert class_fractions(Masks([0, 1, 1, 2]), 2, 2) == [1 / 3, 2 / 3]
    with pytest.raises(UserError, match="no pixel of the training images is labelled"):
        class_fractions(Masks([255, 255]), 2, 255)


def test_what_is_left_out_is_taken_from_the_training_split_alone() -> None:
    data = data_of([0, 0, 0, 1], [0, 0, 0, 255])
    options, notes = completed("weighted-ce", {"ignore_index": 255}, data)
    assert options == {"ignore_index": 255, "beta": 6 / 7}
    assert notes == ["loss weighted-ce: beta 0.8571, from the training pixels (background 85.7%, core 14.3%)"]
    assert isinstance(data.train, Masks) and data.train.read == 2  # each mask once
    assert isinstance(data.val, Masks) and data.val.read == 0


def test_many_classes() -> None:
    options, notes = completed("weighted-ce", {}, data_of([0, 0, 1, 2], classes=3))
    assert options == {"beta": [0.5, 0.75, 0.75]}
    assert notes[0].startswith("loss weighted-ce: beta [0.5, 0.75, 0.75], from")


def test_what_was_given_is_kept() -> None:
    data = data_of([0, 0, 0, 1])
    assert completed("weighted-ce", {"beta": 0.6}, data) == ({"beta": 0.6}, [])
    assert completed("weighted-ce", {"beta": None}, data)[0] == {"beta": 0.75}
    assert completed("weighted-ce", {"beta": 0.6}, data_of([0, 0])) == ({"beta": 0.6}, [])
    with pytest.raises(UserError, match="the weight of the foreground is missing"):
        completed("weighted-ce", {}, data_of([0, 0]))


def test_inside_a_sum() -> None:
    data = data_of([0, 0, 0, 1])
    given = {"weighted-ce": {"weight": [1, 2]}, "dice": {"smooth": 0.5}, "factors": [1, 2]}
    options, notes = completed("weighted-ce+dice", given, data)
    assert options == {**given, "weighted-ce": {"weight": [1, 2], "beta": 0.75}}
    assert given["weighted-ce"] == {"weight": [1, 2]}
    assert "loss weighted-ce+dice: weighted-ce.beta 0.75, from" in notes[0]
    assert completed("weighted-ce+dice", options, data) == (options, [])


def test_a_loss_without_the_hook_reads_no_mask() -> None:
    data = data_of([0, 0, 0, 1])
    assert completed("ce+dice", {"dice": {"smooth": 0.5}}, data) == ({"dice": {"smooth": 0.5}}, [])
    assert isinstance(data.train, Masks) and data.train.read == 0


def experiment(**loss: Any) -> dict[str, Any]:
    return {**EXPERIMENT, "baselines": [], "repeats": 1, "train": {**EXPERIMENT["train"], "loss": loss}}


def test_prepare_completes_the_options_and_says_why() -> None:
    config = load_config(experiment(name="weighted-ce+dice"))
    prepared = prepare(config)
    data = load_data(config)
    fractions = class_fractions(data.train, 3, 255)
    expected = {"weighted-ce": {"beta": [1 - f for f in fractions]}}
    assert prepared.loss_options == expected and config.train.loss.options == {}
    recipe, notes = infer_recipe(config, prepared.data, prepared.loss_options)
    assert recipe.loss_options == expected
    assert next(note for note in notes if "from the training pixels" in note).startswith("loss weighted-ce+dice:")
    assert Plan.from_json(Plan(recipe, None, [], []).to_json()).recipe.build_loss() is not None


def test_a_wrong_loss_option_is_a_problem_beside_the_others() -> None:
    wrong = experiment(name="weighted-ce", options={"beta": 3.0})
    with pytest.raises(UserError) as caught:
        prepare(load_config({**wrong, "data": {"dataset": "folder", "options": {"path": "nowhere"}}}))
    assert "nowhere" in str(caught.value)
    with pytest.raises(UserError, match="beta"):
        prepare(load_config(wrong))


def test_jobs_and_a_resumed_run_have_the_numbers_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_core: None
) -> None:
    strategy = {"name": "random-oneshot", "options": {"epochs": 1, "candidates": 2}}
    source = {**experiment(name="weighted-ce"), "strategy": strategy, "baselines": ["random"]}
    folder = tmp_path / "run"
    beta = [1 - fraction for fraction in class_fractions(load_data(load_config(source)).train, 3, 255)]

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    def options_in(file: str, *keys: str) -> Any:
        found = json.loads((folder / file).read_text())
        for key in keys:
            found = found[key]
        return found["recipe"]["loss_options"]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("autoseg.experiment._do_jobs", stop)
        autoseg.run(source, out=folder)
    assert options_in("plan.json") == {"beta": beta}
    notes = json.loads((folder / "plan.json").read_text())["notes"]
    assert any(note.startswith("loss weighted-ce: beta [") for note in notes)

    run_job(Job("training", "random"), folder, 1, Progress())  # as workers and other machines do it
    assert options_in("models/random/seed-0/model.json", "training") == {"beta": beta}

    monkeypatch.setattr("autoseg.losses.training.class_fractions", lambda *_: [0.5, 0.25, 0.25])
    autoseg.run(source, out=folder, resume=True)
    assert options_in("plan.json") == {"beta": beta}
    assert options_in("models/searched/seed-0/model.json", "training") == {"beta": beta}


def test_a_single_training_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_core: None) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(json.dumps(experiment(name="weighted-ce+dice")))
    plans = []

    def train(folder: Any, prepared: Any, plan: Plan, *_: Any) -> None:
        plans.append(plan)
        raise UserError("enough")

    monkeypatch.setattr("autoseg.terminal.commands.train_and_test", train)
    with pytest.raises(UserError, match="enough"):
        train_one(file, "unet", tmp_path / "one", overrides=["compute.device=cpu"], preset=None)
    beta = [1 - fraction for fraction in class_fractions(load_data(load_config(file)).train, 3, 255)]
    assert plans[0].recipe.loss_options == {"weighted-ce": {"beta": beta}}
