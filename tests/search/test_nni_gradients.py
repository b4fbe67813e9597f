"""The cures of NNI's gradient engines. What NNI ships runs beside each of them and must fail (strict xfail)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_tools import AS_SHIPPED, STEPS, search
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.differentiable import GumbelSoftmax
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from toy import PlantedWide
from trial_tools import toy_spaces
from virtual_time import VirtualTime

from autoseg.search.nni_gradients import CuredDarts, CuredGumbelDarts, CuredProxyless, freeze_affine
from autoseg.train.clock import Clock
from autoseg.train.module import SegmentationModule

LABELS = ["n1", "n2", "op", "in"]  # in the order of construction
GUMBEL = {"temperature": (1.0, 0.2)}
CURED = {
    "darts": lambda **options: CuredDarts(arc_learning_rate=0.02, **options),
    "gumbel-darts": lambda **options: CuredGumbelDarts(arc_learning_rate=0.02, **GUMBEL, **options),
    "proxyless": lambda **options: CuredProxyless(arc_learning_rate=0.02, **options),
}


def shipped(make: Any, raises: Any = AssertionError) -> Any:
    return pytest.param(make, marks=AS_SHIPPED(raises=raises))


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


def alphas(engine: Any) -> dict[str, Tensor]:
    """The numbers of each decision."""
    return {"".join(m.label): m._arch_alpha for m in engine.supernet_modules()}


def set_alphas(engine: Any, values: dict[str, list[float]]) -> None:
    with torch.no_grad():
        for label, row in values.items():
            alphas(engine)[label].copy_(torch.tensor(row))


EVEN = {"n1": [0.1, 0.2, 0.0, 0.1], "n2": [0.0, 0.1, 0.1, 0.3], "op": [0.2, 0.1, 0.0], "in": [0.0, 0.1]}
BEST = {"in": [1], "n1": "light", "n2": "all", "op": "noise"}


# 1: the architecture's parameters have no order


class Twice(ModelSpace):
    """Two layers decide together, a third by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LayerChoice({"a": nn.Conv2d(1, 1, 1), "b": nn.Identity()}, label=label) for label in "xyxzwvuts"
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("make", [CuredDarts, shipped(DARTS)])
def test_parameters_are_in_the_order_of_the_modules_each_once(make: Any) -> None:
    kept = []  # all alive: no address twice
    for _ in range(10):
        strategy = make()
        engine = strategy.configure_oneshot_module(nn.Module())
        network = strategy.mutate_model(Twice())
        engine.training_module.model = network
        names = {id(layer._arch_alpha): layer.label for layer in network.layers}
        assert len(names) == 8
        assert ["".join(names[id(p)]) for p in engine.arch_parameters()] == list("xyzwvuts")
        kept.append((strategy, engine, network))


# 2: ProxylessNAS exports a random draw


@pytest.mark.parametrize("make", [CuredProxyless, shipped(Proxyless)])
def test_proxyless_exports_the_most_probable(make: Any, tmp_path: Path) -> None:
    engine = search(make(), tmp_path)
    set_alphas(engine, EVEN)
    exported = [{"".join(k): v for k, v in engine.export().items()} for _ in range(15)]
    assert exported == [BEST] * 15


@pytest.mark.parametrize("name", CURED)
def test_all_export_the_most_probable(name: str, tmp_path: Path) -> None:
    engine = search(CURED[name](), tmp_path)
    set_alphas(engine, EVEN)
    assert [engine.export() for _ in range(5)] == [engine.draw(greedy=True) for _ in range(5)] == [BEST] * 5
    assert all(type(label) is str for label in engine.export())  # not NNI's label, which no checkpoint may hold


def test_draws_follow_the_softmax(tmp_path: Path) -> None:
    engine = search(CURED["darts"](), tmp_path)
    # e^1.386 = 4: probabilities 4/7, 1/7, 1/7, 1/7; and 1/2 each of the input.
    set_alphas(engine, {**EVEN, "n1": [1.386294, 0.0, 0.0, 0.0], "in": [0.3, 0.3]})
    torch.manual_seed(0)
    drawn = [engine.draw() for _ in range(700)]
    clear, second = (sum(d[label] == value for d in drawn) for label, value in (("n1", "clear"), ("in", [1])))
    assert abs(clear - 400) < 4 * (700 * 4 / 7 * 3 / 7) ** 0.5  # four standard deviations
    assert abs(second - 350) < 4 * (700 / 4) ** 0.5
    torch.manual_seed(0)
    assert [engine.draw() for _ in range(700)] == drawn


