"""autoseg: plugin-based AutoML for semantic segmentation.

The public Python API is small: :func:`run` executes an experiment file, :func:`load` opens a trained
model for prediction and :func:`build` constructs any registered network. Importing this package is
cheap; torch and NNI are imported only when one of these functions is called.

Example:
    >>> import autoseg
    >>> autoseg.__version__
    '0.1.0'
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# libgomp's default busy-waiting slows two processes on the same cores about threefold; this must be
# set before torch is imported, which is why it happens here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["__version__", "build", "load", "run"]

if TYPE_CHECKING:
    from autoseg.baselines.build import build
    from autoseg.experiment import run
    from autoseg.predict.segmenter import load

_API = {
    "run": "autoseg.experiment",
    "load": "autoseg.predict.segmenter",
    "build": "autoseg.baselines.build",
}


def __getattr__(name: str) -> Any:
    """Import the public functions on first use (PEP 562)."""
    if name in _API:
        from importlib import import_module

        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
