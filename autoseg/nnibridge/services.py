"""NNI's training services for other machines, built and checked with NNI's own configuration classes."""

from __future__ import annotations

import copy
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoseg.config import ExperimentConfig
from autoseg.config_compute import MachineConfig
from autoseg.errors import Problem
from autoseg.runfolder import RunFolder

SHARED = "shared"
"""Folder in ``nni/`` of the run folder into which trials in Kubernetes write."""


def check_services(config: ExperimentConfig) -> list[Problem]:
    """What NNI has against the settings of other machines; nothing is contacted.

    Args:
        config: The experiment.
    """
    compute = config.compute
    if compute.service == "local":
        return []
    with tempfile.TemporaryDirectory() as code:
        try:
            service_settings(config, Path(code), "true", [(machine, "/bin") for machine in compute.machines])
        except (ValueError, TypeError, AttributeError, AssertionError, KeyError) as error:
            key = "compute.machines" if compute.service == "remote" else "compute.kubernetes"
            what = f"NNI does not take these settings: {_told(error)}"
            return [Problem(what, key, f"see NNI's documentation of its {compute.service} service")]
    return []


def _told(error: Exception) -> str:
    """Its message; where NNI has none, what it checks."""
    line = traceback.extract_tb(error.__traceback__)[-1].line
    return str(error) or (line or type(error).__name__).removeprefix("assert self.")


def service_settings(
    config: ExperimentConfig, code: Path, command: str, machines: Sequence[tuple[MachineConfig, str]]
) -> dict[str, Any]:
    """The training service as NNI's REST server takes it.

    Args:
        config: The experiment.
        code: The folder that NNI sends along.
        command: How a trial is started.
        machines: For the remote service, each with the folder of its Python.

    Raises:
        ValueError: NNI refuses the settings; also TypeError, AttributeError and AssertionError.
    """
    from nni.experiment.config import ExperimentConfig as NniConfig
    from nni.experiment.config import RemoteMachineConfig

    compute = config.compute
    whole = NniConfig(compute.service)
    service: Any = whole.training_service
    if compute.service == "remote":
        service.reuse_mode = False
        service.machine_list = [
            RemoteMachineConfig(
                host=machine.host,
                port=machine.port,
                user=machine.user,
                ssh_key_file=str(machine.key),
                python_path=programs,
                use_active_gpu=True,
            )
            for machine, programs in machines
        ]
        whole.trial_gpu_number = compute.devices if compute.device == "cuda" else None
    else:
        service = type(service)(**_with_command(compute.kubernetes, code, command))
        whole.training_service = service
    whole.search_space, whole.trial_concurrency, whole.tuner.name = {}, compute.slots, "Random"
    whole.trial_command, whole.trial_code_directory = command, str(code)
    whole.nni_manager_ip = compute.bind or "127.0.0.1"
    return dict(whole.canonical_copy().json()["trainingService"])


def shared_command(folder: RunFolder) -> str:
    """How a trial starts where the run folder is reachable by the same path, as in Kubernetes with shared storage."""
    out, code = (shlex.quote(str(folder.nni.resolve() / name)) for name in (SHARED, "code"))
    return (
        f'export NNI_OUTPUT_DIR={out}/"$NNI_TRIAL_JOB_ID"; mkdir -p "$NNI_OUTPUT_DIR" && cd {code} && '
        f"PYTHONPATH={code}/site python3 -m autoseg.nnibridge.trial"
    )


def _with_command(settings: dict[str, Any], code: Path, command: str) -> dict[str, Any]:
    """The settings of Kubernetes; roles without a command of their own get ours."""
    settings = copy.deepcopy(settings)
    named = [settings.get(role) for role in ("worker", "ps", "master")]
    listed = settings.get("taskRoles") or settings.get("task_roles")
    for role in [*named, *(listed if isinstance(listed, list) else [])]:
        if isinstance(role, dict):
            role.setdefault("command", command)
            if not listed and "codeDirectory" not in role:
                role.setdefault("code_directory", str(code))
    return settings
