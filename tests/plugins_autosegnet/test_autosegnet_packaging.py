"""The plugin as a third party's: installed and removed with pip in an environment of its own, and broken on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_experiment import EXPERIMENT

from autoseg import registry
from autoseg.errors import UserError

SOURCE = Path(__file__).parents[2] / "plugins" / "autosegnet-controller"
BROKEN = '"""Broken."""\n\nraise RuntimeError("broken on purpose")\n'


class Environment:
    """A virtual environment with everything that is installed here, but for the plugin.

    Its packages are links, so that it takes no time to make, and pip really installs and removes.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.folder, self.python = folder, folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        for packages in [Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]:
            for entry in packages.iterdir():
                if "autosegnet" not in entry.name and not (site / entry.name).exists():
                    (site / entry.name).symlink_to(entry)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a Python module, in a folder that is not the repository."""
        return self._run("-m", *arguments)

    def run_code(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code."""
        return self._run("-c", code)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
        environment |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "COLUMNS": "200"}
        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=environment)

    def pip(self, *arguments: str) -> None:
        done = self.run("pip", *arguments, "--disable-pip-version-check")
        assert done.returncode == 0, done.stderr

    def install(self, source: Path) -> None:
        """``pip install SOURCE``, without asking the network for what is there already."""
        self.pip("install", "--no-index", "--no-deps", "--no-build-isolation", str(source))

    def strategies(self) -> dict[str, dict[str, Any]]:
        done = self.run("autoseg", "list", "strategies", "--json")
        assert done.returncode == 0, done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture
def source(tmp_path: Path, environment: Environment) -> Iterator[Path]:
    """A copy of the plugin, in which pip may build; the environment is without it again afterwards."""
    copy = tmp_path / "plugin"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    yield copy
    environment.pip("uninstall", "--yes", "autoseg-autosegnet")


def test_pip_install_makes_it_appear_and_uninstall_makes_it_vanish(environment: Environment, source: Path) -> None:
    before = environment.strategies()
    assert "autosegnet" not in before and "enas" in before
    environment.install(source)
    after = environment.strategies()
    assert after.pop("autosegnet") == {
        "name": "autosegnet",
        "kind": "strategy",
        "description": "The AutoSegNet controller: a 2-layer LSTM that learns by REINFORCE, on any space.",
        "distribution": "autoseg-autosegnet",
        "error": None,
    }
    assert after == before
    environment.pip("uninstall", "--yes", "autoseg-autosegnet")
    assert environment.strategies() == before
    assert not list(environment.folder.glob("lib/python*/site-packages/*autosegnet*"))


def test_a_broken_copy_is_named_and_harms_nothing(environment: Environment, source: Path) -> None:
    before = environment.strategies()
    (source / "autoseg_autosegnet" / "strategy.py").write_text(BROKEN)
    environment.install(source)
    after = environment.strategies()
    broken = after.pop("autosegnet")
    assert (broken["distribution"], broken["error"]) == ("autoseg-autosegnet", "RuntimeError: broken on purpose")
    assert after == before and all(row["error"] is None for row in after.values())
    listed = environment.run("autoseg", "list")
    assert listed.returncode == 0
    assert "broken on purpose" in listed.stdout + listed.stderr
    code = "from autoseg import registry; registry.load('strategy', 'random'); registry.load('strategy', 'autosegnet')"
    named = environment.run_code(code)
    assert named.returncode != 0
    assert "strategy 'autosegnet' of autoseg-autosegnet 0.1.0 cannot be loaded" in named.stderr
    assert "RuntimeError: broken on purpose" in named.stderr


def test_the_wheel_holds_the_package_and_nothing_else(environment: Environment, source: Path) -> None:
    environment.install(source)
    (site,) = environment.folder.glob("lib/python*/site-packages")
    own = {path.name for path in SOURCE.glob("autoseg_autosegnet/*.py")}
    assert {path.name for path in site.glob("autoseg_autosegnet/*.py")} == own
    assert sorted(path.name.partition("-")[0] for path in site.glob("*autosegnet*")) == ["autoseg_autosegnet"] * 2
    assert not (site / "tests").exists()


# As it is installed for these tests


def test_options_are_checked_like_those_of_any_strategy() -> None:
    good = {"mode": "multi-trial", "order": ["down", "bridge", "up", "skip"], "tanh_constant": None}
    assert registry.check_options("strategy", "autosegnet", good, "strategy.options") == []
    bad = {"mode": "both", "hiden": 3, "trials": "many"}
    problems = registry.check_options("strategy", "autosegnet", bad, "strategy.options")
    assert [p.where for p in problems] == [f"strategy.options.{name}" for name in ("mode", "hiden", "trials")]
    assert "did you mean 'hidden'?" in problems[1].fix


def test_a_whole_run_with_the_plugin(tmp_path: Path, one_core: None) -> None:
    import autoseg

    options = {"epochs": 2, "rewards": 4, "candidates": 1, "order": ["dec", "enc"]}
    run = autoseg.run(
        {**EXPERIMENT, "strategy": {"name": "autosegnet", "options": options}, "baselines": [], "repeats": 1},
        out=tmp_path / "run",
    )
    assert run is not None
    found = json.loads((tmp_path / "run" / "architecture.json").read_text())
    assert found["space"] == "ednas" and found["choices"]
    assert any("has not converged" in note for note in run.comparison["verdict"]["notes"])


def test_an_order_that_does_not_fit_is_a_message(tmp_path: Path, one_core: None) -> None:
    import autoseg

    strategy = {"name": "autosegnet", "options": {"epochs": 1, "order": ["enc"]}}
    with pytest.raises(UserError, match="these decisions are missing: dec"):
        autoseg.run({**EXPERIMENT, "strategy": strategy, "baselines": [], "repeats": 1}, out=tmp_path / "run")
