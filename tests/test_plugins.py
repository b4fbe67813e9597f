"""The plugin of plugins/README.md, installed for real: written from the page, listed, built and trained with."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from tiny_experiment import EXPERIMENT

README = Path(__file__).parents[1] / "plugins" / "README.md"


def test_the_plugin_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = dict(re.findall(r"```(ini|python)\n(.*?)```", README.read_text(), re.DOTALL))
    site = tmp_path / "site"
    info = site / "autoseg_tiny-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "autoseg_tiny.py").write_text(blocks["python"])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autoseg-tiny\nVersion: 0.1\n")
    entry = re.search(r"autoseg\.models =\n\s+(.*)", blocks["ini"])
    assert entry is not None
    (info / "entry_points.txt").write_text(f"[autoseg.models]\n{entry.group(1)}\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "autoseg_tiny", raising=False)

    import autoseg
    from autoseg import registry

    row = next(row for row in registry.listing("model") if row["name"] == "tiny")
    assert row == {
        "name": "tiny",
        "kind": "model",
        "description": "Two convolutions, for comparison.",
        "distribution": "autoseg-tiny",
        "error": None,
    }
    network = autoseg.build("tiny", in_channels=1, num_classes=3, width=4)
    assert sum(p.numel() for p in network.parameters()) == (9 * 1 * 4 + 4) + (9 * 4 * 3 + 3)
    baselines = [{"name": "tiny", "options": {"width": 4}}]
    run = autoseg.run({**EXPERIMENT, "baselines": baselines, "repeats": 1}, out=tmp_path / "run")
    assert run is not None
    assert run.comparison["models"]["tiny"]["role"] == "baseline"
