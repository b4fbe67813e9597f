"""What NNI's manager is told about an experiment: the canonical JSON of NNI's own configuration classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEARCH_SPACE = {"kind": {"_type": "choice", "_value": ["search", "candidate", "training"]}}
"""Shown in the page: a trial is a search, a candidate of one, or the training of a network."""


def experiment_json(
    name: str,
    *,
    slots: int,
    trial_command: str,
    code: Path,
    folder: Path,
    service: dict[str, Any] | None = None,
    search_space: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of an experiment whose trials we choose ourselves.

    Args:
        name: Shown in the page.
        slots: Trials at a time.
        trial_command: Shell command of a trial.
        code: Folder in which trials start.
        folder: Folder of all experiments.
        service: Canonical JSON of another training service than the local one.
        search_space: Shown in the page, in NNI's form.

    Returns:
        JSON for NNI's REST server.

    Example:
        >>> found = experiment_json("ceramic", slots=2, trial_command="true", code=Path("/tmp"), folder=Path("/tmp"))
        >>> found["trialConcurrency"], found["trainingService"]["platform"], found["tuner"]["name"]
        (2, 'local', 'autoseg')
    """
    from nni.experiment.config import ExperimentConfig

    config = ExperimentConfig("local")
    config.experiment_name = name
    config.search_space = SEARCH_SPACE if search_space is None else search_space
    config.trial_command = trial_command
    config.trial_code_directory = str(code)
    config.trial_concurrency = slots
    config.experiment_working_directory = str(folder)
    config.tuner.name = "Random"  # one that NNI knows; what chooses is at the other end of the tuner channel
    found: dict[str, Any] = config.json()
    found["tuner"] = {"name": "autoseg", "classArgs": {}}
    if service is not None:
        found["trainingService"] = {**service, "trialCommand": trial_command, "trialCodeDirectory": str(code)}
        if "nniManagerIp" in service:
            found["nniManagerIp"] = service["nniManagerIp"]
    return found
