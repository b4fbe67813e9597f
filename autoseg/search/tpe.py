"""Strategy ``tpe``: a Parzen estimator learns which values good candidates share."""

from __future__ import annotations

from typing import Any, ClassVar

import nni
from nni.nas.strategy import TPE
from nni.nas.strategy.base import Strategy

from autoseg.search.multitrial import MultiTrial
from autoseg.search.task import SearchTask
from autoseg.spaces.base import Choices


class Tpe(MultiTrial):
    """Tree-structured Parzen estimator (NNI TPE), every candidate trained from scratch.

    Every decision is modelled by itself. The named points of the space are trained first, and the estimator
    learns from them like from the others.

    Args:
        trials: Candidates to train.
        epochs: Epochs of each training; ignored when the task has a budget in seconds.
        startup: Candidates, named ones included, before the estimator takes over from chance (NNI: 20).
        samples: Values drawn per decision, of which the most promising is taken.
        gamma: The best ``gamma * sqrt(n)`` of n candidates count as good (NNI: 0.25).

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, section 4.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Tpe(trials=30, startup=10, epochs=2).training_steps(steps_per_epoch=5)
        300.0
    """

    name: ClassVar[str] = "tpe"
    begins_with_named: ClassVar[bool] = True

    def __init__(
        self, *, trials: int = 16, epochs: int = 4, startup: int = 6, samples: int = 24, gamma: float = 0.5
    ) -> None:
        checks = [
            (startup >= 1, "startup", "must be 1 or more"),
            (samples >= 1, "samples", "must be 1 or more"),
            (gamma > 0, "gamma", "must be positive"),
        ]
        super().__init__(trials=trials, epochs=epochs, checks=checks)
        self.startup, self.samples, self.gamma = startup, samples, gamma

    def strategy(self, task: SearchTask, named: list[Choices], values: dict[str, list[Any]]) -> Strategy:
        """NNI's TPE with the cures of :class:`_CuredTpe`."""
        arguments = {"n_startup_jobs": self.startup, "n_ei_candidates": self.samples, "gamma": self.gamma}
        return _CuredTpe(named, values, seed=task.seed, tpe_args=arguments)


class _CuredTpe(TPE):
    """NNI's TPE strategy with its defects cured.

    1. It minimises unless told otherwise: a search for high mIoU would return the worst.
    2. It cannot describe input choices to its tuner: here they are choices between one-element lists.
    3. It sleeps a second after every candidate.
    4. It cannot be given candidates to begin with: named points are imported into the tuner's history.
    """

    def __init__(self, named: list[Choices], values: dict[str, list[Any]], **options: Any) -> None:
        super().__init__(optimize_mode="maximize", **options)
        self._named, self._values = named, values

    def _run(self) -> None:
        space = {label: {"_type": "choice", "_value": options} for label, options in self._values.items()}
        self.tuner.update_search_space(space)
        while self.wait_for_resource():
            number = self._model_count
            try:
                named = number < len(self._named)
                model = self.model_space.freeze(
                    self._named[number] if named else self.tuner.generate_parameters(number)
                )
            except nni.NoMoreTrialError:  # the space is exhausted
                return
            self._model_to_id[model] = number
            self._model_count += 1
            self.engine.submit_models(model)

    def on_metric(self, event: Any) -> None:
        """Tell the tuner about what it proposed; named points are imported instead."""
        number = self._model_to_id[event.model]
        if number >= len(self._named):
            super().on_metric(event)
        else:
            self.tuner.import_data([{"parameter": self._named[number], "value": event.metric}])
