"""What a network costs: parameters, floating-point operations and time per image.

Nothing here changes the model it is given: modes, device and memory layout are as before afterwards.
"""

from __future__ import annotations

import copy
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_WARM_UP_RUNS = 3
_PLAIN_NAMESPACES = frozenset({"aten", "prim", "prims"})
_HEAVY = re.compile(
    r"(^|_)(conv([123]d)?|convolution|mm|addmm|bmm|baddbmm|addbmm|mv|addmv|lstm|gru|rnn|attention|transformer|linear)(_|$)"
)


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included; a parameter shared by several layers counts once.

    Example:
        >>> count_parameters(nn.Conv2d(3, 8, kernel_size=3))  # 3 * 8 * 3 * 3 weights + 8 biases
        224
    """
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, channels: int, height: int, width: int) -> int | None:
    """Floating-point operations of one forward pass on one image.

    Counted by torch: convolutions, matrix products and attention, a multiply-add being two operations;
    additions of biases, normalisation, activations and pooling are left out, as is usual.
    The forward pass really runs once, on zeros, in evaluation mode.

    Args:
        model: Network taking ``(N, channels, height, width)``.
        channels: Channels of the image.
        height: Rows in pixels; a multiple of the network's size divisor.
        width: Columns in pixels, likewise.

    Returns:
        The number of operations, or None when the network uses an operation that torch has no formula for,
        so that the sum would be too low.

    Example:
        >>> count_flops(nn.Conv2d(3, 8, kernel_size=3, padding=1), 3, 10, 10)  # 2 * 3 * 3 * 3 * 8 * 100
        43200
    """
    image = _blank_image(model, channels, height, width)
    modes = [(module, module.training) for module in model.modules()]
    fused_attention = torch.backends.mha.get_fastpath_enabled()
    seen, counter = _SeenOperations(), FlopCounterMode(display=False)
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused form has no formula, its parts have
    try:
        with torch.no_grad(), seen, counter:
            model(image)
    except NotImplementedError:
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)
        for module, training in modes:
            module.training = training
    return None if any(map(_is_uncounted, seen.operations)) else int(counter.get_total_flops())


def latency_ms(
    model: nn.Module, channels: int, height: int, width: int, device: str | torch.device, runs: int = 10
) -> float:
    """Median time of a forward pass on one image, in milliseconds.

    Measured on a copy of the model, in evaluation and inference mode with channels-last layout, after three
    warm-up runs. The time to copy the image to the device is not part of it.

    Args:
        model: Network taking ``(N, channels, height, width)``.
        channels: Channels of the image.
        height: Rows in pixels; a multiple of the network's size divisor.
        width: Columns in pixels, likewise.
        device: Where to run, such as ``"cpu"`` or ``"cuda"``.
        runs: Timed runs, 1 or more.

    Raises:
        ValueError: When ``runs`` is below 1.

    Example:
        >>> latency_ms(nn.Conv2d(1, 2, kernel_size=1), 1, 8, 8, "cpu", runs=2) > 0
        True
    """
    if runs < 1:
        raise ValueError(f"runs must be 1 or more, not {runs}")
    device = torch.device(device)
    model = copy.deepcopy(model).eval().to(device).to(memory_format=torch.channels_last)
    image = _blank_image(model, channels, height, width).to(device=device, memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(_WARM_UP_RUNS + runs):
            _wait_for(device)
            start = time.perf_counter()
            model(image)
            _wait_for(device)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[_WARM_UP_RUNS:])


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        params: Parameters.
        flops: Floating-point operations of one forward pass on a validation image; None when not asked for, or
            when an operation of the network cannot be counted.
        latency_ms: Median milliseconds of that pass, batch of one; None when not asked for.
    """

    params: int
    flops: int | None = None
    latency_ms: float | None = None


def measure(
    network: nn.Module,
    image: tuple[int, int, int],
    device: str,
    *,
    flops: bool = True,
    latency: bool = True,
    runs: int = 10,
) -> Cost:
    """What a network costs on one image.

    Args:
        network: Any network; sides of the image are rounded up to its ``size_divisor``, 32 unless it has one.
        image: ``(channels, height, width)``.
        device: Where the latency is measured.
        flops: Whether to count operations.
        latency: Whether to measure milliseconds.
        runs: Timed runs for that.

    Example:
        >>> measure(nn.Conv2d(1, 2, 1, bias=False), (1, 32, 32), "cpu", latency=False)
        Cost(params=2, flops=4096, latency_ms=None)
    """
    divisor = int(getattr(network, "size_divisor", 32))
    height, width = (-(-side // divisor) * divisor for side in image[1:])
    shape = (image[0], height, width)
    return Cost(
        count_parameters(network),
        count_flops(network, *shape) if flops else None,
        round(latency_ms(network, *shape, device, runs), 3) if latency else None,
    )


class _SeenOperations(TorchDispatchMode):
    """Notes which operations a forward pass consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operations.add(func)
        return func(*args, **(kwargs or {}))


def _is_uncounted(operation: Any) -> bool:
    """True for an operation that does real work and for which torch has no formula.

    torch counts such an operation as 0. Operations from outside torch's own namespace are taken to do real
    work; inside it, those whose name says convolution, matrix product, recurrent layer or attention.
    """
    if getattr(operation, "_overloadpacket", operation) in flop_registry:
        return False
    namespace, _, name = operation.name().partition("::")
    return namespace not in _PLAIN_NAMESPACES or _HEAVY.search(name.partition(".")[0]) is not None


def _blank_image(model: nn.Module, channels: int, height: int, width: int) -> torch.Tensor:
    """A black image ``(1, channels, height, width)`` of the model's number type, on its device."""
    first = next(model.parameters(), torch.empty(0))
    return torch.zeros(1, channels, height, width, device=first.device, dtype=first.dtype)


def _wait_for(device: torch.device) -> None:
    """Wait until an accelerator has finished its queue."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
