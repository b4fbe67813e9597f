"""Time that passes only where work is done, so that budgets in seconds can be checked to the step on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from autoseg.search import trials
from autoseg.train import clock, keeper


class VirtualTime:
    """Stands for the module ``time`` in the clocks of trainings and searches.

    Attributes:
        now: Seconds since the beginning, on every clock.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    process_time = monotonic

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for module in (clock, keeper, trials):
            patch.setattr(module, "time", self)

    @contextmanager
    def passes(self, network: type[nn.Module], step: float, image: float) -> Iterator[None]:
        """Each call of such a network takes ``step`` seconds in training and ``image`` per image otherwise."""

        def work(module: nn.Module, inputs: Any) -> None:
            if isinstance(module, network):
                self.now += step if module.training else image * len(inputs[0])

        hook = register_module_forward_pre_hook(work)
        try:
            yield
        finally:
            hook.remove()
