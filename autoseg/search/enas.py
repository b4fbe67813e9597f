"""Strategy ``enas``: a controller learns by reinforcement which paths of a shared supernet score well.

One-shot search on NNI's ENAS engine (:mod:`autoseg.search.nni_enas`). Each epoch trains the shared
weights on one sampled path per batch, then scores a number of sampled architectures on validation
patches; their mIoU is the reward of the controller. In the end several architectures are scored on the
whole validation images: the most probable one, samples of the controller and the named points of the
space; the best is returned.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from autoseg.errors import Problem, raise_if
from autoseg.runfolder import Journal
from autoseg.search.enas_keeper import RewardBatches, SearchKeeper
from autoseg.search.nni_enas import CuredEnas, EnasModule, ppo
from autoseg.search.supernet import score_paths, use_batch_statistics
from autoseg.search.task import Candidate, SearchResult, SearchTask
from autoseg.spaces.base import plain
from autoseg.statefile import load_tree
from autoseg.train.clock import Clock
from autoseg.train.compute import seed_everything
from autoseg.train.cost import count_parameters
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.module import SegmentationModule
from autoseg.train.trainer import train_loader

log = logging.getLogger(__name__)

_UNDECIDED = 0.8
_STEPS_IN_TIME = 40  # per epoch under a budget in seconds: warm-up and search end at epochs
_SECONDS_SHARE = 0.9  # of a budget in seconds; the rest is for scoring the candidates


class Enas:
    """Reinforcement learning over a weight-sharing supernet (NNI ENAS, defects cured).

    Args:
        epochs: Passes over the training patches; ignored when the task has a budget in seconds.
        warmup: Share of the search in which only weights are trained, 0..1.
        rewards: Architectures scored per epoch; a multiple of ``rewards_per_update``.
        rewards_per_update: Architectures per update of the controller.
        controller_lr: Learning rate of the controller (ED-NAS: 0.0035).
        entropy: Weight of the controller's entropy bonus.
        lr: Highest learning rate of the shared weights; None takes the training's.
        candidates: Samples of the controller to score on the validation images in the end.

    Source: ENAS; ED-NAS, sections 2.2 and 3.2, for the controller's learning rate and the reward.

    Raises:
        UserError: An option is out of range; all problems together.

    Example:
        >>> Enas(epochs=10, warmup=0.3, rewards=16).training_steps(steps_per_epoch=100) > 1000
        True
    """

    one_shot = True

    def __init__(
        self,
        *,
        epochs: int = 12,
        warmup: float = 0.3,
        rewards: int = 16,
        rewards_per_update: int = 8,
        controller_lr: float = 0.0035,
        entropy: float = 0.01,
        lr: float | None = None,
        candidates: int = 12,
    ) -> None:
        checks = [
            (epochs >= 1, "epochs", "must be 1 or more"),
            (0 <= warmup < 1, "warmup", "must be in 0..1, below 1"),
            (rewards >= 1, "rewards", "must be 1 or more"),
            (
                rewards_per_update >= 1 and rewards % max(rewards_per_update, 1) == 0,
                "rewards_per_update",
                f"must divide rewards ({rewards})",
            ),
            (controller_lr > 0, "controller_lr", "must be positive"),
            (entropy >= 0, "entropy", "must not be negative"),
            (lr is None or lr > 0, "lr", "must be positive"),
            (candidates >= 0, "candidates", "must not be negative"),
        ]
        raise_if([Problem(why, f"strategy enas, option {name}", "change it") for ok, name, why in checks if not ok])
        self.epochs, self.warmup = epochs, warmup
        self.rewards, self.rewards_per_update = rewards, rewards_per_update
        self.controller_lr, self.entropy = controller_lr, entropy
        self.lr, self.candidates = lr, candidates

    def search(self, task: SearchTask) -> SearchResult:
        """Search, or continue a search that was interrupted.

        Args:
            task: Space, data and folder. Journal and state in the folder decide where to continue.

        Returns:
            The best architecture and all scored candidates. With a length in epochs it does not depend on
            interruptions; with a budget in seconds the last epoch is cut where the time ends.

        Raises:
            TrainingDiverged: The gradients of the shared weights stayed infinite or not-a-number.
            UserError: The state in the folder is damaged, or a batch of the data does not fit.
        """
        journal = Journal(task.folder / "journal.jsonl")
        state_file = task.folder / "state.safetensors"
        state = load_tree(state_file) if state_file.exists() else None
        epochs = self.epochs if task.seconds is None else None
        seconds = None if task.seconds is None else task.seconds * _SECONDS_SHARE
        clock = Clock(epochs=epochs, seconds=seconds, spent=state["spent"] if state else 0.0)
        clock_of_all = Clock(seconds=1.0, spent=state["spent"] if state else 0.0)

        seed_everything(task.seed)
        network = use_batch_statistics(task.build_space())
        network.to(task.compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        divisor = int(getattr(network, "size_divisor", 1))
        most = None if task.seconds is None else _STEPS_IN_TIME
        loader = train_loader(task.train, task.info, task.normalisation, task.recipe, task.seed, divisor, most)
        rewards = RewardBatches(task, task.recipe.patch_side(divisor), self.rewards)
        optimisation = task.recipe.optimisation()
        if self.lr is not None:
            optimisation = replace(optimisation, lr=self.lr)
        module = SegmentationModule(task.recipe.build_loss(), task.info.num_classes, optimisation, clock)
        strategy = CuredEnas(
            policy=partial(ppo, lr=self.controller_lr, entropy=self.entropy),
            rewards_per_update=self.rewards_per_update,
            warmup_epochs=self._warmup_epochs(epochs),
            update={"batch_size": 64, "repeat": 2, "update_times": 1},
        )
        keeper = SearchKeeper(strategy, clock, self.warmup, journal, state_file, state, task)
        start = int(state["epoch"]) + 1 if state else 0
        ended = start >= epochs if epochs is not None else clock.over
        trainer = make_trainer(task.compute, [EpochSeed(task.seed, loader, rewards), keeper], epochs, start)
        evaluator = Lightning(module, trainer, train_dataloaders=loader, val_dataloaders=rewards)
        model_space, execution = RawFormatModelSpace(network, evaluator), SequentialExecutionEngine()
        if ended:  # a search that was interrupted while its candidates were scored
            strategy.initialize(model_space, execution)
            strategy.oneshot_module.set_model(strategy.supernet)
            keeper.restore(None, strategy.oneshot_module)
        else:
            task.progress.begin("search", clock.total, clock.unit)
            with quiet_lightning():
                strategy(model_space, execution)
            task.progress.end("search", f"{len(journal.rows)} epochs")
        engine: EnasModule = strategy.oneshot_module
        engine.to(task.compute.device)
        candidates = self._score(engine, task, journal, clock_of_all)
        notes = []
        entropy = keeper.entropy
        if entropy is not None and entropy > _UNDECIDED:
            notes.append(
                f"the controller is still undecided (entropy {entropy:.2f} of 1): the search has not converged, "
                "and the choice rests on the scores of the candidates; search longer to give it a chance"
            )
        history = [row for row in journal.rows if row["kind"] == "epoch"]
        best = candidates[0]
        return SearchResult(task.architecture(best.choices), candidates, history, clock_of_all.spent, notes)

    def training_steps(self, steps_per_epoch: int) -> float:
        """Length of the search in training steps of one path, to predict its time.

        A forward pass counts as a third of a step; rewards are scored on twice the batch.

        Args:
            steps_per_epoch: Training batches in an epoch.
        """
        scored = (1 - self.warmup) * self.rewards * 2 / 3
        return self.epochs * (steps_per_epoch + scored) + self.candidates

    def _warmup_epochs(self, epochs: int | None) -> int:
        """Warm-up in epochs; with a budget in seconds :class:`SearchKeeper` sets it while running."""
        return min(round(self.warmup * epochs), epochs - 1) if epochs is not None else 1 << 30

    def _score(self, engine: EnasModule, task: SearchTask, journal: Journal, clock: Clock) -> list[Candidate]:
        """Score greedy, named and sampled architectures on whole validation images; best first."""
        seed_everything(task.seed, 1 << 20)
        pool: dict[str, tuple[dict[str, Any], str]] = {}

        def add(choices: dict[str, Any], source: str) -> None:
            pool.setdefault(str(sorted(choices.items())), (plain(choices), source))

        add(engine.draw(greedy=True), "greedy")
        for choices in getattr(task.space_class, "named", lambda kwargs: {})(task.kwargs).values():
            add(choices, "named")
        for _ in range(4 * self.candidates):
            if sum(source == "sampled" for _, source in pool.values()) >= self.candidates:
                break
            add(engine.draw(), "sampled")
        known = {Journal.key(row): row["miou"] for row in journal.rows if row["kind"] == "candidate"}
        results: list[Candidate] = []
        task.progress.begin("candidates", len(pool), "architectures")
        for number, (choices, source) in enumerate(pool.values()):
            if source == "sampled" and task.seconds is not None and clock.spent > task.seconds:
                break
            score = known.get(Journal.key({"kind": "candidate", "choices": choices}))
            if score is None:
                seed_everything(task.seed, 1 << 20, number)  # a path may draw random numbers of its own
                score = score_paths(
                    engine.training_module.model,
                    engine.select,
                    [choices],
                    val=task.val,
                    info=task.info,
                    normalisation=task.normalisation,
                    compute=task.compute,
                )[0]
            architecture = task.architecture(choices)
            network = architecture.build(task.info.channels, task.info.num_classes)
            params = count_parameters(network)
            results.append(Candidate(choices, score, source, params))
            journal.append(
                {
                    "kind": "candidate",
                    "rank_source": source,
                    "choices": choices,
                    "code": architecture.code,
                    "miou": score,
                    "params": params,
                }
            )
            best = max(c.miou for c in results)
            task.progress.update("candidates", len(results), f"best mIoU {best:.3f}")
        task.progress.end("candidates", f"{len(results)} scored with shared weights, best mIoU {best:.3f}")
        return sorted(results, key=lambda c: (-c.miou, c.params))
