"""Training: it learns, keeps the best, keeps to its time, survives NaN, and resumes to the same bits."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import INFO, NORMALISATION, RECIPE, TRAIN, VAL, Pairs, network, train
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from virtual_time import VirtualTime

from autoseg.baselines.unet import UNet
from autoseg.errors import Interrupted, UserError
from autoseg.progress import Progress
from autoseg.statefile import load_tree
from autoseg.train.evaluate import evaluate
from autoseg.train.module import TrainingDiverged
from autoseg.train.recipe import Recipe
from autoseg.train.trainer import HISTORY, Trained, train_loader

STEPS = 6  # per epoch: 24 images of one patch each, 4 to a batch


class Stop(Progress):
    """Interrupts at the n-th update, or at the end."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.count = at, 0

    def update(self, label: str, done: float, text: str = "") -> None:
        self.count += 1
        if self.count == self.at:
            raise Interrupted

    def end(self, label: str, text: str = "") -> None:
        if self.at == -1:
            raise Interrupted


class Told(Progress):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float, str]] = []
        self.updates: list[tuple[float, str]] = []
        self.ended: list[str] = []

    def begin(self, label: str, total: float, unit: str = "") -> None:
        self.began.append((label, total, unit))

    def update(self, label: str, done: float, text: str = "") -> None:
        self.updates.append((done, text))

    def end(self, label: str, text: str = "") -> None:
        self.ended.append(text)


class Spoiled(nn.Module):
    """Cross-entropy that goes wrong at some training steps; validation is not touched."""

    def __init__(self, wrong: Callable[[int], bool], how: str = "product") -> None:
        super().__init__()
        self.wrong, self.how, self.step = wrong, how, -1

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(logits, target, ignore_index=255)
        if not logits.requires_grad:
            return loss
        self.step += 1
        if not self.wrong(self.step):
            return loss
        if self.how == "classes":
            return nn.functional.cross_entropy(logits, torch.where(target < 2, 1 - target, 255), ignore_index=255)
        return loss * math.nan if self.how == "product" else loss + math.inf


