"""Whether a machine can work for us: login, Python, packages, GPUs, disk, and the way back to NNI's manager."""

from __future__ import annotations

import json
import secrets
import shlex
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.config_compute import ComputeConfig, MachineConfig
from autoseg.errors import Problem, UserError
from autoseg.nnibridge.bundle import required_distributions
from autoseg.nnibridge.ports import FIRST, LOOPBACK, check_address, free_pairs
from autoseg.nnibridge.ssh import Login, SshFailed
from autoseg.nnibridge.worker import side_by_side

_TELL = Path(__file__).with_name("tell.py")
_FREE = 2 * 2**30  # bytes of disk below which a machine is complained about
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class WayBack:
    """Where NNI's manager will listen.

    Attributes:
        address: An address of this machine.
        port: The lower of its two ports.
        word: What answers there for the time of the check, so that another machine of the same address is not
            taken for this one.
    """

    address: str
    port: int
    word: str


@contextmanager
def way_back(bind: str | None = None, first: int | str = "auto") -> Iterator[WayBack]:
    """Listen where NNI's manager will, so that machines can try the way.

    Args:
        bind: The address that the machines are to reach; 127.0.0.1 unless given.
        first: The port to try first, or ``auto``.

    Raises:
        UserError: This machine has no such address, or no free port.

    Example:
        >>> with way_back() as there:
        ...     with socket.create_connection((there.address, there.port), 5) as client:
        ...         client.recv(64).decode() == there.word
        True
    """
    if bind is not None:
        check_address(bind)
    address, word = bind or LOOPBACK, secrets.token_hex(8)
    with _server(address, FIRST if isinstance(first, str) else first, bind) as server:
        over = threading.Event()
        thread = threading.Thread(target=_answer, args=(server, word, over), name="way-back", daemon=True)
        thread.start()
        try:
            yield WayBack(address, server.getsockname()[1], word)
        finally:
            over.set()
            thread.join()


def _server(address: str, first: int, bind: str | None) -> socket.socket:
    for port in free_pairs(first, bind):
        with suppress(OSError):  # another process was faster
            return socket.create_server((address, port))
    what = f"no free pair of ports on {address} from {first} on"
    raise UserError(Problem(what, "ui.port", "give another ui.port"))


def _answer(server: socket.socket, word: str, over: threading.Event) -> None:
    server.settimeout(_POLL)
    while not over.is_set():
        with suppress(OSError):  # nobody just now, or gone already
            client, _ = server.accept()
            with client:
                client.sendall(word.encode())


def gpus_of(compute: ComputeConfig) -> int:
    """GPUs that each machine must have.

    Example:
        >>> [gpus_of(ComputeConfig(device=name, devices=2)) for name in ("auto", "cpu", "cuda", "cuda:3")]
        [0, 0, 2, 4]
    """
    if not compute.device.startswith("cuda"):
        return 0
    number = compute.device.partition(":")[2]
    return max(compute.devices, int(number) + 1 if number else 0)


def check(login: Login, manager: WayBack | None = None, gpus: int = 0) -> list[Problem]:
    """What keeps a machine from working for us.

    Args:
        login: The way there.
        manager: From :func:`way_back`, while it lasts; the way back is not looked at unless given.
        gpus: How many it must have.

    Returns:
        Everything that has to be mended; empty when all is well.
    """
    machine, needed = login.machine, required_distributions()
    way = [manager.address, manager.port, manager.word] if manager else None
    asked = json.dumps({"packages": sorted(needed), "manager": way, "gpus": gpus > 0})
    script = f"exec {shlex.quote(machine.python)} - {shlex.quote(asked)}"
    try:
        told = json.loads(login.run(script, given=_TELL.read_text(encoding="utf-8")))
    except SshFailed as error:
        return [Problem(str(error), "compute.machines", _mend(error, machine))]
    except ValueError:
        fix = "its shell must print nothing of its own when a command is run by ssh"
        return [Problem(f"{machine}: the answer makes no sense", "compute.machines", fix)]
    complaints = _complaints(told, needed, machine, gpus)
    return [Problem(f"{machine}: {what}", "compute.machines", fix) for what, fix in complaints]


def check_all(compute: ComputeConfig, first: int) -> list[tuple[MachineConfig, list[Problem]]]:
    """Check the machines of an experiment, with the way back.

    Args:
        compute: The section of the experiment.
        first: The port of NNI's page to try first.

    Returns:
        What is wrong with each; of the way back it is the same for all where nothing can listen here.
    """
    with ExitStack() as held:
        manager, amiss = None, list[Problem]()
        try:
            manager = held.enter_context(way_back(compute.bind, first))
        except UserError as error:
            amiss = list(error.problems)
        found = side_by_side(lambda one: check(Login(one), manager, gpus_of(compute)), compute.machines)
    return [(machine, problems + amiss) for machine, problems in zip(compute.machines, found, strict=True)]


def _complaints(
    told: dict[str, Any], needed: Mapping[str, str | None], machine: MachineConfig, gpus: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with a machine according to its answer, each with what to do."""
    install = f"there: {machine.python} -m pip install"
    if tuple(told["python"]) < (3, 11):
        found = ".".join(map(str, told["python"]))
        yield f"{machine.python} is Python {found}", "give a Python 3.11 or newer as 'python'"
    missing = [name for name in needed if told["versions"][name] is None]
    if missing:
        yield f"{machine.python} does not have {', '.join(missing)}", f"{install} {' '.join(missing)}"
    nni = told["versions"].get("nni")
    if nni is not None and nni != needed["nni"]:
        yield f"it has NNI {nni}, this machine {needed['nni']}", f"{install} nni=={needed['nni']}"
    if told["torch"]:
        yield f"torch cannot be imported: {told['torch']}", f"{install} --force-reinstall torch"
    elif gpus > told["gpus"]:
        found = f"it has {told['gpus']} GPUs that torch can use" if told["gpus"] else "it has no GPU that torch can use"
        yield f"{found}, but each job needs {gpus}", "leave this machine out, or give another compute.device or devices"
    if told["free"] < _FREE:
        yield f"only {told['free'] / 2**30:.1f} GiB of disk are free in the home directory", "make room there"
    if told["manager"]:
        fix = "give an address of this machine as compute.bind that it can reach, and open its firewall for it"
        yield f"it does not reach this machine: {told['manager']}", fix


def _mend(error: SshFailed, machine: MachineConfig) -> str:
    text = str(error)
    if "REMOTE HOST IDENTIFICATION" in text or "Host key verification failed" in text:
        return f"its key has changed; if that is right: ssh-keygen -R '[{machine.host}]:{machine.port}'"
    if "Permission denied" in text:
        return f"put {machine.key}.pub into ~/.ssh/authorized_keys there, or give another user or key"
    if error.code in (126, 127):
        return "give the path of a Python on that machine as 'python'"
    return "check host and port, and that its ssh server runs"
