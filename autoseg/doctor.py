"""``autoseg doctor``: looks at everything a run needs and says what to mend."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoseg import registry
from autoseg.config_compute import ComputeConfig
from autoseg.data.memory import available_memory
from autoseg.errors import Problem, UserError
from autoseg.nnibridge.ports import FIRST, LOOPBACK, check_address, free_pairs

if TYPE_CHECKING:
    from autoseg.config import ExperimentConfig

Status = Literal["ok", "warning", "problem"]

_GIB = 2**30
_LEAST_DISK, _LEAST_MEMORY = 2 * _GIB, 2 * _GIB
_PATIENCE = 60.0  # seconds for a program that should answer at once


@dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: The thing.
        status: ``"ok"``, ``"warning"`` (a run may suffer) or ``"problem"`` (must be mended).
        found: What was found, in one line.
        fix: What to do about it; empty when all is well.
    """

    name: str
    status: Status
    found: str
    fix: str = ""


def examine(file: Path | None = None) -> list[Check]:
    """Look at the installation, this machine, and the machines of an experiment.

    Args:
        file: An experiment file whose settings and machines are checked too.

    Example:
        >>> [check.status for check in check_python((3, 10, 2)) + check_python((3, 12, 1))]
        ['problem', 'ok']
    """
    config, checks = _read(file)
    checks += check_python() + check_packages() + check_plugins() + check_node()
    port = config.ui.port if config is not None else "auto"
    first = FIRST if isinstance(port, str) else port
    compute = config.compute if config is not None else ComputeConfig()
    checks += check_ports(first, compute.bind)
    checks += check_fork_server()  # before anything here touches CUDA
    checks += check_gpu() + check_memory() + check_disk(Path.cwd()) + check_ssh(needed=bool(compute.machines))
    return checks + check_machines(compute, first)


