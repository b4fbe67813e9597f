"""What a run depends on besides its configuration: versions, machine, source, data; for environment.json."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from autoseg import __version__
from autoseg.data.base import SPLITS, SegmentationData
from autoseg.data.facts import add_to_hash

_PACKAGES = (
    "torch", "torchvision", "pytorch-lightning", "nni", "tianshou", "segmentation-models-pytorch", "timm", "numpy",
    "opencv-python", "scikit-image", "safetensors",
)  # fmt: skip


def data_hash(data: SegmentationData) -> str:
    """SHA-256 over names, shapes, types and values of all images and masks, in order.

    Reading everything once also fills the cache of decoded images.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> first, second = (data_hash(synthetic_ceramic(count=6, size=32, seed=seed)) for seed in (0, 1))
        >>> len(first), first == second
        (64, False)
    """
    digest = hashlib.sha256()
    for name in SPLITS:
        split = data.split(name)
        for i, item in enumerate(split.names):
            image, mask = split[i]
            add_to_hash(digest, name, item, image, mask)
    return digest.hexdigest()


def describe_environment(seeds: list[int], hash_of_data: str, device: str) -> dict[str, Any]:
    """Everything needed to judge whether two runs are comparable.

    Args:
        seeds: Training seeds.
        hash_of_data: From :func:`data_hash`.
        device: The device in use.

    Returns:
        Plain JSON values; what is not known is None.

    Example:
        >>> found = describe_environment([0, 1], "5f1d", "cpu")
        >>> found["seeds"], found["machine"]["gpu"], found["packages"]["nni"]
        ([0, 1], None, '3.0')
    """
    return {
        "autoseg": __version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git": _git_hash(),
        "machine": {
            "system": platform.platform(terse=True),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(_memory_bytes() / 2**30, 1),
            "device": device,
            "gpu": _gpu(device),
        },
        "seeds": seeds,
        "data_hash": hash_of_data,
    }


def _version(package: str) -> str | None:
    if package == "torch":  # only torch itself names its build, such as 2.9.0+cpu
        import torch

        return str(torch.__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_hash() -> str | None:
    """Commit of the autoseg sources, with ``+`` when they differ from it; None for an installed release."""
    source = Path(__file__).parent
    try:
        run = ["git", "-C", str(source)]
        # An installed package may lie inside somebody else's repository.
        subprocess.run([*run, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True, timeout=10)
        commit = subprocess.run([*run, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, timeout=10)
        changed = subprocess.run([*run, "status", "--porcelain", "."], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _gpu(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device)
