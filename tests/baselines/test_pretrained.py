from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder

from autoseg import registry
from autoseg.errors import UserError
from autoseg.plugin_options import is_file_name, options_of, resolve_paths

SMALL = {"decoder_pyramid_channels": 8, "decoder_segmentation_channels": 32}


def encoder_of(name: str, in_channels: int = 3, **options: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    network = registry.load("model", name)(in_channels, 2, **options).network
    state: dict[str, torch.Tensor] = network.encoder.state_dict()
    return state


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    state = get_encoder("resnet18", weights=None).state_dict()
    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(state, file)
    return file, state


def test_names_of_the_library(resnet18: tuple[Path, dict[str, torch.Tensor]]) -> None:
    file, state = resnet18
    loaded = encoder_of("fpn-resnet18", weights=str(file), **SMALL)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channel_counts_as_the_library_does_it(
    resnet18: tuple[Path, dict[str, torch.Tensor]], channels: int
) -> None:
    file, state = resnet18
    loaded = encoder_of("fpn-resnet18", channels, weights=file, **SMALL)
    expected = get_encoder("resnet18", weights=None)
    expected.load_state_dict(dict(state))
    expected.set_in_channels(channels, pretrained=True)
    torch.testing.assert_close(loaded["conv1.weight"], expected.state_dict()["conv1.weight"])
    assert torch.equal(loaded["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


@pytest.mark.parametrize(("model", "prefix"), [("resnet10t", ""), ("convnext_atto", ""), ("resnet10t", "module.")])
def test_names_of_timm_with_its_classifier(tmp_path: Path, model: str, prefix: str) -> None:
    torch.manual_seed(2)
    state = timm.create_model(model).state_dict()
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, tmp_path / "w.pth")
    loaded = encoder_of(f"fpn-{model}", weights=tmp_path / "w.pth", **SMALL)
    weights = [key for key, value in loaded.items() if value.ndim == 4]
    flat = {key.replace("stages.", "stages_").replace("stem.", "stem_"): value for key, value in state.items()}
    theirs = flat | state
    assert len(weights) > 8
    assert all(torch.equal(loaded[key], theirs[key.removeprefix("model.")]) for key in weights)


@pytest.mark.parametrize("name", ["dpt-vit_tiny_patch16_224", "setr-pup-vit_tiny_patch16_224"])
def test_vision_transformers_for_five_channels(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    torch.save(state, tmp_path / "vit.pth")
    loaded = {k.removeprefix("model."): v for k, v in encoder_of(name, 5, weights=tmp_path / "vit.pth").items()}
    assert torch.equal(loaded["pos_embed"], state["pos_embed"])
    assert torch.equal(loaded["blocks.11.mlp.fc2.weight"], state["blocks.11.mlp.fc2.weight"])
    first = state["patch_embed.proj.weight"]
    torch.testing.assert_close(loaded["patch_embed.proj.weight"], first[:, [0, 1, 2, 0, 1]] * 0.6)


def refusal(file: Path, name: str = "fpn-resnet18") -> str:
    with pytest.raises(UserError) as error:
        registry.load("model", name)(3, 2, weights=file, **SMALL)
    (problem,) = error.value.problems
    assert problem.where == "fpn, weights"
    return str(problem)


def test_files_of_another_encoder_are_refused(resnet18: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    file, state = resnet18
    text = refusal(file, "fpn-resnet34")
    assert "does not hold the weights of 'resnet34'" in text
    assert "missing: layer1.2.conv1.weight, layer1.2.bn1.weight, layer1.2.bn1.bias ..." in text
    torch.save({**state, "conv1.weight": torch.zeros(64, 3, 3, 3), "more": torch.zeros(1)}, tmp_path / "odd.pth")
    text = refusal(tmp_path / "odd.pth")
    assert "(1 unknown: more; 1 of another shape: conv1.weight is (64, 3, 3, 3), not (64, 3, 7, 7))" in text


def test_what_is_not_plain_tensors_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv1.weight": Harmful()}, tmp_path / "bad.pth")
    assert "holds more than tensors" in refusal(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    assert "is not a dictionary of tensors" in refusal(tmp_path / "list.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "cannot be read (damaged?)" in refusal(tmp_path / "text.safetensors")
    assert "there is no file" in refusal(tmp_path / "gone.safetensors")
    assert "there is no file" in refusal(tmp_path)


def test_damaged_files_are_not_called_dangerous(resnet18: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    torch.save(resnet18[1], tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for content in (b"", b"<html>not found</html>", whole[: len(whole) // 2]):
        (tmp_path / "damaged.pth").write_bytes(content)
        text = refusal(tmp_path / "damaged.pth")
        assert "damaged.pth cannot be read (damaged?)" in text
        assert "executed" not in text and "weights_only" not in text


@pytest.mark.parametrize("name", ["fpn-resnet18", "pspnet-resnet18"])
@pytest.mark.parametrize("part", ["whole", "network"])
def test_of_a_whole_trained_network_the_encoder_is_taken(tmp_path: Path, name: str, part: str) -> None:
    """Of PSPNet the last stages of the encoder are not there: they have no part in the logits."""
    torch.manual_seed(4)
    options = SMALL if name.startswith("fpn") else {"psp_out_channels": 8}
    trained = registry.load("model", name)(3, 4, **options)
    save_file((trained if part == "whole" else trained.network).state_dict(), tmp_path / "weights.safetensors")
    loaded = encoder_of(name, weights=tmp_path / "weights.safetensors", **options)
    expected = trained.network.encoder.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


def test_the_whole_encoder_serves_a_network_that_uses_its_first_stages(
    resnet18: tuple[Path, dict[str, torch.Tensor]],
) -> None:
    file, state = resnet18
    loaded = encoder_of("pspnet-resnet18", weights=file, psp_out_channels=8)
    assert not any(key.startswith("layer4") for key in loaded)
    assert torch.equal(loaded["layer2.1.conv2.weight"], state["layer2.1.conv2.weight"])


def test_filters_for_one_channel_are_shared_out(resnet18: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    _, state = resnet18
    grey = state["conv1.weight"].sum(1, keepdim=True)
    save_file({**state, "conv1.weight": grey}, tmp_path / "grey.safetensors")
    loaded = encoder_of("fpn-resnet18", 2, weights=tmp_path / "grey.safetensors", **SMALL)["conv1.weight"]
    torch.testing.assert_close(loaded, torch.cat([grey / 2, grey / 2], 1))
    save_file({**state, "conv1.weight": torch.zeros(64, 5, 7, 7)}, tmp_path / "five.safetensors")
    assert "conv1.weight is for images of 5 channels, which serve no others: only 1 or 3 do" in refusal(
        tmp_path / "five.safetensors"
    )


def test_position_embeddings_for_another_size_of_image(tmp_path: Path) -> None:
    """A linear course over the rows stays one: from 24 x 24 patches to 14 x 14."""
    state = timm.create_model("vit_tiny_patch16_384").state_dict()
    rows = torch.linspace(0, 1, 24)[:, None].expand(24, 24).reshape(1, 576, 1)
    state["pos_embed"] = torch.cat([torch.full((1, 1, 192), 7.0), rows.expand(1, 576, 192)], 1)
    torch.save(state, tmp_path / "vit.pth")
    loaded = encoder_of("setr-naive-vit_tiny_patch16_224", weights=tmp_path / "vit.pth")["pos_embed"]
    assert loaded.shape == (1, 197, 192)
    assert torch.equal(loaded[:, 0], torch.full((1, 192), 7.0))
    column = loaded[0, 1:, 0].unflatten(0, (14, 14))
    torch.testing.assert_close(column, column[:, :1].expand(14, 14), rtol=1e-4, atol=1e-4)
    middle = (torch.arange(14) + 0.5) / 14 * 24 - 0.5
    torch.testing.assert_close(column[2:-2, 0], (middle / 23)[2:-2], rtol=1e-3, atol=1e-3)


def test_paths_are_told_from_names() -> None:
    known = options_of(registry.load("model", "fpn"))
    base = Path("/data")
    assert resolve_paths(known, {"weights": "w/e.pth"}, lambda option: base) == {"weights": Path("/data/w/e.pth")}
    assert resolve_paths(known, {"weights": "imagenet"}, lambda option: base) == {"weights": "imagenet"}
    assert resolve_paths(known, {"weights": None}, lambda option: base) == {"weights": None}
    assert [is_file_name(text) for text in ("imagenet", "imagenet+5k", "a.pth", "/x/a")] == [False, False, True, True]
