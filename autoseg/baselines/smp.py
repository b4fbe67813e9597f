"""Baselines from segmentation_models_pytorch: each architecture is one entry of :data:`ARCHITECTURES`.

An architecture is registered twice: by its bare name, with the encoder as an option, and as a family
(``fpn-*``, see :mod:`autoseg.baselines.families`), with the encoder in the name. The options of both are read
from the library's signature. To add one, write it down in :data:`ARCHITECTURES`, give it a name at the end of
this file and of ``families.py`` with a string below it (``autoseg list`` shows that), and name both in setup.cfg.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from autoseg.baselines import encoders
from autoseg.baselines.fitting import FittedNetwork
from autoseg.baselines.layers import size_problems
from autoseg.baselines.pretrained import downloaded, load_encoder
from autoseg.errors import Problem, UserError, did_you_mean, raise_if
from autoseg.plugin_options import is_file_name

_OURS = {"self", "in_channels", "classes", "encoder_name", "encoder_weights"}
_FIXED = {"activation", "aux_params", "upsampling"}  # other values would not give logits at input size


@dataclass(frozen=True)
class Needs:
    """What a decoder needs of its encoder.

    Attributes:
        why: In words, for the message where an encoder does not fit.
        fitting: Small encoders that fit; the first is the one that is used unless another is named.
        listed: Encoders that fit, for listings.
    """

    why: str
    fitting: tuple[str, str, str]
    listed: Callable[[], Iterable[str]]


_CONVOLUTIONS = ("resnet18", "mobilenet_v2", "convnext_atto")
_HALVING = "its decoder needs maps that halve from stage to stage, for images of any size"
_STAGES = Needs(_HALVING, _CONVOLUTIONS, encoders.pyramids)
_MIXED = Needs(_HALVING, ("mit_b0", "resnet18", "convnext_atto"), encoders.pyramids)
_SKIPS = Needs("its decoder needs a map at half the size of the image", _CONVOLUTIONS, encoders.pyramids_with_skips)
_DILATED = Needs(
    "its decoder needs an encoder whose last stages can be dilated instead of halved",
    ("resnet18", "mobilenet_v2", "regnetx_002"),
    encoders.dilatable,
)
_TOKENS = Needs(
    "its decoder needs a plain vision transformer of timm with patches of 8, 16 or 32 pixels",
    ("vit_tiny_patch16_224", "vit_small_patch16_224", "deit_tiny_patch16_224"),
    encoders.transformers,
)


@dataclass(frozen=True)
class Architecture:
    """One class of the library, and what autoseg must know about it.

    Attributes:
        name: The library's class.
        source: The paper.
        needs: What its decoder needs of its encoder.
        least: The least side of an image in units of the stride of the encoder.
    """

    name: str
    source: str
    needs: Needs
    least: int = 1


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture("Unet", "U-Net (Ronneberger et al., 2015, arXiv 1505.04597) on another encoder", _STAGES),
    "unetplusplus": Architecture("UnetPlusPlus", "UNet++ (Zhou et al., 2018, arXiv 1807.10165)", _SKIPS),
    "fpn": Architecture("FPN", "FPN (Lin et al., 2017; Kirillov et al., 2019, arXiv 1901.02446)", _STAGES),
    "pspnet": Architecture("PSPNet", "PSPNet (Zhao et al., 2017, arXiv 1612.01105)", _STAGES),
    "deeplabv3": Architecture("DeepLabV3", "DeepLabv3 (Chen et al., 2017, arXiv 1706.05587)", _DILATED),
    "deeplabv3plus": Architecture("DeepLabV3Plus", "DeepLabv3+ (Chen et al., 2018, arXiv 1802.02611)", _DILATED),
    "linknet": Architecture("Linknet", "LinkNet (Chaurasia and Culurciello, 2017, arXiv 1707.03718)", _SKIPS),
    "manet": Architecture("MAnet", "MA-Net (Fan et al., 2020, IEEE Access 8)", _STAGES),
    "pan": Architecture("PAN", "Pyramid Attention Network (Li et al., 2018, arXiv 1805.10180)", _DILATED, least=8),
    "upernet": Architecture("UPerNet", "UPerNet (Xiao et al., 2018, arXiv 1807.10221)", _STAGES),
    "segformer": Architecture("Segformer", "SegFormer (Xie et al., 2021, arXiv 2105.15203)", _MIXED),
    "dpt": Architecture("DPT", "Dense Prediction Transformer (Ranftl et al., 2021, arXiv 2103.13413)", _TOKENS),
}
"""Registered name to architecture."""


def architecture(key: str) -> Callable[..., FittedNetwork]:
    """Make the function that builds one of :data:`ARCHITECTURES`.

    Its signature is ``(in_channels, num_classes, *, encoder=..., weights=None, ...)`` followed by the options of
    the library's class under the library's names.

    Example:
        >>> list(inspect.signature(architecture("fpn")).parameters)[2:6]
        ['encoder', 'weights', 'encoder_depth', 'decoder_pyramid_channels']
    """
    chosen = ARCHITECTURES[key]
    model_class = getattr(smp, chosen.name)
    theirs = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(model_class.__init__).parameters.values()
        if parameter.name not in _OURS | _FIXED and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def build(
        in_channels: int,
        num_classes: int,
        *,
        encoder: str = chosen.needs.fitting[0],
        weights: Path | str | None = None,
        **options: Any,
    ) -> FittedNetwork:
        problems = size_problems(key, in_channels=in_channels, num_classes=num_classes)
        problems += encoders.name_problems(f"{key}, encoder", encoder)
        if isinstance(weights, str) and not is_file_name(weights) and not problems:
            problems += encoders.weights_problems(f"{key}, weights", encoder, weights)
        known = {"encoder", "weights", *(parameter.name for parameter in theirs)}
        for option in sorted(options.keys() - known):
            problems.append(Problem(f"unknown option '{option}'", f"{key}, {option}", did_you_mean(option, known)))
        if chosen.needs is _TOKENS and not problems and not encoders.is_transformer(encoder):
            problems.append(_misfit(key, encoder))
        raise_if(problems)
        return _build(key, in_channels, num_classes, encoder, weights, options)

    own = [p for p in inspect.signature(build).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    build.__signature__ = inspect.Signature([*own, *theirs], return_annotation=FittedNetwork)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = key
    build.__doc__ = f"""{chosen.source}, as {chosen.name} of segmentation_models_pytorch.

    Images of any size are padded and the logits cropped inside; a training batch of one image works.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        encoder: A name of segmentation_models_pytorch or of timm, see :mod:`autoseg.baselines.encoders`.
        weights: None trains from scratch. A file (``.safetensors``, ``.pth``) holds the encoder's weights, see
            :mod:`autoseg.baselines.pretrained`. A name such as ``"imagenet"`` downloads them (timm's encoders:
            also a tag of ``timm.list_pretrained()``).
        options: The other options of the library's class, under the library's names.

    Returns:
        The network, with ``size_divisor``.

    Raises:
        UserError: An option is unknown or does not fit, the encoder does not suit the decoder, or the weights
            cannot be read or downloaded.

    Example:
        >>> {key}(in_channels=1, num_classes=3).network.segmentation_head is not None
        True
    """
    return build


def _build(
    key: str, in_channels: int, num_classes: int, encoder: str, weights: Path | str | None, options: dict[str, Any]
) -> FittedNetwork:
    chosen, name = ARCHITECTURES[key], encoders.library_name(encoder)

    def attempt(name: str, pretrained: str | bool | None, file: Path | None) -> FittedNetwork:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the library's own about its old names
            network: nn.Module = getattr(smp, chosen.name)(
                encoder_name=name,
                encoder_weights=pretrained,
                in_channels=in_channels,
                classes=num_classes,
                **options,
                **encoders.construction_options(name),
            )
        whole = network.encoder.state_dict().keys()  # type: ignore[operator, union-attr]
        stride = int(network.encoder.output_stride)  # type: ignore[arg-type, union-attr]
        fitted = FittedNetwork(network, in_channels, stride, chosen.least)
        if file is not None:
            load_encoder(fitted.network.encoder, name, file, f"{key}, weights", whole)  # type: ignore[arg-type]
        return fitted

    name, pretrained = downloaded(name, weights, f"{key}, weights")
    file = Path(weights) if weights is not None and pretrained is None else None
    try:
        return attempt(name, pretrained, file)
    except UserError:
        raise
    except Exception as error:  # the library's classes and timm's raise whatever their code runs into
        raise _explained(
            key, encoder, error, lambda: attempt(encoders.library_name(chosen.needs.fitting[0]), None, None)
        ) from error


def _explained(key: str, encoder: str, error: Exception, proof: Callable[[], object]) -> UserError:
    """Is the encoder to blame, or are the options? With the default encoder the same options work, or do not."""
    chosen = ARCHITECTURES[key]
    reason = str(error).partition("\n")[0].strip() or type(error).__name__
    try:
        proof()
    except Exception:
        manual = f"see smp.{chosen.name} in the manual of segmentation_models_pytorch"
        return UserError(Problem(reason, key, manual))
    return UserError(_misfit(key, encoder, reason))


def _misfit(key: str, encoder: str, reason: str = "") -> Problem:
    chosen = ARCHITECTURES[key]
    first, second, third = chosen.needs.fitting
    fix = f"{chosen.needs.why}: {first}, {second} or {third}, for example"
    what = f"'{encoder}' does not fit {chosen.name}"
    return Problem(f"{what} ({reason})" if reason else what, f"{key}, encoder", fix)


unetplusplus = architecture("unetplusplus")
"""UNet++: nested, densely connected skip paths (Zhou et al., 2018, arXiv 1807.10165)."""

fpn = architecture("fpn")
"""Feature pyramid network: maps of all stages, added from coarse to fine (Lin et al., 2017, arXiv 1612.03144)."""

pspnet = architecture("pspnet")
"""PSPNet: averages over regions of four sizes (Zhao et al., 2017, arXiv 1612.01105)."""

deeplabv3 = architecture("deeplabv3")
"""DeepLabv3: dilated encoder and atrous spatial pyramid pooling (Chen et al., 2017, arXiv 1706.05587)."""

deeplabv3plus = architecture("deeplabv3plus")
"""DeepLabv3+: DeepLabv3 with a decoder and separable convolutions (Chen et al., 2018, arXiv 1802.02611)."""

linknet = architecture("linknet")
"""LinkNet: skip connections that are added (Chaurasia and Culurciello, 2017, arXiv 1707.03718)."""

manet = architecture("manet")
"""MA-Net: attention over positions and over channels in the decoder (Fan et al., 2020, IEEE Access 8)."""

pan = architecture("pan")
"""Pyramid Attention Network: attention over scales, then upsampling by attention (Li et al., 2018, 1805.10180)."""

upernet = architecture("upernet")
"""UPerNet: pyramid pooling on top of a feature pyramid (Xiao et al., 2018, arXiv 1807.10221)."""

segformer = architecture("segformer")
"""SegFormer: a mixed transformer with a decoder of linear layers (Xie et al., 2021, arXiv 2105.15203)."""

dpt = architecture("dpt")
"""Dense Prediction Transformer: maps put together from the tokens of a ViT (Ranftl et al., 2021, arXiv 2103.13413)."""
