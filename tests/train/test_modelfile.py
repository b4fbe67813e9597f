"""Model files: what is read back predicts the same, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.errors import UserError
from autoseg.search.architecture import Architecture
from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
from autoseg.train.modelfile import ModelFile
from autoseg.train.modelspec import ModelSpec

INFO = DatasetInfo("cells", 2, ("background", "cell", "rim"), ((0, 0, 0), (230, 159, 0), (1, 2, 3)), 77, 0.12, "nm")
NORMALISATION = Normalisation((90.123456789, 0.1), (20.3, 1e-3))
UNET = ModelSpec("small", "baseline", model="unet", options={"width": 2, "depth": 2})
FOUND = ModelSpec(
    "searched",
    "finalist",
    architecture=Architecture("ednas", {"blocks": 3, "layers": 2, "width": 4}, to_choices(ED_NAS_N3)),
    options={"layers": 3},
)


def saved(folder: Path, spec: ModelSpec) -> torch.nn.Module:
    """A network after a few training steps, so that its buffers matter, and its files."""
    torch.manual_seed(0)
    network = spec.build(2, 3).to(memory_format=torch.channels_last).train()
    for _ in range(3):
        network(torch.randn(4, 2, 32, 32))
    training = {"seed": 3, "best_epoch": 4, "best_miou": 0.5, "notes": []}
    ModelFile(spec, INFO, NORMALISATION, training).save(folder, network)
    return network.eval()


@pytest.mark.parametrize("spec", [UNET, FOUND], ids=["registered model", "architecture"])
def test_what_is_loaded_predicts_the_same(tmp_path: Path, spec: ModelSpec) -> None:
    network = saved(tmp_path / "seed-3", spec)
    described, loaded = ModelFile.load(tmp_path / "seed-3")
    assert described.spec == spec and described.info == INFO and described.normalisation == NORMALISATION
    assert described.training == {"seed": 3, "best_epoch": 4, "best_miou": 0.5, "notes": []}
    assert not loaded.training
    x = torch.randn(1, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Channels last as it was trained, since the layout may change the last bit.
        assert torch.equal(network(x), loaded.to(memory_format=torch.channels_last)(x))


def test_the_files(tmp_path: Path) -> None:
    saved(tmp_path, UNET)
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "model.json"}
    value = json.loads((tmp_path / "model.json").read_text())
    assert value["build"] == {
        "label": "small", "role": "baseline", "model": "unet", "architecture": None,
        "options": {"width": 2, "depth": 2},
    }  # fmt: skip
    assert value["info"]["classes"] == ["background", "cell", "rim"] and value["info"]["pixel_size"] == 0.12
    with safe_open(str(tmp_path / "weights.safetensors"), framework="pt") as file:
        assert set(file.keys()) == set(UNET.build(2, 3).state_dict())
        assert file.metadata() == {"format": "pt"}
    content = (tmp_path / "weights.safetensors").read_bytes()
    for other in range(5):
        saved(tmp_path / str(other), UNET)
        assert (tmp_path / str(other) / "weights.safetensors").read_bytes() == content


def test_a_network_with_shared_tensors_is_stored(tmp_path: Path) -> None:
    network = UNET.build(2, 3)
    network.head.weight = torch.nn.Parameter(network.encoder[0][0].weight.data.view(-1)[:6].view(3, 2, 1, 1))
    ModelFile(UNET, INFO, NORMALISATION, {}).save(tmp_path, network)
    assert torch.equal(ModelFile.load(tmp_path)[1].head.weight, network.head.weight)


def test_saving_does_not_move_the_network(tmp_path: Path) -> None:
    network = saved(tmp_path, UNET)
    assert network.head.weight.requires_grad and network.head.weight.device.type == "cpu"


def problem(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        ModelFile.load(folder)
    return str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "of another network"])
def test_damaged_weights(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, UNET)
    path = tmp_path / "weights.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "missing":
        path.unlink()
    else:
        saved(tmp_path / "other", ModelSpec("wide", "baseline", model="unet", options={"width": 3, "depth": 2}))
        path.write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    text = problem(tmp_path)
    assert "the weights cannot be loaded" in text and str(path) in text
    assert "one training" in text


def test_a_pickle_is_not_taken_for_weights(tmp_path: Path) -> None:
    network = saved(tmp_path, UNET)
    torch.save(network.state_dict(), tmp_path / "weights.safetensors")
    assert "the weights cannot be loaded" in problem(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("build", None), ("build", ["unet"]), ("build", {"label": "x"}), ("info", {"classes": ["a"]}), ("info", 3),
        ("info", {**{"name": "a", "channels": 1, "classes": ["a"], "colors": [[0, 0, 0]]}, "flavour": "sweet"}),
        ("normalisation", {"mean": [1.0]}), ("normalisation", {"mean": ["x"], "std": [1]}), ("training", None),
    ],
)  # fmt: skip
def test_a_damaged_description(tmp_path: Path, key: str, value: object) -> None:
    saved(tmp_path, UNET)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    content[key] = value
    if value is None:
        del content[key]
    path.write_text(json.dumps(content))
    text = problem(tmp_path)
    assert "is not a model description" in text and str(path) in text


def test_no_description_or_no_json(tmp_path: Path) -> None:
    assert "model.json: is missing" in problem(tmp_path)
    (tmp_path / "model.json").write_text("{")
    assert "is not JSON" in problem(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    assert "is not a model description" in problem(tmp_path)


def test_a_model_that_is_not_installed(tmp_path: Path) -> None:
    saved(tmp_path, UNET)
    path = tmp_path / "model.json"
    path.write_text(path.read_text().replace('"unet"', '"u-net"'))
    assert "did you mean 'unet'?" in problem(tmp_path)


def test_pretrained_weights_are_not_fetched_to_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"encoder": "mobilenet_v2", "decoder_channels": 4}
    network = ModelSpec("deep", "baseline", model="deeplabv3", options=options).build(2, 3)
    pretrained = ModelSpec("deep", "baseline", model="deeplabv3", options={**options, "weights": "imagenet"})
    ModelFile(pretrained, INFO, NORMALISATION, {}).save(tmp_path, network)

    def fetch(*arguments: object, **named: object) -> None:
        pytest.fail("pretrained weights were fetched")

    monkeypatch.setattr("autoseg.baselines.pretrained.get_encoder", fetch)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    described, loaded = ModelFile.load(tmp_path)
    assert described.spec == pretrained
    assert torch.equal(loaded.network.segmentation_head[0].weight, network.network.segmentation_head[0].weight)


def test_a_spec_goes_through_json() -> None:
    for spec in (UNET, FOUND, ModelSpec("random", "control")):
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_options_that_do_not_fit_a_model() -> None:
    with pytest.raises(UserError, match="unexpected keyword argument 'widht'") as caught:
        ModelSpec("small", "baseline", model="unet", options={"widht": 2}).build(1, 2)
    assert caught.value.problems[0].where == "model 'small'"
    with pytest.raises(UserError, match="width"):
        ModelSpec("small", "baseline", model="unet", options={"width": 0}).build(1, 2)
