"""Strategy ``random-oneshot``: a supernet trained on uniformly random paths, then random candidates scored.

On NNI's random one-shot engine (:mod:`autoseg.search.nni_paths`). Nothing is learned about the choices
while the weights are trained; it is the control for the one-shot strategies that do learn.
"""

from __future__ import annotations

from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy

from autoseg.search.batches import WATCHED, RewardBatches
from autoseg.search.nni_paths import PathStrategy
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchTask


class RandomOneShotSearch(OneShot):
    """Single-path supernet, uniformly sampled; the best of some random candidates is the result.

    Args:
        epochs: Passes over the training patches; ignored when the task has a budget in seconds.
        lr: Highest learning rate of the shared weights; None takes the training's.
        candidates: Random architectures to score in the end, 1 or more.

    Source: Single Path One-Shot NAS, section 3.1, as in NNI's RandomOneShot.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> RandomOneShotSearch(epochs=10, candidates=20).training_steps(steps_per_epoch=100)
        1020.0
    """

    name = "random-oneshot"
    learns = False
    scoring = 0.2

    def __init__(self, *, epochs: int = 12, lr: float | None = None, candidates: int = 20) -> None:
        super().__init__(epochs=epochs, warmup=0.0, lr=lr, candidates=candidates)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether there is something to score."""
        return [(self.candidates != 0, "candidates", "must be 1 or more")]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's random one-shot engine, seeded."""
        return PathStrategy()

    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> RewardBatches:
        """Patches on which a few paths are scored per epoch, to be seen in the journal; nothing is learned."""
        return RewardBatches(task, patch, WATCHED)
