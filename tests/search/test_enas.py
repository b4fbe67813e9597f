from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oneshot_tools import Killed, KilledAfter, Recorded, assert_same_result, assert_same_state, kill, rows
from toy import BEST, Planted, planted_task
from virtual_time import VirtualTime

from autoseg.errors import Interrupted, UserError
from autoseg.search import keeper
from autoseg.search.architecture import Architecture
from autoseg.search.batches import RewardBatches
from autoseg.search.enas import Enas
from autoseg.search.objective import CostMeter, Objective
from autoseg.search.task import SearchResult, SearchTask
from autoseg.spaces.ednas import EdNas
from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
from autoseg.spaces.ednas_named import ed_nas_n3
from autoseg.statefile import load_tree
from autoseg.train.compute import Compute

pytestmark = pytest.mark.usefixtures("toy_space")

EPOCHS, WARM = 24, 8
LONG = {
    "epochs": EPOCHS,
    "warmup": WARM / EPOCHS,
    "rewards": 8,
    "rewards_per_update": 8,
    "controller_lr": 3e-3,
    "candidates": 3,
}
SHORT = {"epochs": 4, "warmup": 0.25, "rewards": 8, "rewards_per_update": 4, "controller_lr": 3e-3, "candidates": 4}
CALLS = 8 + 8  # of Progress.update per epoch: 64 patches in batches of 8, then the rewards


# What is found


@pytest.fixture(scope="module")
def five(toy_space: None, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[SearchTask, SearchResult]]:
    """Searches with five seeds."""
    tasks = [planted_task(tmp_path_factory.mktemp(f"seed-{seed}"), seed) for seed in range(5)]
    return [(task, Enas(**LONG).search(task)) for task in tasks]


def test_finds_the_planted_architecture(five: list[tuple[SearchTask, SearchResult]]) -> None:
    assert sum(result.architecture.choices == BEST for _, result in five) >= 4


def test_the_controller_itself_finds_it(five: list[tuple[SearchTask, SearchResult]]) -> None:
    """Not only the best of some candidates, of which there are but six."""
    greedy = [next(c.choices for c in result.candidates if c.source == "greedy") for _, result in five]
    assert sum(choices == BEST for choices in greedy) >= 4


def test_different_seeds_differ(five: list[tuple[SearchTask, SearchResult]]) -> None:
    losses = [tuple(row["loss"] for row in result.history) for _, result in five]
    assert len(set(losses)) == 5


def test_result(five: list[tuple[SearchTask, SearchResult]]) -> None:
    for task, result in five:
        best = result.candidates[0]
        assert (result.architecture.space, result.architecture.kwargs) == ("planted", {})
        assert result.architecture.choices == best.choices
        assert [c.miou for c in result.candidates] == sorted((c.miou for c in result.candidates), reverse=True)
        assert len({str(c.choices) for c in result.candidates}) == len(result.candidates)
        assert sum(c.source == "greedy" for c in result.candidates) == 1
        assert sum(c.source == "sampled" for c in result.candidates) <= 3
        assert best.params == sum(p.numel() for p in task.architecture(best.choices).build(1, 2).parameters())
        assert 0 < result.seconds < 60
        assert [row["epoch"] for row in result.history] == list(range(EPOCHS))


def test_planted_score_is_far_above_the_others(five: list[tuple[SearchTask, SearchResult]]) -> None:
    for _, result in five:
        for candidate in result.candidates:
            assert (candidate.miou > 0.7) == (candidate.choices == BEST)


