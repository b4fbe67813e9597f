from __future__ import annotations

import inspect
from itertools import pairwise
from typing import ClassVar

import pytest
import torch

from autoseg.baselines.smp import deeplabv3
from autoseg.errors import UserError

from .model_tests import ModelTests, parameters


class TestDeepLabV3(ModelTests):
    model = deeplabv3
    options: ClassVar = {"decoder_channels": 16, "decoder_aspp_dropout": 0.1}


def test_parameters_follow_the_layer_list() -> None:
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
    assert parameters(deeplabv3(3, 2)) == resnet18 + pyramid + head == 15_899_202


def test_output_stride_sets_the_size_divisor() -> None:
    assert deeplabv3(3, 2, decoder_channels=8).size_divisor == 8
    assert deeplabv3(3, 2, decoder_channels=8, encoder_output_stride=16).size_divisor == 16


def test_signature_shows_the_options_for_checking() -> None:
    signature = inspect.signature(deeplabv3)
    assert list(signature.parameters)[:4] == ["in_channels", "num_classes", "encoder", "weights"]
    assert signature.parameters["encoder"].default == "resnet18"
    assert signature.parameters["weights"].default is None
    assert "decoder_atrous_rates" in signature.parameters
    assert not {"encoder_name", "classes", "activation", "aux_params", "options"} & set(signature.parameters)


def test_a_lone_pooled_value_does_not_move_the_running_statistics() -> None:
    network = deeplabv3(3, 2, decoder_channels=8).train()
    pooling = network.network.decoder.aspp.convs[4][2]
    network(torch.randn(1, 3, 32, 32))
    assert torch.equal(pooling.running_mean, torch.zeros(8))
    network(torch.randn(2, 3, 32, 32))
    assert pooling.running_mean.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "where", "text"),
    [
        ({"encoder": "resnet81"}, "deeplabv3, encoder", "did you mean 'resnet18'?"),
        ({"encoder": "tu-nonsense"}, "deeplabv3, encoder", "timm has no model 'nonsense'"),
        ({"weights": "imagnet"}, "deeplabv3, weights", "did you mean 'imagenet'?"),
        ({"decoder_chanels": 8}, "deeplabv3, decoder_chanels", "did you mean 'decoder_channels'?"),
        ({"encoder_output_stride": 4}, "deeplabv3", "output stride 8 or 16"),
    ],
)
def test_mistakes_are_explained(options: dict[str, object], where: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        deeplabv3(3, 2, **options)
    assert error.value.problems[0].where == where
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


def test_encoders_of_timm_work() -> None:
    network = deeplabv3(2, 3, encoder="tu-resnet10t", decoder_channels=8).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, 37, 53)).shape == (1, 3, 37, 53)
