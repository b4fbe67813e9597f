"""The course that one-shot strategies share, and what each of them finds; see test_enas.py for ``enas``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace
from oneshot_tools import Recorded, kill, rows
from torch import Tensor, nn
from toy import BEST, Noise, Planted, PlantedWide, planted_task
from trial_tools import toy_spaces, wide_task

from autoseg import registry
from autoseg.errors import UserError
from autoseg.search import darts
from autoseg.search.architecture import Architecture
from autoseg.search.darts import Darts, GumbelDarts, Proxyless
from autoseg.search.keeper import SearchKeeper
from autoseg.search.oneshot import OneShot
from autoseg.search.oneshot_evolution import OneShotEvolution
from autoseg.search.random_oneshot import RandomOneShotSearch
from autoseg.search.supernet import PathSupernet
from autoseg.search.task import SearchTask
from autoseg.statefile import load_tree
from autoseg.train.clock import Clock

LEARN = {"darts": Darts, "gumbel-darts": GumbelDarts, "proxyless": Proxyless}
SAMPLE = {"random-oneshot": RandomOneShotSearch, "oneshot-evolution": OneShotEvolution}
ALL = {**LEARN, **SAMPLE}
STEPS = 8  # training batches per epoch


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


# What is found


@pytest.mark.parametrize("name", LEARN)
def test_gradients_find_the_planted_architecture(name: str, tmp_path: Path) -> None:
    """The strategy chooses it, and so does the softmax by itself, not only the best of some candidates."""
    tasks = [planted_task(tmp_path / str(seed), seed) for seed in range(5)]
    results = [LEARN[name](epochs=10).search(task) for task in tasks]
    assert sum(result.architecture.choices == BEST for result in results) >= 4
    greedy = [next(c.choices for c in result.candidates if c.source == "greedy") for result in results]
    assert sum(choices == BEST for choices in greedy) >= 4
    for task, result in zip(tasks, results, strict=True):
        epochs = rows(task, "epoch")
        assert [row["phase"] for row in epochs] == ["warmup"] * 2 + ["search"] * 6 + ["tuning"] * 2
        learned = [row["entropy"] for row in epochs[:8]]
        assert learned[0] == learned[1] > 0.999  # nothing is learned in the warm-up
        assert all(a > b for a, b in itertools.pairwise(learned[2:])) and learned[-1] < 0.8
        assert [row["entropy"] for row in epochs[8:]] == [None, None]
        scores = [row["reward"] for row in epochs]  # of the mixture, which the tuning no longer has
        assert all(0 < score <= 1 for score in scores[:8]) and scores[8:] == [None, None]
        assert result.notes == []


@pytest.mark.parametrize("name", SAMPLE)
def test_uniform_paths_find_the_planted_architecture(name: str, tmp_path: Path) -> None:
    results = [SAMPLE[name](epochs=10).search(planted_task(tmp_path / str(seed), seed)) for seed in range(5)]
    assert sum(result.architecture.choices == BEST for result in results) >= 4
    for result in results:
        assert len(result.candidates) == 6  # all of the space, each once
        assert {c.source for c in result.candidates} == {"sampled"}
        assert [row["entropy"] for row in result.history] == [None] * 10
        assert result.notes == []


def test_evolution_finds_it_among_more_than_it_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 of 96, scored by formula: chance finds it in two of five searches."""
    monkeypatch.setattr(PathSupernet, "score", lambda self, choices: PlantedWide.quality(choices))
    strategy = OneShotEvolution(epochs=1, evaluations=40)
    results = [strategy.search(wide_task(tmp_path / str(seed), seed)) for seed in range(5)]
    assert sum(result.architecture.choices == PlantedWide.best for result in results) >= 4
    for result in results:
        assert len(result.candidates) == 40
        assert [c.choices for c in result.candidates if c.source == "named"] == [PlantedWide.named({})["plain"]]


def test_evolution_and_supernet_together_find_it(tmp_path: Path) -> None:
    strategy = OneShotEvolution(epochs=20, evaluations=40, population=8, tournament=3)
    result = strategy.search(wide_task(tmp_path, 0))
    assert result.architecture.choices == PlantedWide.best
    assert result.candidates[0].miou > 0.8 > 0.5 > result.candidates[-1].miou


def test_evolution_begins_with_the_named_points(tmp_path: Path) -> None:
    task = wide_task(tmp_path, 0)
    OneShotEvolution(epochs=1, evaluations=5, population=2, tournament=1).search(task)
    found = rows(task, "candidate")
    assert [row["rank_source"] for row in found] == ["named"] + ["sampled"] * 4
    assert found[0]["choices"] == PlantedWide.named({})["plain"]


def test_gradients_choose_an_input_too(tmp_path: Path) -> None:
    result = Darts(epochs=10).search(wide_task(tmp_path, 0))
    greedy, named = (next(c for c in result.candidates if c.source == s) for s in ("greedy", "named"))
    assert greedy.choices["in"] == [1]
    assert named.choices == PlantedWide.named({})["plain"]
    assert result.architecture == Architecture("planted-wide", {}, result.candidates[0].choices)


