from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import autoseg
from autoseg.baselines.build import build
from autoseg.baselines.fitting import FittedNetwork
from autoseg.baselines.segnet import SegNet
from autoseg.baselines.unet import UNet
from autoseg.errors import UserError
from autoseg.search.architecture import Architecture
from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
from autoseg.testing.models import parameters


@pytest.fixture
def architecture() -> dict[str, Any]:
    return {"space": "ednas", "kwargs": {"blocks": 3, "layers": 2, "width": 4}, "choices": to_choices(ED_NAS_N3)}


@pytest.mark.parametrize(("name", "kind"), [("unet", UNet), ("segnet", SegNet)])
def test_builds_registered_models_with_options(name: str, kind: type) -> None:
    network = build(name, 5, 3, width=4, depth=2)
    assert type(network) is kind
    assert network.size_divisor == 4
    assert network(torch.randn(1, 5, 9, 11)).shape == (1, 3, 9, 11)


def test_builds_deeplab_with_the_options_of_the_library() -> None:
    network = build("deeplabv3", in_channels=1, num_classes=2, decoder_channels=8, encoder_output_stride=16)
    assert type(network) is FittedNetwork
    assert network.size_divisor == 16
    assert network.network.decoder.conv.out_channels == 8


def test_is_the_public_function() -> None:
    assert autoseg.build is build


def test_dict_file_and_object_give_the_same_network(architecture: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(architecture), encoding="utf-8")
    x = torch.randn(1, 3, 32, 32)
    outputs = []
    for source in (architecture, path, str(path), Architecture.from_json(architecture)):
        torch.manual_seed(0)
        network = build(source, 3, 4).eval()
        with torch.no_grad():
            outputs.append(network(x))
    assert outputs[0].shape == (1, 4, 32, 32)
    for output in outputs[1:]:
        assert torch.equal(output, outputs[0])


def test_options_replace_those_of_the_architecture(architecture: dict[str, Any]) -> None:
    small = build(architecture, 3, 2)
    wide = build(architecture, 3, 2, width=8)
    deep = build(architecture, 3, 2, layers=3)
    assert parameters(wide) > 2 * parameters(small)
    assert parameters(deep) > parameters(small)
    assert deep.size_divisor == 2 * small.size_divisor
    assert architecture["kwargs"] == {"blocks": 3, "layers": 2, "width": 4}


def test_same_seed_same_network() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(7)
        networks.append(build("unet", 1, 2, width=2))
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


def problems(*args: Any, **options: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        build(*args, **options)
    return [str(problem) for problem in error.value.problems]


def test_unknown_model_is_named_with_a_suggestion() -> None:
    (text,) = problems("unett", 3, 2)
    assert "unett" in text and "'unet'" in text


def test_unknown_options_and_wrong_numbers_come_together() -> None:
    texts = problems("unet", 0, 2, widht=8, dept=2)
    assert len(texts) == 3
    assert "in_channels" in texts[0]
    assert any("widht" in text and "'width'" in text for text in texts)
    assert any("dept" in text and "'depth'" in text for text in texts)


def test_wrong_numbers_are_reported_with_an_unknown_model() -> None:
    texts = problems("unett", 3, 0)
    assert len(texts) == 2
    assert "num_classes" in texts[0] and "unett" in texts[1]


def test_unknown_option_of_a_space(architecture: dict[str, Any]) -> None:
    for source, options in ((architecture, {"widht": 8}), ({**architecture, "kwargs": {"widht": 8}}, {})):
        (text,) = problems(source, 3, 2, **options)
        assert "widht" in text and "'width'" in text


def test_unknown_space(architecture: dict[str, Any]) -> None:
    (text,) = problems({**architecture, "space": "ednass"}, 3, 2)
    assert "ednass" in text and "'ednas'" in text


def test_bad_architectures(architecture: dict[str, Any], tmp_path: Path) -> None:
    (text,) = problems(tmp_path / "none.json", 3, 2)
    assert "none.json" in text
    (text,) = problems({"space": "ednas"}, 3, 2)
    assert "choices" in text
    (text,) = problems(42, 3, 2)
    assert "int" in text
