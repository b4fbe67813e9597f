"""The tests of the AutoSegNet plugin use the toy tasks of the other strategies."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "search"))

from autoseg.quiet import load_nni

load_nni()  # before toy.py imports NNI by itself
