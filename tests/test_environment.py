"""environment.json: enough to tell whether two runs are comparable."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import autoseg
from autoseg import environment
from autoseg.data.base import DatasetInfo, Image, Mask, SegmentationData
from autoseg.environment import data_hash, describe_environment


class Pairs(list[tuple[Image, Mask]]):
    names: list[str]

    def __init__(self, *pairs: tuple[Image, Mask], names: str) -> None:
        super().__init__(pairs)
        self.names = list(names)


def data() -> SegmentationData:
    info = DatasetInfo("tiny", 1, ("a", "b"), ((0, 0, 0), (1, 1, 1)))
    image, mask = np.arange(12, dtype=np.uint8).reshape(3, 4), np.eye(3, 4, dtype=np.uint8)
    train = Pairs((image, mask), (image + 1, mask), names="xy")
    return SegmentationData(info, train, Pairs((image + 2, mask), names="v"), Pairs((image + 3, mask), names="t"))


def changed(split: str, index: int, what: str) -> SegmentationData:
    """The data with one small change in one place."""
    found = data()
    pairs = found.split(split)
    image, mask = (array.copy() for array in pairs[index])
    if what == "image":
        image[2, 3] ^= 1
    elif what == "mask":
        mask[2, 3] ^= 1
    elif what == "type":
        image = image.astype(np.uint16)
    elif what == "shape":
        image, mask = image.reshape(4, 3), mask.reshape(4, 3)
    elif what == "name":
        pairs.names[index] = "other"
    pairs[index] = (image, mask)
    return found


def test_the_hash_is_of_the_content_alone() -> None:
    first = data_hash(data())
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert data_hash(data()) == first
    turned = data()
    image, mask = turned.train[0]
    turned.train[0] = (np.asfortranarray(image), np.ascontiguousarray(mask.T).T)  # type: ignore[index]
    assert data_hash(turned) == first
    assert data_hash(replace(data(), notes=["another note"])) == first


def test_every_change_changes_the_hash() -> None:
    places = [("train", 0), ("train", 1), ("val", 0), ("test", 0)]
    variants = [changed(*place, what) for place in places for what in ("image", "mask", "type", "shape", "name")]
    swapped = data()
    swapped.train.reverse()  # type: ignore[attr-defined]
    shuffled = data()
    shuffled.val, shuffled.test = shuffled.test, shuffled.val
    hashes = [data_hash(variant) for variant in [data(), *variants, swapped, shuffled]]
    assert len(set(hashes)) == len(hashes) == 23


def test_what_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/autoseg", "run", "my file.yaml"])
    found = describe_environment([3, 4], "5f1d", "cpu")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["command"] == ["autoseg", "run", "my file.yaml"]
    assert found["seeds"] == [3, 4] and found["data_hash"] == "5f1d"
    assert found["autoseg"] == autoseg.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert abs((datetime.now(UTC) - datetime.fromisoformat(found["started"])).total_seconds()) < 5
    import torch

    assert found["packages"]["torch"] == torch.__version__  # with the build, such as +cu130
    assert found["packages"]["nni"] == "3.0" and found["packages"]["numpy"] == np.__version__
    machine = found["machine"]
    assert machine["device"] == "cpu" and machine["gpu"] is None
    assert machine["cores"] >= 1 and machine["memory_gib"] > 0.1 and machine["system"]


def test_the_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"Fast {device}")
    assert describe_environment([], "", "cuda:1")["machine"]["gpu"] == "Fast cuda:1"


def test_a_package_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    assert describe_environment([], "", "cpu")["packages"] == {"numpy": np.__version__, "no-such-package": None}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.hooksPath=/dev/null"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "autoseg" / "environment.py"
    source.parent.mkdir()
    source.write_text("one")
    monkeypatch.setattr(environment, "__file__", str(source))

    def noted() -> str | None:
        value: str | None = describe_environment([], "", "cpu")["git"]
        return value

    assert noted() is None  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "readme").touch()
    git(tmp_path, "add", "readme")
    git(tmp_path, "commit", "-q", "-m", "somebody else's repository")
    assert noted() is None  # the sources lie in it, but are not its own
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "ours")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert noted() == commit and len(commit) == 40
    source.write_text("two")
    assert noted() == commit + "+"
    monkeypatch.setenv("PATH", "")
    assert noted() is None  # git is not installed


def test_a_machine_that_says_nothing_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise OSError

    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **o: refuse() if "cpuinfo" in str(path) else read(path, **o))
    monkeypatch.setattr("os.sysconf", refuse)
    monkeypatch.setattr("platform.processor", lambda: "a processor")
    machine = describe_environment([], "", "cpu")["machine"]
    assert machine["processor"] == "a processor" and machine["memory_gib"] == 0.0
