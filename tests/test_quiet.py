from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from autoseg.quiet import load_nni


def test_import_says_nothing() -> None:
    """In a process of its own, with every warning shown."""
    code = """
import logging, sys, warnings
warnings.simplefilter("default", RuntimeWarning)
logging.basicConfig()
import autoseg.spaces.ednas
assert "gym" in sys.modules and sys.modules["gym"].__name__ == "gymnasium"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_else_is_silenced(caplog: pytest.LogCaptureFixture) -> None:
    load_nni()
    with pytest.warns(RuntimeWarning, match="not a nn.Module"), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("<class 'x'> is found to be not a nn.Module, which is unexpected", RuntimeWarning, stacklevel=1)
    messages = {
        "nni.nas.evaluator.pytorch.lightning": (
            "Validation dataloaders are missing. Safe to ignore this warning when using one-shot strategy.",
            "Trainer status is detected to be interrupted.",
        ),
        "nni.nas.execution.sequential": ("Model %d fails to be executed.", "Maximum number of models reached"),
        "nni.nas.strategy.base": ("Strategy failed to execute.", "Exception raised during strategy cleanup. Ignore."),
    }
    for name, (silenced, shown) in messages.items():
        log = logging.getLogger(name)
        caplog.clear()
        log.addHandler(caplog.handler)
        try:
            log.error(silenced, *([3] if "%d" in silenced else []))
            log.error(shown)
        finally:
            log.removeHandler(caplog.handler)
        assert {record.getMessage() for record in caplog.records} == {shown}


def test_loaded_once() -> None:
    assert load_nni() is load_nni()
    filters = logging.getLogger("nni.nas.strategy.base").filters
    assert len(filters) == 1
