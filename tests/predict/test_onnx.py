from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import UserError
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.nn.pool import pool_with_indices, unpool
from autoseg.predict import onnx as exporting
from autoseg.predict.onnx import adaptive_average, export_onnx


class PoolsAndUnpools(nn.Module):
    """Unpools other values than those that were pooled, as a decoder does."""

    def forward(self, x: Tensor) -> Tensor:
        x, size = pad_to_multiple(x, 4)
        _, where = pool_with_indices(x)
        height, width = x.shape[-2:]
        back = unpool(1 + where.to(x.dtype) % 7, where, (height, width))
        return crop_to(torch.cat([x, back], 1), size)


def run(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": x.numpy()})[0])


def test_padding_and_positions_of_maxima_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    network, path = PoolsAndUnpools(), tmp_path / "model.onnx"
    export_onnx(network, path, 2)
    for shape in [(2, 37, 53), (1, 1, 1), (1, 2, 9), (3, 16, 8), (1, 5, 3)]:
        x = torch.randint(-3, 3, (shape[0], 2, *shape[1:])).float()  # many equal values beside one another
        assert torch.equal(run(path, x), network(x)), shape


def test_file_names_its_free_sides_and_holds_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(nn.Conv2d(3, 2, 1), str(path), 3)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model)
    (image,), (logits,) = model.graph.input, model.graph.output

    def sides(value: Any) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert (image.name, sides(image)) == ("image", ["batch", 3, "height", "width"])
    assert (logits.name, sides(logits)) == ("logits", ["batch", 2, "height", "width"])


@pytest.mark.parametrize("windows", [(1, 1), (2, 3), (6, 6), (5, 1)])
@pytest.mark.parametrize("size", [(37, 53), (6, 12), (2, 3), (1, 1)])
def test_adaptive_average_is_torchs(size: tuple[int, int], windows: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(adaptive_average(x, windows), F.adaptive_avg_pool2d(x, windows), rtol=1e-5, atol=1e-6)


class Pyramid(nn.Module):
    """Pooling into 3 x 2 windows: torch's exporter would write it for the size of the example alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(F.adaptive_avg_pool2d(x, (3, 2)), size=x.shape[-2:])


def test_pooling_into_windows_works_for_images_of_any_size(tmp_path: Path) -> None:
    network, path = Pyramid(), tmp_path / "model.onnx"
    export_onnx(network, path, 1)
    for shape in [(1, 1, 40, 19), (2, 1, 64, 64), (1, 1, 2, 1)]:
        x = torch.randn(shape)
        torch.testing.assert_close(run(path, x), network(x), rtol=1e-5, atol=1e-6)


class OneSizeOnly(nn.Module):
    """Takes the number of rows for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 2, int(x.shape[2]), x.shape[3]) / int(x.shape[2])


def test_a_fixed_size_leaves_the_batch_free(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(OneSizeOnly(), path, 2, size=(20, 30))
    for count in (1, 4):
        x = torch.randn(count, 2, 20, 30)
        torch.testing.assert_close(run(path, x), x / 20)


def test_what_cannot_be_written_is_said_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        export_onnx(OneSizeOnly(), tmp_path / "model.onnx", 2)
    (problem,) = error.value.problems
    assert problem.what.startswith("this network cannot be written as ONNX: ")
    assert "37" in problem.what and "fixed size" in problem.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_written_as_in_evaluation_and_stays_in_its_mode(tmp_path: Path, training: bool) -> None:
    frozen, dropout = nn.BatchNorm2d(2), nn.Dropout(0.5)
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(frozen, dropout)).train(training)
    frozen.eval()
    path = tmp_path / "model.onnx"
    export_onnx(network, path, 1)
    assert (network.training, frozen.training, dropout.training) == (training, False, training)
    x = torch.randn(1, 1, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(run(path, x), network.eval()(x))


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(1, 1, 1)
    export_onnx(network, tmp_path / "new" / "model.onnx", 1)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["model.onnx"]
    before = (tmp_path / "new" / "model.onnx").read_bytes()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the ONNX file cannot be written") as error:
        export_onnx(network, tmp_path / "file" / "model.onnx", 1)
    assert error.value.problems[0].where == str(tmp_path / "file" / "model.onnx")

    def too_large(self: object) -> bytes:
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 3000000000")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "model_proto", property(too_large))
    with pytest.raises(UserError, match="exceeds maximum protobuf size") as error:
        export_onnx(network, tmp_path / "new" / "model.onnx", 1)
    assert "2 GB" in error.value.problems[0].fix
    assert (tmp_path / "new" / "model.onnx").read_bytes() == before


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> ModuleSpec | None:
        return None if name == "onnxscript" else sys.modules["onnx"].__spec__

    monkeypatch.setattr(exporting, "find_spec", find)
    with pytest.raises(UserError) as error:
        export_onnx(nn.Identity(), tmp_path / "model.onnx", 1)
    (problem,) = error.value.problems
    assert problem.what == "onnxscript must be installed to write ONNX files"
    assert problem.fix == "pip install 'autoseg[onnx]'"
