"""Our guard for NNI experiments that somebody starts with NNI's own ``Experiment`` or ``NasExperiment``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

_GUARD = Path(__file__).with_name("guard.js")
_PATIENCE = 60  # tries, a second apart; NNI's own three are too few on a busy machine


def guard_nni() -> None:
    """Guard every manager of NNI that this process starts from now on.

    It listens on 127.0.0.1 alone, gives every trial its own parameters, ends with this process, however that ends,
    and has a minute to start. Not for ``nnictl``, which leaves the manager behind on purpose.

    Example:
        >>> guard_nni()
        >>> os.environ["NODE_OPTIONS"].endswith('guard.js"'), os.environ["AUTOSEG_PARENT"] == str(os.getpid())
        (True, True)
        >>> del os.environ["NODE_OPTIONS"], os.environ["AUTOSEG_PARENT"]
    """
    from nni.experiment import launcher

    os.environ["NODE_OPTIONS"] = f'--require "{_GUARD}"'
    os.environ["AUTOSEG_PARENT"] = str(os.getpid())
    if not isinstance(launcher._check_rest_server, partial):
        launcher._check_rest_server = partial(launcher._check_rest_server, retry=_PATIENCE)
