"""The section ``compute`` of the experiment file: device, workers, and other machines."""

from __future__ import annotations

import getpass
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from autoseg.config_yaml import Document
from autoseg.errors import Problem

SERVICES = ("local", "remote", "kubeflow", "frameworkcontroller")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:$-]*")


class Section(BaseModel):
    """Common to all sections: unknown keys and conversions such as ``"5"`` to 5 are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)


def auto_or_whole(low: int, high: int) -> Callable[[Any], Any]:
    """A check for ``auto`` or a whole number from ``low`` to ``high``."""

    def check(value: Any) -> Any:
        if value == "auto" or (type(value) is int and low <= value <= high):
            return value
        raise ValueError(f"must be auto or a whole number from {low} to {high}")

    return check


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("there is no such device")
    return value


def _precision(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _word(value: str) -> str:
    """What goes onto a command line of ssh."""
    if not _WORD.fullmatch(value):
        raise ValueError("must be a name or an address without spaces and special characters")
    return value


def _interpreter(value: str) -> str:
    if not value.startswith("/") or not value.isprintable():
        raise ValueError("must be an absolute path on that machine")
    return value


def _path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) else value


def _address(value: str) -> str:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError("must be an IPv4 address of this machine") from None
    if value == "0.0.0.0":
        raise ValueError("must be the one address that the workers reach")
    return value


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return "root"


class MachineConfig(Section):
    """A machine that trains for us, reached by ssh."""

    host: Annotated[str, AfterValidator(_word)] = Field(description="name or address of the machine")
    port: int = Field(default=22, ge=1, le=65535, description="port of its ssh server, 1 to 65535")
    user: Annotated[str, AfterValidator(_word)] = Field(
        default_factory=_current_user, description="who logs in there (default: your name here)"
    )
    key: Annotated[Path, BeforeValidator(_path)] = Field(
        description="file of the private ssh key, without a passphrase, such as ~/.ssh/id_ed25519"
    )
    python: Annotated[str, AfterValidator(_interpreter)] = Field(
        description="the Python to use there, such as /opt/venv/bin/python"
    )

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


class ComputeConfig(Section):
    """What the run may use."""

    device: Annotated[str, AfterValidator(_device)] = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    workers: Annotated[int | Literal["auto"], PlainValidator(auto_or_whole(0, 1024))] = Field(
        default="auto", description="auto, or how many processes work beside the main one"
    )
    precision: Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(_precision)] = Field(
        default="auto", description="auto, 32, bf16 or 16"
    )
    devices: int = Field(default=1, ge=1, le=64, description="GPUs (or processes on a CPU) that share one training")
    service: Literal["local", "remote", "kubeflow", "frameworkcontroller"] = Field(
        default="local", description="where trials run: local, remote, kubeflow or frameworkcontroller"
    )
    machines: list[MachineConfig] = Field(
        default_factory=list, description="a list of machines, each {host, port, user, key, python}"
    )
    concurrency: Annotated[int | Literal["auto"], PlainValidator(auto_or_whole(1, 1024))] = Field(
        default="auto", description="trials side by side on other machines: auto (one each) or a number"
    )
    data: Literal["copy", "path"] = Field(
        default="copy", description="copy the images to the machines, or find them there by the same path"
    )
    bind: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="address of this machine that the workers reach; NNI's manager listens there"
    )
    kubernetes: dict[str, Any] = Field(
        default_factory=dict, description="the settings of NNI's kubeflow or frameworkcontroller service"
    )

    @property
    def slots(self) -> int:
        """Trials side by side on other machines.

        Example:
            >>> ComputeConfig(service="kubeflow", concurrency=3).slots, ComputeConfig(service="kubeflow").slots
            (3, 1)
        """
        return max(1, len(self.machines)) if self.concurrency == "auto" else self.concurrency


def check_compute(document: Document) -> list[Problem]:
    """Settings of other machines that exclude or need each other; key files are looked for, and made absolute.

    Works on the raw content and skips what is malformed, which the schema reports.
    """
    compute = document.data.get("compute")
    if not isinstance(compute, dict) or compute.get("service", "local") not in SERVICES:
        return []
    service = compute.get("service", "local")
    machines = compute.get("machines") or []
    problems = list[Problem]()

    def problem(what: str, fix: str, *key: str | int) -> None:
        problems.append(Problem(what, document.where(*key), fix))

    if service == "local":
        for key in ("machines", "concurrency", "bind", "kubernetes", "data"):
            if compute.get(key) not in (None, [], {}, "auto", ComputeConfig.model_fields[key].default):
                fix = "give compute.service as well, such as service: remote"
                problem(f"compute.{key} is for other machines, but the service is local", fix, "compute", key)
    elif service == "remote" and not machines:
        what = "there is no machine for the remote service"
        problem(what, "give compute.machines: [{host, key, python}]", "compute", "service")
    elif service != "remote" and machines:
        what = f"compute.machines are for the remote service, not for {service}"
        problem(what, "write service: remote, or leave them out", "compute", "machines")
    if service in ("kubeflow", "frameworkcontroller") and not compute.get("kubernetes"):
        what = f"there are no settings of the {service} service"
        problem(what, "give compute.kubernetes, see docs/machines.md", "compute", "service")
    elif service == "remote" and compute.get("kubernetes"):
        what = "compute.kubernetes is for the kubeflow and frameworkcontroller services"
        problem(what, "leave it out, or change compute.service", "compute", "kubernetes")
    ui = document.data.get("ui")
    if service != "local" and isinstance(ui, dict) and ui.get("enabled") is False:
        what = f"the {service} service needs NNI's manager, which ui.enabled: false turns off"
        problem(what, "leave out ui.enabled (--no-ui), or use service: local", "ui", "enabled")
    if service == "remote" and isinstance(machines, list):
        problems += _check_machines(document, machines)
        away = [machine for machine in machines if not _is_here(machine)]
        if away and _is_here({"host": compute.get("bind")}):
            what = "the machines cannot reach NNI's manager, which listens on this machine alone"
            fix = (
                "give compute.bind: an address of this machine that the workers can reach; NNI's manager listens "
                "there without a password, see docs/security.md"
            )
            problem(what, fix, "compute", "machines")
    return problems


def _check_machines(document: Document, machines: list[Any]) -> list[Problem]:
    """Key files that are missing, and machines given twice."""
    problems, seen = list[Problem](), set[tuple[object, object]]()
    for index, machine in enumerate(machines):
        if not isinstance(machine, dict):
            continue
        place = ("compute", "machines", index)
        address = (machine.get("host"), machine.get("port", 22))
        if address in seen:
            what = f"{address[0]}, port {address[1]} is there twice"
            problems.append(Problem(what, document.where(*place), "keep one; compute.concurrency gives it more trials"))
        seen.add(address)
        key = machine.get("key")
        if isinstance(key, str):
            file = document.base(*place, "key") / Path(key).expanduser()
            machine["key"] = str(file)
            if not file.is_file():
                what, fix = f"there is no key file {file}", "give the file of a private ssh key (ssh-keygen makes one)"
                problems.append(Problem(what, document.where(*place, "key"), fix))
    return problems


def _is_here(machine: Any) -> bool:
    """Whether a machine is this one by its loopback address; also what is malformed."""
    host = machine.get("host") if isinstance(machine, dict) else None
    if not isinstance(host, str) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
