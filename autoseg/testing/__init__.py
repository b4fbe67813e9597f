"""Contracts that a plugin author runs on a plugin: pytest classes to subclass. Nothing else imports pytest."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("autoseg.testing.losses", "autoseg.testing.models")

from autoseg.testing.losses import LossContract  # noqa: E402  # their assertions are rewritten only from here on
from autoseg.testing.models import ModelContract  # noqa: E402

__all__ = ["LossContract", "ModelContract"]
