from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_distribution import install

CODE = """
import json, sys, time
start = time.process_time()
import autoseg, autoseg.registry, autoseg.config, autoseg.errors, autoseg.durations
imported = time.process_time() - start
rows = autoseg.registry.listing()
total = time.process_time() - start
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "nni", "cv2", "scipy", "matplotlib"})
names = [row["name"] for row in rows]
print(json.dumps({"heavy": heavy, "imported": imported, "total": total, "names": names}))
"""


LIGHT = """
import sys, autoseg, autoseg.registry
print(sorted({"pydantic", "yaml", "torch", "nni", "numpy"} & set(sys.modules)))
"""


def measure(site: Path, cache: Path) -> dict[str, Any]:
    environment = {"PATH": "/usr/bin", "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, cwd=site.parent
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_warm_listing_is_fast_and_light(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """In seconds of CPU: what else the machine does is nothing to it."""
    site = install(tmp_path / "site")
    cold = measure(site, tmp_path / "cache")
    warm = min((measure(site, tmp_path / "cache") for _ in range(3)), key=lambda m: m["total"])
    record_property("warm_listing_seconds", warm["total"])
    assert cold["heavy"] == warm["heavy"] == []
    assert {"tiny", "ednas", "unet"} <= set(warm["names"])
    assert warm["names"] == cold["names"]
    assert warm["total"] < 0.5, warm
    print(f"import {warm['imported']:.3f} s, with listing {warm['total']:.3f} s, cold {cold['total']:.3f} s")


def test_importing_autoseg_alone_does_not_need_pydantic_or_yaml() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
