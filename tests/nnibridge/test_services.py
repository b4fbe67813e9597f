from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autoseg.config import ExperimentConfig
from autoseg.nnibridge.services import check_services, service_settings, shared_command
from autoseg.runfolder import RunFolder

NFS = {"storageType": "nfs", "server": "10.0.0.1", "path": "/export"}
KUBEFLOW: dict[str, Any] = {
    "operator": "pytorch-operator",
    "apiVersion": "v1",
    "storage": NFS,
    "worker": {"replicas": 1, "cpuNumber": 2, "memorySize": "4gb", "dockerImage": "mine"},
}
CONTROLLER: dict[str, Any] = {
    "storage": NFS,
    "service_account_name": "me",
    "task_roles": [
        {
            "name": "worker", "task_number": 1, "gpu_number": 0, "cpu_number": 1, "memory_size": "1gb",
            "framework_attempt_completion_policy": {"min_failed_task_count": 1, "min_succeed_task_count": 1},
        }
    ],
}  # fmt: skip


def config(**compute: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"data": {"dataset": "x"}, "compute": compute})


def machine(path: Path, **changes: Any) -> dict[str, Any]:
    (path / "key").write_text("")
    return {"host": "127.0.0.1", "key": str(path / "key"), "python": "/venv/bin/python", "user": "me", **changes}


def test_the_remote_service(tmp_path: Path) -> None:
    there = config(service="remote", machines=[machine(tmp_path, port=2222)], bind="10.0.0.7", device="cuda", devices=2)
    assert check_services(there) == []
    assert service_settings(there, tmp_path, "go", [(there.compute.machines[0], "/far/bin")]) == {
        "platform": "remote", "trialCommand": "go", "trialCodeDirectory": str(tmp_path), "trialGpuNumber": 2,
        "nniManagerIp": "10.0.0.7", "debug": False, "reuseMode": False,
        "machineList": [{
            "host": "127.0.0.1", "port": 2222, "user": "me", "sshKeyFile": str(tmp_path / "key"), "useActiveGpu": True,
            "maxTrialNumberPerGpu": 1, "pythonPath": "/far/bin",
        }],
    }  # fmt: skip


def test_kubernetes_passes_through_with_our_command(tmp_path: Path) -> None:
    kubeflow = service_settings(config(service="kubeflow", kubernetes=KUBEFLOW), tmp_path, "go", [])
    assert kubeflow["worker"]["command"] == "go" and kubeflow["worker"]["codeDirectory"] == str(tmp_path)
    assert (kubeflow["worker"]["dockerImage"], kubeflow["storage"]) == ("mine", NFS)
    assert "command" not in KUBEFLOW["worker"]
    own = {**KUBEFLOW, "worker": {**KUBEFLOW["worker"], "command": "mine"}}
    assert (
        service_settings(config(service="kubeflow", kubernetes=own), tmp_path, "go", [])["worker"]["command"] == "mine"
    )
    settings = service_settings(config(service="frameworkcontroller", kubernetes=CONTROLLER), tmp_path, "go", [])
    assert settings["taskRoles"][0]["command"] == "go" and settings["serviceAccountName"] == "me"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"oprator": 1}, "KubeflowConfig does not have field(s) oprator"),
        ({"operator": "mpi"}, "operator in ['tf-operator', 'pytorch-operator']"),
        ({"storage": {"storageType": "ftp"}}, 'storage_type ("ftp") must either be'),
        ({"worker": {**KUBEFLOW["worker"], "replicas": "x"}}, "type of replicas ('x')"),
        ({"worker": {**KUBEFLOW["worker"], "replica": 1}}, "replica"),
        ({"apiVersion": None}, "api"),
    ],
)
def test_what_nni_has_against_them(change: dict[str, Any], expected: str) -> None:
    (problem,) = check_services(config(service="kubeflow", kubernetes={**KUBEFLOW, **change}))
    assert expected in problem.what and problem.where == "compute.kubernetes"


def test_nothing_is_said_about_this_machine() -> None:
    assert check_services(config(device="cpu")) == []


def test_the_command_for_shared_storage_runs_in_the_bundle(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a run")
    module = folder.nni / "code" / "site" / "autoseg" / "nnibridge" / "trial.py"
    module.parent.mkdir(parents=True)
    module.write_text("import os; print(os.getcwd()); print(os.environ['NNI_OUTPUT_DIR'])")
    environment = {**os.environ, "NNI_TRIAL_JOB_ID": "abc"}
    done = subprocess.run(["bash", "-c", shared_command(folder)], env=environment, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == [str(folder.nni / "code"), str(folder.nni / "shared" / "abc")], done.stderr
    assert (folder.nni / "shared" / "abc").is_dir()
