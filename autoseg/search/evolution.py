"""Strategy ``evolution``: good architectures are changed a little, the oldest ones leave."""

from __future__ import annotations

from typing import Any, ClassVar

from nni.nas.strategy import RegularizedEvolution
from nni.nas.strategy.base import Strategy

from autoseg.search.multitrial import MultiTrial
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices


class Evolution(MultiTrial):
    """Regularised evolution (NNI RegularizedEvolution), every candidate trained from scratch.

    The first population holds the named points of the space, and random architectures beside them. With several
    candidates at a time, children come from what is known by then, of at least one tournament.

    Args:
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.
        population: Candidates alive at a time (Real et al.: 100, of 20,000 trials).
        tournament: Candidates drawn from the population, of which the best becomes a parent (Real et al.: 25).
        mutation: Chance of each decision to be drawn anew in a child; None changes one on average.
        crossover: Whether a child mixes two parents.

    Source: Real et al., Regularized Evolution for Image Classifier Architecture Search, algorithm 1.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Evolution(trials=20, population=6, tournament=2, epochs=2).training_steps(steps_per_epoch=5)
        200.0
    """

    name: ClassVar[str] = "evolution"
    begins_with_named: ClassVar[bool] = True

    def __init__(
        self,
        *,
        trials: int = 16,
        epochs: int = 4,
        population: int = 6,
        tournament: int = 4,
        mutation: float | None = None,
        crossover: bool = False,
    ) -> None:
        checks = [
            (population >= 1, "population", "must be 1 or more"),
            (1 <= tournament <= max(population, 1), "tournament", f"must be in 1..population ({population})"),
            (mutation is None or 0 < mutation <= 1, "mutation", "must be above 0 and at most 1"),
        ]
        super().__init__(trials=trials, epochs=epochs, checks=checks)
        self.population, self.tournament = population, tournament
        self.mutation, self.crossover = mutation, crossover

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's evolution that begins with the named points."""
        return EvolutionFrom(
            named,
            population_size=max(self.population, len(named)),
            sample_size=self.tournament,
            mutation_prob=self.mutation or 1 / max(len(values), 1),
            crossover=self.crossover,
            seed=task.seed,
        )


class EvolutionFrom(RegularizedEvolution):
    """NNI's evolution whose first individuals are given, and which holds no tournament without contestants."""

    def __init__(self, named: list[Choices], **options: Any) -> None:
        super().__init__(**options)
        self._named = list(named)

    def new_individual(self) -> Any:
        """A child, as soon as there are enough to draw its parent from."""
        while self._running_models and len(self._population) < self.sample_size:
            self.engine.wait_models(self._running_models[0])
        return super().new_individual()

    def random(self) -> Any:
        """The next given individual, then random ones."""
        if not self._named:
            return super().random()
        sample = self._named.pop(0)
        self._dedup_helper.dedup(sample)
        self._individual_counter += 1
        return self.model_space.freeze(sample)
