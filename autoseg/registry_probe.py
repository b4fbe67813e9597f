"""Does a third-party plugin import? Tried in a process of its own, and remembered.

A plugin may need seconds to import, print, call ``sys.exit`` or crash the interpreter; none of that may
reach a listing. So the parent (:func:`import_errors`) starts ``python -m autoseg.registry_probe``, which
imports the plugins one after the other and reports one JSON line each. Outcomes are kept in the user's
cache folder until the plugin's files or the installed packages change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.plugin_source import find_source

if TYPE_CHECKING:
    from autoseg.registry import Plugin

log = logging.getLogger(__name__)

PROBE_SECONDS = 180.0
"""How long one probing process may take before the plugin it is busy with is given up."""
_CACHE_SIZE = 500


def import_errors(plugins: Sequence[Plugin]) -> list[str | None]:
    """For each plugin the reason why it does not import, or None when it does.

    Args:
        plugins: Plugins to try; those with a remembered outcome cost a few file stats only.

    Returns:
        One entry per plugin, such as ``"ImportError: No module named 'foo'"``.
    """
    keys = [_key(plugin) for plugin in plugins]
    known = _read_cache()
    missing = {key: plugin.value for key, plugin in zip(keys, plugins, strict=True) if key not in known}
    if missing:
        found = _probe(list(dict.fromkeys(missing.values())))
        outcome = {key: found[value] for key, value in missing.items()}
        # A plugin that ran out of time may be faster on a quieter machine: not remembered.
        known |= outcome
        _write_cache({key: error for key, error in known.items() if not (error or "").startswith("TimeoutError")})
    return [known[key] for key in keys]


def reason(error: BaseException) -> str:
    """An exception in one line.

    Example:
        >>> reason(ValueError("no"))
        'ValueError: no'
    """
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def import_error(value: str) -> str | None:
    """Import ``module:attribute`` in this process; the reason why that fails, or None.

    Example:
        >>> import_error("autoseg.errors:Problem"), import_error("autoseg.errors:Absent")
        (None, "AttributeError: module 'autoseg.errors' has no attribute 'Absent'")
    """
    try:
        EntryPoint("probe", value, "probe").load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return reason(error)
    return None


def _probe(values: list[str]) -> dict[str, str | None]:
    """Import ``values`` in child processes: one is enough unless a plugin takes it down."""
    outcome: dict[str, str | None] = {}
    pending = values
    while pending:
        # The child gets this process's search path and nothing else: -P keeps files of the current
        # folder from shadowing installed modules.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)}
        command = [sys.executable, "-P", "-B", "-m", "autoseg.registry_probe"]
        with tempfile.TemporaryFile() as noise:
            try:
                child = subprocess.run(
                    command,
                    input=json.dumps(pending).encode(),
                    stdout=subprocess.PIPE,
                    stderr=noise,
                    env=environment,
                    timeout=PROBE_SECONDS,
                )
                output, blame = child.stdout, f"the interpreter ended with status {child.returncode}"
            except subprocess.TimeoutExpired as late:
                output, blame = late.stdout or b"", f"TimeoutError: no end after {PROBE_SECONDS:.0f} s"
            noise.seek(0)
            log.debug("plugin probe: %s", noise.read().decode(errors="replace"))
        lines = [line for line in output.split(b"\n")[:-1] if line]
        outcome |= {answer["value"]: answer["error"] for answer in map(json.loads, lines)}
        pending = [value for value in pending if value not in outcome]
        if pending:  # the first one without an answer took the process down
            outcome[pending.pop(0)] = blame
    return outcome


def _key(plugin: Plugin) -> str:
    """Changes when the plugin's files, its distribution, or the installed packages change."""
    source = find_source(plugin.value.partition(":")[0].strip())
    files: list[Any] = []
    if source is not None:  # neighbours too: an __init__.py often only re-exports
        for entry in sorted(os.scandir(source.parent), key=lambda entry: entry.name):
            if entry.name.endswith(".py") and entry.is_file():
                files.append([entry.path, entry.stat().st_mtime_ns, entry.stat().st_size])
    folders = [Path(folder) for folder in sys.path if folder and os.path.isdir(folder) and folder != os.getcwd()]
    stamps = [[str(folder), folder.stat().st_mtime_ns] for folder in folders]
    parts = [plugin.value, plugin.distribution, plugin.version, sys.version, files, stamps]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _cache_file() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return folder / "autoseg" / "plugins.json"


def _read_cache() -> dict[str, str | None]:
    try:
        data = json.loads(_cache_file().read_bytes())
    except (OSError, ValueError, RuntimeError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {key: error for key, error in data.items() if error is None or isinstance(error, str)}


def _write_cache(outcome: dict[str, str | None]) -> None:
    """Replace the cache file in one step; a read-only or full disk only costs the next listing time."""
    try:
        path = _cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "w") as file:
            json.dump(dict(list(outcome.items())[-_CACHE_SIZE:]), file, indent=0)
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        log.debug("plugin cache not written: %s", error)


def main() -> None:
    """The child: read a JSON list of entry-point values from stdin, answer one JSON line for each."""
    values = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a plugin prints while it is imported goes to stderr
    sys.stdout = sys.stderr
    for value in values:
        answers.write(json.dumps({"value": value, "error": import_error(value)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads and exit hooks of plugins must not keep the listing waiting
