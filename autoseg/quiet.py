"""Import NNI without its known noise, and nothing else silenced.

NNI 3.0 predates the installed torch, lightning and gymnasium. What it prints on import is known and
harmless, and some errors it logs before it raises them. Both are filtered here by their exact text, once,
before any NNI module is loaded. The packages whose modules import NNI call :func:`load_nni` in their
``__init__``.
"""

from __future__ import annotations

import logging
import sys
import warnings
from functools import cache, partial
from typing import Any

_NOT_A_MODULE = r".* is found to be not a nn\.Module, which is unexpected"
_LOGGED = {
    # Validation is ours, in a callback or after the search.
    "nni.nas.evaluator.pytorch.lightning": (
        "Validation dataloaders are missing. Safe to ignore this warning when using one-shot strategy.",
    ),
    # Logged before raising; what is raised is reported by us.
    "nni.nas.execution.sequential": ("Model %d fails to be executed.",),
    "nni.nas.strategy.base": ("Strategy failed to execute.",),
    "nni.mutable.frozen": (
        "Failed to freeze mutable %s with sample %s. "
        "In NAS, please make sure to have registered it via add_mutable(). "
        "Otherwise, please make sure you are not inside a frozen_context.",
    ),
}
"""Logger to the messages, before formatting, that it shall not show."""


@cache
def load_nni() -> Any:
    """Import ``nni.nas`` quietly and return the ``nni`` package.

    ``gymnasium`` stands in for the unmaintained ``gym``: tianshou tests for gymnasium's classes, and
    the import of gym prints a notice to stderr.

    Returns:
        The ``nni`` package with ``nni.nas`` loaded.

    Example:
        >>> load_nni().__name__
        'nni'
    """
    import gymnasium

    sys.modules.setdefault("gym", gymnasium)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NOT_A_MODULE, category=RuntimeWarning)
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
        _import_tianshou_uncompiled()
        import nni
        import nni.nas.nn.pytorch
        import nni.nas.strategy
    for name, messages in _LOGGED.items():
        logging.getLogger(name).addFilter(partial(_shown, messages))
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return nni


def _import_tianshou_uncompiled() -> None:
    """Import tianshou with numba's compiler off.

    It compiles three functions for seconds in every process that searches, and they then run for
    milliseconds; as plain Python they do the same.
    """
    import numba

    config: Any = numba.config
    before, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        import tianshou.policy  # noqa: F401
    finally:
        config.DISABLE_JIT = before


def _shown(silenced: tuple[str, ...], record: logging.LogRecord) -> bool:
    return record.msg not in silenced
