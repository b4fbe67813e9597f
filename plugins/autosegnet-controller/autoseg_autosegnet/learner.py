"""From rewards, one at a time, to updates of the controller: what both modes of the search share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autoseg_autosegnet.controller import Controller

if TYPE_CHECKING:
    from autoseg.search.health import Distribution
    from autoseg.spaces.base import Choices


class Learner:
    """A controller that is updated whenever enough rewards have come.

    It is a chooser of autoseg's path supernets (:class:`autoseg.search.nni_paths.Chooser`).

    Args:
        controller: Proposes the architectures.
        rewards_per_update: Rewards per update of the controller.

    Attributes:
        complete: Always True: rewards that wait for an update are part of the state.

    Example:
        >>> learner = Learner(Controller({"op": ["conv3", "conv5"]}, hidden=8), rewards_per_update=2)
        >>> for value in (0.5, 0.25, 1.0):
        ...     learner.reward(learner.draw(), value)
        >>> learner.controller.baseline, learner.pending[0][1]
        (0.375, 1.0)
    """

    complete = True

    def __init__(self, controller: Controller, rewards_per_update: int) -> None:
        self.controller, self.rewards_per_update = controller, rewards_per_update
        self.pending: list[tuple[Choices, float]] = []

    def draw(self, greedy: bool = False) -> Choices:
        """An architecture; with ``greedy`` the most probable one."""
        return self.controller.draw(greedy)

    def reward(self, choices: Choices, value: float) -> None:
        """Learn that an architecture scored ``value``, validation mIoU 0..1."""
        self.pending.append((choices, value))
        if len(self.pending) >= self.rewards_per_update:
            self.controller.update(self.pending)
            self.pending = []

    def distribution(self) -> Distribution:
        """Probabilities of all values of every decision, along the most probable path."""
        return self.controller.probabilities()

    def state(self) -> dict[str, Any]:
        """A tree for :func:`autoseg.statefile.save_tree`: controller and waiting rewards."""
        return {"controller": self.controller.state(), "pending": [list(reward) for reward in self.pending]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            ValueError: It belongs to other decisions or to another order of them.
        """
        self.controller.load_state(state["controller"])
        self.pending = [(choices, value) for choices, value in state["pending"]]
