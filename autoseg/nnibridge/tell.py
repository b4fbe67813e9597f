"""What a worker machine says about itself; it runs there, from the standard library alone.

The question comes as JSON in the first argument: ``packages`` (names of distributions), ``gpus`` (whether they are
counted) and ``manager`` (address, port, and the word that must be heard there, or null). The answer is a line of JSON.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
from importlib import metadata
from pathlib import Path


def tell(asked: dict) -> dict:  # type: ignore[type-arg]
    """The answer: python, versions, torch (why it cannot be imported), gpus, free (bytes), manager (why not)."""
    versions = {}
    for name in asked["packages"]:
        versions[name] = _version(name) or _version(name + "-headless")
    broken, gpus = None, 0
    if versions.get("torch"):
        try:
            import torch

            gpus = torch.cuda.device_count() if asked["gpus"] else 0
        except Exception as error:
            broken = "%s: %s" % (type(error).__name__, error)  # noqa: UP031 - for Pythons that are too old
    return {
        "python": sys.version_info[:2],
        "versions": versions,
        "torch": broken,
        "gpus": gpus,
        "free": shutil.disk_usage(Path.home()).free,
        "manager": _unreachable(*asked["manager"]) if asked["manager"] else None,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unreachable(host: str, port: int, word: str) -> str | None:
    """Why the machine that listens there is not reached."""
    try:
        with socket.create_connection((host, port), 5) as server:
            heard = server.makefile("rb").read(64)
    except OSError as error:
        return "%s, port %d: %s" % (host, port, error)  # noqa: UP031
    if heard != word.encode():
        return "%s, port %d: something else answers there" % (host, port)  # noqa: UP031
    return None


if __name__ == "__main__":
    print(json.dumps(tell(json.loads(sys.argv[1]))))
