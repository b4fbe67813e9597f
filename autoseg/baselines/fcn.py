"""FCN-16s: VGG16 turned into a fully convolutional network, with one skip connection.

Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, figure 3
and sections 3 and 4; VGG16 is configuration D of Simonyan and Zisserman, ICLR 2015, table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.baselines.layers import VGG16_STAGES, conv_layers, fraction_problems, he_initialise, size_problems
from autoseg.errors import raise_if
from autoseg.nn.padding import crop_to, pad_to_multiple

SKIP_STAGE = 3
"""Index of the stage after whose pooling (pool4, a sixteenth of the resolution) the skip branches off."""


def bilinear_doubling(channels: int) -> nn.ConvTranspose2d:
    """A 4x4 transposed convolution of stride 2, without bias, that starts as bilinear interpolation of each channel.

    Args:
        channels: Channels of input and output.

    Example:
        >>> up = bilinear_doubling(1)
        >>> up(torch.tensor([[[[0.0, 4.0, 8.0]] * 3]]))[0, 0, 2].tolist()  # the border fades out
        [0.0, 1.0, 3.0, 5.0, 7.0, 6.0]
    """
    up = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    profile = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        up.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(profile, profile))
    return up


class FCN16s(nn.Module):
    """FCN-16s: the 13 convolutions of VGG16, its fully connected layers as convolutions, scores added at pool4.

    With ``width=64`` the stages have 64, 128, 256, 512, 512 channels and the layers fc6 (7x7) and fc7 (1x1) have
    4096. The class scores of fc7 are doubled in size by a learned transposed convolution that starts as
    bilinear interpolation, the scores of pool4 are added, and the sum is enlarged 16 times by plain bilinear
    interpolation. Images of any size are padded and the logits cropped inside.

    The authors started from weights learned on ImageNet; here everything is trained from scratch. Without
    normalisation the 15 layers of VGG16 learn slowly from scratch, so the 13 of the stages are normalised by
    default; ``batch_norm=False`` is the network as published. At ``width=64`` most of its 134 million parameters
    are in fc6 and a training step takes gigabytes: a ``width`` of 8 to 16 suits small machines and sets.

    Args:
        in_channels: Image channels.
        num_classes: Classes, background included.
        width: Channels of the first stage; scales all stages, fc6 and fc7.
        batch_norm: Normalise after each 3x3 convolution.
        dropout: After fc6 and fc7.

    Attributes:
        size_divisor: 32, the side multiple at which nothing needs padding.

    Raises:
        UserError: A number is below 1, or ``dropout`` is not at least 0 and below 1.

    Example:
        >>> net = FCN16s(3, 2, width=2).eval()
        >>> tuple(net(torch.rand(2, 3, 13, 10)).shape)
        (2, 2, 13, 10)
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, width: int = 64, batch_norm: bool = True, dropout: float = 0.5
    ) -> None:
        super().__init__()
        problems = size_problems("fcn-16s", in_channels=in_channels, num_classes=num_classes, width=width)
        raise_if([*problems, *fraction_problems("fcn-16s", dropout=dropout)])
        self.size_divisor = 32
        stages: list[nn.Module] = []
        before = in_channels
        for convolutions, multiple in VGG16_STAGES:
            after = width * multiple
            stages.append(conv_layers([before] + [after] * convolutions, batch_norm))
            before = after
        self.stages = nn.ModuleList(stages)
        wide = 64 * width
        self.classifier = nn.Sequential(
            nn.Conv2d(before, wide, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(wide, wide, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score_fc7 = nn.Conv2d(wide, num_classes, 1)
        self.score_pool4 = nn.Conv2d(width * VGG16_STAGES[SKIP_STAGE][1], num_classes, 1)
        he_initialise(self)
        self.enlarge = bilinear_doubling(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes, H, W)`` for a batch ``(N, in_channels, H, W)`` of any size."""
        x, size = pad_to_multiple(x, self.size_divisor)
        height, width = x.shape[-2:]
        scores = x
        for index, stage in enumerate(self.stages):
            x = F.max_pool2d(stage(x), 2)
            if index == SKIP_STAGE:
                scores = self.score_pool4(x)
        scores = scores + self.enlarge(self.score_fc7(self.classifier(x)))
        logits = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
        return crop_to(logits, size)