# Health and notes


def test_a_search_of_one_epoch_has_not_converged(tmp_path: Path) -> None:
    (note,) = Darts(epochs=2, warmup=0.0).search(planted_task(tmp_path, 0)).notes
    assert note.startswith("The search has not converged: it is still undecided (entropy 0.9")


class Skips(ModelSpace):
    """Nothing here is better than handing the input on."""

    size_divisor = 1
    pass_through = frozenset({"skip"})

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.one = LayerChoice({"noise": Noise(), "skip": nn.Identity()}, label="one")
        self.two = LayerChoice({"noise": Noise(), "skip": nn.Identity()}, label="two")
        self.head = nn.Conv2d(4, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))))


@pytest.fixture
def skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchTask:
    from autoseg import registry

    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Skips if name == "skips" else load(kind, name))
    return replace(planted_task(tmp_path, 0), space="skips", space_class=Skips)


def test_a_collapse_is_called_so(skips: SearchTask) -> None:
    result = Darts(epochs=10).search(skips)
    assert result.architecture.choices == {"one": "skip", "two": "skip"}
    assert result.notes == ["The search has collapsed: 100 % of the chosen operations only pass their input on."]


# What the gradient strategies offer beside


def test_single_level_learns_from_the_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("validation patches were asked for")

    monkeypatch.setattr(darts, "validation_patches", refuse)
    options = {"epochs": 4, "warmup": 0.0, "tuning": 0.0, "candidates": 0}
    with pytest.raises(AssertionError, match="validation patches"):
        Darts(**options).search(planted_task(tmp_path / "two", 0))
    result = Darts(**options, single_level=True).search(planted_task(tmp_path / "one", 0))
    assert result.history[-1]["entropy"] < 0.95
    assert [c.source for c in result.candidates] == ["greedy"]


class Derived(Planted):
    """After a search by gradients, whatever won at ``op2`` with less than nine tenths is noise."""

    asked: list[tuple[dict[str, Any], dict[str, Any]]]

    @staticmethod
    def derive(choices: dict[str, Any], probabilities: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        Derived.asked.append((choices, probabilities))
        return {**choices, "op2": "noise"} if max(probabilities["op2"].values()) < 0.9 else choices


def test_the_rule_of_the_space_derives_the_candidates(tmp_path: Path) -> None:
    Derived.asked = []
    task = replace(planted_task(tmp_path, 0), space_class=Derived)
    result = Darts(epochs=3, candidates=2).search(task)
    assert {c.choices["op2"] for c in result.candidates} == {"noise"}
    greedy, shares = Derived.asked[0]
    assert {label: len(row) for label, row in shares.items()} == {"op": 3, "op2": 2}
    assert all(sum(row.values()) == pytest.approx(1) for row in shares.values())
    assert greedy == {label: max(row, key=row.get) for label, row in shares.items()}


def test_tuning_trains_paths_of_the_pool_only(tmp_path: Path) -> None:
    """With the greedy path alone in the pool, the weights of all others stay as the search left them."""
    strategy = Darts(epochs=10, candidates=0)
    kill(strategy, planted_task(tmp_path, 0), ("tuning", 1))
    before = load_tree(tmp_path / "state.safetensors")["weights"]
    strategy.search(planted_task(tmp_path, 0))
    after = load_tree(tmp_path / "state.safetensors")["weights"]
    assert set(before) - set(after) == {name for name in before if "_arch_alpha" in name}
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"stem", "op", "head"}
    assert {name.split(".")[1] for name in changed if name.startswith("op.")} == {"conv3"}


def test_scales_inside_the_operations_are_fixed_while_the_mixture_learns(tmp_path: Path) -> None:
    kill(Darts(epochs=4), planted_task(tmp_path, 0), ("tuning", 1))
    weights = load_tree(tmp_path / "state.safetensors")["weights"]
    norms = {name: value for name, value in weights.items() if name.startswith("op.") and ".1." in name}
    assert len(norms) == 4
    assert all(bool((value == (1.0 if name.endswith("weight") else 0.0)).all()) for name, value in norms.items())


# Progress, options, support


def test_progress(tmp_path: Path) -> None:
    task = wide_task(tmp_path, 3)
    task.progress = shown = Recorded()
    result = Darts(epochs=4, warmup=0.3, tuning=0.25, candidates=3).search(task)
    for phase, epochs in (("search", 3), ("tuning", 1)):
        calls = [call for call in shown.calls if call[1] == phase]
        assert calls[0] == ("begin", phase, epochs, "epochs")
        assert [call[2] for call in calls[1:-1]] == [(i + 1) / STEPS for i in range(epochs * STEPS)]
        assert calls[-1] == ("end", phase, f"{epochs} epochs")
    scored = [call for call in shown.calls if call[1] == "candidates"]
    assert scored[0] == ("begin", "candidates", len(result.candidates), "architectures")
    text = f"{len(result.candidates)} scored with shared weights, best mIoU {result.candidates[0].miou:.3f}"
    assert scored[-1] == ("end", "candidates", text)


