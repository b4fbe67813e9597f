"""Networks as ONNX files that run without torch, on images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from autoseg.errors import MENDABLE, Problem, UserError
from autoseg.runfolder import write_bytes

EXAMPLE = (2, 37, 53)
"""Images, rows and columns while the graph is recorded: primes, so that no step can rely on a multiple of a number."""
ANOTHER = (3, 71, 97)
"""The size at which the recorded graph says whether it has taken a side for a constant."""


def export_onnx(network: nn.Module, path: str | Path, channels: int, size: tuple[int, int] | None = None) -> None:
    """Write a network as one ONNX file.

    The file has one input ``image``, float32 ``(batch, channels, height, width)``, normalised as in training,
    and one output ``logits``, ``(batch, classes, height, width)``. Padding and cropping of a network that takes
    images of any size are part of the file.

    Args:
        network: Any network with logits ``(N, num_classes, H, W)``; it is written as in evaluation and is left in the
            mode it was in.
        path: The file to write; replaced if there. Missing folders are made.
        channels: Image channels.
        size: None = batch, height and width are free. ``(height, width)`` fixes these two, for networks whose
            layers depend on the size of the image; the batch stays free.

    Raises:
        UserError: The packages of the extra ``onnx`` are missing, or the network has steps that cannot be written,
            or (``size=None``) steps that take the height or the width for a constant; or the file cannot be written
            there, or would be greater than the 2 GB that an ONNX file can hold.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "model.onnx")
        ...     export_onnx(nn.Conv2d(3, 2, 1), file, channels=3)
        ...     file.stat().st_size > 100
        True
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        what = f"{' and '.join(missing)} must be installed to write ONNX files"
        raise UserError(Problem(what, "export to ONNX", "pip install 'autoseg[onnx]'"))
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        program = _program(network, channels, size)
    except Exception as error:  # the exporter has errors of many kinds, of torch and of its own
        reason = shorten(str(error), 400)
        fix = "replace the operation in the network"
        if size is None:
            fix += ", pad with autoseg.nn.padding if it is about the sides, or give a fixed size"
        what = f"this network cannot be written as ONNX: {type(error).__name__}: {reason}"
        raise UserError(Problem(what, "export to ONNX", fix)) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    _save(program, Path(path))


def _save(program: torch.onnx.ONNXProgram, path: Path) -> None:
    """Write the file whole or not at all."""
    try:
        content = program.model_proto.SerializeToString()
    except Exception as error:  # of several kinds, by the version of protobuf
        what = f"this network cannot be written as one ONNX file: {type(error).__name__}: {shorten(str(error), 200)}"
        fix = "an ONNX file holds 2 GB at most: choose a smaller encoder or width"
        raise UserError(Problem(what, str(path), fix)) from error
    try:
        write_bytes(path, content)
    except OSError as error:
        fix = MENDABLE.get(error.errno or 0, "choose another file")
        raise UserError(Problem(f"the ONNX file cannot be written: {error.strerror}", str(path), fix)) from error


@torch.no_grad()
def _program(network: nn.Module, channels: int, size: tuple[int, int] | None) -> torch.onnx.ONNXProgram:
    """The network in evaluation mode, recorded and translated."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))

    def images(count: int, height: int, width: int) -> Tensor:
        return torch.zeros(count, channels, *(size or (height, width)), device=device)

    axes = {0: "batch"} if size else {0: "batch", 2: "height", 3: "width"}
    free = {axis: torch.export.Dim.DYNAMIC for axis in axes}
    graph = torch.export.export(network, (images(*EXAMPLE),), dynamic_shapes=(free,), strict=False)
    graph.module()(images(*ANOTHER))
    pooling = {torch.ops.aten.adaptive_avg_pool2d.default: adaptive_average}
    if any(node.target in pooling for node in graph.graph.nodes):
        graph = graph.run_decompositions(pooling)
    program = torch.onnx.export(
        graph,
        (images(*EXAMPLE),),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=(axes,),
        verbose=False,
    )
    assert program is not None  # None belongs to torch's former exporter
    return program


def adaptive_average(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Adaptive average pooling as two matrix products: ONNX has it for one window or known sizes only.

    Window ``i`` of ``k`` on a side of ``n`` pixels goes from pixel ``floor(i * n / k)`` to below
    ``ceil((i + 1) * n / k)``, as in :func:`torch.nn.functional.adaptive_avg_pool2d`.

    Args:
        x: ``(N, C, H, W)``.
        output_size: Windows in a column and in a row.

    Returns:
        ``(N, C, *output_size)``.

    Example:
        >>> adaptive_average(torch.tensor([[[[1.0, 2.0, 6.0]]]]), (1, 2)).tolist()
        [[[[1.5, 4.0]]]]
    """
    down, across = output_size
    if down == across == 1:
        return x.mean((-2, -1), keepdim=True)
    return _window_means(x.shape[-2], down, x) @ x @ _window_means(x.shape[-1], across, x).T


def _window_means(length: int, windows: int, like: Tensor) -> Tensor:
    """``(windows, length)``: the weight of every pixel of a side in the mean of every window."""
    number = torch.arange(windows, device=like.device)
    first, end = number * length // windows, ((number + 1) * length + windows - 1) // windows
    pixel = torch.arange(length, device=like.device)
    inside = (pixel >= first[:, None]) & (pixel < end[:, None])
    return inside.to(like.dtype) / (end - first)[:, None]
