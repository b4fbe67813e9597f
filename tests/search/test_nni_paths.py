"""Single-path supernets: seeded draws and choosers. What NNI ships must fail where it does (strict xfail)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_tools import AS_SHIPPED, STEPS, search
from nni.nas.strategy import RandomOneShot
from toy import Planted, PlantedWide
from trial_tools import toy_spaces

from autoseg.search.nni_paths import FromPool, PathStrategy, Uniform
from autoseg.spaces.base import Choices, decisions, plain
from autoseg.train.module import SegmentationModule

PATHS = [PlantedWide.best, PlantedWide.named({})["plain"]]


@pytest.fixture(autouse=True, scope="module")
def _spaces() -> Iterator[None]:
    with toy_spaces():
        yield


class Scripted:
    """Draws what it is told, learns what it is told."""

    complete = True

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def draw(self, greedy: bool = False) -> Choices:
        path = dict(PATHS[0] if greedy else PATHS[sum(call[0] == "draw" for call in self.calls) % 2])
        self.calls.append(("greedy" if greedy else "draw", path))
        return path

    def reward(self, choices: Choices, value: float) -> None:
        self.calls.append(("reward", choices, value))

    def distribution(self) -> dict[str, dict[Any, float]]:
        return {"op": {"conv3": 0.9, "conv1": 0.1}}

    def state(self) -> Any:
        return {"calls": len(self.calls)}

    def load_state(self, state: Any) -> None:
        self.calls = [("draw", {})] * state["calls"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Choices]]:
    """What is done with which path, in order."""
    done: list[tuple[str, Choices]] = []
    for kind in ("training_step", "validation_step"):
        step = getattr(SegmentationModule, kind)

        def spy(self: Any, batch: Any, index: int, kind: str = kind, step: Any = step) -> Any:
            path = {m.label: m._sampled for m in self.model.modules() if hasattr(m, "_sampled")}
            done.append((kind, plain(path)))
            return step(self, batch, index)

        monkeypatch.setattr(SegmentationModule, kind, spy)
    return done


class Batches(list[Any]):
    """Validation batches."""


def rewards(count: int) -> Batches:
    torch.manual_seed(0)
    return Batches((torch.randn(4, 1, 16, 16), torch.zeros(4, 16, 16, dtype=torch.long)) for _ in range(count))


# The draws


@pytest.mark.parametrize("make", [PathStrategy, pytest.param(RandomOneShot, marks=AS_SHIPPED(raises=AssertionError))])
def test_the_same_seed_trains_the_same_paths(make: Any, tmp_path: Path, steps: list[Any]) -> None:
    for _ in range(2):
        search(make(), tmp_path, learning=[], epochs=2)
    assert len(steps) == 4 * STEPS and {kind for kind, _ in steps} == {"training_step"}
    assert len({str(path) for _, path in steps[: 2 * STEPS]}) > 8
    assert steps[: 2 * STEPS] == steps[2 * STEPS :]


def test_uniform_draws_are_uniform() -> None:
    values = decisions(PlantedWide(1, 2))
    uniform = Uniform(values)
    torch.manual_seed(0)
    drawn = [uniform.draw() for _ in range(1200)]
    for label, options in values.items():
        counts = Counter(str(path[label]) for path in drawn)
        expected = 1200 / len(options)
        assert set(counts) == {str(option) for option in options}
        # Four standard deviations of a binomial.
        assert all(abs(n - expected) < 4 * (expected * (1 - 1 / len(options))) ** 0.5 for n in counts.values())
    assert len({str(path) for path in drawn}) == 96  # decisions are independent: all of the space
    torch.manual_seed(0)
    assert [uniform.draw() for _ in range(1200)] == drawn
    assert uniform.distribution() == {} and uniform.complete and uniform.state() is None


def test_the_order_of_decisions_does_not_matter_to_the_draws() -> None:
    """A space that is built in another order is searched alike."""
    values = decisions(PlantedWide(1, 2))
    drawn = []
    for order in (values, dict(reversed(values.items()))):
        torch.manual_seed(3)
        drawn.append([Uniform(order).draw() for _ in range(20)])
    assert drawn[0] == drawn[1]


def test_draws_from_a_pool() -> None:
    pool = FromPool(PATHS)
    torch.manual_seed(0)
    counts = Counter(PATHS.index(pool.draw()) for _ in range(400))
    assert abs(counts[0] - 200) < 40 and sum(counts.values()) == 400
    pool.draw()["op"] = "changed"  # the caller's own
    assert pool.pool == PATHS


# The chooser


def strategy(chooser: Scripted, **options: Any) -> PathStrategy:
    return PathStrategy(lambda space: chooser, **options)


def test_the_chooser_decides_and_learns(tmp_path: Path, steps: list[Any]) -> None:
    chooser = Scripted()
    engine = search(strategy(chooser), tmp_path, learning=rewards(3))
    expected = [("training_step", PATHS[i % 2]) for i in range(STEPS)]
    assert steps == [*expected, *(("validation_step", PATHS[i % 2]) for i in range(3))]
    given = [call for call in chooser.calls if call[0] == "reward"]
    assert [choices for _, choices, _ in given] == [PATHS[0], PATHS[1], PATHS[0]]
    assert engine.rewards == [value for *_, value in given]
    # Of two classes one is there: the mIoU is the share of its pixels that were found, halved by false ones.
    assert all(0 <= value <= 1 for value in engine.rewards) and len(set(engine.rewards)) > 1


def test_in_the_warm_up_nothing_is_rewarded(tmp_path: Path, steps: list[Any]) -> None:
    class Warm(PathStrategy):
        def configure_oneshot_module(self, training_module: Any) -> Any:
            engine = super().configure_oneshot_module(training_module)
            engine.warmup_epochs = 1
            return engine

    chooser = Scripted()
    engine = search(Warm(lambda space: chooser), tmp_path, learning=rewards(2), epochs=2)
    assert [kind for kind, _ in steps] == ["training_step"] * 2 * STEPS + ["validation_step"] * 2
    assert len(engine.rewards) == 2


def test_paths_over_a_limit_get_nothing_and_are_not_scored(tmp_path: Path, steps: list[Any]) -> None:
    chooser = Scripted()
    engine = search(strategy(chooser, admits=lambda path: path["op"] != "conv3"), tmp_path, learning=rewards(4))
    assert [path for kind, path in steps if kind == "validation_step"] == [PATHS[1]] * 2
    assert engine.rewards[0] == engine.rewards[2] == 0.0
    given = [call[1:] for call in chooser.calls if call[0] == "reward"]
    assert [choices for choices, _ in given] == [PATHS[0], PATHS[1]] * 2
    assert [value for _, value in given] == engine.rewards


def test_scoring_a_path_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[dict[str, torch.Tensor]] = []

    def spy(self: Any, batch: Any, index: int) -> torch.Tensor:
        copies.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return score(self, batch, index)

    score = SegmentationModule.validation_step
    monkeypatch.setattr(SegmentationModule, "validation_step", spy)
    engine = search(strategy(Scripted()), tmp_path, learning=rewards(5))
    after = engine.training_module.model.state_dict()
    assert len(copies) == 5 and len(after) == 10
    assert all(torch.equal(copy[name], value) for copy in copies for name, value in after.items())


def test_the_chooser_is_made_once_and_exports_what_it_learned(tmp_path: Path) -> None:
    made: list[Scripted] = []
    engine_of = PathStrategy(lambda space: made.append(Scripted()) or made[-1])
    engine = search(engine_of, tmp_path, learning=[])
    model = next(iter(engine_of.list_models()))  # NNI sets the model again
    assert len(made) == 1 and engine.chooser is made[0]
    assert plain(model.sample) == engine.export() == PlantedWide.best
    assert engine.distribution() == {"op": {"conv3": 0.9, "conv1": 0.1}} and engine.complete
    engine.load_search_state({"calls": 7})
    assert engine.search_state() == {"calls": 7}


def test_a_chooser_that_is_a_network_is_no_part_of_the_supernet(tmp_path: Path) -> None:
    class Network(torch.nn.Linear):
        complete = True
        draw = staticmethod(lambda greedy=False: {"op": "conv1", "op2": "identity"})

    engine = PathStrategy(lambda space: Network(2, 2)).configure_oneshot_module(torch.nn.Module())
    engine._chooser.append(engine._make_chooser(Planted(1, 2)))
    assert list(engine.parameters()) == [] and engine.export() == {"op": "conv1", "op2": "identity"}
