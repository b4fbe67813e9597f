"""SegNet: an encoder-decoder that carries the positions of the maxima instead of feature maps.

Badrinarayanan, Kendall and Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for
Image Segmentation", IEEE TPAMI 2017, section 3 and figure 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from autoseg.baselines.layers import VGG16_STAGES, conv_layers, he_initialise, size_problems
from autoseg.errors import Problem, raise_if
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.nn.pool import pool_with_indices, unpool


class SegNet(nn.Module):
    """SegNet with the convolutions of VGG16 and a mirrored decoder.

    Each encoder stage ends with a 2x2 max pooling whose indices the mirrored decoder stage uses to put
    its values back at the places of the maxima; no feature map is copied. All convolutions are 3x3
    with batch normalisation and ReLU, except the last one, which gives the logits and has a bias.
    With ``width=64`` the stages have 64, 128, 256, 512, 512 channels. Images of any size are padded
    and the logits cropped inside.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels of the first stage; scales all stages.
        depth: How many of the five stages to use, 1 to 5. Fewer suit small images: with five, a
            96-pixel image is 3 pixels wide in the middle.

    Attributes:
        size_divisor: ``2**depth``, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1, or ``depth`` is above 5.

    Example:
        >>> import torch
        >>> net = SegNet(3, 2, width=4, depth=3)
        >>> tuple(net(torch.rand(2, 3, 13, 10)).shape)
        (2, 2, 13, 10)
    """

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64, depth: int = 5) -> None:
        super().__init__()
        problems = size_problems("segnet", in_channels=in_channels, num_classes=num_classes, width=width, depth=depth)
        if isinstance(depth, int) and depth > len(VGG16_STAGES):
            problems.append(
                Problem(f"must be at most {len(VGG16_STAGES)}, is {depth}", "segnet, depth", "use 5 or fewer")
            )
        raise_if(problems)
        self.size_divisor = 2**depth
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        outside = in_channels
        for convolutions, multiple in VGG16_STAGES[:depth]:
            channels = width * multiple
            encoder.append(conv_layers([outside] + [channels] * convolutions, batch_norm=True))
            # The mirrored stage ends with the channels this one began with. In the first stage the
            # head does that job, so one convolution less is needed.
            inside = [channels] * convolutions
            decoder.insert(0, conv_layers([*inside, outside] if decoder else inside, batch_norm=True))
            outside = channels
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        self.head = nn.Conv2d(width, num_classes, 3, padding=1)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        maxima: list[tuple[Tensor, tuple[int, int]]] = []
        for stage in self.encoder:
            x = stage(x)
            height, width = x.shape[-2:]
            x, indices = pool_with_indices(x)
            maxima.append((indices, (height, width)))
        for stage in self.decoder:
            x = stage(unpool(x, *maxima.pop()))
        return crop_to(self.head(x), size)