def text_of(checks: Sequence[Check]) -> str:
    """The checks as aligned lines, each with what to do about it below.

    Example:
        >>> print(text_of([Check("node", "ok", "v18.15.0"), Check("ssh", "warning", "no client", "install it")]))
        ok       node  v18.15.0
        warning  ssh   no client
                       -> install it
    """
    width = max((len(check.name) for check in checks), default=0)
    indent = " " * (width + 11)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<7}  {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{indent}-> {check.fix}")
    return "\n".join(lines)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> list[Check]:
    """The version of Python."""
    found = ".".join(map(str, version))
    if (3, 11) <= tuple(version[:2]) <= (3, 13):
        return [Check("python", "ok", f"{found}, {platform.platform(terse=True)}")]
    return [Check("python", "problem", found, "use Python 3.11, 3.12 or 3.13")]


def check_packages(requirements: Sequence[str] | None = None) -> list[Check]:
    """Every package autoseg needs, in a version it works with.

    Args:
        requirements: As in package metadata, such as ``"nni==3.0"``; by default those of autoseg itself.

    Example:
        >>> [(check.status, check.found) for check in check_packages(["nni==2.9"])]
        [('problem', '3.0, but autoseg needs ==2.9')]
    """
    from packaging.requirements import Requirement

    try:
        requirements = (metadata.requires("autoseg") or []) if requirements is None else requirements
    except metadata.PackageNotFoundError:
        return [Check("autoseg", "problem", "not installed", "install it with pip, so that its plugins are found")]
    checks = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        fix = f'pip install "{requirement}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(requirement.name, "problem", "not installed", fix))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            checks.append(Check(requirement.name, "ok", version))
        else:
            found = f"{version}, but autoseg needs {requirement.specifier}"
            checks.append(Check(requirement.name, "problem", found, fix))
    return checks


def check_plugins() -> list[Check]:
    """Whether every plugin can be loaded."""
    checks, plugins = [], registry.plugins()
    for plugin in plugins:
        try:
            registry.load(plugin.kind, plugin.qualified_name)
        except UserError as error:
            checks += [_of_problem(f"{plugin.kind} {plugin.name}", problem) for problem in error.problems]
    return checks or [Check("plugins", "ok", f"all {len(plugins)} plugins load")]


def check_node(node: Path | None = None) -> list[Check]:
    """The node.js program that comes with NNI and serves its web page.

    Args:
        node: Where it is; by default in the installed package.
    """
    fix = "reinstall NNI: pip install --force-reinstall --no-deps nni==3.0"
    if node is None:
        import nni_node

        node = Path(nni_node.__path__[0], "node")
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        return [Check("node", "problem", f"NNI's node.js does not start: {error}", fix)]
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        return [Check("node", "problem", f"NNI's node.js does not run: {reason}", fix)]
    return [Check("node", "ok", f"{done.stdout.strip()}, of NNI")]


def check_ports(first: int = FIRST, bind: str | None = None) -> list[Check]:
    """Two free ports side by side, as NNI's web page needs them.

    Args:
        first: The port to try first.
        bind: Another address of this machine on which they must be free, beside 127.0.0.1.
    """
    where = LOOPBACK if bind is None else f"{LOOPBACK} and {bind}"
    try:
        if bind is not None:
            check_address(bind)
    except UserError as error:
        return [_of_problem("ports", problem) for problem in error.problems]
    free = next(free_pairs(first, bind), None)
    if free is None:
        found = f"no free pair of ports on {where} from {first} on"
        return [Check("ports", "problem", found, "give another ui.port, or run with --no-ui")]
    if free != first:
        found = f"{first} or {first + 1} is taken on {where}; {free} and {free + 1} are free"
        return [Check("ports", "warning", found, f"nothing, if a page on port {free} will do")]
    return [Check("ports", "ok", f"{free} and {free + 1} are free on {where}")]


def check_fork_server() -> list[Check]:
    """Whether the processes that trials are forked from start, and in what time."""
    from autoseg import processes

    times, code = [], None
    try:
        for _ in range(2):
            began = time.monotonic()
            code = processes.exit_code(processes.start(time.sleep, (0,)), 2 * _PATIENCE)
            times.append(time.monotonic() - began)
            if code != 0:
                break
    except (OSError, EOFError) as error:
        return [Check("fork server", "problem", f"does not start: {error}", "run with compute.workers: 1 and --no-ui")]
    if code != 0:
        found = "a process did not end" if code is None else f"a process ended with exit code {code}"
        return [Check("fork server", "problem", found, "run with compute.workers: 1 and --no-ui")]
    return [Check("fork server", "ok", f"ready after {times[0]:.1f} s, then {times[1]:.2f} s for a process")]


def check_gpu() -> list[Check]:
    """The GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        checks = []
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            text = f"{found.name}, {found.total_memory / _GIB:.0f} GiB, CUDA {torch.version.cuda}"
            checks.append(Check(f"cuda:{number}", "ok", text))
        return checks
    if shutil.which("nvidia-smi"):
        if torch.version.cuda is None:
            fix = "install torch with CUDA, see pytorch.org"
        else:
            fix = f"update the driver, so that it knows CUDA {torch.version.cuda}"
        return [Check("gpu", "warning", f"there is an NVIDIA driver, but torch {torch.__version__} has no GPU", fix)]
    return [Check("gpu", "ok", "none: the CPU is used")]


def check_memory(available: int | None = None) -> list[Check]:
    """Free memory.

    Args:
        available: Bytes; asked from the system by default.
    """
    available = available_memory() if available is None else available
    return [_amount("memory", available, _LEAST_MEMORY, "close other programs, or set compute.workers: 1")]


def check_disk(folder: Path, free: int | None = None) -> list[Check]:
    """Free space where runs go.

    Args:
        folder: A folder on the disk.
        free: Bytes; asked from the system by default.
    """
    free = shutil.disk_usage(folder).free if free is None else free
    return [_amount("disk", free, _LEAST_DISK, "free some space, or write runs elsewhere with --out")]


def check_ssh(needed: bool = False) -> list[Check]:
    """The OpenSSH client, which other machines are reached with.

    Args:
        needed: Whether the experiment has other machines.
    """
    program = shutil.which("ssh")
    if program is None:
        fix = "install the OpenSSH client, such as Debian's package openssh-client"
        return [Check("ssh", "problem" if needed else "warning", "no ssh program: other machines cannot train", fix)]
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        fix = "reinstall the OpenSSH client"
        return [Check("ssh", "problem" if needed else "warning", f"{program} does not start: {error}", fix)]
    return [Check("ssh", "ok", (done.stderr or done.stdout).strip())]


def check_machines(compute: ComputeConfig, first: int = FIRST) -> list[Check]:
    """Log into the other machines of an experiment and look at what a run needs there.

    Args:
        compute: The section of the experiment.
        first: The port of NNI's page to try first.
    """
    from autoseg.nnibridge.machinecheck import check_all

    checks = list[Check]()
    for machine, problems in check_all(compute, first) if compute.machines else []:
        name = f"machine {machine}"
        checks += [Check(name, "problem", problem.what, problem.fix) for problem in problems]
        if not problems:
            checks.append(Check(name, "ok", "login, Python, torch, NNI and the way back are all right"))
    return checks


def _read(file: Path | None) -> tuple[ExperimentConfig | None, list[Check]]:
    if file is None:
        return None, []
    from autoseg.config import load_config

    try:
        return load_config(file), [Check("experiment", "ok", str(file))]
    except UserError as error:
        return None, [_of_problem("experiment", problem) for problem in error.problems]


def _of_problem(name: str, problem: Problem) -> Check:
    return Check(name, "problem", f"{problem.where}: {problem.what}" if problem.where else problem.what, problem.fix)


def _amount(name: str, found: int, least: int, fix: str) -> Check:
    text = f"{found / _GIB:.1f} GiB free"
    return Check(name, "ok", text) if found >= least else Check(name, "warning", text, fix)
