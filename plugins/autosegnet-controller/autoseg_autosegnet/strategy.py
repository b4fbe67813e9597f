"""Strategy ``autosegnet``: one controller, two ways to learn what its architectures are worth."""

from __future__ import annotations

from typing import Literal

from nni.nas.nn.pytorch import ModelSpace

from autoseg.errors import Problem, UserError
from autoseg.search.oneshot import OneShot
from autoseg.search.task import SearchResult, SearchTask
from autoseg.spaces.base import decisions
from autoseg_autosegnet.multitrial import ControllerMultiTrial
from autoseg_autosegnet.oneshot import ControllerOneShot
from autoseg_autosegnet.options import ControllerOptions
from autoseg_autosegnet.order import ordered

_MODES = ("one-shot", "multi-trial")

ONE_SHOT_LR = 5e-4
"""The controller's learning rate in the paper."""
MULTI_TRIAL_LR = 5e-3
"""With the paper's, a hundred trials teach a controller hardly anything; README.md has numbers."""


class AutoSegNetSearch:
    """The AutoSegNet controller: a 2-layer LSTM that learns by REINFORCE, on any space.

    Args:
        mode: ``"one-shot"``, the paper's: all architectures share weights, which SGD trains under the paper's
            schedule; or ``"multi-trial"``: every architecture is trained from scratch.
        epochs: One-shot: passes over the training patches (12; the paper has 200). Multi-trial: epochs of each
            training (4). Ignored when the task has a budget in seconds.
        trials: Multi-trial: candidates to train.
        warmup: One-shot: share of the search in which only weights are trained, 0..1, below 1.
        rewards: One-shot: architectures scored per epoch.
        candidates: One-shot: samples to score on the validation images in the end.
        lr: One-shot: highest learning rate of the shared weights.
        rewards_per_update: Architectures per update of the controller.
        order: Order of the decisions: labels, or beginnings of labels, such as ``["down", "bridge", "up", "skip"]``;
            without it that of the space.
        hidden: Width of the LSTM and of its embeddings.
        layers: Layers of the LSTM.
        controller_lr: Learning rate of the controller (Adam); by default the paper's 5e-4 with shared weights, and
            5e-3 in multi-trial mode, where rewards are few.
        entropy: Weight of the entropy bonus.
        baseline_decay: Decay of the moving average of the rewards, per reward.
        tanh_constant: Bound of the controller's logits; None for none.
        temperature: Divides the logits; more than 1 explores more.

    Attributes:
        one_shot: Whether weights are shared.

    Source: AutoSegNet, section on the search strategy; ENAS for what it leaves open.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> search = AutoSegNetSearch(mode="multi-trial", trials=10, epochs=2, order=["down", "bridge", "up", "skip"])
        >>> search.one_shot, search.training_steps(steps_per_epoch=5)
        (False, 100.0)
    """

    one_shot = True

    def __init__(
        self,
        *,
        mode: Literal["one-shot", "multi-trial"] = "one-shot",
        epochs: int | None = None,
        trials: int = 16,
        warmup: float = 0.3,
        rewards: int = 32,
        candidates: int = 12,
        lr: float = 0.5,
        rewards_per_update: int = 4,
        order: list[str] | None = None,
        hidden: int = 100,
        layers: int = 2,
        controller_lr: float | None = None,
        entropy: float = 1e-4,
        baseline_decay: float = 0.99,
        tanh_constant: float | None = 2.5,
        temperature: float = 1.0,
    ) -> None:
        if mode not in _MODES:
            what, where = f"must be one of {', '.join(_MODES)}, not {mode!r}", "strategy autosegnet, option mode"
            raise UserError(Problem(what, where, "change it"))
        self.one_shot = mode == "one-shot"
        default_lr = ONE_SHOT_LR if self.one_shot else MULTI_TRIAL_LR
        controller = ControllerOptions(
            order=order,
            hidden=hidden,
            layers=layers,
            controller_lr=default_lr if controller_lr is None else controller_lr,
            entropy=entropy,
            baseline_decay=baseline_decay,
            tanh_constant=tanh_constant,
            temperature=temperature,
            rewards_per_update=rewards_per_update,
        )
        self._search: ControllerOneShot | ControllerMultiTrial
        if self.one_shot:
            self._search = ControllerOneShot(
                controller,
                rewards=rewards,
                epochs=12 if epochs is None else epochs,
                warmup=warmup,
                lr=lr,
                candidates=candidates,
            )
        else:
            self._search = ControllerMultiTrial(controller, trials=trials, epochs=4 if epochs is None else epochs)

    @classmethod
    def supports(cls, space: ModelSpace) -> str | None:
        """None, or why this strategy cannot search a space.

        Args:
            space: An unfrozen instance.
        """
        return OneShot.supports(space)

    def check(self, space: ModelSpace) -> list[Problem]:
        """What is wrong with the options for a space: an ``order`` that does not name its decisions.

        Args:
            space: An unfrozen instance.
        """
        try:
            ordered(decisions(space), self._search.controller.order)
        except UserError as error:
            return list(error.problems)
        return []

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one network, to predict its time.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        return self._search.training_steps(steps_per_epoch)

    def take_part(self, task: SearchTask) -> None:
        """In the other ranks of a one-shot search over several devices: compute with the first one.

        Args:
            task: The same search.
        """
        assert isinstance(self._search, ControllerOneShot)
        self._search.take_part(task)

    def search(self, task: SearchTask) -> SearchResult:
        """Search, or continue a search that was interrupted.

        Args:
            task: Space, data and folder. What is in the folder decides where to continue.

        Returns:
            The best architecture and all scored candidates. With a length in epochs it does not depend on
            interruptions.

        Raises:
            TrainingDiverged: The gradients of the shared weights stayed infinite or not-a-number.
            UserError: The order does not fit the space, the state in the folder is damaged, the data is unusable, or
                no architecture is within the limits.
        """
        return self._search.search(task)
