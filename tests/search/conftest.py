from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from autoseg import registry
from autoseg.quiet import load_nni

load_nni()  # before toy.py imports NNI by itself


@pytest.fixture(scope="module")
def toy_space() -> Iterator[None]:
    """Make the registry know the space of toy.py."""
    from toy import Planted

    load = registry.load

    def load_or_toy(kind: str, name: str) -> Any:
        return Planted if (kind, name) == ("space", "planted") else load(kind, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", load_or_toy)
        yield