@pytest.mark.parametrize(
    ("strategy", "options", "wrong"),
    [
        (
            Darts,
            {"epochs": 0, "warmup": 1.0, "architecture_lr": 0.0, "tuning": 1.0, "lr": 0.0, "candidates": -1},
            ["epochs", "warmup", "lr", "candidates", "architecture_lr", "tuning", "epochs"],
        ),
        (Darts, {"epochs": 1}, ["epochs"]),
        (GumbelDarts, {"temperature": 0.2, "architecture_lr": -1.0}, ["architecture_lr", "final_temperature"]),
        (GumbelDarts, {"final_temperature": 0.0}, ["final_temperature"]),
        (Proxyless, {"tuning": -0.1}, ["tuning"]),
        (RandomOneShotSearch, {"epochs": 0, "lr": -1.0, "candidates": 0}, ["epochs", "lr", "candidates"]),
        (OneShotEvolution, {"evaluations": 0, "population": 0, "tournament": 2, "mutation": 0.0}, None),
        (OneShotEvolution, {"population": 4, "tournament": 5}, ["tournament"]),
    ],
)
def test_wrong_options_all_at_once(strategy: Any, options: dict[str, Any], wrong: list[str] | None) -> None:
    with pytest.raises(UserError) as caught:
        strategy(**options)
    places = [problem.where.rsplit(" ", 1)[1] for problem in caught.value.problems]
    assert places == (wrong or ["evaluations", "population", "tournament", "mutation"])
    assert all(strategy.name in problem.where and problem.fix for problem in caught.value.problems)


def test_one_epoch_without_tuning_is_enough(tmp_path: Path) -> None:
    result = Darts(epochs=1, tuning=0.0, candidates=0).search(planted_task(tmp_path, 0))
    assert [row["phase"] for row in result.history] == ["search"]


def test_length_in_training_steps() -> None:
    # Of 10 epochs of 100 steps, 2 tune; 8 take 12.6 steps of one path for each.
    assert Darts(epochs=10, tuning=0.2, candidates=5).training_steps(100) == pytest.approx(200 + 800 * 12.6 + 5)
    assert RandomOneShotSearch(epochs=10, candidates=7).training_steps(100) == 1007
    assert OneShotEvolution(epochs=10, evaluations=30).training_steps(100) == 1030


class Nothing(ModelSpace):
    """Has nothing to decide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)


class Two(ModelSpace):
    """Chooses two of three inputs at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = LayerChoice({"a": nn.Identity(), "b": nn.Identity()}, label="layer")
        self.both = InputChoice(3, n_chosen=2, label="both")


@pytest.mark.parametrize("strategy", ALL.values())
def test_support(strategy: type[OneShot]) -> None:
    assert strategy.supports(Planted(1, 2)) is None
    assert strategy.supports(Nothing()) == "it has nothing to decide"
    reason = strategy.supports(Two())
    assert reason is not None and "decision 'both'" in reason and "only one-of-many choices are supported" in reason


def test_a_search_that_never_left_its_warm_up_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_warm(keeper: SearchKeeper, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.warmup_epochs = trainer.current_epoch + 1

    monkeypatch.setattr(SearchKeeper, "on_train_batch_start", always_warm)
    result = Darts(tuning=0.0, candidates=1).search(replace(planted_task(tmp_path, 0), seconds=2.0))
    assert {row["phase"] for row in result.history} == {"warmup"}
    assert result.notes[0].startswith("The search has not converged: its time ended within the warm-up")


def test_the_warm_up_ends_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    original, asked = SearchKeeper.on_train_batch_start, itertools.count()
    monkeypatch.setattr(Clock, "spent", property(lambda clock: 0.02 * next(asked)))  # ticks whenever it is asked

    def noted(keeper: SearchKeeper, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        original(keeper, trainer, pl_module, batch, batch_idx)
        seen.append((trainer.current_epoch, trainer.current_epoch < pl_module.warmup_epochs))

    monkeypatch.setattr(SearchKeeper, "on_train_batch_start", noted)
    Darts(tuning=0.0, candidates=0, warmup=0.25).search(replace(planted_task(tmp_path, 0), seconds=2.0))
    first = [warm for epoch, warm in seen if epoch == 0]
    assert first[0] and not first[-1]


@pytest.mark.parametrize("name", ["darts", "gumbel-darts", "proxyless", "random-oneshot", "oneshot-evolution"])
def test_every_epoch_has_scores(name: str, tmp_path: Path) -> None:
    options = {"evaluations": 1} if name == "oneshot-evolution" else {"candidates": 1}
    result = registry.load("strategy", name)(epochs=3, **options).search(planted_task(tmp_path, 0))
    rows = [row for row in result.history if row["phase"] != "tuning"]
    assert rows and all(0 < row["median"] <= row["best"] <= 1 for row in rows)
