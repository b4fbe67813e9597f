"""Families of baselines, registered as patterns: ``fpn-*`` is the FPN with every encoder there is.

In ``fpn-resnet34`` the part behind the family's name is an encoder of segmentation_models_pytorch or of timm
(``fpn-convnext_atto``); a name that both have means the former's, see :mod:`autoseg.baselines.encoders`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from autoseg.baselines import encoders
from autoseg.baselines.setr import setr
from autoseg.baselines.smp import ARCHITECTURES, architecture
from autoseg.errors import Problem, UserError


class Family:
    """From a full name such as ``"fpn-resnet34"`` to the callable that builds this network.

    Args:
        build: The callable ``(in_channels, num_classes, *, encoder, ...)`` of the whole family.
        listed: Gives the encoders that fit, for listings; others are tried when they are named.
        variants: The part of the name before the encoder, with the options that it stands for.
        example: A name that is a member, for messages.

    Example:
        >>> network = FPN("fpn-mobilenet_v2")(3, 2)
        >>> network.network.name, list(inspect.signature(FPN("fpn-mobilenet_v2")).parameters)[2]
        ('fpn-mobilenet_v2', 'weights')
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        listed: Callable[[], Iterable[str]],
        variants: Mapping[str, Mapping[str, Any]],
        example: str,
    ) -> None:
        self._build, self._listed, self._variants = build, listed, variants
        self.example = example

    def __call__(self, name: str) -> Callable[..., nn.Module]:
        """The network of this name.

        Args:
            name: The full name.

        Returns:
            A callable ``(in_channels, num_classes, **options)`` with the options of the family less those that
            the name says.

        Raises:
            UserError: There is no such variant or no such encoder.
        """
        variant = next((v for v in self._variants if name.startswith(f"{v}-")), None)
        encoder = name.removeprefix(f"{variant}-")
        if variant is None or not encoders.is_known(encoder):
            raise UserError(Problem(f"there is no model called '{name}'", fix=self._fix(name, variant)))
        fixed = {**self._variants[variant], "encoder": encoder}
        build = self._build

        def member(in_channels: int, num_classes: int, **options: Any) -> nn.Module:
            return build(in_channels, num_classes, **options, **fixed)

        signature = inspect.signature(build, eval_str=True)
        left = [parameter for parameter in signature.parameters.values() if parameter.name not in fixed]
        member.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        member.__name__ = member.__qualname__ = name
        member.__doc__ = build.__doc__
        return member

    def names(self) -> list[str]:
        """All names whose encoders are known to fit, sorted."""
        return sorted(f"{variant}-{encoder}" for variant in self._variants for encoder in self._listed())

    def _fix(self, name: str, variant: str | None) -> str:
        if variant is None:
            starts = " or ".join(f"'{v}-'" for v in self._variants)
            return f"begin the name with {starts}, and put an encoder behind it"
        close = encoders.suggestion(name.removeprefix(f"{variant}-"))
        return (
            f"did you mean '{variant}-{close}'?" if close else f"autoseg list models '{variant}-*' shows what there is"
        )


def _family(key: str) -> Family:
    needs = ARCHITECTURES[key].needs
    return Family(architecture(key), needs.listed, {key: {}}, f"{key}-{needs.fitting[0]}")


UNET = _family("unet")
"""U-Net of segmentation_models_pytorch on any encoder."""

UNETPLUSPLUS = _family("unetplusplus")
"""UNet++ on any encoder with a map at half size."""

FPN = _family("fpn")
"""Feature pyramid network on any encoder."""

PSPNET = _family("pspnet")
"""PSPNet on any encoder."""

DEEPLABV3 = _family("deeplabv3")
"""DeepLabv3 on any encoder that can be dilated."""

DEEPLABV3PLUS = _family("deeplabv3plus")
"""DeepLabv3+ on any encoder that can be dilated."""

LINKNET = _family("linknet")
"""LinkNet on any encoder with a map at half size."""

MANET = _family("manet")
"""MA-Net on any encoder."""

PAN = _family("pan")
"""Pyramid Attention Network on any encoder that can be dilated."""

UPERNET = _family("upernet")
"""UPerNet on any encoder."""

SEGFORMER = _family("segformer")
"""SegFormer on any encoder; those of the paper are mit_b0 to mit_b5."""

DPT = _family("dpt")
"""Dense Prediction Transformer on any plain ViT of timm."""

SETR = Family(
    setr,
    encoders.transformers,
    {"setr-naive": {"head": "naive"}, "setr-pup": {"head": "pup"}},
    "setr-naive-vit_tiny_patch16_224",
)
"""SETR with the naive or the progressive (pup) decoder on any plain ViT of timm."""
