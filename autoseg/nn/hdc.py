"""Hybrid dilated convolution (HDC): 3x3 convolutions with the rates 1, 2 and 3, "at the same time".

Rates without a common divisor see every pixel of a 13x13 neighbourhood when they follow one another, and
widen the view without pooling when they stand side by side. The AutoSegNet text does not say how the three
are joined, so that there are three forms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoseg.nn.ops import ORDERS, conv

RATES = (1, 2, 3)
FORMS = ("split", "sum", "serial")


class DilatedBranches(nn.Module):
    """Three dilated 3x3 convolutions of one input, side by side.

    Args:
        channels: C of input and output.
        share: True: each branch gives about a third of the channels and they are concatenated, ``9 * C * C``
            weights; False: each gives all C and they are added, ``27 * C * C`` weights.

    Example:
        >>> [branch.out_channels for branch in DilatedBranches(8, share=True).branches]
        [3, 3, 2]
    """

    def __init__(self, channels: int, share: bool) -> None:
        super().__init__()
        self.share = share
        widths = [(channels + len(RATES) - 1 - i) // len(RATES) if share else channels for i in range(len(RATES))]
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, width, 3, padding=rate, dilation=rate, bias=False)
            for width, rate in zip(widths, RATES, strict=True)
            if width  # fewer than three channels have no third of each
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``."""
        outputs = [branch(x) for branch in self.branches]
        if self.share:
            return torch.cat(outputs, 1)
        return torch.stack(outputs).sum(0)


def hdc(channels: int, form: str = "split", order: str = "relu-conv-bn") -> nn.Module:
    """A hybrid dilated convolution that keeps the shape ``(N, C, H, W)``.

    Args:
        channels: C, of input and output.
        form: ``"split"`` = a third of the channels per rate, concatenated (``9 * C * C`` weights); ``"sum"`` = all
            channels per rate, added; ``"serial"`` = one rate after the other (both ``27 * C * C`` weights).
        order: ``"relu-conv-bn"`` or ``"conv-bn-relu"``; for ``"serial"`` around each of the three.

    Raises:
        ValueError: ``form`` or ``order`` is unknown.

    Source: AutoSegNet, the operations of a layer; the forms are our readings of it.

    Example:
        >>> {form: sum(p.numel() for p in hdc(6, form).parameters() if p.dim() == 4) for form in FORMS}
        {'split': 324, 'sum': 972, 'serial': 972}
    """
    if form not in FORMS:
        raise ValueError(f"hdc must be one of {FORMS}, got {form!r}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    if form == "serial":
        return nn.Sequential(*(conv(channels, 3, dilation=rate, order=order) for rate in RATES))
    branches, norm = DilatedBranches(channels, share=form == "split"), nn.BatchNorm2d(channels)
    if order == "relu-conv-bn":
        return nn.Sequential(nn.ReLU(), branches, norm)
    return nn.Sequential(branches, norm, nn.ReLU(inplace=True))
