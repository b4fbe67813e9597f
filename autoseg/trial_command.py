"""``autoseg trial``: an experiment as a trial of NNI, for people who write NNI experiments themselves.

The parameters that NNI's tuner proposes are keys of the experiment file. The trial searches with them, trains
what was found, and reports the validation mIoU; the test split is never looked at. :func:`score_model` is the
other way round: NNI's own NAS strategies propose the network, and a trial trains it under our protocol.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from autoseg.config import ExperimentConfig, TrainConfig, load_config
from autoseg.errors import AutosegError, Problem, UserError, did_you_mean
from autoseg.jobs import search_task
from autoseg.nnibridge.reports import Reports, tellable
from autoseg.plan import Plan, make_plan
from autoseg.prepare import FINALIST, Prepared, prepare
from autoseg.progress import Progress
from autoseg.quiet import load_nni
from autoseg.runfolder import RunFolder, write_json, write_text
from autoseg.train.compute import seed_everything
from autoseg.train.cost import count_parameters
from autoseg.train.keeper import Trained
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec
from autoseg.train.trainer import train_network

SECTIONS = ("data", "objective", "seed", "space", "strategy", "train")
"""What of an experiment file a parameter may set; the rest is about comparing networks, which a trial does not."""

_ALONE = ("baselines=[]", "repeats=1", "compute.workers=1")
_STATE = "state.safetensors"


def run_trial_command(file: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One trial: take NNI's parameters, search, train what was found, report.

    Every epoch of the search and of the training is an intermediate result. ``architecture.json`` and the trained
    model are left in ``$NNI_OUTPUT_DIR``. Outside NNI the values of the file are used, and the folder is the first
    free ``runs/NAME-trial-N``. The CPU threads are ``OMP_NUM_THREADS`` where that is set, else all cores: set it
    when NNI runs several trials side by side.

    Args:
        file: The experiment file.
        overrides: ``"key=value"`` texts as for ``--set``; where NNI proposes a value for a key, that counts.

    Returns:
        The final result: ``default`` (validation mIoU, 0..1), ``params``, ``search_seconds``, ``train_seconds``,
        and, as text, ``code`` and ``folder``.

    Raises:
        UserError: With all that is wrong with the parameters and the file.
    """
    parameters, reports = _listen_to_nni()
    config = _load(file, parameters, overrides)
    progress = _Told(reports.figures) if reports else Progress()
    folder = RunFolder(_output_folder(config.name))
    prepared = _prepare(config)
    write_text(folder.config, config.to_yaml())
    plan = make_plan(prepared)
    task = search_task(folder, prepared, plan, progress)
    found = prepared.strategy.search(task)
    for note in found.notes:
        progress.note(note)
    options = dict(config.train.space_options)
    architecture = {**found.architecture.to_json(), "final_kwargs": options, "parameters": parameters}
    write_json(folder.architecture, architecture)
    spec = ModelSpec(FINALIST, "finalist", architecture=found.architecture, options=options)
    place = folder.model(spec.label, config.seed)
    seed_everything(config.seed)
    network = spec.build(prepared.data.info.channels, prepared.data.info.num_classes)
    trained = _train(network, prepared, plan, place / _STATE, progress)
    trained.write_history(place / "history.csv")
    training = {"recipe": plan.recipe.to_json(), "seed": config.seed, "best_miou": trained.best_miou}
    ModelFile(spec, prepared.data.info, prepared.normalisation, training).save(place, network)
    result = {
        "default": trained.best_miou,
        "params": count_parameters(network),
        "search_seconds": round(found.seconds, 1),
        "train_seconds": round(trained.seconds, 1),
        "code": found.architecture.code,
    }
    if reports:
        reports.final(result)
    return {**result, "folder": str(folder.path)}


def score_model(model: nn.Module, file: str, overrides: Sequence[str] = ()) -> float:
    """Train a network that NNI has frozen from a space, and report to NNI: for ``FunctionalEvaluator``.

    The channels and classes of the space must be those of the data.

    Args:
        model: The network.
        file: Path of the experiment file: data, protocol and seed; its space and strategy are not used.
        overrides: ``"key=value"`` texts as for ``--set``.

    Returns:
        The best validation mIoU, 0..1.

    Raises:
        UserError: With all that is wrong with the file.
    """
    nni = load_nni()
    prepared = _prepare(load_config(file, [*overrides, *_ALONE]))
    progress = _Told(lambda values: nni.report_intermediate_result(tellable(values)))
    with tempfile.TemporaryDirectory() as folder:  # never the state of another network
        trained = _train(model, prepared, make_plan(prepared), Path(folder) / _STATE, progress)
    nni.report_final_result({"default": trained.best_miou, "params": count_parameters(model)})
    return trained.best_miou


