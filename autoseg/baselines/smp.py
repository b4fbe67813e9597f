"""Baselines from segmentation_models_pytorch: each architecture is one line at the end of this file.

To add one, write for example ``fpn = _architecture("FPN")`` there, a string below it that says what it
is (``autoseg list`` shows it), and name it under ``autoseg.models`` in setup.cfg. Its options are read
from the library's signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import timm
from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import Tensor, nn

from autoseg.baselines.layers import size_problems
from autoseg.errors import Problem, UserError, did_you_mean, raise_if
from autoseg.nn.batchnorm import tolerate_single_values
from autoseg.nn.padding import crop_to, pad_to_multiple

_OURS = {"self", "in_channels", "classes", "encoder_name", "encoder_weights"}
_FIXED = {"activation", "aux_params", "upsampling"}  # other values would not give logits at input size


class SmpNetwork(nn.Module):
    """A network of the library that takes images of any size and training batches of one.

    Args:
        network: A ``SegmentationModel`` of the library that returns logits.

    Attributes:
        network: The network given.
        size_divisor: The side multiple at which nothing needs padding (the stride of its encoder).

    Example:
        >>> import torch
        >>> net = SmpNetwork(smp.DeepLabV3("resnet18", encoder_weights=None, classes=2)).eval()
        >>> net.size_divisor, tuple(net(torch.rand(1, 3, 21, 40)).shape)
        (8, (1, 2, 21, 40))
    """

    def __init__(self, network: smp.base.SegmentationModel) -> None:
        super().__init__()
        self.network = tolerate_single_values(network)
        self.size_divisor = int(network.encoder.output_stride)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        return crop_to(self.network(x), size)


def _encoder_problems(where: str, encoder: str, weights: str | None) -> list[Problem]:
    """What is wrong with the names of the encoder and its weights."""
    if encoder.startswith("tu-"):
        name = encoder.removeprefix("tu-")
        fix = "give 'tu-' and a name of timm.list_models()"
        return [] if timm.is_model(name) else [Problem(f"timm has no model '{name}'", f"{where}, encoder", fix)]
    if encoder not in encoders:
        return [Problem(f"unknown encoder '{encoder}'", f"{where}, encoder", did_you_mean(encoder, encoders))]
    known = encoders[encoder]["pretrained_settings"]
    if weights is None or weights in known:
        return []
    return [Problem(f"'{encoder}' has no weights '{weights}'", f"{where}, weights", did_you_mean(weights, known))]


def _download(where: str, encoder: str, weights: str | bool) -> None:
    """Fetch pretrained weights into the library's cache, so that a failure is told from a wrong option."""
    try:
        get_encoder(encoder, weights=weights)
    except Exception as error:  # whatever the HTTP client, the cache or the file format raises
        reason = str(error).partition("\n")[0]
        raise UserError(
            Problem(
                f"the pretrained weights of '{encoder}' could not be downloaded: {reason}",
                f"{where}, weights",
                "check the network connection, or copy the Hugging Face cache of a machine that has them and set "
                "HF_HOME to it, or leave 'weights' out to train from scratch",
            )
        ) from error


def _architecture(name: str) -> Callable[..., SmpNetwork]:
    """Make the function that builds the library's class ``name``.

    Its signature is ``(in_channels, num_classes, *, encoder="resnet18", weights=None, ...)`` followed by
    the options of the library's class under the library's names.
    """
    model_class = getattr(smp, name)
    where = name.lower()
    keyword = inspect.Parameter.KEYWORD_ONLY
    theirs = [
        parameter.replace(kind=keyword)
        for parameter in inspect.signature(model_class.__init__).parameters.values()
        if parameter.name not in _OURS | _FIXED and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def build(
        in_channels: int, num_classes: int, *, encoder: str = "resnet18", weights: str | None = None, **options: Any
    ) -> SmpNetwork:
        problems = size_problems(where, in_channels=in_channels, num_classes=num_classes)
        problems += _encoder_problems(where, encoder, weights)
        known = {"encoder", "weights", *(parameter.name for parameter in theirs)}
        for option in options:
            if option not in known:
                problems.append(
                    Problem(f"unknown option '{option}'", f"{where}, {option}", did_you_mean(option, known))
                )
        raise_if(problems)
        pretrained = True if weights and encoder.startswith("tu-") else weights
        if pretrained:
            _download(where, encoder, pretrained)
        try:
            network = model_class(
                encoder_name=encoder,
                encoder_weights=pretrained,
                in_channels=in_channels,
                classes=num_classes,
                **options,
            )
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                Problem(str(error), where, f"see smp.{name} in the manual of segmentation_models_pytorch")
            ) from error
        return SmpNetwork(network)

    own = [p for p in inspect.signature(build).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    build.__signature__ = inspect.Signature([*own, *theirs], return_annotation=SmpNetwork)  # type: ignore[attr-defined]
    build.__name__ = build.__qualname__ = where
    build.__doc__ = f"""{name} of segmentation_models_pytorch, from scratch unless ``weights`` are named.

    Images of any size are padded and the logits cropped inside; a training batch of one image works.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        encoder: A name of ``segmentation_models_pytorch.encoders``, or ``tu-`` and a name of timm.
        weights: None trains from scratch; a name such as ``"imagenet"`` downloads pretrained weights of
            the encoder ("tu-" encoders: any text).
        options: The other options of the library's class, under the library's names.

    Returns:
        The network, with ``size_divisor``.

    Raises:
        UserError: An option is unknown or does not fit, or the weights cannot be downloaded.

    Example:
        >>> {where}(in_channels=1, num_classes=3).network.segmentation_head[0].out_channels
        3
    """
    return build


deeplabv3 = _architecture("DeepLabV3")
"""DeepLabv3: dilated encoder and atrous spatial pyramid pooling (Chen et al., 2017, arXiv 1706.05587)."""
