"""Strategies ``darts``, ``gumbel-darts`` and ``proxyless``: the architecture is learned by gradient descent.

One-shot searches on NNI's engines (:mod:`autoseg.search.nni_gradients`): every decision has a number per
value, and the softmax of the numbers mixes the values. What the mixture has learned is then made discrete:
the most probable architecture and samples of the softmax are tuned path by path for a share of the search,
because weights that were trained in a mixture fit no single path, and scored.
"""

from __future__ import annotations

from typing import Any

from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from torch import nn

from autoseg.search.batches import validation_patches
from autoseg.search.candidates import Pool
from autoseg.search.nni_gradients import CuredDarts, CuredGumbelDarts, CuredProxyless, freeze_affine
from autoseg.search.objective import CostMeter
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices, derived
from autoseg.train.clock import Stopwatch

_MIXED_STEPS = 2 * 6.3  # two steps of a seven-operation mixture, each as long as 6.3 of one path, measured


class Darts(OneShot):
    """DARTS, first order: architecture and weights are trained in turn, on different images.

    Every step evaluates all operations of every decision: it takes about as many times longer than a step of
    one path as there are operations, and as much more memory.

    Args:
        epochs: Passes over the training patches, tuning included; ignored when the task has a budget in
            seconds.
        warmup: Share of the search in which only weights are trained, 0..1.
        architecture_lr: Learning rate of the architecture's Adam. The published 3e-4 needs thousands of
            steps to decide anything.
        architecture_weight_decay: Weight decay of the architecture's Adam, whose betas are 0.5 and 0.999.
        single_level: Learn the architecture from the training images too (SEARCH-Net, eq. 2, to the letter)
            instead of from validation patches.
        tuning: Share of the search in which single paths of the candidates are trained.
        candidates: Samples of the softmax to score in the end.
        weights: How the shared weights are trained, see :class:`autoseg.search.shared_weights.SharedWeights`.

    Source: SEARCH-Net, section 2.2 (DARTS); first order and Adam's settings are those published with DARTS.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Darts(epochs=10, tuning=0.2).training_steps(steps_per_epoch=10) > 1000
        True
    """

    name = "darts"
    steps_in_time = 8  # each is as long as a dozen of one path

    def __init__(
        self,
        *,
        epochs: int = 12,
        warmup: float = 0.2,
        architecture_lr: float = 0.02,
        architecture_weight_decay: float = 1e-3,
        single_level: bool = False,
        tuning: float = 0.2,
        candidates: int = 6,
        **weights: Any,
    ) -> None:
        self.architecture_lr, self.architecture_weight_decay = architecture_lr, architecture_weight_decay
        self.single_level, self.tuning, self.epochs = single_level, tuning, epochs
        super().__init__(epochs=epochs, warmup=warmup, candidates=candidates, **weights)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether the options of the architecture are in range."""
        return [
            (self.architecture_lr > 0, "architecture_lr", "must be positive"),
            (self.architecture_weight_decay >= 0, "architecture_weight_decay", "must not be negative"),
            (0 <= self.tuning < 1, "tuning", "must be in 0..1, below 1"),
            (self.epochs >= 2 or not self.tuning, "epochs", "must be 2 or more, one of them for the tuning"),
        ]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's DARTS with the defects cured."""
        return CuredDarts(**self._learning(warmup_epochs))

    def _learning(self, warmup_epochs: int) -> dict[str, Any]:
        """How NNI's engine learns the architecture."""
        return {
            "arc_learning_rate": self.architecture_lr,
            "arc_weight_decay": self.architecture_weight_decay,
            "warmup_epochs": warmup_epochs,
        }

    def prepare(self, network: nn.Module) -> None:
        """Fix the scales of normalisation inside the operations."""
        freeze_affine(network)

    def learning_batches(self, task: SearchTask, patch: int, train: Any) -> Any:
        """As many validation batches as training batches, or the training batches themselves."""
        return train if self.single_level else validation_patches(task, patch, len(train), task.recipe.batch)

    def draw_pool(self, task: SearchTask, engine: Any, meter: CostMeter, watch: Stopwatch) -> Pool:
        """The most probable architecture after the space's own rule of derivation, samples, named ones."""
        probabilities = engine.distribution()

        def draw(greedy: bool) -> Choices:
            return derived(task.space_class, task.kwargs, engine.draw(greedy), probabilities)

        return Pool.drawn(task, meter, draw, self.candidates, watch)

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one path, to predict its time.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        mixed = (1 - self.tuning) * self.epochs * steps_per_epoch
        return super().training_steps(steps_per_epoch) - mixed + mixed * _MIXED_STEPS


class GumbelDarts(Darts):
    """DARTS whose mixture is sampled by Gumbel-softmax, nearly one-hot in the end.

    Args:
        temperature: Of the softmax in the beginning: the higher, the more even the mixture.
        final_temperature: In the end.
        options: Those of :class:`Darts`.

    Source: FBNet and SNAS, as in NNI's GumbelDARTS.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> GumbelDarts(epochs=4).temperature
        1.0
    """

    name = "gumbel-darts"

    def __init__(self, *, temperature: float = 1.0, final_temperature: float = 0.33, **options: Any) -> None:
        self.temperature, self.final_temperature = temperature, final_temperature
        super().__init__(**options)

    def checks(self) -> list[tuple[bool, str, str]]:
        """Whether the temperatures are in range."""
        falls = 0 < self.final_temperature <= self.temperature
        return [*super().checks(), (falls, "final_temperature", "must be above 0 and not above temperature")]

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's GumbelDARTS with the defects cured."""
        temperature = (self.temperature, self.final_temperature)
        return CuredGumbelDarts(temperature=temperature, **self._learning(warmup_epochs))


class Proxyless(Darts):
    """ProxylessNAS: one sampled path per step; the others are evaluated for the architecture's gradient only.

    The memory of a step is that of one path; its time is nearer to that of DARTS.

    It has the options of :class:`Darts`.

    Source: ProxylessNAS, as in NNI's Proxyless.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Proxyless(epochs=4).name
        'proxyless'
    """

    name = "proxyless"

    def engine(self, task: SearchTask, epochs: int | None, warmup_epochs: int) -> OneShotStrategy:
        """NNI's ProxylessNAS with the defects cured."""
        return CuredProxyless(**self._learning(warmup_epochs))
