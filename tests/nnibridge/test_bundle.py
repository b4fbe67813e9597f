from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from fake_distribution import PLUGINS, install

from autoseg.config import load_config
from autoseg.data.packed import pack
from autoseg.data.synthetic.ceramic import synthetic_ceramic
from autoseg.errors import UserError
from autoseg.nnibridge.bundle import bundle_files, carried, copy_distribution, make_bundle, required_distributions
from autoseg.runfolder import RunFolder, write_json, write_text

LISTING = """
import json, sys
from importlib import metadata
import autoseg
from autoseg import registry
found = [[p.kind, p.name, p.distribution] for p in registry.plugins()]
print(json.dumps({"file": autoseg.__file__, "plugins": found, "version": metadata.version("autoseg")}))
"""


def run_folder(path: Path, **compute: object) -> RunFolder:
    folder = RunFolder(path / "run")
    source = {"data": "synthetic-ceramic", "baselines": [], "compute": {"device": "cpu", **compute}}
    write_text(folder.config, load_config(source).to_yaml())
    write_json(folder.plan, {"epochs": 1})
    return folder


def far(path: Path) -> dict[str, object]:
    """Settings of a machine that is never reached."""
    (path / "key").write_text("")
    machine = {"host": "127.0.0.1", "key": str(path / "key"), "python": "/opt/a b/bin/python"}
    return {"service": "remote", "machines": [machine], "devices": 2}


def test_the_code_that_travels_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autoseg and a plugin, both found through the copy alone."""
    source = install(tmp_path / "plugins", "fake-plugs", "2.5", PLUGINS)
    monkeypatch.syspath_prepend(str(source))
    folder = run_folder(tmp_path)
    code = make_bundle(folder)
    environment = {**os.environ, "PYTHONPATH": str(code / "site")}
    # -S: no site-packages, so nothing is installed; what the package itself needs to list plugins is added by hand.
    libraries = metadata.distribution("pydantic").locate_file("")
    script = f"import sys; sys.path.append({str(libraries)!r})\n{LISTING}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["file"] == str(code / "site" / "autoseg" / "__init__.py")
    assert told["version"] == autoseg_version()
    assert ["space", "ednas", "autoseg"] in told["plugins"]
    assert ["space", "tiny", "fake-plugs"] in told["plugins"]
    files = [file.relative_to(code).as_posix() for file in code.rglob("*") if file.is_file()]
    assert "site/autoseg/nnibridge/guard.js" in files and "site/fakeplugs.py" in files
    assert not [file for file in files if "__pycache__" in file or "/tests/" in file]
    assert sum((code / file).stat().st_size for file in files) < 3_000_000


def autoseg_version() -> str:
    return metadata.version("autoseg")


def test_the_worker_gets_a_configuration_for_itself(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, **far(tmp_path))
    code = make_bundle(folder)
    compute = yaml.safe_load((code / "config.yaml").read_text())["compute"]
    assert (compute["device"], compute["devices"]) == ("cpu", 2)
    assert (compute["service"], compute["machines"], compute["bind"]) == ("local", [], None)
    assert load_config(code / "config.yaml").data == load_config(folder.config).data
    assert json.loads((code / "plan.json").read_text()) == {"epochs": 1}
    make_bundle(folder)  # again, as by a run that is resumed
    assert sorted(file.name for file in code.iterdir()) == ["config.yaml", "plan.json", "site", "trial.json"]


def test_data_are_copied_or_not(tmp_path: Path) -> None:
    for mode, expected in (("copy", True), ("path", False)):
        (tmp_path / mode).mkdir()
        folder = run_folder(tmp_path / mode, **far(tmp_path), data=mode)
        pack(synthetic_ceramic(count=6, size=32), folder.data)
        assert ("code/data" in bundle_files(folder, "/usr/bin/python3", tmp_path / mode)) == expected


def test_data_that_could_not_be_packed_are_missed(tmp_path: Path) -> None:
    for mode in ("copy", "path"):
        (tmp_path / mode).mkdir()
        folder = run_folder(tmp_path / mode, **far(tmp_path), data=mode)
        if mode == "copy":
            with pytest.raises(UserError, match="could not be written") as caught:
                bundle_files(folder, "/usr/bin/python3", tmp_path / mode)
            assert caught.value.problems[0].where == str(folder.data)
        else:
            assert "bin/python" in bundle_files(folder, "/usr/bin/python3", tmp_path / mode)


def test_the_shim_keeps_what_nni_writes_together(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, **far(tmp_path), data="path")
    (tmp_path / "scratch").mkdir()
    files = bundle_files(folder, sys.executable, tmp_path / "scratch")
    there = tmp_path / "there"
    (there / "bin").mkdir(parents=True)
    files["bin/python"].rename(there / "bin" / "python")
    names = ("HOME", "AUTOSEG_HOME", "AUTOSEG_CODE", "AUTOSEG_PYTHON", "NODE_OPTIONS", "PYTHONUSERBASE")
    script = f"import os, json; print(json.dumps([os.environ.get(name) for name in {names}]))"
    environment = {"HOME": "/home/me", "PATH": f"{there}/bin:/usr/bin:/bin"}
    for command in ([str(there / "bin" / "python")], ["python"]):
        done = subprocess.run(["sh", "-c", '"$@"', "sh", *command, "-c", script], env=environment, capture_output=True)
        assert json.loads(done.stdout) == [
            f"{there}/home", "/home/me", f"{there}/code", sys.executable, f"--require {there}/keeper_guard.js",
            "/home/me/.local",
        ], done.stderr  # fmt: skip


def test_what_is_compiled_stays_and_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = install(tmp_path, "fast-plugs", "1.0", {"autoseg.spaces": {"fast": "fastplugs:X"}}, {"fastplugs": "X = 1"})
    monkeypatch.syspath_prepend(str(source))
    assert "fast-plugs" in [d.metadata["Name"] for d in carried()]
    assert "fast-plugs" not in required_distributions()
    (source / "fastplugs.py").unlink()
    (source / "fastplugs").mkdir()
    (source / "fastplugs" / "__init__.py").write_text("")
    (source / "fastplugs" / "core.abi3.so").write_bytes(b"")
    assert "fast-plugs" not in [d.metadata["Name"] for d in carried()]
    assert required_distributions()["fast-plugs"] == "1.0"


def test_a_copied_distribution_is_known_by_its_metadata(tmp_path: Path) -> None:
    copy_distribution(metadata.distribution("autoseg"), tmp_path / "site")
    (found,) = metadata.distributions(path=[str(tmp_path / "site")])
    assert (found.metadata["Name"], found.version) == ("autoseg", autoseg_version())
    assert "enas" in found.entry_points.select(group="autoseg.strategies").names
