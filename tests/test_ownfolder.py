"""Folders of one process: for its owner alone, gone with it, and swept by the next when it was killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.ownfolder import OwnFolder

KILLED = """
import os, sys
from pathlib import Path
from autoseg.ownfolder import OwnFolder
folder = OwnFolder("kind", Path(sys.argv[1]))
(folder.path / "full").touch()
print(folder.path.name, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    left = tmp_path / done.stdout.strip()
    assert left.name.startswith("kind-") and (left / "full").exists()
    other, mine = tmp_path / "other-1-x", tmp_path / "kind-of-mine"
    other.mkdir()
    mine.mkdir()
    with OwnFolder("kind", tmp_path) as first, OwnFolder("kind", tmp_path) as second:
        assert first.path != second.path and first.path.is_dir() and second.path.is_dir()
        assert not left.exists()
        assert first.path.name.startswith(f"kind-{os.getpid()}-")
        assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    assert sorted(tmp_path.iterdir()) == [mine, other]
    first.remove()  # again does no harm


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").touch()
    (tmp_path / "kind-1-x").symlink_to(target)
    OwnFolder("kind", tmp_path).remove()
    assert (target / "file").exists()


def test_where_others_could_look_into_it_it_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(prefix: str, dir: Path) -> str:
        path = dir / f"{prefix}x"
        path.mkdir()
        path.chmod(0o755)
        return str(path)

    monkeypatch.setattr("tempfile.mkdtemp", careless)
    with pytest.raises(PermissionError, match="others may look into"):
        OwnFolder("kind", tmp_path)
    assert list(tmp_path.iterdir()) == []
