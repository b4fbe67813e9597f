"""What a worker machine is given: the code of autoseg and its plugins, configuration, plan and data.

The worker's Python needs the libraries that autoseg stands on, but not autoseg itself: package and plugins
travel with the run, so that every machine runs the same code. A plugin with compiled parts cannot travel and
must be installed there.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from autoseg import registry
from autoseg.config import load_config
from autoseg.config_compute import ComputeConfig
from autoseg.data.packed import is_packed
from autoseg.errors import Problem, UserError
from autoseg.plugin_source import find_module
from autoseg.runfolder import RunFolder, write_json, write_text

COMMAND = (
    'cd "$AUTOSEG_CODE" && exec env -u NODE_OPTIONS HOME="$AUTOSEG_HOME" PYTHONPATH="$AUTOSEG_CODE/site" '
    'OMP_WAIT_POLICY=PASSIVE "$AUTOSEG_PYTHON" -m autoseg.nnibridge.trial'
)
"""How NNI starts a trial on a worker; the variables come from the shim."""

GUARD = Path(__file__).with_name("keeper_guard.js")
_SHIM = """#!/bin/sh
# The Python that NNI's agent uses here: nothing is installed, and what NNI writes stays in this folder.
base=${{0%/bin/python}}
export AUTOSEG_HOME="${{AUTOSEG_HOME:-$HOME}}" AUTOSEG_CODE="$base/code" AUTOSEG_PYTHON={python}
export PYTHONUSERBASE="${{PYTHONUSERBASE:-$AUTOSEG_HOME/.local}}" NODE_OPTIONS="--require $base/keeper_guard.js"
export HOME="$base/home"
exec "$AUTOSEG_PYTHON" "$@"
"""
_COMPILED = re.compile(r".*\.(so|pyd|dylib|dll)$")


def make_bundle(folder: RunFolder) -> Path:
    """Put the code, the configuration and the plan of a run into ``nni/code`` of its folder.

    Args:
        folder: The run folder, with config.yaml and plan.json.

    Returns:
        The folder: ``site/`` for PYTHONPATH, config.yaml, plan.json and trial.json.
    """
    target = folder.nni / "code"
    shutil.rmtree(target, ignore_errors=True)
    for distribution in carried():
        copy_distribution(distribution, target / "site")
    config = load_config(folder.config)
    ours = config.compute
    compute = ComputeConfig(device=ours.device, precision=ours.precision, devices=ours.devices)
    write_text(target / "config.yaml", config.model_copy(update={"compute": compute}).to_yaml())
    shutil.copyfile(folder.plan, target / "plan.json")
    write_json(target / "trial.json", {"run": "run", "threads": 1})
    return target


def bundle_files(folder: RunFolder, python: str, scratch: Path) -> dict[str, Path]:
    """What is sent to one machine, as :meth:`autoseg.nnibridge.ssh.Login.send` takes it.

    Args:
        folder: The run folder, after :func:`make_bundle`.
        python: The interpreter there.
        scratch: An empty folder for files that are made for this machine.

    Raises:
        UserError: The data are to be copied and are not there.
    """
    shim = scratch / "python"
    shim.write_text(_SHIM.format(python=shlex.quote(python)), encoding="utf-8")
    shim.chmod(0o700)
    files = {"code": folder.nni / "code", "bin/python": shim, "keeper_guard.js": GUARD}
    if load_config(folder.config).compute.data == "path":
        return files
    check_data(folder)
    return {**files, "code/data": folder.data}


def check_data(folder: RunFolder) -> None:
    """Raise unless the data that other machines need are in the run folder.

    Raises:
        UserError: They could not be packed, as when the disk is full.
    """
    if not is_packed(folder.data):
        what = "the data for the other machines are not there: they could not be written, run.log says why"
        fix = "make room and resume, or give compute.data: path where the machines have the same images"
        raise UserError(Problem(what, str(folder.data), fix))


def carried() -> list[metadata.Distribution]:
    """Autoseg and every distribution with plugins for it, as far as they are pure Python."""
    names = {"autoseg", *(plugin.distribution for plugin in registry.plugins())}
    found = [metadata.distribution(name) for name in sorted(names)]
    return [distribution for distribution in found if not any(map(_is_compiled, _sources(distribution)))]


def required_distributions() -> dict[str, str]:
    """What a worker's Python must have, with the version that is installed here.

    Example:
        >>> needed = required_distributions()
        >>> needed["nni"], "torch" in needed, "pytest" in needed, "autoseg" in needed
        ('3.0', True, False, False)
    """
    travelling = {_normal(distribution.metadata["Name"]) for distribution in carried()}
    plugins = {_normal(plugin.distribution) for plugin in registry.plugins()}
    names = plugins - travelling
    for name in travelling:
        for requirement in metadata.requires(name) or []:
            if "extra ==" not in requirement:
                names.add(_normal(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]))
    return {name: _version(name) for name in sorted(names - travelling)}


def copy_distribution(distribution: metadata.Distribution, site: Path) -> None:
    """Copy the packages of a distribution, and as much of its metadata as makes its plugins known.

    Args:
        distribution: Installed in any way, editable too.
        site: A folder for PYTHONPATH.
    """
    for source in _sources(distribution):
        if source.is_dir():
            shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            site.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, site / source.name)
    name = distribution.metadata["Name"]
    info = site / f"{re.sub(r'[-_.]+', '_', name)}-{distribution.version}.dist-info"
    write_text(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {distribution.version}\n")
    write_text(info / "entry_points.txt", distribution.read_text("entry_points.txt") or "")


def _sources(distribution: metadata.Distribution) -> Iterator[Path]:
    """Its packages (folders) and modules (files), by its own list and by what its plugins name."""
    names = set((distribution.read_text("top_level.txt") or "").split())
    for point in distribution.entry_points:
        if point.group in registry.KINDS.values():
            names.add(re.split(r"[.:\[ ]", point.value, maxsplit=1)[0])
    for name in sorted(names):
        spec = find_module(name)
        if spec is not None and spec.submodule_search_locations:
            yield Path(next(iter(spec.submodule_search_locations)))
        elif spec is not None and spec.origin and spec.has_location:
            yield Path(spec.origin)


def _is_compiled(source: Path) -> bool:
    files = source.rglob("*") if source.is_dir() else [source]
    return any(_COMPILED.match(file.name) for file in files)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # installed here under another name, as opencv-python-headless
        return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
