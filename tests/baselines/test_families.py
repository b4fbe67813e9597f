from __future__ import annotations

import inspect
from fnmatch import fnmatch
from typing import Any

import pytest
import torch

from autoseg import registry
from autoseg.baselines import encoders
from autoseg.baselines.build import build
from autoseg.baselines.families import DPT, FPN, LINKNET, PAN, SETR
from autoseg.baselines.setr import Setr, transformer
from autoseg.errors import UserError


def names(glob: str) -> list[str]:
    return [row["name"] for row in registry.listing("model", glob) if row["distribution"] == "autoseg"]


def test_globs_list_encoders_as_timm_does() -> None:
    found = names("fpn-resnet1*")
    assert {"fpn-resnet18", "fpn-resnet101", "fpn-resnet10t"} <= set(found)
    assert all(fnmatch(name, "fpn-resnet1*") for name in found) and len(found) == len(set(found))
    assert {"fpn", "fpn-mit_b0", "fpn-convnext_atto"} <= {*names("fpn*")}
    assert {"unet-resnet34", "setr-pup-vit_tiny_patch16_224"}.isdisjoint(names("unet-vit*"))
    assert names("setr-*vit_tiny_patch16_224") == ["setr-naive-vit_tiny_patch16_224", "setr-pup-vit_tiny_patch16_224"]


def test_only_encoders_that_fit_are_listed() -> None:
    assert len(FPN.names()) > 500
    assert "fpn-vit_tiny_patch16_224" not in FPN.names()
    assert {"pan-vgg11", "pan-densenet121"}.isdisjoint(PAN.names()) and "pan-convnext_atto" in PAN.names()
    assert "linknet-mit_b0" not in LINKNET.names()
    assert "dpt-vit_base_patch14_dinov2" not in DPT.names()
    assert not any("timm-" in name for name in FPN.names())


def test_every_transformer_that_is_listed_can_be_built() -> None:
    names = list(encoders.transformers())
    assert len(names) > 100 and len(SETR.names()) == 2 * len(names) == 2 * len(DPT.names())
    assert "deit_tiny_distilled_patch16_224" in names
    for name in names:
        with torch.device("meta"):
            made = Setr(transformer(f"{encoders.TIMM}{name}", depth=1), 2, "naive", 8)
        assert made.patch in (8, 16, 32) and made.prefix >= 0, name


def test_rows_of_members_name_no_other_member() -> None:
    for family in registry.plugins("model"):
        if family.pattern is None and "*" in family.name and family.distribution == "autoseg":
            assert family.description and "such as" not in family.description
            assert registry.get("model", family.load().example).pattern == family.name


@pytest.mark.parametrize("use", [registry.get, registry.load, lambda kind, name: build(name, 3, 2)])
def test_a_pattern_is_no_model(use: Any) -> None:
    with pytest.raises(UserError) as error:
        use("model", "fpn-*")
    (problem,) = error.value.problems
    assert problem.what == "'fpn-*' is a family"
    assert problem.fix == "name a member such as fpn-resnet18; autoseg list model 'fpn-*'"


def test_options_of_a_member_leave_out_what_its_name_says() -> None:
    options = registry.options_of(registry.load("model", "fpn-resnet18"))
    assert "encoder" not in options and {"weights", "decoder_pyramid_channels"} <= options.keys()
    assert options["decoder_pyramid_channels"].annotation is int
    assert list(registry.options_of(registry.load("model", "setr-pup-vit_tiny_patch16_224"))) == [
        "weights", "decoder_channels",
    ]  # fmt: skip
    problems = registry.check_options("model", "fpn-resnet18", {"encoder": "resnet34", "decoder_dropout": "x"}, "x")
    assert [problem.where for problem in problems] == ["x.encoder", "x.decoder_dropout"]
    assert inspect.signature(registry.load("model", "setr")).parameters["head"].default == "naive"


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("fpn-resnet43", "did you mean 'fpn-resnet34'?"),
        ("fpn-convnext_ato", "did you mean 'fpn-convnext_atto'?"),
        ("fpn-???", "autoseg list models 'fpn-*' shows what there is"),
        ("setr-vit_tiny_patch16_224", "begin the name with 'setr-naive-' or 'setr-pup-', and put an encoder behind it"),
        ("setr-pup-vit_tiny_patch16_22", "did you mean 'setr-pup-vit_tiny_patch16_224'?"),
        ("fpnn-resnet34", "did you mean 'fpn-resnet34'?"),
        ("fpn-ResNet18", "did you mean 'fpn-resnet18'?"),
        ("UNet", "did you mean 'unet'?"),
    ],
)
def test_slips_of_the_pen(name: str, fix: str) -> None:
    with pytest.raises(UserError) as error:
        registry.load("model", name)
    (problem,) = error.value.problems
    assert (problem.what, problem.fix) == (f"there is no model called '{name}'", fix)


def test_a_name_that_both_libraries_have_means_the_first() -> None:
    assert encoders.library_name("densenet121") == "densenet121"
    assert encoders.library_name("tu-densenet121") == "tu-densenet121"
    network = registry.load("model", "unet-tu-resnet10t")(3, 2, decoder_channels=[8, 8, 8, 8, 8])
    assert type(network.network.encoder).__name__ == "TimmUniversalEncoder"
    network = registry.load("model", "autoseg:unet-resnet18")(3, 2, decoder_channels=[8, 8, 8, 8, 8])
    assert type(network.network.encoder).__name__ == "ResNetEncoder"