def test_journal(five: list[tuple[SearchTask, SearchResult]]) -> None:
    for task, result in five:
        epochs, candidates = rows(task, "epoch"), rows(task, "candidate")
        assert rows(task) == epochs + candidates
        assert [row["epoch"] for row in epochs] == list(range(EPOCHS))
        assert [row["phase"] for row in epochs] == ["warmup"] * WARM + ["search"] * (EPOCHS - WARM)
        assert [row["reward"] is None for row in epochs] == [True] * WARM + [False] * (EPOCHS - WARM)
        assert all(0 < row["reward"] < 1 for row in epochs[WARM:])
        assert all(0 < row["loss"] < 2 for row in epochs)
        assert sum(r["loss"] for r in epochs[-3:]) < sum(r["loss"] for r in epochs[:3])
        # The controller decides: nothing is learned in the warm-up, then its entropy falls.
        assert len({row["entropy"] for row in epochs[:WARM]}) == 1
        assert epochs[0]["entropy"] > 0.95
        assert epochs[-1]["entropy"] < 0.8 * epochs[0]["entropy"]
        seconds = [row["seconds"] for row in result.history]
        assert seconds == sorted(seconds)
        assert all(0 <= row["best"] <= 1 and row["median"] <= row["best"] for row in epochs[WARM:])
        assert all(row["best"] is row["median"] is None for row in epochs[:WARM])
        # Two operations are chosen: each is a half of the histogram, the most probable ones of the end last.
        assert epochs[-1]["histogram"] == {"conv3": 0.5, "identity": 0.5}
        assert [row["stability"] for row in epochs[:WARM]] == [None] + [1.0] * (WARM - 1)
        assert {row["stability"] for row in epochs} <= {None, 0.0, 0.5, 1.0}
        cpu = [row["cpu_seconds"] for row in result.history]
        assert cpu == sorted(cpu) and cpu[0] > 0
        assert [row["number"] for row in candidates] == list(range(len(candidates)))
        scores = [row["miou"] for row in candidates]
        assert [row["best"] for row in candidates] == [max(scores[: i + 1]) for i in range(len(scores))]
        assert [row["median"] for row in candidates] == [statistics.median(scores[: i + 1]) for i in range(len(scores))]
        kept = ("kind", "rank_source", "choices", "code", "miou", "params")
        ranked = sorted(candidates, key=lambda row: (-row["miou"], row["params"]))
        assert [{key: row[key] for key in kept} for row in ranked] == [
            {
                "kind": "candidate",
                "rank_source": c.source,
                "choices": c.choices,
                "code": task.architecture(c.choices).code,
                "miou": c.miou,
                "params": c.params,
            }
            for c in result.candidates
        ]


def test_rewards_rise(five: list[tuple[SearchTask, SearchResult]]) -> None:
    rises = []
    for task, _ in five:
        rewards = [row["reward"] for row in rows(task, "epoch")[WARM:]]
        rises.append(sum(rewards[-5:]) > sum(rewards[:5]))
    assert sum(rises) >= 4


# Repeating and resuming


@pytest.fixture(scope="module")
def whole(toy_space: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchTask, SearchResult]:
    """A short search that nothing interrupted."""
    task = planted_task(tmp_path_factory.mktemp("whole"), 3)
    return task, Enas(**SHORT).search(task)


def test_same_seed_twice(whole: tuple[SearchTask, SearchResult], tmp_path: Path) -> None:
    again = planted_task(tmp_path, 3)
    assert_same_result(whole[1], Enas(**SHORT).search(again))
    assert rows(again) == rows(whole[0])
    assert_same_state(again, whole[0], 30)


@pytest.mark.parametrize(
    ("label", "call"),
    [
        ("search", 1),  # at the first step: there is no state
        ("search", CALLS),  # at the last step of the first epoch, still warm-up
        ("search", CALLS + 1),
        ("search", 2 * CALLS + 3),  # among the weight steps
        ("search", 2 * CALLS + 8 + 6),  # between two updates of the controller
        ("search", 4 * CALLS),  # at the very last step
        ("pool", 0),
        ("candidates", 1),
        ("candidates", 3),
    ],
)
def test_resume_is_exact(whole: tuple[SearchTask, SearchResult], label: str, call: int, tmp_path: Path) -> None:
    task = planted_task(tmp_path, 3)
    kill(Enas(**SHORT), task, (label, call))
    assert len(rows(task)) < len(rows(whole[0]))
    task = planted_task(tmp_path, 3)
    assert_same_result(whole[1], Enas(**SHORT).search(task))
    assert rows(task) == rows(whole[0])
    assert_same_state(task, whole[0], 30)


