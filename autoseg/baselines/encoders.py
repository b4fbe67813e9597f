"""Names of encoders: those of segmentation_models_pytorch, and every model of timm.

``resnet34`` is the library's own encoder, ``convnext_atto`` one of timm. A name that both have means the
library's; ``tu-`` in front of it (``tu-resnet34``) asks for timm's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

import timm
from segmentation_models_pytorch.encoders import encoders as library

from autoseg.errors import Problem, did_you_mean

TIMM = "tu-"
"""What the library puts in front of a name of timm."""

# What encoders of each of timm's modules can do was measured with two models of each, timm 1.0.31. Encoders of
# other modules are tried when they are named, but not listed.
# fmt: off
_DILATABLE = [
    "byobnet", "convnext", "cspnet", "cspnext", "efficientnet", "hardcorenas", "inception_next", "mobilenetv3",
    "mobilevit", "nfnet", "regnet", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "sknet",
    "xception_aligned",
]
_PYRAMIDS = [
    "cpubone", "davit", "densenet", "dla", "dpn", "edgenext", "efficientvit_mit", "fasternet", "fastvit",
    "focalnet", "ghostnet", "hgnet", "hieradet_sam2", "hrnet", "iformer", "lcnetv2", "lowformer", "mambaout",
    "metaformer", "mobilenetv5", "mvitv2", "nasnet", "nextvit", "pnasnet", "pvt_v2", "rdnet", "repghost", "repvit",
    "selecsls", "senet", "starnet", "swiftformer", "swin_transformer", "swin_transformer_v2",
    "swin_transformer_v2_cr", "tiny_vit", "tresnet", "twins", "vgg", "vovnet", "xception",
]
# fmt: on
_TRANSFORMERS = ["vision_transformer", "deit"]
_FIXED_STRIDE = ("densenet", "inception", "vgg", "xception")  # the library's own that cannot be dilated
_PATCHES = ("patch8", "patch16", "patch32")


def library_name(encoder: str) -> str:
    """The name by which segmentation_models_pytorch knows an encoder.

    Args:
        encoder: A name of the library or of timm, with or without ``tu-``; one that neither has stays as it is.

    Example:
        >>> library_name("resnet34"), library_name("convnext_atto"), library_name("tu-resnet34")
        ('resnet34', 'tu-convnext_atto', 'tu-resnet34')
    """
    return TIMM + encoder if encoder not in library and timm.is_model(encoder) else encoder


def is_known(encoder: str) -> bool:
    """Whether the library or timm has an encoder of this name.

    Example:
        >>> is_known("mit_b0"), is_known("tu-vit_tiny_patch16_224"), is_known("tu-mit_b0")
        (True, True, False)
    """
    return encoder in library or timm.is_model(encoder.removeprefix(TIMM))


def name_problems(where: str, encoder: str) -> list[Problem]:
    """What is wrong with the name of an encoder.

    Example:
        >>> print(*name_problems("fpn, encoder", "resnet81"))
        fpn, encoder: unknown encoder 'resnet81'
          -> did you mean 'resnet18'?
    """
    if is_known(encoder):
        return []
    fix = suggestion(encoder)
    fix = f"did you mean '{fix}'?" if fix else "give a name of timm.list_models(), or such as resnet18"
    if encoder.startswith(TIMM):
        return [Problem(f"timm has no model '{encoder.removeprefix(TIMM)}'", where, fix)]
    return [Problem(f"unknown encoder '{encoder}'", where, fix)]


def suggestion(encoder: str) -> str:
    """The known name that is closest; the library's own come first. Empty when none is close.

    Example:
        >>> suggestion("resnet43"), suggestion("tu-convnext_ato"), suggestion("?")
        ('resnet34', 'convnext_atto', '')
    """
    short = encoder.removeprefix(TIMM)
    for names, cutoff in ((library, 0.85), (timm.list_models(), 0.6), (library, 0.6)):
        lower = {name.lower(): name for name in names}
        close = difflib.get_close_matches(short.lower(), list(lower), n=1, cutoff=cutoff)
        if close:
            return lower[close[0]]
    return ""


def weights_problems(where: str, encoder: str, weights: str) -> list[Problem]:
    """What is wrong with the name of pretrained weights.

    Example:
        >>> print(*weights_problems("fpn, weights", "resnet10t", "best"))
        fpn, weights: 'resnet10t' has no weights 'best'
          -> known: c3_in1k, imagenet; for a file write ./best
    """
    name = library_name(encoder)
    known = {"imagenet", *_tags(name)} if name not in library else set(library[name]["pretrained_settings"])
    if weights in known:
        return []
    what = f"'{encoder}' has no weights '{weights}'"
    if name not in library and not timm.list_pretrained(f"{_without_tag(name)}*"):
        return [Problem(f"{what}, and none at all in timm", where, f"for a file write ./{weights}")]
    return [Problem(what, where, f"{did_you_mean(weights, known)}; for a file write ./{weights}")]


def with_weights(name: str, weights: str) -> str:
    """The name of an encoder whose weights are those that ``weights`` says; timm has them in the model's name.

    Args:
        name: As :func:`library_name` gives it.
        weights: ``"imagenet"``, which is timm's own choice, or a tag of ``timm.list_pretrained()``.

    Example:
        >>> with_weights("tu-resnet10t", "c3_in1k"), with_weights("tu-resnet10t", "imagenet")
        ('tu-resnet10t.c3_in1k', 'tu-resnet10t')
    """
    return f"{TIMM}{_without_tag(name)}.{weights}" if name not in library and weights != "imagenet" else name


def _without_tag(name: str) -> str:
    return name.removeprefix(TIMM).partition(".")[0]


def _tags(name: str) -> list[str]:
    """The kinds of pretrained weights that timm has for a model."""
    start = f"{_without_tag(name)}."
    return [text.removeprefix(start) for text in timm.list_pretrained(f"{start}*")]


def construction_options(name: str) -> dict[str, Any]:
    """What timm must be told so that a model takes images of any size.

    Args:
        name: A name as :func:`library_name` gives it.

    Example:
        >>> construction_options("tu-swin_tiny_patch4_window7_224"), construction_options("resnet18")
        ({'strict_img_size': False}, {})
    """
    short = _without_tag(name)
    if name.startswith(TIMM) and short.startswith("swin"):
        return {"strict_img_size": False}
    return {"dynamic_img_size": True} if is_transformer(name) else {}


def is_transformer(encoder: str) -> bool:
    """Whether an encoder is a plain vision transformer of timm: equal resolution from first to last block.

    Example:
        >>> is_transformer("deit_tiny_patch16_224"), is_transformer("swin_tiny_patch4_window7_224")
        (True, False)
    """
    short = _without_tag(encoder)
    return short.startswith(("vit_", "deit", "flexivit")) and timm.models.is_model_in_modules(short, _TRANSFORMERS)


def pyramids() -> Iterator[str]:
    """Encoders whose maps halve from stage to stage, for listings."""
    yield from (name for name in library if not name.startswith("timm-"))
    yield from _of_timm(_DILATABLE + _PYRAMIDS)


def pyramids_with_skips() -> Iterator[str]:
    """Those with which U-Net++ and LinkNet can do: they have a map at half the size of the image."""
    return (name for name in pyramids() if not name.startswith("mit_"))


def dilatable() -> Iterator[str]:
    """Encoders whose last stages can keep their size and be dilated instead, for listings."""
    yield from (name for name in library if not name.startswith(("timm-", *_FIXED_STRIDE)))
    yield from _of_timm(_DILATABLE)


def transformers() -> Iterator[str]:
    """Plain vision transformers whose patches are 8, 16 or 32 pixels wide, for listings."""
    return (name for name in _of_timm(_TRANSFORMERS) if is_transformer(name) and any(p in name for p in _PATCHES))


def _of_timm(modules: list[str]) -> Iterator[str]:
    return (name for module in modules for name in timm.list_models(module=module) if name not in library)
