"""Where and in which precision to compute, resolved from ``compute:`` of the experiment file."""

from __future__ import annotations

import os
import random
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from autoseg.errors import Problem, UserError, raise_if

_LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Compute:
    """A device and a precision, and how many such devices share a training.

    Attributes:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        precision: ``"32"``, ``"bf16"`` or ``"16"`` (automatic mixed precision, CUDA only).
        threads: CPU threads for torch.
        devices: Devices that one training may use, from ``device`` on; see :func:`autoseg.train.ranks.several_ranks`.
        ranks: Processes that train together right now, each on its device; 1 outside of ``several_ranks``.
        rank: Number of this one, from 0; rank 0 is the one that writes files.

    Example:
        >>> Compute.resolve(device="cpu").precision
        '32'
    """

    device: str = "cpu"
    precision: str = "32"
    threads: int = 1
    devices: int = 1
    ranks: int = 1
    rank: int = 0

    @classmethod
    def resolve(
        cls, device: str = "auto", precision: str = "auto", threads: int | None = None, devices: int = 1
    ) -> Compute:
        """Replace every ``auto``: CUDA and bfloat16 where there is a GPU, else the CPU and float32.

        bfloat16 is not the default on a CPU because it slows down slim networks.

        Args:
            device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
            precision: ``"auto"``, ``"32"``, ``"bf16"`` or ``"16"``.
            threads: CPU threads; all cores by default.
            devices: Devices that one training may use: GPUs from ``device`` on, or processes on a CPU.

        Raises:
            UserError: There is no such device or precision, or this machine does not have it, or not so many.
        """
        problems = []
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            problems.append(Problem(f"unknown device {device!r}", "compute.device", "use auto, cpu, cuda or cuda:N"))
        if precision not in ("auto", *_LIGHTNING_PRECISION):
            problems.append(
                Problem(f"unknown precision {precision!r}", "compute.precision", "use auto, 32, bf16 or 16")
            )
        raise_if(problems)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda"):
            count = torch.cuda.device_count()
            number = int(device.partition(":")[2] or 0)
            if number >= count:
                found = f"torch finds {count} CUDA device(s)"
                raise UserError(
                    Problem(f"device {device!r} is not there: {found}", "compute.device", "use auto or cpu")
                )
            if number + devices > count:
                what = f"{devices} devices from {device!r} on are not there: {found}"
                raise UserError(Problem(what, "compute.devices", f"use {count - number} or fewer"))
        if precision == "auto":
            # Older GPUs emulate bfloat16, which is slower than float32.
            native = device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
            precision = "bf16" if native else "32"
        if precision == "16" and device == "cpu":
            raise UserError(Problem("precision 16 needs a GPU", "compute.precision", "use auto, 32 or bf16"))
        return cls(device, precision, threads or os.cpu_count() or 1, devices)

    @property
    def accelerator(self) -> str:
        """Lightning's name of the accelerator."""
        return "cpu" if self.device == "cpu" else "cuda"

    @property
    def lightning_devices(self) -> int | list[int]:
        """Lightning's selection of the devices of all ranks."""
        if self.device == "cpu":
            return self.ranks
        first = int(self.device.partition(":")[2] or 0) - self.rank
        return list(range(first, first + self.ranks))

    @property
    def lightning_precision(self) -> str:
        """Lightning's name of the precision."""
        return _LIGHTNING_PRECISION[self.precision]

    def without_scaling(self) -> Compute:
        """For engines that step by hand, which the scaling of half precision does not survive: float32 in its place."""
        return replace(self, precision="32") if self.precision == "16" else self

    def autocast(self) -> AbstractContextManager[object]:
        """The context for a forward pass outside Lightning."""
        if self.precision == "32":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.partition(":")[0], dtype=dtype)

    def prepare(self) -> None:
        """Set threads and make CUDA choose the same kernels every time."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True


def seed_everything(*parts: int) -> None:
    """Seed torch, numpy and random from several numbers, such as ``(seed, epoch)``.

    Randomness is a function of (seed, epoch) everywhere, so that no generator state has to be stored
    and a resumed run draws what an uninterrupted one would have drawn.

    Example:
        >>> seed_everything(0, 3)
        >>> first = torch.rand(2)
        >>> seed_everything(0, 3)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    value = int(np.random.SeedSequence([p & 0xFFFFFFFF for p in parts]).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