def test_killed_many_times(whole: tuple[SearchTask, SearchResult], tmp_path: Path) -> None:
    for where in [("search", 20), ("search", 9), ("search", 30), ("candidates", 2), ("candidates", 4)]:
        kill(Enas(**SHORT), planted_task(tmp_path, 3), where)
    task = planted_task(tmp_path, 3)
    assert_same_result(whole[1], Enas(**SHORT).search(task))
    assert rows(task) == rows(whole[0])


def test_killed_between_journal_and_state(
    whole: tuple[SearchTask, SearchResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of an epoch is there, its state is not: the epoch is done again and its row is not doubled."""
    save = keeper.save_tree

    def save_or_die(path: Path, tree: dict[str, Any]) -> Path:
        if tree["epoch"] == 2:
            raise Interrupted
        return save(path, tree)

    monkeypatch.setattr(keeper, "save_tree", save_or_die)
    with pytest.raises(Interrupted):
        Enas(**SHORT).search(planted_task(tmp_path, 3))
    monkeypatch.undo()
    task = planted_task(tmp_path, 3)
    assert [row["epoch"] for row in rows(task)] == [0, 1, 2]
    assert load_tree(task.folder / "state.safetensors")["epoch"] == 1
    assert_same_result(whole[1], Enas(**SHORT).search(task))
    assert rows(task) == rows(whole[0])
    assert_same_state(task, whole[0], 30)


def test_search_that_is_done_already(whole: tuple[SearchTask, SearchResult]) -> None:
    task, result = whole
    before = (task.folder / "journal.jsonl").read_bytes()
    again = planted_task(task.folder, 3)
    assert_same_result(result, Enas(**SHORT).search(again))
    assert (task.folder / "journal.jsonl").read_bytes() == before


# A budget in seconds


STEP, SCORE = 0.05, 0.064  # virtual seconds of a training step or a reward, and of scoring a candidate
IMAGE = SCORE / 32
UPDATE = LONG["rewards_per_update"] * STEP  # an update that was begun is finished


def test_budget_in_seconds_is_kept(tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = planted_task(tmp_path, 0)
    task.seconds = 6.0
    with virtual_time.passes(Planted, STEP, IMAGE):
        result = Enas(**{**LONG, "epochs": 1}).search(task)  # the budget decides, not the epochs
    assert 5.4 < virtual_time.now < 6.0 + SCORE
    assert result.seconds == pytest.approx(virtual_time.now)
    epochs = rows(task, "epoch")
    assert len(epochs) >= 6
    # A third of the time, not of the epochs, is warm-up.
    ends = {row["phase"]: row["seconds"] for row in result.history}  # of the last epoch of each phase
    assert ends["warmup"] == pytest.approx(0.9 * 6 / 3, abs=CALLS * STEP)
    assert [row["phase"] for row in epochs] == sorted((row["phase"] for row in epochs), reverse=True)
    # The last epoch is cut where the time ends, perhaps before its first reward.
    assert all((row["reward"] is None) == (row["phase"] == "warmup") for row in epochs[:-1])
    assert 0.9 * 6 <= result.history[-1]["seconds"] <= 0.9 * 6 + UPDATE


def test_budget_in_seconds_counts_what_was_used_before_a_kill(tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = planted_task(tmp_path, 0)
    task.seconds, task.progress = 2.0, KilledAfter(virtual_time, 1.0)
    with virtual_time.passes(Planted, STEP, IMAGE):
        with pytest.raises(Interrupted):
            Enas(**LONG).search(task)
        before = len(rows(task))
        assert before >= 1
        task = planted_task(tmp_path, 0)
        task.seconds = 2.0
        result = Enas(**LONG).search(task)
    # What came after the last epoch that was saved is done again.
    assert 0.9 * 2 < result.seconds <= 0.9 * 2 + UPDATE + SCORE + STEP
    assert result.seconds <= virtual_time.now < result.seconds + CALLS * STEP
    assert [row["epoch"] for row in result.history] == list(range(len(result.history)))
    assert len(result.history) > before


def test_no_samples_are_scored_when_the_time_is_up(tmp_path: Path, virtual_time: VirtualTime) -> None:
    task = planted_task(tmp_path, 0)
    task.seconds = 0.5
    with virtual_time.passes(Planted, STEP, 0.6 / 32):
        result = Enas(candidates=5, warmup=0.0, rewards=8).search(task)
    assert [c.source for c in result.candidates] == ["greedy"]


def test_the_last_epoch_is_never_warm_up(tmp_path: Path) -> None:
    options = {"epochs": 2, "warmup": 0.9, "rewards": 2, "rewards_per_update": 2, "candidates": 0}
    result = Enas(**options).search(planted_task(tmp_path, 0))
    assert [row["phase"] for row in result.history] == ["warmup", "search"]


# What is shown and noted


def test_progress(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 3)
    task.progress = shown = Recorded()
    result = Enas(**SHORT).search(task)
    search = [call for call in shown.calls if call[1] == "search"]
    assert search[0] == ("begin", "search", 4, "epochs")
    assert search[-1] == ("end", "search", "4 epochs")
    done = [call[2] for call in search[1:-1]]
    assert done == sorted(done) and len(done) == len(set(done))
    assert done[-1] == 4.0
    # Warm-up has no rewards to show; the reward shown last is the mean of its epoch.
    assert {call[3] for call in search[1 : 1 + 8]} == {"epoch 1"}
    assert search[-2][3] == f"epoch 4, reward {result.history[-1]['reward']:.3f}"
    candidates = [call for call in shown.calls if call[1] == "candidates"]
    assert candidates[0] == ("begin", "candidates", len(result.candidates), "architectures")
    assert candidates[-2][2:] == (len(result.candidates), f"best mIoU {result.candidates[0].miou:.3f}")
    assert candidates[-1][0] == "end"


def test_undecided_controller_is_noted(tmp_path: Path) -> None:
    options = {"epochs": 1, "warmup": 0.0, "rewards": 2, "rewards_per_update": 2, "candidates": 1}
    task = planted_task(tmp_path, 0)
    task.progress = Killed("candidates", 1)
    with pytest.raises(Interrupted):
        Enas(**options).search(task)
    for _ in range(2):  # resumed, and once more when all is done
        (note,) = Enas(**options).search(planted_task(tmp_path, 0)).notes
        assert "still undecided (entropy 0.9" in note


def test_rewards_are_scored_on_the_same_patches_within_an_epoch_and_others_in_the_next(tmp_path: Path) -> None:
    batches = RewardBatches(planted_task(tmp_path, 0), 16, count=3)
    assert len(batches) == 3
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        first, *others = list(batches)
        assert first[0].shape == (16, 1, 16, 16)  # twice the training batch
        assert len(others) == 2 and all(torch.equal(x, first[0]) for x, _ in others)
        epochs.append(first[0])
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


def test_decided_controller_is_not_noted(five: list[tuple[SearchTask, SearchResult]]) -> None:
    for _, result in five:
        undecided = result.history[-1]["entropy"] > 0.8
        assert any("undecided" in note for note in result.notes) == undecided


def test_named_points_are_among_the_candidates(tmp_path: Path) -> None:
    kwargs = {"blocks": 3, "layers": 1, "width": 2}
    task = replace(planted_task(tmp_path, 0), space="ednas", kwargs=kwargs, space_class=EdNas)
    result = Enas(epochs=1, warmup=0.0, rewards=2, rewards_per_update=2, candidates=2).search(task)
    assert sorted(c.source for c in result.candidates) == ["greedy", "named", "sampled", "sampled"]
    named = next(c for c in result.candidates if c.source == "named")
    assert named.choices == to_choices(ED_NAS_N3)
    assert named.params == sum(p.numel() for p in ed_nas_n3(1, 2, layers=1, width=2).parameters())
    journal = rows(task, "candidate")
    assert {row["rank_source"]: row["code"] for row in journal}["named"] == str(ED_NAS_N3)
    assert result.architecture.kwargs == kwargs
    assert all(len(row["choices"]) == 15 for row in journal)
    assert Architecture.from_json(result.architecture.to_json()) == result.architecture


# Options


def test_all_wrong_options_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Enas(
            epochs=0,
            warmup=1.0,
            rewards=0,
            rewards_per_update=0,
            controller_lr=0.0,
            entropy=-1.0,
            lr=0.0,
            candidates=-1,
        )
    assert [p.where.rsplit(" ", 1)[1] for p in caught.value.problems] == [
        "epochs",
        "warmup",
        "lr",
        "candidates",
        "rewards",
        "rewards_per_update",
        "controller_lr",
        "entropy",
    ]
    assert all(p.what and p.fix for p in caught.value.problems)


@pytest.mark.parametrize(
    "options",
    [{"rewards": 10, "rewards_per_update": 4}, {"rewards": 4, "rewards_per_update": 8}, {"warmup": -0.1}],
)
def test_wrong_option(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Enas(**options)


def test_learning_rate_of_the_shared_weights(tmp_path: Path) -> None:
    """The strategy's own, else that of the recipe."""
    options = {"epochs": 1, "warmup": 0.0, "rewards": 2, "rewards_per_update": 2, "candidates": 0}
    losses = []
    for folder, lr in (("recipe", None), ("same", 0.02), ("own", 0.2)):
        task = planted_task(tmp_path / folder, 0)  # its recipe has 0.02
        Enas(**options, lr=lr).search(task)
        losses.append(rows(task, "epoch")[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_length_in_training_steps() -> None:
    # 10 epochs of 100 steps; 7 of them score 16 architectures by a forward (a third) on twice the batch.
    strategy = Enas(epochs=10, warmup=0.3, rewards=16, candidates=5)
    assert strategy.training_steps(100) == pytest.approx(10 * 100 + 7 * 16 * 2 / 3 + 5)
    assert strategy.training_steps(100, batch=8) == strategy.training_steps(100)
    strategy = Enas(epochs=300, warmup=0, rewards=500, rewards_per_update=10, reward_patches=63, candidates=12)
    # ED-NAS: 440 steps of one image; 500 architectures, each a forward on 63 images, are 10500 steps beside them.
    assert strategy.training_steps(440, batch=1) == pytest.approx(300 * (440 + 500 * 63 / 3) + 12)
    assert strategy.training_steps(440, batch=63) == pytest.approx(300 * (440 + 500 / 3) + 12)


def test_bfloat16(tmp_path: Path) -> None:
    """Lightning runs the controller's update under autocast too, and its advantages go through numpy."""
    task = replace(planted_task(tmp_path, 0), compute=Compute("cpu", "bf16", 1))
    result = Enas(epochs=3, warmup=0.0, rewards=8, candidates=1).search(task)
    assert [row["reward"] is not None for row in result.history] == [True] * 3


def test_half_precision_is_left_to_the_finalists(tmp_path: Path) -> None:
    task = replace(planted_task(tmp_path, 0), compute=Compute("cuda", "16", 1))
    assert task.compute.without_scaling() == Compute("cuda", "32", 1)
    bf16 = replace(task, compute=Compute("cpu", "bf16", 1))
    assert bf16.compute.without_scaling() is bf16.compute


def test_the_controller_learns_to_keep_the_limits(tmp_path: Path) -> None:
    task = planted_task(tmp_path, 0)
    params = {op: CostMeter(task).of({"op": op, "op2": "identity"}).params for op in ("conv1", "conv3")}
    limited = replace(task, objective=Objective(max_params=params["conv3"] - 1))
    result = Enas(epochs=20, candidates=2).search(limited)
    assert result.architecture.choices == {"op": "conv1", "op2": "identity"}
    assert not result.notes  # the most probable architecture is within the limits: what is not has no reward
    assert min(row["reward"] for row in result.history[6:8]) < 0.4 < result.history[-1]["reward"]
