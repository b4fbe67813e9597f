"""How the ranks of a training stay in step under Lightning: one time, one set of weights, checked at every epoch.

Decisions are the same on all ranks because they follow from the same numbers; the time is rank 0's.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch import distributed as dist

from autoseg.train.clock import Clock
from autoseg.train.compute import Compute
from autoseg.train.distributed import RanksDiffer, agreed, confirm

_DRIFT = 1e-4  # relative difference of the weights' sums that rounding on unlike devices may cause


class SharedClock(Clock):
    """A clock that shows on all ranks what rank 0's showed at the last :meth:`agree`.

    Args:
        compute: Says which rank this is.
        arguments: Those of :class:`autoseg.train.clock.Clock`.
    """

    def __init__(self, compute: Compute, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._compute = compute
        self.agree()

    @property
    def spent(self) -> float:
        """Seconds used when the ranks last agreed."""
        return self._agreed

    def agree(self) -> None:
        """Take rank 0's time; every rank must call it at the same place."""
        self._agreed = agreed(self._compute, lambda: super(SharedClock, self).spent)


def make_clock(compute: Compute, **arguments: Any) -> Clock:
    """A clock by which all ranks decide alike; the arguments are those of :class:`autoseg.train.clock.Clock`.

    Example:
        >>> make_clock(Compute(), epochs=3).total
        3
    """
    shared = compute.ranks > 1 and arguments.get("seconds") is not None
    return SharedClock(compute, **arguments) if shared else Clock(**arguments)


class InStep(Callback):
    """Keeps the clocks and the statistics of the ranks the same, and makes sure that they do the same.

    It comes before callbacks that decide something.

    Args:
        compute: Says which rank this is.
    """

    def __init__(self, compute: Compute) -> None:
        self.compute = compute

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Add a parameter that nothing uses: DDP looks for such, and warns on stderr when it finds none."""
        pl_module.idle = nn.Parameter(torch.zeros(()))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Take it away again."""
        del pl_module.idle

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Agree on the time."""
        self._agree(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Agree on the time."""
        self._agree(pl_module)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the mean of the normalisation's statistics; compare weights and random numbers.

        Raises:
            RanksDiffer: The ranks no longer do the same.
        """
        self._agree(pl_module)
        for buffer in pl_module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.compute.ranks
        epoch = int(trainer.current_epoch) + 1
        confirm(self.compute, f"the state of the random numbers after epoch {epoch}", hash_of(torch.get_rng_state()))
        own = sum(float(parameter.double().abs().sum()) for parameter in pl_module.parameters())
        first = agreed(self.compute, lambda: own)
        if not math.isclose(own, first, rel_tol=_DRIFT):
            raise RanksDiffer(f"the weights of rank {self.compute.rank} are not those of rank 0 after epoch {epoch}")

    @staticmethod
    def _agree(module: Any) -> None:
        getattr(module, "training_module", module).clock.agree()  # NNI's engines wrap ours


def hash_of(values: Tensor) -> str:
    """A short text that tells tensors of bytes apart.

    Example:
        >>> hash_of(torch.zeros(3, dtype=torch.uint8)) == hash_of(torch.ones(3, dtype=torch.uint8))
        False
    """
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


class _Here(LightningEnvironment):
    """Tells Lightning that all ranks are on this machine and have been started."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._compute = compute

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._compute.rank


def lightning_strategy(compute: Compute, synchronise: bool) -> dict[str, Any]:
    """Arguments of Lightning's trainer for the ranks of a training; none for a single one.

    Args:
        compute: Says which rank this is.
        synchronise: Whether normalisation takes its statistics from the whole batch, where torch can do that.

    Example:
        >>> lightning_strategy(Compute(), synchronise=True)
        {}
    """
    if compute.ranks == 1:
        return {}
    # A supernet uses other parameters in every step; statistics of normalisation are averaged by InStep.
    strategy = DDPStrategy(cluster_environment=_Here(compute), find_unused_parameters=True, broadcast_buffers=False)
    gpus = compute.device != "cpu"
    return {"strategy": strategy, "use_distributed_sampler": False, "sync_batchnorm": synchronise and gpus}
