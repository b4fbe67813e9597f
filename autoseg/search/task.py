"""What a strategy is given and what it returns: the contract of ``autoseg.strategies`` plugins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.progress import Progress
from autoseg.search.architecture import Architecture
from autoseg.search.objective import Objective

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace

    from autoseg.data.base import DatasetInfo, Split
    from autoseg.data.batches import Normalisation
    from autoseg.search.trials import Bench
    from autoseg.train.compute import Compute
    from autoseg.train.recipe import Recipe


@dataclass
class SearchTask:
    """A search to do. The test split is not in it, so that no strategy can look at it.

    Attributes:
        space: Name of the space.
        kwargs: Options of the space.
        space_class: The space itself; ``space_class(in_channels, num_classes, **kwargs)``.
        train: Images to train weights on.
        val: Images to score architectures on.
        info: Classes and channels.
        normalisation: From the training split.
        recipe: Batch, patch, loss and learning rate.
        compute: Device and precision.
        seed: Seed of the search.
        folder: ``search/`` of the run folder: journal and state go there.
        seconds: Length of the search, or None when the strategy's own options decide.
        progress: Shows the progress.
        objective: Hard limits on the final network.
        final_kwargs: Options of the space that differ in the final network, as deeper or wider.
        bench: Trains the candidates of a multi-trial search, several at a time; None for this process, one by
            one.
    """

    space: str
    kwargs: dict[str, Any]
    space_class: Callable[..., ModelSpace]
    train: Split
    val: Split
    info: DatasetInfo
    normalisation: Normalisation
    recipe: Recipe
    compute: Compute
    seed: int
    folder: Path
    seconds: float | None = None
    progress: Progress = field(default_factory=Progress)
    objective: Objective = field(default_factory=Objective)
    final_kwargs: dict[str, Any] = field(default_factory=dict)
    bench: Bench | None = None

    def build_space(self) -> ModelSpace:
        """A fresh, unfrozen space."""
        return self.space_class(self.info.channels, self.info.num_classes, **self.kwargs)

    def architecture(self, choices: dict[str, Any]) -> Architecture:
        """Name a point of the space."""
        return Architecture(self.space, dict(self.kwargs), choices)


@dataclass(frozen=True)
class Candidate:
    """An architecture and its score on validation images.

    Attributes:
        choices: ``{label: value}``.
        miou: Validation mIoU, 0..1 (with shared weights in a one-shot search: good for ranking only).
        source: ``"greedy"``, ``"sampled"`` or ``"named"``.
        params: Parameters of the final network.
        flops: Floating-point operations of the final network on a validation image, where measured.
        latency_ms: Milliseconds of the final network for a validation image, where measured.
    """

    choices: dict[str, Any]
    miou: float
    source: str
    params: int
    flops: int | None = None
    latency_ms: float | None = None

    @property
    def rank(self) -> tuple[float, int]:
        """Sorts the best first: the higher mIoU, then fewer parameters."""
        return (-self.miou, self.params)


@dataclass
class SearchResult:
    """What a search found.

    Attributes:
        architecture: The chosen one.
        candidates: All scored ones, best first.
        history: One row per epoch (one-shot) or candidate (multi-trial), as in the journal.
        seconds: Wall-clock seconds, interruptions left out.
        notes: What the user should know, such as a search that has not converged.
    """

    architecture: Architecture
    candidates: list[Candidate]
    history: list[dict[str, Any]]
    seconds: float
    notes: list[str] = field(default_factory=list)