# 3: in a weight step ProxylessNAS evaluates every path

SCORED = 1  # forward passes at the end of the epoch, for the journal


class Counted(Callback):
    """Counts the calls of every value's own module."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for layer in pl_module.supernet_modules():
            if isinstance(layer, LayerChoice):
                for value in layer.names:
                    layer[value].register_forward_hook(partial(self._count, "".join(layer.label)))

    def _count(self, label: str, *call: Any) -> None:
        self.calls[label] = self.calls.get(label, 0) + 1


@pytest.mark.parametrize("make", [CuredProxyless, shipped(Proxyless)])
def test_a_weight_step_evaluates_the_sampled_path_only(make: Any, tmp_path: Path) -> None:
    counted = Counted()
    search(make(warmup_epochs=1), tmp_path, callbacks=[counted])
    assert counted.calls == dict.fromkeys(("n1", "n2", "op"), STEPS + SCORED)


def test_an_architecture_step_evaluates_all(tmp_path: Path) -> None:
    counted = Counted()
    search(CURED["proxyless"](), tmp_path, callbacks=[counted])
    # One sampled value in each of two steps, and in the architecture's backward pass the others. An operation
    # whose output is not looked at gets no gradient: where the other input is sampled, op and n1 are spared.
    assert counted.calls["n2"] == STEPS * (4 + 1) + SCORED
    assert STEPS * 2 + SCORED < counted.calls["n1"] <= STEPS * (4 + 1) + SCORED
    assert STEPS * 2 + SCORED < counted.calls["op"] <= STEPS * (3 + 1) + SCORED


def test_a_weight_step_of_darts_evaluates_all(tmp_path: Path) -> None:
    counted = Counted()
    search(CURED["darts"](warmup_epochs=1), tmp_path, callbacks=[counted])
    passes = STEPS + SCORED
    assert counted.calls == {"n1": passes * 4, "n2": passes * 4, "op": passes * 3}


# 4: what GumbelDARTS calls probabilities contains noise


def test_probabilities_of_gumbel_darts_are_the_softmax(tmp_path: Path) -> None:
    engine = search(CURED["gumbel-darts"](), tmp_path)
    set_alphas(engine, EVEN)
    for _ in range(3):
        found = engine.distribution()
        assert list(found) == LABELS
        assert list(found["op"]) == ["noise", "conv1", "conv3"] and list(found["in"]) == [0, 1]
        for label, row in found.items():
            assert list(row.values()) == pytest.approx(torch.tensor(EVEN[label]).softmax(0).tolist())


@AS_SHIPPED(raises=AssertionError)
def test_probabilities_of_gumbel_darts_as_shipped(tmp_path: Path) -> None:
    engine = search(GumbelDARTS(), tmp_path)
    set_alphas(engine, EVEN)
    found = {"".join(label): row for label, row in engine.export_probs().items()}
    for label, row in found.items():
        assert list(row.values()) == pytest.approx(torch.tensor(EVEN[label]).softmax(0).tolist())


# 5: the temperature of GumbelDARTS needs a number of epochs


class Temperatures(Callback):
    """Notes the temperature of each epoch; ends the training with its clock."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen += [m.tau for m in pl_module.modules() if isinstance(m, GumbelSoftmax)][:1] if batch_idx == 0 else []
        trainer.should_stop = trainer.should_stop or pl_module.training_module.clock.over


@pytest.mark.parametrize(
    "make",
    [CURED["gumbel-darts"], shipped(lambda: GumbelDARTS(temperature={"init": 1.0, "min": 0.2}))],
)
def test_temperature_falls_under_a_budget_in_seconds(make: Any, tmp_path: Path, virtual_time: VirtualTime) -> None:
    noted = Temperatures()
    with virtual_time.passes(PlantedWide, step=0.01, image=0.0):
        search(make(), tmp_path, callbacks=[noted], clock=Clock(seconds=1.2))
    assert noted.seen == sorted(noted.seen, reverse=True)
    assert noted.seen[0] > 0.6 and noted.seen[-1] < 0.5


def test_temperature_falls_over_the_epochs(tmp_path: Path) -> None:
    noted = Temperatures()
    search(CURED["gumbel-darts"](), tmp_path, epochs=4, callbacks=[noted])
    assert noted.seen == pytest.approx([1.0, 0.8, 0.6, 0.4])


# 6: a gradient that is not finite


class Broken:
    """Validation batches of which some are not finite."""

    def __init__(self, broken: set[int]) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for step in range(STEPS):
            x = torch.randn(8, 1, 16, 16, generator=generator)
            yield x * (float("inf") if step in self.broken else 1.0), (x[:, 0] > 0).long()


