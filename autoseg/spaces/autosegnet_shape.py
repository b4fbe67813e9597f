"""How deep and wide an AutoSegNet is: the depth rule, the channels, and long skips for another depth.

The depth is not searched. It follows from the size of the image: the map is halved as long as it stays at
least ``min_size`` and at least ``input / ratio``; where the next halving would leave that range, a layer of
hybrid dilated convolution (HDC) stands in its place, then comes the bridge. This file needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

T = TypeVar("T")


def downsamplings(input_size: int, min_size: int = 16, ratio: int = 32) -> int:
    """How often the map is halved: ``floor(log2(input_size / max(min_size, input_size / ratio)))``.

    Args:
        input_size: Side of the image in pixels.
        min_size: Smallest side that a map may have.
        ratio: Largest ratio of the side of the image to the side of the smallest map.

    Raises:
        ValueError: An option is out of range, or not even one halving is allowed.

    Source: AutoSegNet, the text on the minimum size of the feature map and its example (16, 1:32).

    Example:
        >>> [downsamplings(size) for size in (32, 64, 160, 512)], downsamplings(512, ratio=16)
        ([1, 2, 3, 5], 4)
    """
    for name, value in (("input_size", input_size), ("min_size", min_size), ("ratio", ratio)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    count = 0
    while min_size * 2 ** (count + 1) <= input_size and 2 ** (count + 1) <= ratio:
        count += 1
    if not count:
        raise ValueError(
            f"input_size={input_size}, min_size={min_size}, ratio={ratio} allow no downsampling: "
            "input_size must be at least 2 * min_size, and ratio at least 2"
        )
    return count


@dataclass(frozen=True)
class Shape:
    """Depth and channels of a network; the arguments are the options of the space.

    Args:
        input_size: Side of the image that the depth is meant for, in pixels.
        min_size: Smallest side of a map.
        ratio: Largest ratio of the image to the smallest map.
        width: Channels of a cell at full resolution.
        max_width: Upper limit of the channels of a cell.
        n_hdc: HDC layers between the last down layer and the bridge.
        depth: Number of layers of the encoder, HDC layers included; replaces ``n_hdc`` where it is given. Where the
            image allows as many downsamplings or more, there is no HDC layer.

    Raises:
        ValueError: An option is out of range.

    Example:
        >>> shape = Shape(input_size=512, ratio=16)
        >>> shape.downsamplings, shape.layers, shape.channels
        (4, 10, (16, 32, 64, 128, 256))
    """

    input_size: int = 64
    min_size: int = 16
    ratio: int = 32
    width: int = 16
    max_width: int = 1024
    n_hdc: int = 1
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if self.max_width < self.width:
            raise ValueError(f"max_width must be at least width={self.width}, got {self.max_width}")
        if self.n_hdc < 0:
            raise ValueError(f"n_hdc must be at least 0, got {self.n_hdc}")
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"depth must be None or at least 1, got {self.depth}")

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Shape:
        """The shape of a space with these options; those left out have their defaults."""
        return cls(**{field.name: kwargs[field.name] for field in fields(cls) if field.name in kwargs})

    @property
    def downsamplings(self) -> int:
        """n: halvings of the map, down layers, up layers, and long skips."""
        return downsamplings(self.input_size, self.min_size, self.ratio)

    @property
    def hdc_layers(self) -> int:
        """Number of HDC layers."""
        return self.n_hdc if self.depth is None else max(0, self.depth - self.downsamplings)

    @property
    def layers(self) -> int:
        """All layers: n down, the HDC layers, the bridge, n up."""
        return 2 * self.downsamplings + 1 + self.hdc_layers

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels C of a cell at each of the n + 1 scales, the finest first."""
        return tuple(min(self.width * 2**i, self.max_width) for i in range(self.downsamplings + 1))


def transfer(found: Sequence[T], count: int) -> list[T]:
    """Long skips for a network with ``count`` of them, from those found in another; coarsest first.

    The pairs are counted from the coarsest. A deeper network has new, shallower pairs, and these repeat the
    shallowest decision that was searched; a network of fewer levels leaves the shallowest decisions out.

    Example:
        >>> transfer([1, 0], 4), transfer([1, 0, 1], 2)
        ([1, 0, 0, 0], [1, 0])
    """
    return [found[min(i, len(found) - 1)] for i in range(count)]
