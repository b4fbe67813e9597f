"""Devices and precision: what ``auto`` means, and what is refused."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import torch

from autoseg.errors import UserError
from autoseg.train.compute import Compute, seed_everything


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Pretend that the machine has so many GPUs; 0 by default."""
    count = getattr(request, "param", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    return count


def test_auto_without_a_gpu(gpus: int) -> None:
    found = Compute.resolve(threads=3)
    assert found == Compute("cpu", "32", 3)
    assert (found.accelerator, found.lightning_devices, found.lightning_precision) == ("cpu", 1, "32-true")
    assert Compute.resolve().threads >= 1


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_auto_with_gpus(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Compute.resolve().device == "cuda"
    assert Compute.resolve().precision == "32"  # bfloat16 by emulation is slower than float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    found = Compute.resolve(device="cuda:1")
    assert (found.device, found.precision) == ("cuda:1", "bf16")
    assert (found.accelerator, found.lightning_devices, found.lightning_precision) == ("cuda", [1], "bf16-mixed")
    assert Compute.resolve(device="cuda").lightning_devices == [0]
    assert Compute.resolve(device="cuda", precision="16").lightning_precision == "16-mixed"
    assert Compute.resolve(device="cpu") == Compute("cpu", "32", Compute.resolve().threads)


@pytest.mark.parametrize("gpus", [0, 2], indirect=True)
def test_a_gpu_that_is_not_there(gpus: int) -> None:
    with pytest.raises(UserError, match=f"'cuda:2' is not there: torch finds {gpus} CUDA") as caught:
        Compute.resolve(device="cuda:2")
    assert caught.value.problems[0].where == "compute.device"
    assert caught.value.problems[0].fix == "use auto or cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:one", "mps", "", "CPU"])
def test_what_is_no_device(device: str) -> None:
    with pytest.raises(UserError, match="unknown device"):
        Compute.resolve(device=device)


def test_what_is_no_precision_is_reported_with_it() -> None:
    with pytest.raises(UserError) as caught:
        Compute.resolve(device="gpu", precision="64")
    assert [problem.where for problem in caught.value.problems] == ["compute.device", "compute.precision"]


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="precision 16 needs a GPU"):
        Compute.resolve(device="cpu", precision="16")


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    layer, x = torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)
    with Compute.resolve("cpu", precision).autocast():
        assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


def test_prepare_sets_the_threads() -> None:
    before = Compute("cpu", "32", torch.get_num_threads())
    try:
        Compute("cpu", "32", 2).prepare()
        assert torch.get_num_threads() == cv2.getNumThreads() == 2
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    finally:
        before.prepare()


def draws(*parts: int) -> tuple[float, ...]:
    seed_everything(*parts)
    return float(torch.rand(())), float(np.random.rand()), random.random()


def test_all_randomness_follows_the_seed() -> None:
    assert draws(3, 7) == draws(3, 7)
    streams = [draws(*parts) for parts in [(0, 0), (0, 1), (1, 0), (1, 1), (0, 1 << 20), (7, 3), (3, 7)]]
    assert all(len(set(values)) == len(streams) for values in zip(*streams, strict=True))
