"""Import NNI without its known noise, and nothing else silenced.

NNI 3.0 predates the installed torch, lightning and gymnasium. Three messages it prints on import are
known and harmless; they are filtered here by their exact text, once, before any NNI module is loaded.
The packages whose modules import NNI call :func:`load_nni` in their ``__init__``.
"""

from __future__ import annotations

import logging
import sys
import warnings
from functools import cache
from typing import Any

_NOT_A_MODULE = r".* is found to be not a nn\.Module, which is unexpected"
_NO_VALIDATION = "Validation dataloaders are missing"


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
        import nni
        import nni.nas.nn.pytorch
        import nni.nas.strategy
    logging.getLogger("nni.nas.evaluator.pytorch.lightning").addFilter(
        lambda record: not record.getMessage().startswith(_NO_VALIDATION)
    )
    # It logs "fails to be executed" before raising; what is raised is reported by us.
    logging.getLogger("nni.nas.execution.sequential").setLevel(logging.CRITICAL)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return nni