class Watched(Callback):
    """Copies the architecture's numbers before and after every step."""

    def __init__(self) -> None:
        self.copies: list[dict[str, Tensor]] = []

    def _copy(self, engine: Any) -> None:
        self.copies.append({label: value.detach().clone() for label, value in alphas(engine).items()})

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._copy(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self._copy(pl_module)


@pytest.mark.parametrize(
    "make", [*CURED.values(), shipped(DARTS), shipped(GumbelDARTS), shipped(Proxyless, RuntimeError)]
)
def test_a_gradient_that_is_not_finite_changes_no_architecture(make: Any, tmp_path: Path) -> None:
    watched = Watched()
    search(make(), tmp_path, learning=Broken({0, 3, 4}), callbacks=[watched])
    moved = [
        any(not torch.equal(before[label], after[label]) for label in LABELS)
        for before, after in zip(watched.copies, watched.copies[1:], strict=False)
    ]
    assert all(bool(torch.isfinite(value).all()) for value in watched.copies[-1].values())
    assert moved == [step not in {0, 3, 4} for step in range(STEPS)]


# 7: gradients of the architecture in the weight step


class Clipped(Callback):
    """Which parameters have a gradient when those of the weights are clipped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        clip = SegmentationModule.configure_gradient_clipping

        def spy(module: Any, *args: Any, **kwargs: Any) -> None:
            self.names |= {name for name, p in module.named_parameters() if p.grad is not None}
            clip(module, *args, **kwargs)

        monkeypatch.setattr(SegmentationModule, "configure_gradient_clipping", spy)


@pytest.mark.parametrize("make", [*CURED.values(), shipped(DARTS), shipped(GumbelDARTS), shipped(Proxyless)])
def test_only_weights_are_clipped_in_a_weight_step(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clipped = Clipped(monkeypatch)
    search(make(), tmp_path, callbacks=[clipped])
    if not any(name.endswith("model.head.weight") for name in clipped.names):
        pytest.fail("no weights were clipped")
    assert not [name for name in clipped.names if "_arch_alpha" in name]


class WarmUp(Callback):
    """A warm-up of one epoch that was not known before."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.warmup_epochs = 1 if trainer.current_epoch == 0 else 0


@pytest.mark.parametrize("make", [*CURED.values(), shipped(DARTS), shipped(GumbelDARTS), shipped(Proxyless)])
def test_a_warm_up_of_unknown_length_ends(make: Any, tmp_path: Path) -> None:
    watched = Watched()
    search(make(warmup_epochs=1 << 30), tmp_path, epochs=2, callbacks=[watched, WarmUp()])
    before, warm, after = watched.copies[0], watched.copies[STEPS], watched.copies[-1]
    assert all(torch.equal(before[label], warm[label]) for label in LABELS)
    assert not any(torch.equal(warm[label], after[label]) for label in LABELS)


# Beside the cures


@pytest.mark.parametrize("name", CURED)
def test_weights_and_architecture_each_move_in_their_own_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Tensor] = []
    step = SegmentationModule.training_step

    def spy(self: Any, batch: Any, index: int) -> Any:
        batches.append(batch[0])
        return step(self, batch, index)

    monkeypatch.setattr(SegmentationModule, "training_step", spy)
    learning = Broken(set())
    search(CURED[name](), tmp_path, learning=learning)
    # In turn, the architecture first: on the validation batches, in their order.
    assert len(batches) == 2 * STEPS
    assert all(torch.equal(x, y) for x, (y, _) in zip(batches[::2], learning, strict=True))


def test_state_of_the_optimiser_reloads_exactly(tmp_path: Path) -> None:
    engine = search(CURED["darts"](), tmp_path)
    state = engine.search_state()
    assert [int(m["step"]) for m in state["state"].values()] == [STEPS] * 4
    moments = [m["exp_avg"].clone() for m in state["state"].values()]
    assert [len(m) for m in moments] == [4, 4, 3, 2]  # in the order of the modules
    other = search(CURED["darts"](), tmp_path, epochs=2)
    other.load_search_state(state)
    loaded = other.search_state()["state"].values()
    assert all(torch.equal(m["exp_avg"], first) for m, first in zip(loaded, moments, strict=True))


def test_freeze_affine() -> None:
    network = CuredDarts().mutate_model(PlantedWide(1, 2))
    network.norm = nn.BatchNorm2d(2)  # outside the operations
    freeze_affine(network)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {f"op.{op}.1.{part}" for op in ("conv1", "conv3") for part in ("weight", "bias")}
