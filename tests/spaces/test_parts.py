from __future__ import annotations

import random
from typing import Any

import pytest
from nni.mutable.exception import SampleValidationError
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import model_context
from torch import nn

from autoseg.nn import ops
from autoseg.search.architecture import Architecture
from autoseg.spaces.autosegnet import AutoSegNet
from autoseg.spaces.base import decisions, plain
from autoseg.spaces.ednas import EdNas
from autoseg.spaces.parts import operation_choice
from autoseg.spaces.searchnet import SearchNet


class Made:
    """Makers that remember what they were asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str]] = []

    def __call__(self, name: str) -> ops.Operation:
        def make(channels: int, order: str) -> nn.Module:
            self.calls.append((name, channels, order))
            return nn.Conv2d(channels, channels, 1)

        return make


def test_a_supernet_has_every_operation() -> None:
    made = Made()

    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = operation_choice(3, {name: made(name) for name in "ab"}, "relu-conv-bn", "op")

    choice = Space().choice
    assert isinstance(choice, LayerChoice)
    assert (choice.names, str(choice.label)) == (["a", "b"], "op")
    assert made.calls == [("a", 3, "relu-conv-bn"), ("b", 3, "relu-conv-bn")]


def test_a_derived_network_makes_the_chosen_operation_alone() -> None:
    made = Made()
    makers = {name: made(name) for name in "abc"}
    with model_context({"op": "b", "other": "c"}):
        assert isinstance(operation_choice(5, makers, "conv-bn-relu", "op"), nn.Conv2d)
    assert made.calls == [("b", 5, "conv-bn-relu")]
    for choices in ({"op": "d"}, {"other": "a"}):
        with model_context(choices), pytest.raises(SampleValidationError):
            operation_choice(5, makers, "conv-bn-relu", "op")
    assert len(made.calls) == 1


@pytest.mark.parametrize("space", [EdNas, SearchNet, AutoSegNet])
def test_only_chosen_operations_are_made_in_every_space(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    kwargs = {"width": 2}
    choices = plain({label: rng.choice(values) for label, values in decisions(space(1, 2, **kwargs)).items()})
    made: list[nn.Conv2d] = []
    init = nn.Conv2d.__init__

    def count(self: nn.Conv2d, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(nn.Conv2d, "__init__", count)
    name = {EdNas: "ednas", SearchNet: "searchnet", AutoSegNet: "autosegnet"}[space]
    network = Architecture(name, kwargs, choices).build(1, 2)
    kept = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert kept > 10
    assert len(made) - kept <= (2 if space is AutoSegNet else 0)  # its two long skips are made, then dropped
