"""A small finished run folder and its data set."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_run import make_data, make_run

from autoseg.data.base import SegmentationData


@pytest.fixture(scope="session")
def data() -> SegmentationData:
    return make_data()


@pytest.fixture
def run_dir(tmp_path: Path, data: SegmentationData) -> Path:
    return make_run(tmp_path / "ceramic", data)