def spoil(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[int], bool], how: str = "product") -> None:
    monkeypatch.setattr(Recipe, "build_loss", lambda recipe: Spoiled(wrong, how))


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def comparable(trained: Trained) -> tuple[Any, ...]:
    """All but the times."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in trained.history]
    return rows, trained.best_epoch, trained.best_miou, trained.notes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, nn.Module]:
    """The uninterrupted training that others are compared with."""
    net = network()
    return train(net, tmp_path_factory.mktemp("whole"), label="tiny"), net


def test_it_learns(whole: tuple[Trained, nn.Module]) -> None:
    trained, _ = whole
    scores = [row["val_miou"] for row in trained.history]
    assert [score is None for score in scores] == [True, False] * 3
    untrained = evaluate(network().eval(), VAL, INFO, NORMALISATION, tiny.CPU).scores.miou
    assert untrained < 0.5
    assert trained.best_miou == max(score for score in scores if score is not None)
    assert trained.best_miou > 0.85
    assert trained.history[-1]["loss"] < 0.5 * trained.history[0]["loss"]
    assert trained.notes == []


def test_the_network_holds_the_weights_of_the_best_epoch(whole: tuple[Trained, nn.Module]) -> None:
    trained, net = whole
    result = evaluate(net, VAL, INFO, NORMALISATION, tiny.CPU, loss=RECIPE.build_loss())
    assert result.scores.miou == trained.best_miou
    assert result.loss == trained.history[trained.best_epoch]["val_loss"]


def test_the_best_epoch_need_not_be_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda step: step >= 2 * STEPS, "classes")
    net = network()
    trained = train(net, tmp_path, replace(RECIPE, validate_every=1))
    assert trained.best_epoch == 1
    assert trained.history[-1]["val_miou"] < 0.3 < 0.6 < trained.best_miou
    assert evaluate(net, VAL, INFO, NORMALISATION, tiny.CPU).scores.miou == trained.best_miou


def test_the_learning_rate_and_the_columns_of_the_history(whole: tuple[Trained, nn.Module], tmp_path: Path) -> None:
    trained, _ = whole
    assert [row["epoch"] for row in trained.history] == list(range(6))
    total = 6 * STEPS
    for row in trained.history:
        position = ((STEPS * (row["epoch"] + 1) - 1) / total - 0.05) / 0.95
        expected = 0.02 * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * position)))
        assert row["lr"] == pytest.approx(expected, rel=1e-9)
    trained.write_history(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HISTORY == ("epoch", "seconds", "lr", "loss", "val_loss", "val_miou")
    assert [row["val_miou"] == "" for row in rows] == [True, False] * 3
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in trained.history]
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0 and seconds[-1] <= trained.seconds


@pytest.mark.parametrize("at", [1, STEPS, STEPS + 1, 3 * STEPS + 2, 6 * STEPS, -1])
def test_resuming_gives_the_same_bits(whole: tuple[Trained, nn.Module], tmp_path: Path, at: int) -> None:
    """``at`` counts steps: in the first epoch, at the end of one, in the middle, in the last, after the last (-1)."""
    with pytest.raises(Interrupted):
        train(network(), tmp_path, progress=Stop(at), save_every=0.0)
    told = Told()
    net = network(seed=77)  # whatever the network was before, the state has the last word
    if at <= STEPS and at != -1:
        assert not (tmp_path / "state.safetensors").exists()
        net = network()
    trained = train(net, tmp_path, progress=told, save_every=0.0)
    assert comparable(trained) == comparable(whole[0])
    assert same_weights(weights(net), weights(whole[1]))
    epochs_left = {1: 6, STEPS: 6, STEPS + 1: 5, 3 * STEPS + 2: 3, 6 * STEPS: 1, -1: 0}[at]
    assert len(told.updates) == epochs_left * STEPS


def test_resuming_again_and_again(whole: tuple[Trained, nn.Module], tmp_path: Path) -> None:
    interruptions = 0
    while True:
        net = network()
        try:
            trained = train(net, tmp_path, progress=Stop(STEPS + 3), save_every=0.0)
        except Interrupted:
            interruptions += 1
        else:
            break
    assert interruptions == 5  # one epoch gets done each time
    assert comparable(trained) == comparable(whole[0])
    assert same_weights(weights(net), weights(whole[1]))
    rows = trained.history
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


def test_chance_inside_the_network_is_resumed_too(tmp_path: Path) -> None:
    def noisy(seed: int = 0) -> nn.Module:
        net = network(seed)
        net.head = nn.Sequential(nn.Dropout(0.3), net.head)
        return net

    uninterrupted, resumed = noisy(), noisy(seed=77)
    trained = train(uninterrupted, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(noisy(), tmp_path, progress=Stop(4 * STEPS + 2), save_every=0.0)
    torch.rand(5)  # another process has other random numbers behind it
    assert comparable(train(resumed, tmp_path)) == comparable(trained)
    assert same_weights(weights(resumed), weights(uninterrupted))


def test_the_best_weights_outlive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        train(network(), tmp_path, progress=Stop(4 * STEPS + 2), save_every=0.0)
    best = load_tree(tmp_path / "state.safetensors")["best"]
    spoil(monkeypatch, lambda step: True, "classes")
    net = network()
    trained = train(net, tmp_path)  # from here on it only gets worse
    assert trained.best_epoch == 3 and trained.history[-1]["val_miou"] < trained.best_miou
    assert same_weights(weights(net), best)


def test_a_state_is_saved_when_it_is_time(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(network(), tmp_path, progress=Stop(5 * STEPS + 1), save_every=3600.0)
    assert not (tmp_path / "state.safetensors").exists()
    with pytest.raises(Interrupted):
        train(network(), tmp_path, progress=Stop(2 * STEPS + 1), save_every=0.0)
    state = load_tree(tmp_path / "state.safetensors")
    assert state["epoch"] == 1 and not state["finished"]
    assert set(state["best"]) == set(network().state_dict())


def test_a_damaged_state_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_text("damaged")
    with pytest.raises(UserError, match="not a state file"):
        train(network(), tmp_path)


def test_the_same_seed_gives_the_same_and_another_another(whole: tuple[Trained, nn.Module], tmp_path: Path) -> None:
    again = network()
    assert comparable(train(again, tmp_path / "a")) == comparable(whole[0])
    assert same_weights(weights(again), weights(whole[1]))
    other = network()
    trained = train(other, tmp_path / "b", seed=1)
    assert trained.history[0]["loss"] != whole[0].history[0]["loss"]
    assert not same_weights(weights(other), weights(whole[1]))


def test_the_progress_is_told(tmp_path: Path) -> None:
    told = Told()
    trained = train(network(), tmp_path, replace(RECIPE, epochs=2), progress=told, label="unet, seed 0")
    assert told.began == [("unet, seed 0", 2, "epochs")]
    assert [done for done, _ in told.updates] == pytest.approx([(i + 1) / STEPS for i in range(2 * STEPS)])
    assert [text for _, text in told.updates] == ["epoch 1"] * STEPS + ["epoch 2"] * STEPS
    assert told.ended == [f"best validation mIoU {trained.best_miou:.3f} in epoch 2"]


STEP, IMAGE = 0.02, 0.005  # virtual seconds of a training step, and of an image that is validated
VALIDATION = len(VAL) * IMAGE


def test_a_budget_in_seconds_is_kept(tmp_path: Path, virtual_time: VirtualTime) -> None:
    told = Told()
    net = network()
    recipe = replace(RECIPE, epochs=None, seconds=2.0, validate_every=None)
    with virtual_time.passes(UNet, STEP, IMAGE):
        trained = train(net, tmp_path, recipe, progress=told)
    assert 2.0 - VALIDATION <= trained.seconds <= 2.0 + STEP
    assert trained.seconds == pytest.approx(virtual_time.now)
    assert told.began[0][1:] == (2.0, "s")
    assert trained.history[-1]["lr"] < 0.02 * 0.03  # the cosine ends at 0.02 of the peak
    rates = [row["lr"] for row in trained.history]
    assert max(rates) > 0.02 * 0.95 and rates[-1] == min(rates)
    assert trained.history[-1]["val_miou"] is not None
    validations = sum(row["val_miou"] is not None for row in trained.history)
    assert 5 <= validations <= 21
    assert trained.best_miou > 0.85
    assert evaluate(net, VAL, INFO, NORMALISATION, tiny.CPU).scores.miou == trained.best_miou


def test_slow_validation_neither_breaks_nor_eats_the_budget(tmp_path: Path, virtual_time: VirtualTime) -> None:
    recipe = replace(RECIPE, epochs=None, seconds=3.0, validate_every=None)
    with virtual_time.passes(UNet, STEP, 0.25 / len(VAL)):  # 0.25 s for a validation
        trained = train(network(), tmp_path, recipe)
    assert 3.0 - 0.25 <= trained.seconds <= 3.0 + STEP
    validations = sum(row["val_miou"] is not None for row in trained.history)
    assert 2 <= validations <= 4  # after 0.15 s of training, after 1 s more, 1 s more, at the end
    assert trained.history[-1]["val_miou"] is not None and trained.history[-1]["lr"] < 0.02 * 0.05


def test_a_budget_in_seconds_does_not_start_anew(tmp_path: Path, virtual_time: VirtualTime) -> None:
    recipe = replace(RECIPE, epochs=None, seconds=1.5, validate_every=None)

    class After(Stop):
        def update(self, label: str, done: float, text: str = "") -> None:
            if done > 1.0:
                raise Interrupted

    with virtual_time.passes(UNet, STEP, IMAGE):
        with pytest.raises(Interrupted):
            train(network(), tmp_path, recipe, progress=After(), save_every=0.0)
        spent = load_tree(tmp_path / "state.safetensors")["spent"]
        assert 1.0 - STEPS * STEP - VALIDATION <= spent <= 1.0 + VALIDATION  # at the end of the epoch before
        began = virtual_time.now
        trained = train(network(), tmp_path, recipe, save_every=0.0)
        assert virtual_time.now - began == pytest.approx(trained.seconds - spent)
        assert 1.5 - VALIDATION <= trained.seconds <= 1.5 + STEP
        epochs = [row["epoch"] for row in trained.history]
        assert epochs == list(range(len(epochs)))
        finished = virtual_time.now
        again = train(network(seed=5), tmp_path, recipe)
    assert comparable(again) == comparable(trained) and virtual_time.now == finished


@pytest.mark.parametrize("how", ["product", "sum"])  # the gradients of loss + inf are finite
def test_a_step_that_is_not_finite_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    wrong = {3, 8, 9}
    spoil(monkeypatch, wrong.__contains__, how)
    net, before = network(), []

    def note(module: nn.Module, inputs: Any) -> None:
        if module.training:
            before.append(weights(module))

    hook = net.register_forward_pre_hook(note)
    trained = train(net, tmp_path, replace(RECIPE, epochs=2))
    hook.remove()
    assert len(before) == 2 * STEPS
    changed = [not same_weights(a, b) for a, b in itertools.pairwise(before)]
    assert [step for step, change in enumerate(changed) if not change] == sorted(wrong)
    assert trained.notes == ["steps left out because loss or gradients were not finite: 3"]
    assert all(row["loss"] is not None and math.isfinite(row["loss"]) for row in trained.history)


def test_an_image_with_infinity_in_it_does_no_harm(tmp_path: Path) -> None:
    """It makes the running statistics of batch normalisation NaN, which no later step would repair."""
    image, mask = TRAIN[0]
    poisoned = Pairs([(np.where(np.eye(16) > 0, np.float32(np.inf), image), mask), *TRAIN.pairs[1:]])
    loader = train_loader(poisoned, INFO, NORMALISATION, RECIPE, seed=0)
    wrong = sum(not bool(torch.isfinite(loader.batch(epoch, step)[0]).all()) for epoch in range(6) for step in range(6))
    assert 3 <= wrong <= 6
    net = network()
    trained = train(net, tmp_path, train=poisoned)
    assert trained.notes == [f"steps left out because loss or gradients were not finite: {wrong}"]
    assert all(bool(torch.isfinite(value).all()) for value in weights(net).values())
    assert trained.best_miou > 0.85


def test_left_out_steps_are_remembered_over_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, {2}.__contains__)
    with pytest.raises(Interrupted):
        train(network(), tmp_path, progress=Stop(2 * STEPS + 1), save_every=0.0)
    trained = train(network(), tmp_path)  # here step 2 is one of the third epoch
    assert trained.notes == ["steps left out because loss or gradients were not finite: 2"]


def test_divergence_ends_the_training_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    spoil(monkeypatch, lambda step: steps.append(step) or True)  # type: ignore[func-returns-value]
    with pytest.raises(TrainingDiverged, match=r"20 steps in a row") as caught:
        train(network(), tmp_path, replace(RECIPE, validate_every=6))
    assert "train.lr" in str(caught.value) and "0.02" in str(caught.value)
    assert len(steps) == 20
    assert isinstance(caught.value, UserError)  # exit code 2, no traceback


def test_nineteen_in_a_row_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda step: step % 20 != 0)
    recipe = replace(RECIPE, epochs=7, validate_every=7)
    assert train(network(), tmp_path, recipe).notes == [
        "steps left out because loss or gradients were not finite: 39"  # of 42 all but 0, 20 and 40
    ]


def test_divergence_after_a_validation_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, lambda step: step >= 2 * STEPS)
    net = network()
    trained = train(net, tmp_path)
    assert trained.best_epoch == 1 and len(trained.history) == 5  # 20 steps are three epochs and two steps
    assert "stopped early, the best weights were kept" in trained.notes[0] and "train.lr" in trained.notes[0]
    assert trained.notes[1] == "steps left out because loss or gradients were not finite: 20"
    assert [row["loss"] is None for row in trained.history] == [False, False, True, True, True]
    assert evaluate(net, VAL, INFO, NORMALISATION, tiny.CPU).scores.miou == trained.best_miou


def test_labels_without_a_counted_pixel_in_validation(tmp_path: Path) -> None:
    nothing = Pairs([(image, np.full_like(mask, 255)) for image, mask in VAL])
    with pytest.raises(UserError, match="no pixel of the validation images is labelled"):
        train(network(), tmp_path, val=nothing)


@pytest.fixture
def norms(request: pytest.FixtureRequest) -> Iterator[list[float]]:
    """Gradient norms with which the optimiser has made its steps."""
    found: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        found.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]))))

    hook = register_optimizer_step_post_hook(note)
    yield found
    hook.remove()


def test_gradients_are_clipped(tmp_path: Path, norms: list[float]) -> None:
    train(network(), tmp_path / "a", replace(RECIPE, epochs=1, clip=0.0))
    free, norms[:] = list(norms), []
    train(network(), tmp_path / "b", replace(RECIPE, epochs=1, clip=0.05))
    assert len(free) == len(norms) == STEPS
    assert min(free) > 2 * 0.05 and len(set(free)) == STEPS
    assert norms == pytest.approx([0.05] * STEPS, rel=1e-4)


@pytest.mark.parametrize(("patch", "depth", "expected"), [(16, 2, 16), (18, 2, 20), (17, 4, 32)])
def test_the_patch_is_rounded_up_to_what_the_network_needs(
    tmp_path: Path, patch: int, depth: int, expected: int
) -> None:
    net, shapes = network(depth=depth), set()
    net.register_forward_pre_hook(lambda module, x: shapes.add(tuple(x[0].shape)) if module.training else None)
    train(net, tmp_path, replace(RECIPE, epochs=1, patch=patch, validate_every=1))
    assert shapes == {(4, 1, expected, expected)}


def test_a_batch_of_one(tmp_path: Path) -> None:
    net = network(depth=4)  # the deepest map has one pixel
    trained = train(net, tmp_path, replace(RECIPE, epochs=2, batch=1))
    assert len(trained.history) == 2 and trained.notes == []
    assert trained.best_miou > 0.5


def test_mixed_precision_on_the_cpu(tmp_path: Path) -> None:
    compute = replace(tiny.CPU, precision="bf16")
    net, kinds = network(), set()
    net.head.register_forward_hook(lambda module, x, y: kinds.add(y.dtype))
    trained = train(net, tmp_path, compute=compute)
    assert kinds == {torch.bfloat16} and net.head.weight.dtype == torch.float32
    assert trained.best_miou > 0.8


def test_ctrl_c_arrives_as_what_it_is(tmp_path: Path) -> None:
    class Pressed(Progress):
        def update(self, label: str, done: float, text: str = "") -> None:
            raise KeyboardInterrupt

    import signal

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(network(), tmp_path, progress=Pressed())
    assert signal.getsignal(signal.SIGINT) is before


OFF = {"flips": False, "rotations": False, "scale": [1, 1], "brightness": 0, "contrast": 0, "noise": 0}


@pytest.mark.parametrize("augment", [True, False, OFF, {**OFF, "noise": 0.5}])
def test_augmentation_is_as_the_recipe_says(augment: bool | dict[str, Any]) -> None:
    recipe = replace(RECIPE, augment=augment)
    x, y = train_loader(TRAIN, INFO, NORMALISATION, recipe, seed=0).batch(0, 0)
    images = [NORMALISATION.apply(image) for image, _ in TRAIN]
    plain = sum(any(torch.equal(patch, image) for image in images) for patch in x)
    assert plain == (4 if augment in (False, OFF) else 0)
    assert y.shape == (4, 16, 16)


def test_the_network_goes_back_to_its_device_after_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning moves a module to the CPU when it ends; the test of a network on a GPU comes after that."""
    moved = []
    original = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        moved.append((self, args))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(nn.Module, "cpu", lambda self: moved.append((self, ("left on the CPU",))) or self)
    net = network()
    train(net, tmp_path)
    own = [args for module, args in moved if module is net or args == ("left on the CPU",)]
    assert ("left on the CPU",) in own and own[-1] == ("cpu",)