def parameter_settings(parameters: Mapping[str, Any]) -> list[str]:
    """NNI's parameters as ``"key=value"`` texts.

    A nested choice of NNI's, ``{"_name": "enas", "epochs": 3}``, becomes a name with options.

    Raises:
        UserError: With all keys that a trial cannot set.

    Example:
        >>> parameter_settings({"train.lr": 1e-05, "train.loss": {"_name": "dice"}})
        ['train.lr=1e-05', 'train.loss={"name": "dice", "options": {}}']
    """
    strange = [key for key in parameters if key.partition(".")[0] not in SECTIONS]
    if strange:
        raise UserError([Problem("is not a setting of a trial", f"parameter '{key}'", _advice(key)) for key in strange])
    return [f"{key}={json.dumps(_named_options(value))}" for key, value in parameters.items()]


class _Told(Progress):
    """Hands the figures of every epoch on.

    Args:
        tell: Takes them; ``default`` is what NNI's tuner looks at.
    """

    def __init__(self, tell: Callable[[dict[str, float]], None]) -> None:
        self._tell = tell

    def figures(self, label: str, values: dict[str, float]) -> None:
        """One intermediate result."""
        self._tell(values)


def _listen_to_nni() -> tuple[dict[str, Any], Reports | None]:
    """The parameters of this trial, and where its results go; nothing of both outside NNI.

    Searches put a report channel of their own in the place of NNI's, so the reports keep the one of the trial.
    """
    if not _inside_nni():
        return {}, None
    load_nni()
    from nni.runtime.trial_command_channel import get_default_trial_command_channel

    channel = get_default_trial_command_channel()
    record: Any = channel.receive_parameter()
    if record is None:
        raise AutosegError("NNI has no parameters for this trial: its manager has closed the connection")
    return dict(record["parameters"]), Reports(channel, record["parameter_id"], os.environ["NNI_TRIAL_JOB_ID"])


def _load(file: Path, parameters: Mapping[str, Any], overrides: Sequence[str]) -> ExperimentConfig:
    """The experiment with the parameters in it; all problems of both together."""
    problems: list[Problem] = []
    usable = {key: value for key, value in parameters.items() if key.partition(".")[0] in SECTIONS}
    try:
        parameter_settings(parameters)
    except UserError as error:
        problems += error.problems
    settings = parameter_settings(usable)
    try:
        config = load_config(file, [*overrides, *settings, *_ALONE])
    except UserError as error:
        problems += [_of_parameter(problem, settings) for problem in error.problems]
    if problems:
        raise UserError(problems)
    return config


def _prepare(config: ExperimentConfig) -> Prepared:
    """The checked experiment without its test split: what is not there cannot be looked at."""
    prepared = prepare(config).with_threads(_threads())
    prepared.compute.prepare()
    return replace(prepared, data=replace(prepared.data, test=prepared.data.val))


def _of_parameter(problem: Problem, settings: list[str]) -> Problem:
    """The problem with the place named as NNI's users know it."""
    ours = problem.where.removeprefix("--set ") in settings
    return replace(problem, where=problem.where.replace("--set ", "parameter ", 1)) if ours else problem


def _advice(key: str) -> str:
    if key in TrainConfig.model_fields:
        return f"write train.{key}"
    fix = did_you_mean(key.partition(".")[0], SECTIONS)
    if fix.startswith("did you mean"):
        return fix
    return "name a key of the experiment file: train.lr, train.loss, space.options.width, strategy.name ..."


def _named_options(value: Any) -> Any:
    if isinstance(value, dict) and "_name" in value:
        return {"name": value["_name"], "options": {key: item for key, item in value.items() if key != "_name"}}
    return value


def _train(network: nn.Module, prepared: Prepared, plan: Plan, state: Path, progress: Progress) -> Trained:
    """Train under the protocol of the experiment; the state is of no use once it is done."""
    data, seed = prepared.data, prepared.config.seed
    trained = train_network(
        network,
        train=data.train,
        val=data.val,
        info=data.info,
        normalisation=prepared.normalisation,
        recipe=plan.recipe,
        seed=seed,
        compute=prepared.compute,
        state_file=state,
        progress=progress,
        label=f"{FINALIST}, seed {seed}",
    )
    state.unlink(missing_ok=True)
    return trained


def _output_folder(name: str) -> Path:
    if _inside_nni():
        return Path(os.environ["NNI_OUTPUT_DIR"])
    number = 1
    while (folder := Path("runs") / f"{name}-trial-{number}").exists():
        number += 1
    return folder


def _threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else os.cpu_count() or 1


def _inside_nni() -> bool:
    return bool(os.environ.get("NNI_PLATFORM"))
