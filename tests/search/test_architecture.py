from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Planted

from autoseg import __version__
from autoseg.errors import UserError
from autoseg.search.architecture import Architecture
from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices

SMALL = {"blocks": 3, "layers": 2, "width": 4}


@pytest.fixture
def found() -> Architecture:
    return Architecture("ednas", dict(SMALL), to_choices(ED_NAS_N3))


def problem(caught: pytest.ExceptionInfo[UserError]) -> str:
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_json_round_trip(found: Architecture, tmp_path: Path) -> None:
    value = found.to_json()
    assert value == {
        "space": "ednas",
        "kwargs": {"blocks": 3, "layers": 2, "width": 4},
        "choices": to_choices(ED_NAS_N3),
        "autoseg": __version__,
        "code": "E=[(0,0,1,2),(0,0,0,0),(0,0,1,0)] D=[(0,0),(1,0),(2,2)]",
    }
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps({**value, "seconds": 3.5}))  # other keys are ignored
    assert Architecture.read(path) == found
    assert Architecture.read(str(path)) == found
    assert Architecture.from_json(json.loads(json.dumps(value))) == found


def test_reading_changes_nothing_in_the_source(found: Architecture) -> None:
    value = found.to_json()
    Architecture.from_json(value).kwargs["layers"] = 9
    assert value["kwargs"]["layers"] == 2


def test_options_may_be_left_out() -> None:
    assert Architecture.from_json({"space": "ednas", "choices": {}}) == Architecture("ednas")


def test_build_is_repeatable_and_takes_options(found: Architecture) -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(found.build(2, 5))
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(nets[0](x), nets[1](x))
    assert nets[0](x).shape == (1, 5, 8, 8)
    deeper = found.build(2, 5, layers=3, width=8)
    assert deeper.size_divisor == 8
    assert deeper.stem[0].out_channels == 8
    assert found.kwargs == SMALL


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[1, 2]", "an architecture is a JSON object"),
        ('{"kwargs": {}, "choices": {}}', "'space' is missing or not a str"),
        ('{"space": "ednas"}', "'choices' is missing or not a dict"),
        ('{"space": "ednas", "choices": {}, "kwargs": []}', "'kwargs' is missing or not a dict"),
    ],
)
def test_read_errors_name_the_file(text: str | None, what: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        Architecture.read(path)
    (only,) = caught.value.problems
    assert what in only.what
    assert only.where == str(path)
    assert only.fix


def test_a_folder_and_a_picture_are_no_architecture(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    for path, what in ((tmp_path, "cannot be read"), (tmp_path / "picture.png", "is not JSON")):
        with pytest.raises(UserError, match=what):
            Architecture.read(path)


def test_all_missing_keys_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Architecture.from_json({"kwargs": 3}, "x.json")
    assert [p.what.split()[0] for p in caught.value.problems] == ["'space'", "'kwargs'", "'choices'"]
    assert {p.where for p in caught.value.problems} == {"x.json"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"enc0_op1": "conv9"}, "conv9"),
        ({"enc1_in1": [7]}, "7"),
        ({"enc1_in1": 0}, "enc1_in1|int"),
        ({"enc1_in1": [0, 1]}, "enc1_in1|chosen|length"),
        ({"dec1_op1": None}, "None"),
        ({"dec3_op1": "dw3"}, "dec3_op1"),
    ],
)
def test_wrong_choices(found: Architecture, change: dict[str, Any], named: str) -> None:
    wrong = Architecture("ednas", found.kwargs, {**found.choices, **change})
    for attempt in (lambda: wrong.build(1, 3), lambda: wrong.code):
        with pytest.raises(UserError, match="the choices do not fit the space 'ednas'"):
            attempt()
    with pytest.raises(UserError, match=named):
        wrong.build(1, 3)


def test_missing_choice(found: Architecture) -> None:
    found.choices.pop("enc2_in2")
    with pytest.raises(UserError, match="enc2_in2 is missing"):
        found.build(1, 3)
    with pytest.raises(UserError, match="enc2_in2' is missing"):
        found.to_json()


def test_wrong_options(found: Architecture) -> None:
    with pytest.raises(UserError, match="decoder must be one of"):
        found.build(1, 3, decoder="tree")
    with pytest.raises(UserError, match="colour"):
        found.build(1, 3, colour="red")


def test_unknown_space() -> None:
    for use in (lambda a: a.build(1, 2), lambda a: a.code):
        with pytest.raises(UserError, match="no space called 'ednass'") as caught:
            use(Architecture("ednass"))
        assert "did you mean 'ednas'" in problem(caught)


def test_code_of_a_space_without_a_notation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.search.architecture.registry.load", lambda kind, name: Planted)
    toy = Architecture("planted", {}, {"op2": "identity", "op": "conv3"})
    assert toy.code == '{"op": "conv3", "op2": "identity"}'
    assert toy.build(1, 2)(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)
