from __future__ import annotations

import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime
import pytest
import torch
from torch import nn

from autoseg import registry
from autoseg.baselines.smp import ARCHITECTURES, deeplabv3, fpn, pan
from autoseg.errors import UserError
from autoseg.predict.onnx import export_onnx
from autoseg.testing.models import ModelContract, parameters, train_step

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"decoder_channels": [32, 16, 16, 8, 8]},
    "unetplusplus": {"decoder_channels": [32, 16, 16, 8, 8]},
    "fpn": {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32},
    "pspnet": {"psp_out_channels": 16},
    "deeplabv3": {"decoder_channels": 16},
    "deeplabv3plus": {"decoder_channels": 16},
    "linknet": {},
    "manet": {"decoder_channels": [32, 16, 16, 8, 8]},
    "pan": {"decoder_channels": 16},
    "upernet": {"decoder_channels": 16},
    "segformer": {"decoder_segmentation_channels": 16},
    "dpt": {"decoder_intermediate_channels": [16, 16, 16, 16], "decoder_fusion_channels": 16},
}
PLAIN, DILATED = ("resnet10t", "convnext_atto"), ("resnet10t", "mobilenetv3_small_050")
ENCODERS = {
    **dict.fromkeys(SMALL, PLAIN),
    **dict.fromkeys(("deeplabv3", "deeplabv3plus", "pan", "linknet", "unetplusplus"), DILATED),
    "segformer": ("mit_b0", "convnext_atto"),
    "dpt": ("vit_tiny_patch16_224", "deit_tiny_patch16_224"),
}
MEMBERS = [(key, encoder) for key in SMALL for encoder in ENCODERS[key]]
DEFAULT_PARAMETERS = {
    "unet": 14_328_354, "unetplusplus": 15_970_594, "fpn": 13_047_362, "pspnet": 840_994, "deeplabv3": 15_899_202,
    "deeplabv3plus": 12_329_554, "linknet": 11_663_810, "manet": 21_675_618, "pan": 11_367_945,
    "upernet": 19_491_778, "segformer": 3_714_658, "dpt": 34_686_786,
}  # fmt: skip


class TestDeepLabV3(ModelContract):
    model = deeplabv3
    options: ClassVar[dict[str, Any]] = {"encoder": "resnet10t", "decoder_channels": 16, "decoder_aspp_dropout": 0.1}


