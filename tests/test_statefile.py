"""State files: everything comes back bit for bit, and reading one can run no code."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.errors import UserError
from autoseg.statefile import load_tree, save_tree


def same(a: Any, b: Any) -> bool:
    """Equal in type, structure and every bit; a tuple may have become a list."""
    if isinstance(a, torch.Tensor):
        bits = (torch.int16, torch.int32, torch.int64)
        view = {2: bits[0], 4: bits[1], 8: bits[2]}.get(a.element_size()) if a.is_floating_point() else None
        plain = [t.contiguous().view(view) if view and t.dim() else t for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*plain)
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(x) is type(y) for x, y in zip(a, b, strict=True)) and all(
            same(a[k], b[k]) for k in a
        )  # fmt: skip
    if isinstance(a, list | tuple):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def stepped(network: nn.Module, steps: int = 3) -> torch.optim.AdamW:
    groups = [{"params": [p], "weight_decay": 0.1 * i} for i, p in enumerate(network.parameters())]
    optimiser = torch.optim.AdamW(groups, lr=1e-2)
    for step in range(steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        network(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimiser.step()
    return optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1))


def test_plain_values_keep_their_types(tmp_path: Path) -> None:
    tree = {
        "none": None, "yes": True, "no": False, "one": 1, "float": 1.0, "tenth": 0.1, "tiny": 5e-324, "big": 2**70,
        "nan": math.nan, "infinite": -math.inf, "text": "\u03b7 \u2192 1", "empty": [[], {}, ""],
        7: {0: "int keys", "0": "and str keys"},
        "nested": [{"a": [1, [2.5, [None]]]}],
    }  # fmt: skip
    assert same(tree, load_tree(save_tree(tmp_path / "s", tree)))


@pytest.mark.parametrize("tree", [None, 3, "text", [], {}, torch.arange(3)])
def test_the_root_may_be_anything(tmp_path: Path, tree: Any) -> None:
    assert same(tree, load_tree(save_tree(tmp_path / "s", tree)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8"])
def test_tensors_of_every_kind(tmp_path: Path, dtype: Any) -> None:
    dtype = getattr(torch, dtype)
    values = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 50
    tree = [
        values.to(dtype),
        torch.tensor(1.5).to(dtype),
        torch.empty(0, 3, dtype=dtype),
        values.to(dtype).to(memory_format=torch.channels_last),
        values.to(dtype)[:, ::2].transpose(0, 2),
    ]
    assert same(tree, load_tree(save_tree(tmp_path / "s", tree)))


def test_special_numbers_keep_their_bits(tmp_path: Path) -> None:
    values = torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45])
    assert same(values, load_tree(save_tree(tmp_path / "s", values)))
    assert load_tree(save_tree(tmp_path / "s", torch.tensor([True, False]))).tolist() == [True, False]


def test_a_parameter_comes_back_as_a_plain_tensor(tmp_path: Path) -> None:
    found = load_tree(save_tree(tmp_path / "s", nn.Parameter(torch.ones(2))))
    assert type(found) is torch.Tensor and not found.requires_grad


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    ours = network()
    optimiser = stepped(ours)
    tree = {"weights": dict(ours.state_dict()), "optimiser": optimiser.state_dict()}
    found = load_tree(save_tree(tmp_path / "s", tree))
    assert same(tree, found)
    assert sorted(found["optimiser"]["state"]) == [0, 1, 2, 3, 4, 5]

    theirs = copy.deepcopy(ours)
    for parameter in theirs.parameters():
        parameter.data.zero_()
    theirs.load_state_dict(found["weights"])
    groups = [{"params": [p]} for p in theirs.parameters()]
    resumed = torch.optim.AdamW(groups, lr=1.0)
    resumed.load_state_dict(found["optimiser"])
    for one, other in ((ours, optimiser), (theirs, resumed)):
        torch.manual_seed(9)
        other.zero_grad()
        one(torch.randn(4, 3, 8, 8)).square().mean().backward()
        other.step()
    assert same(dict(ours.state_dict()), dict(theirs.state_dict()))


def test_shared_tensors_are_stored_each_for_itself(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    found = load_tree(save_tree(tmp_path / "s", {"a": base, "b": base, "part": base[2:4]}))
    assert same(found, {"a": base, "b": base, "part": torch.tensor([2.0, 3.0])})
    found["a"][0] = 9
    assert found["b"][0] == 0 and base[0] == 0


def test_what_is_written_does_not_change_with_the_module(tmp_path: Path) -> None:
    ours = network()
    save_tree(tmp_path / "s", dict(ours.state_dict()))
    before = copy.deepcopy(dict(ours.state_dict()))
    stepped(ours)
    assert same(before, load_tree(tmp_path / "s"))


class Odd:
    pass


@pytest.mark.parametrize(
    "value", [Odd(), {1, 2}, b"bytes", 1j, np.float32(1), np.zeros(2), torch.float32, torch.Generator(), len]
)
def test_other_types_are_refused(tmp_path: Path, value: Any) -> None:
    path = save_tree(tmp_path / "s", "old")
    with pytest.raises(TypeError, match="may not hold"):
        save_tree(path, {"a": [1, value]})
    assert load_tree(path) == "old"


@pytest.mark.parametrize("key", [1.5, None, (1, 2)])
def test_other_keys_are_refused(tmp_path: Path, key: Any) -> None:
    with pytest.raises(TypeError, match="keys must be str or int"):
        save_tree(tmp_path / "s", {key: 1})


def test_dictionaries_keep_their_order(tmp_path: Path) -> None:
    found = load_tree(save_tree(tmp_path / "s", OrderedDict([("b", 1), ("a", torch.ones(1)), ("c", 2)])))
    assert list(found) == ["b", "a", "c"]


def test_there_is_no_pickle_inside(tmp_path: Path) -> None:
    ours = network()
    content = save_tree(tmp_path / "s", {"optimiser": stepped(ours).state_dict(), "x": 1}).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])  # safetensors: the length of a JSON header, the header, numbers
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["tree"]).keys() == {"d"}
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    assert len(content) == 8 + length + max(ends)
    assert content[:2] not in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")
    for magic in (b"PK\x03\x04", b"torch._utils", b"ctorch", b"collections"):
        assert magic not in content[: 8 + length]


@pytest.mark.parametrize("damage", ["cut", "flipped header", "empty", "text", "pickle", "no tree", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = save_tree(tmp_path / "s.safetensors", {"a": torch.randn(100), "b": 3})
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-50])
    elif damage == "flipped header":
        path.write_bytes(content[:20] + b"\xff\xff" + content[22:])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("hello")
    elif damage == "pickle":
        torch.save({"a": 1}, path)
    elif damage == "no tree":
        from safetensors.torch import save_file

        save_file({"a": torch.ones(1)}, path)
    else:
        path.unlink()
    with pytest.raises(UserError, match="is not a state file") as caught:
        load_tree(path)
    assert caught.value.problems[0].where == str(path)
    assert "delete it" in caught.value.problems[0].fix
