"""The cures of NNI's ENAS. What NNI ships runs beside each of them and must fail (strict xfail)."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.oneshot.pytorch.sampling import EnasLightningModule
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import ENAS
from nni.nas.strategy._rl_impl import TuningEnvironment, default_policy_fn
from toy import planted_task

from autoseg.search import health, nni_enas
from autoseg.search.batches import RewardBatches, TaggedBatches
from autoseg.search.nni_enas import CuredEnas, EnasModule, ppo
from autoseg.search.supernet import select, use_batch_statistics
from autoseg.train.clock import Clock
from autoseg.train.compute import seed_everything
from autoseg.train.fit import EpochSeed, make_trainer, quiet_lightning
from autoseg.train.module import SegmentationModule
from autoseg.train.trainer import train_loader

AS_SHIPPED = partial(pytest.mark.xfail, strict=True, reason="NNI 3.0 as shipped")
MODULES = [EnasModule, pytest.param(EnasLightningModule, marks=AS_SHIPPED(raises=AssertionError))]
POLICY = partial(ppo, lr=0.003, entropy=0.01)


class Spy:
    """Counts the calls of ``policy.update``."""

    def __init__(self) -> None:
        self.updates = 0

    def policy(self, env: TuningEnvironment) -> Any:
        policy = ppo(env, lr=0.003, entropy=0.01)
        update = policy.update

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.updates += 1
            return update(*args, **kwargs)

        policy.update = counted
        return policy


class OwnLoader(CuredEnas):
    """The cured strategy, but batches come as NNI puts them together."""

    train_dataloader = ENAS.train_dataloader


def search(
    folder: Path,
    *,
    strategy_class: type[CuredEnas] = CuredEnas,
    policy: Any = POLICY,
    epochs: int = 2,
    rewards: int = 4,
    warmup: int = 0,
) -> CuredEnas:
    """A short search for the planted architecture, 8 training batches in an epoch."""
    task = planted_task(folder, 0)
    seed_everything(0)
    network = use_batch_statistics(task.build_space())
    loader = train_loader(task.train, task.info, task.normalisation, task.recipe, 0)
    reward_batches = RewardBatches(task, 16, rewards)
    module = SegmentationModule(task.recipe.build_loss(), 2, task.recipe.optimisation(), Clock(epochs=epochs))
    strategy = strategy_class(policy, 4, warmup, {"batch_size": 64, "repeat": 2, "update_times": 1})
    trainer = make_trainer(task.compute, [EpochSeed(0, loader, reward_batches)], epochs)
    evaluator = Lightning(module, trainer, train_dataloaders=loader, val_dataloaders=reward_batches)
    with quiet_lightning():
        strategy(RawFormatModelSpace(network, evaluator), SequentialExecutionEngine())
    return strategy


@pytest.fixture
def engine(tmp_path: Path) -> EnasModule:
    return search(tmp_path, epochs=1).oneshot_module


def set_bias(engine: EnasModule, bias: list[float]) -> None:
    """Make the controller prefer options by their number, whatever the decision."""
    with torch.no_grad():
        engine.policy.actor.linear.weight.zero_()
        engine.policy.actor.linear.bias.copy_(torch.tensor(bias))


# Defect 1: batches without a tag


@pytest.mark.parametrize("strategy_class", [CuredEnas, pytest.param(OwnLoader, marks=AS_SHIPPED(raises=ValueError))])
def test_weights_and_controller_both_learn(
    strategy_class: type[CuredEnas], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for kind in ("training_step", "validation_step"):
        step = getattr(SegmentationModule, kind)

        def spy(self: Any, batch: Any, index: int, kind: str = kind, step: Any = step) -> Any:
            calls.append(kind)
            return step(self, batch, index)

        monkeypatch.setattr(SegmentationModule, kind, spy)
    search(tmp_path, strategy_class=strategy_class, epochs=2)
    assert calls == (["training_step"] * 8 + ["validation_step"] * 4) * 2


def test_tagged_batches() -> None:
    batches = TaggedBatches(["a", "b"], ("c",))
    assert len(batches) == 3
    for _ in range(2):  # every epoch anew
        assert list(batches) == [("a", "train"), ("b", "train"), ("c", "val")]


# Defect 2: the controller is replaced before the export


@pytest.mark.parametrize("module", MODULES)
def test_controller_is_kept_over_list_models(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nni_enas, "EnasModule", module)
    strategy = search(tmp_path)
    policy = strategy.oneshot_module.policy
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    next(iter(strategy.list_models()))
    after = strategy.oneshot_module.policy
    assert all(torch.equal(value, weights[name]) for name, value in after.state_dict().items())
    assert after is policy


def test_exported_model_follows_the_controller(tmp_path: Path) -> None:
    strategy = search(tmp_path, epochs=1)
    set_bias(strategy.oneshot_module, [0.0, 3.0, 1.0])
    model = next(iter(strategy.list_models()))
    assert {str(k): v for k, v in model.sample.items()} == {"op": "conv1", "op2": "identity"}


# Defect 3: the export is a random draw


@pytest.mark.parametrize("module", MODULES)
def test_export_is_the_most_probable(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nni_enas, "EnasModule", module)
    engine = search(tmp_path, epochs=1).oneshot_module
    for bias, best in (
        ([0.0, 0.2, 0.1], {"op": "conv1", "op2": "identity"}),
        ([0.1, 0.0, 0.2], {"op": "conv3", "op2": "noise"}),  # op2 has but two options
        ([0.2, 0.1, 0.0], {"op": "noise", "op2": "noise"}),
    ):
        set_bias(engine, bias)
        assert [engine.export() for _ in range(15)] == [best] * 15


def test_draw_is_random_and_reproducible(engine: EnasModule) -> None:
    set_bias(engine, [0.0, 0.0, 0.0])
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append([engine.draw() for _ in range(60)])
        engine.export()
    assert drawn[0] == drawn[1]
    assert len({str(choices) for choices in drawn[0]}) == 6  # all of the space
    assert type(next(iter(drawn[0][0]))) is str  # not NNI's label, which no checkpoint may hold


def test_failed_export_leaves_the_controller_as_it_was(engine: EnasModule, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.policy.dist_fn

    def broken() -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.generator, "next_sample", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.export()
    assert engine.policy.dist_fn is before


# Defect 4: updates on stale rewards


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("rewards", "warmup", "expected"), [(4, 0, 3), (8, 0, 6), (4, 1, 2)])
def test_one_update_for_each_lot_of_rewards(
    rewards: int, warmup: int, expected: int, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nni_enas, "EnasModule", module)
    spy = Spy()
    search(tmp_path, policy=spy.policy, epochs=3, rewards=rewards, warmup=warmup)
    assert spy.updates == expected


def test_rewards_are_validation_scores(tmp_path: Path) -> None:
    warm = search(tmp_path, epochs=1, warmup=1).oneshot_module
    assert warm.rewards == []
    engine = search(tmp_path, epochs=2, rewards=8).oneshot_module
    assert len(engine.rewards) == 16
    assert all(0 < reward < 1 for reward in engine.rewards)


# Defect 5: parameters of the optimiser in no order


def order(policy: Any) -> list[str]:
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    return [names[id(p)] for group in policy.optim.param_groups for p in group["params"]]


@pytest.mark.filterwarnings("ignore:optimizer parameters need to be organized in ordered collections:FutureWarning")
@pytest.mark.parametrize(
    "make", [POLICY, pytest.param(default_policy_fn, marks=AS_SHIPPED(raises=(AssertionError, TypeError)))]
)
def test_parameters_are_always_in_the_same_order(make: Any) -> None:
    policies = [make(TuningEnvironment([3, 2])) for _ in range(20)]  # all alive: no address twice
    orders = [order(policy) for policy in policies]
    assert len(orders[0]) == len(set(orders[0]))
    assert all(other == orders[0] for other in orders)


def test_optimiser_has_every_parameter_once() -> None:
    policy = ppo(TuningEnvironment([3, 2]), lr=0.1, entropy=0.03)
    handed = [p for group in policy.optim.param_groups for p in group["params"]]
    assert {id(p) for p in handed} == {id(p) for p in policy.parameters()}
    assert policy.optim.param_groups[0]["lr"] == 0.1
    # The reward comes with the last decision and counts in full for the first one too.
    assert (policy._gamma, policy._weight_ent) == (1.0, 0.03)


def one_more_update(engine: EnasModule) -> dict[str, torch.Tensor]:
    seed_everything(5)
    engine.policy.train()
    for reward in (0.1, 0.9, 0.4, 0.7):
        engine.resample()
        engine._replay_buffer.update(engine.generator.send_reward(reward))
    engine.policy.update(0, engine._replay_buffer, batch_size=64, repeat=2)
    return dict(engine.policy.state_dict())


def test_state_of_the_controller_reloads_exactly(tmp_path: Path) -> None:
    first = search(tmp_path, epochs=3).oneshot_module
    frozen = deepcopy(first.search_state())
    second = search(tmp_path, epochs=1).oneshot_module
    second.load_search_state(frozen)
    assert second.search_state()["counter"] == 12
    moments = second.policy.optim.state_dict()["state"]
    assert moments and all(float(m["step"]) == 6 for m in moments.values())  # 3 updates of 2 passes
    expected, got = one_more_update(first), one_more_update(second)
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_state_between_updates_is_refused(engine: EnasModule) -> None:
    assert engine.complete
    engine._trajectory_counter = 3
    assert not engine.complete
    with pytest.raises(RuntimeError, match="rewards are waiting"):
        engine.search_state()


# Beside the cures


def test_entropy(engine: EnasModule) -> None:
    set_bias(engine, [0.0, 0.0, 0.0])
    assert health.entropy(engine.distribution()) == pytest.approx(1)  # of three options and of two alike
    set_bias(engine, [50.0, 0.0, 0.0])
    assert health.entropy(engine.distribution()) == pytest.approx(0, abs=1e-6)
    # p = 3/4 and 1/4: the binary entropy 0.8113 for op2; op has p = 3/5, 1/5, 1/5.
    set_bias(engine, [float(torch.tensor(3.0).log()), 0.0, 0.0])
    three = -(0.6 * torch.tensor(0.6).log() + 0.4 * torch.tensor(0.2).log()) / torch.tensor(3.0).log()
    assert health.entropy(engine.distribution()) == pytest.approx((0.811278 + float(three)) / 2, abs=1e-5)


def test_distribution(engine: EnasModule) -> None:
    """Probabilities of every decision, of its own values alone."""
    set_bias(engine, [float(torch.tensor(3.0).log()), 0.0, 0.0])
    found = engine.distribution()
    assert found["op"] == pytest.approx({"noise": 0.6, "conv1": 0.2, "conv3": 0.2}, abs=1e-5)
    assert found["op2"] == pytest.approx({"noise": 0.75, "identity": 0.25}, abs=1e-5)


def test_select(engine: EnasModule) -> None:
    for choices in ({"op": "conv3", "op2": "noise"}, {"op": "conv1", "op2": "identity"}):
        select(engine, choices)
        assert {str(m.label): m._sampled for m in engine.supernet_modules()} == choices
