"""SETR: a plain vision transformer that looks at the whole image in every layer, and a small decoder.

Zheng et al., "Rethinking Semantic Segmentation from a Sequence-to-Sequence Perspective with Transformers",
CVPR 2021, section 3: the decoders of section 3.3 (1), naive upsampling, and (2), progressive upsampling. The
auxiliary losses of section 4.1 and the decoder MLA are left out. The encoder is timm's.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.baselines import encoders
from autoseg.baselines.fitting import FittedNetwork
from autoseg.baselines.layers import size_problems
from autoseg.baselines.pretrained import downloaded, load_encoder
from autoseg.errors import Problem, UserError, raise_if
from autoseg.nn.batchnorm import BatchNorm2d
from autoseg.plugin_options import is_file_name


class Setr(nn.Module):
    """The encoder of a vision transformer, and one of the two decoders; sides are multiples of the patch.

    Args:
        encoder: A vision transformer of timm, without its classifier.
        num_classes: Classes, background included.
        head: ``"naive"``: 1x1 convolution, normalisation, ReLU, 1x1 convolution, then bilinear upsampling to the
            size of the image at once. ``"pup"``: 3x3 convolution, normalisation and ReLU, then twice the size,
            again and again until the size of the image is reached; a 1x1 convolution gives the logits.
        channels: Of the decoder; 256 in the authors' code.

    Example:
        >>> import torch
        >>> vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="", dynamic_img_size=True)
        >>> tuple(Setr(vit, 3, "pup", 32)(torch.rand(1, 3, 32, 48)).shape)
        (1, 3, 32, 48)
    """

    def __init__(self, encoder: nn.Module, num_classes: int, head: str, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.patch = int(encoder.patch_embed.patch_size[0])  # type: ignore[union-attr, index]
        self.prefix = int(encoder.num_prefix_tokens)  # type: ignore[arg-type]
        layers: list[nn.Module] = []
        before = int(encoder.embed_dim)  # type: ignore[arg-type]
        if head == "naive":
            layers += [nn.Conv2d(before, channels, 1, bias=False), BatchNorm2d(channels), nn.ReLU(inplace=True)]
        else:
            for _ in range(math.floor(math.log2(self.patch))):
                layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), BatchNorm2d(channels)]
                layers += [nn.ReLU(inplace=True), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)]
                before = channels
        self.decoder = nn.Sequential(*layers, nn.Conv2d(channels, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, C, H, W)``."""
        height, width = x.shape[-2:]
        tokens = self.encoder.forward_features(x)[:, self.prefix :]  # type: ignore[operator]
        grid = tokens.transpose(1, 2).unflatten(2, (height // self.patch, width // self.patch))
        logits: Tensor = self.decoder(grid)
        if logits.shape[-2:] != (height, width):
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
        return logits


def transformer(name: str, **options: Any) -> nn.Module:
    """A vision transformer of timm without its classifier, for images of any size.

    Args:
        name: As :func:`autoseg.baselines.encoders.library_name` gives it.
        options: Of ``timm.create_model``.

    Example:
        >>> transformer("tu-deit_tiny_distilled_patch16_224").num_prefix_tokens
        2
    """
    if "distilled" not in name:
        options["global_pool"] = ""  # no pooling; the distilled ones know only that of their two tokens
    short, fixed = name.removeprefix(encoders.TIMM), encoders.construction_options(name)
    vit: nn.Module = timm.create_model(short, num_classes=0, **fixed, **options)
    return vit


def setr(
    in_channels: int,
    num_classes: int,
    *,
    head: Literal["naive", "pup"] = "naive",
    encoder: str = "vit_tiny_patch16_224",
    weights: Path | str | None = None,
    decoder_channels: int = 256,
) -> FittedNetwork:
    """SETR: a vision transformer and a naive or a progressive decoder (Zheng et al., 2021, arXiv 2012.15840).

    Images of any size are padded to multiples of the patch, and the position embeddings of the encoder are
    interpolated to the number of patches. As published the encoder is a ViT-Large with patches of 16 pixels
    (``vit_large_patch16_384``), pretrained; from scratch, transformers need far more images than convolutions.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        head: The decoder, see :class:`Setr`.
        encoder: A name of timm that begins with ``vit_``, ``deit`` or ``flexivit``.
        weights: None trains from scratch. A file (``.safetensors``, ``.pth``) holds the encoder's weights, see
            :mod:`autoseg.baselines.pretrained`. ``"imagenet"`` or a tag of ``timm.list_pretrained()`` downloads them.
        decoder_channels: Channels of the decoder.

    Returns:
        The network, with ``size_divisor``.

    Raises:
        UserError: An option does not fit, or the weights cannot be read or downloaded.

    Example:
        >>> setr(1, 2).size_divisor
        16
    """
    problems = size_problems(
        "setr", in_channels=in_channels, num_classes=num_classes, decoder_channels=decoder_channels
    )
    problems += encoders.name_problems("setr, encoder", encoder)
    if isinstance(weights, str) and not is_file_name(weights) and not problems:
        problems += encoders.weights_problems("setr, weights", encoder, weights)
    if head not in ("naive", "pup"):
        problems.append(Problem(f"there is no head '{head}'", "setr, head", "use 'naive' or 'pup'"))
    if not problems and not encoders.is_transformer(encoder):
        fix = "use a plain vision transformer: vit_tiny_patch16_224, vit_small_patch16_224 or deit_tiny_patch16_224"
        problems.append(Problem(f"'{encoder}' does not give one map of tokens", "setr, encoder", fix))
    raise_if(problems)
    name = encoders.TIMM + encoder.removeprefix(encoders.TIMM)
    try:
        name, pretrained = downloaded(name, weights, "setr, weights")
        vit = transformer(name, pretrained=bool(pretrained), in_chans=in_channels)
        if weights is not None and not pretrained:
            load_encoder(vit, name, Path(weights), "setr, weights")
        network = Setr(vit, num_classes, head, decoder_channels)
        return FittedNetwork(network, in_channels, network.patch)
    except UserError:
        raise
    except Exception as error:  # timm's models raise whatever their code runs into
        reason = str(error).partition("\n")[0] or type(error).__name__
        fix = "use vit_tiny_patch16_224, vit_small_patch16_224 or deit_tiny_patch16_224, for example"
        raise UserError(Problem(f"'{encoder}' does not fit SETR ({reason})", "setr, encoder", fix)) from error
