"""A real, if tiny, distribution in a temporary folder: metadata, entry points and modules."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

PLUGINS = {
    "autoseg.datasets": {"grains": "fakeplugs:grains"},
    "autoseg.spaces": {"tiny": "fakeplugs:Tiny", "open": "fakeplugs:Open"},
    "autoseg.strategies": {"guess": "fakeplugs:Guess"},
    "autoseg.models": {"flat": "fakeplugs:flat"},
    "autoseg.losses": {"soft": "fakeplugs:Soft"},
}
SOURCE = '''
from __future__ import annotations
from pathlib import Path
from typing import Literal

def grains(
    *, images: Path, masks: Path | None = None, extra: list[Path] = (), count: int = 3, size: tuple[int, int] = (8, 8)
):
    """Round grains.

    More text.
    """

class Tiny:
    """A tiny space."""
    def __init__(
        self, in_channels: int, num_classes: int, *,
        layers: int = 2, decoder: Literal["chain", "dense"] = "chain", prior: Path | None = None,
    ): ...

class Open:
    def __init__(self, in_channels, num_classes, **kwargs): ...

class Guess:
    """Guesses."""
    def __init__(self, epochs: int = 3, temperature: float = 1.0): ...

def flat(in_channels, num_classes, width: int = 4):
    """One layer."""

class Soft:
    """Soft loss."""
    def __init__(self, *, smooth: float = 1.0): ...
'''


def install(
    folder: Path,
    name: str = "fake-plugs",
    version: str = "1.2",
    groups: Mapping[str, Mapping[str, str]] = PLUGINS,
    modules: Mapping[str, str] | None = None,
) -> Path:
    """Write a distribution into ``folder``, which the caller puts on ``sys.path``."""
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module, text in ({"fakeplugs": SOURCE} if modules is None else modules).items():
        (folder / f"{module}.py").write_text(textwrap.dedent(text))
    return folder