def built(key: str, encoder: str, in_channels: int = 3, num_classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = registry.load("model", f"{key}-{encoder}")(in_channels, num_classes, **SMALL[key])
    return network


@pytest.mark.parametrize(("key", "encoder"), MEMBERS)
def test_every_family_takes_any_size_and_number_of_channels(key: str, encoder: str) -> None:
    network = built(key, encoder, in_channels=5, num_classes=4).eval()
    with torch.no_grad():
        for size in ((37, 53), (1, 1), (100, 33)):
            x = torch.randn(2, 5, *size)
            logits = network(x)
            assert logits.shape == (2, 4, *size)
            assert logits.isfinite().all()
            assert torch.equal(network(x), logits)
        torch.testing.assert_close(network(x[1:]), logits[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("key", "encoder"), MEMBERS)
def test_every_family_learns_all_its_weights_from_one_small_image(key: str, encoder: str) -> None:
    network = built(key, encoder, in_channels=1)
    train_step(network, torch.randn(1, 1, 8, 8), 2)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    for name, value in network.state_dict().items():
        assert value.isfinite().all(), name


@pytest.mark.parametrize("key", SMALL)
def test_the_parameters_of_the_defaults_are_known(key: str) -> None:
    name = f"unet-{ARCHITECTURES['unet'].needs.fitting[0]}" if key == "unet" else key
    assert parameters(registry.load("model", name)(3, 2)) == DEFAULT_PARAMETERS[key]


def test_parameters_of_deeplabv3_follow_the_layer_list() -> None:
    def block(before: int, after: int, stride_or_widening: bool) -> int:
        shortcut = before * after + 2 * after if stride_or_widening else 0
        return 9 * before * after + 9 * after * after + 4 * after + shortcut

    stem = 49 * 3 * 64 + 2 * 64
    widths = [64, 64, 128, 256, 512]
    resnet18 = stem + sum(block(a, b, a != b) + block(b, b, False) for a, b in pairwise(widths))
    assert resnet18 == 11_176_512
    norm = 2 * 256
    pyramid = (512 * 256 + norm) + 3 * (9 * 512 * 256 + norm) + (512 * 256 + norm) + (5 * 256 * 256 + norm)
    head = (9 * 256 * 256 + norm) + (256 * 2 + 2)
    assert resnet18 + pyramid + head == DEFAULT_PARAMETERS["deeplabv3"]


def test_stages_that_are_not_used_are_left_out() -> None:
    network = registry.load("model", "pspnet-resnet18")(3, 2)
    assert isinstance(network.network.encoder.layer3, nn.Identity)
    assert isinstance(network.network.encoder.layer2, nn.Sequential)
    assert not any(".layer4." in name for name in network.state_dict())


@pytest.mark.parametrize(("size", "channels", "millions"), [("b0", 256, 3.8), ("b2", 768, 27.5)])
def test_segformer_has_the_size_that_its_paper_gives(size: str, channels: int, millions: float) -> None:
    """With the 150 classes of ADE20K and the decoder's width of each size (Xie et al., 2021, table 1)."""
    network = registry.load("model", f"segformer-mit_{size}")(3, 150, decoder_segmentation_channels=channels)
    assert round(parameters(network) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("network", "divisor", "smallest"),
    [
        (lambda: deeplabv3(3, 2, decoder_channels=8), 8, 8),
        (lambda: deeplabv3(3, 2, decoder_channels=8, encoder_output_stride=16), 16, 16),
        (lambda: pan(3, 2, decoder_channels=8), 16, 128),
        (lambda: fpn(3, 2, encoder="mobilenetv3_small_050"), 32, 64),
        (lambda: registry.load("model", "dpt-vit_tiny_patch16_224")(3, 2, **SMALL["dpt"]), 32, 32),
        (lambda: registry.load("model", "pspnet-efficientnet-b0")(3, 2), 16, 16),
    ],
)
def test_the_sizes_a_network_needs(network: Any, divisor: int, smallest: int) -> None:
    made = network()
    assert (made.size_divisor, made.smallest) == (divisor, smallest)


def test_signature_shows_the_options_for_checking() -> None:
    signature = inspect.signature(deeplabv3)
    assert list(signature.parameters)[:4] == ["in_channels", "num_classes", "encoder", "weights"]
    assert signature.parameters["encoder"].default == "resnet18"
    assert signature.parameters["weights"].default is None
    assert "decoder_atrous_rates" in signature.parameters
    assert not {"encoder_name", "classes", "activation", "aux_params", "options"} & set(signature.parameters)
    assert inspect.signature(registry.load("model", "dpt")).parameters["encoder"].default == "vit_tiny_patch16_224"


def test_a_lone_pooled_value_does_not_move_the_running_statistics() -> None:
    network = deeplabv3(3, 2, decoder_channels=8).train()
    pooling = network.network.decoder.aspp.convs[4][2]  # type: ignore[union-attr, index]
    network(torch.randn(1, 3, 32, 32))
    assert torch.equal(pooling.running_mean, torch.zeros(8))  # type: ignore[union-attr, arg-type]
    network(torch.randn(2, 3, 32, 32))
    assert pooling.running_mean.abs().max() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("options", "where", "text"),
    [
        ({"encoder": "resnet81"}, "deeplabv3, encoder", "did you mean 'resnet18'?"),
        ({"encoder": "tu-nonsense"}, "deeplabv3, encoder", "timm has no model 'nonsense'"),
        ({"weights": "imagnet"}, "deeplabv3, weights", "did you mean 'imagenet'?"),
        ({"weights": "no/such.pth"}, "deeplabv3, weights", "there is no file no/such.pth"),
        ({"weights": "resnet18"}, "deeplabv3, weights", "for a file write ./resnet18"),
        ({"encoder": "resnet10t", "weights": "resnet10t"}, "deeplabv3, weights", "for a file write ./resnet10t"),
        ({"encoder": "resnet10t", "weights": "imagnet"}, "deeplabv3, weights", "did you mean 'imagenet'?"),
        ({"decoder_chanels": 8}, "deeplabv3, decoder_chanels", "did you mean 'decoder_channels'?"),
        ({"encoder_output_stride": 4}, "deeplabv3", "output stride 8 or 16"),
        ({"encoder": "vgg11"}, "deeplabv3, encoder", "resnet18, mobilenet_v2 or regnetx_002"),
        ({"encoder": "swin_tiny_patch4_window7_224"}, "deeplabv3, encoder", "can be dilated instead of halved"),
    ],
)
def test_mistakes_are_explained(options: dict[str, object], where: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        deeplabv3(3, 2, **options)
    assert error.value.problems[0].where == where
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fpn-vit_tiny_patch16_224", "needs maps that halve from stage to stage, for images of any size: resnet18,"),
        ("unetplusplus-mit_b0", "needs a map at half the size of the image: resnet18, mobilenet_v2 or convnext_atto"),
        ("linknet-mit_b0", "'mit_b0' does not fit Linknet"),
        (
            "dpt-resnet18",
            "'resnet18' does not fit DPT\n  -> its decoder needs a plain vision transformer of timm "
            "with patches of 8, 16 or 32 pixels: vit_tiny",
        ),
        ("unet-beit_base_patch16_224", "'beit_base_patch16_224' does not fit Unet"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_with_some_that_do(name: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        registry.load("model", name)(3, 2)
    assert text in str(error.value)


def test_all_problems_are_collected() -> None:
    with pytest.raises(UserError) as error:
        deeplabv3(0, 0, encoder="resnet", wdith=3)
    assert [p.where.split(", ")[1] for p in error.value.problems] == ["in_channels", "num_classes", "encoder", "wdith"]


def test_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import segmentation_models_pytorch.encoders as library

    def offline(*args: object, **kwargs: object) -> str:
        raise ConnectionError("name not known\nlong story")

    monkeypatch.setattr(library, "hf_hub_download", offline)
    with pytest.raises(UserError) as error:
        deeplabv3(3, 2, weights="imagenet")
    (problem,) = error.value.problems
    assert problem.what == "the pretrained weights of 'resnet18' could not be downloaded: name not known"
    assert "network connection" in problem.fix and "train from scratch" in problem.fix


@pytest.mark.parametrize(("weights", "asked"), [("imagenet", "resnet10t"), ("c3_in1k", "resnet10t.c3_in1k")])
def test_weights_of_timm_are_downloaded_by_tag(weights: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def offline(name: str, **options: Any) -> nn.Module:
        calls.append((name, options))
        raise ConnectionError("name not known")

    monkeypatch.setattr("autoseg.baselines.pretrained.timm.create_model", offline)
    with pytest.raises(UserError, match="could not be downloaded: name not known"):
        fpn(3, 2, encoder="resnet10t", weights=weights)
    assert calls == [(asked, {"pretrained": True})]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pspnet-resnet10t", SMALL["pspnet"]),
        ("upernet-resnet10t", {**SMALL["upernet"], "encoder_depth": 3}),
        ("pan-mobilenetv3_small_050", {**SMALL["pan"], "encoder_depth": 3}),
        ("setr-pup-vit_tiny_patch16_224", {"decoder_channels": 8}),
    ],
)
def test_onnx_files_of_families_serve_images_of_any_size(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = registry.load("model", name)(3, 2, **options).eval()
    export_onnx(network, tmp_path / "model.onnx", 3)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for shape in [(1, 3, 1, 1), (2, 3, 37, 90)]:
        x = torch.randn(shape)
        (logits,) = session.run(["logits"], {"image": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(x), rtol=1e-4, atol=1e-4)
