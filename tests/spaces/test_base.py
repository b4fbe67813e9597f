from __future__ import annotations

from typing import Any

import pytest

from autoseg import registry
from autoseg.spaces.autosegnet import AutoSegNet
from autoseg.spaces.base import decisions, operation_labels, operations_in, pass_through
from autoseg.spaces.ednas import EdNas
from autoseg.spaces.searchnet import SearchNet


@pytest.mark.parametrize("space", [EdNas, SearchNet, AutoSegNet])
def test_every_operation_has_a_label(space: Any) -> None:
    labels = operation_labels(space)
    found = decisions(space(1, 2, width=2, extra=["se", "context"]))
    first = {label: values[0] for label, values in found.items()}
    names = {name for label in operations_in(space, first) for name in found[label]}
    assert set(labels) == names
    assert len(set(labels.values())) == len(labels)
    assert (labels["se"], labels["context"]) == ("squeeze-excite", "global context")
    assert pass_through(space) <= names


@pytest.mark.parametrize("name", ["ednas", "searchnet", "autosegnet"])
def test_labels_are_those_of_the_drawings(name: str) -> None:
    space = registry.load("space", name)
    for choices in space.named({}).values():
        drawn = {
            node["label"]
            for cell in space.cells(choices, {})
            if not cell["title"].startswith("Network")
            for node in cell["nodes"]
            if node["kind"] == "op"
        }
        assert drawn == {operation_labels(space)[op] for op in operations_in(space, choices).values()}


def test_labels_of_a_space_without() -> None:
    assert operation_labels(object) == {}
    changed = operation_labels(EdNas)
    changed["dw3"] = "mine"
    assert operation_labels(EdNas)["dw3"] == "3x3 separable"  # a copy was changed
