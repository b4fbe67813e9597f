from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from autoseg_autosegnet.controller import Controller

from autoseg.errors import UserError
from autoseg.statefile import load_tree, save_tree

DECISIONS: dict[str, list[Any]] = {
    "down_op": ["sep3", "sep5", "hdc3", "identity"],
    "down_in": [[0], [1]],
    "up_op": ["sep3", "sep5", "hdc3", "identity"],
    "skip0": ["skip", "none", "half"],
}
BEST = {"down_op": "hdc3", "down_in": [1], "up_op": "sep3", "skip0": "none"}


def everything(decisions: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(decisions, values, strict=True)) for values in itertools.product(*decisions.values())]


def hits(choices: dict[str, Any]) -> float:
    return sum(choices[label] == value for label, value in BEST.items()) / len(BEST)


def learn(controller: Controller, updates: int, reward: Callable[[dict[str, Any]], float] = hits) -> Controller:
    for _ in range(updates):
        batch = [controller.draw() for _ in range(8)]
        controller.update([(choices, reward(choices)) for choices in batch])
    return controller


def normalised_entropy(controller: Controller) -> float:
    rows = [list(row.values()) for row in controller.probabilities().values()]
    return sum(-sum(p * math.log(p) for p in row) / math.log(len(row)) for row in rows) / len(rows)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for name, node in items for key, leaf in flat(node, f"{path}/{name}").items()}
    return {path: tree}


def assert_same_state(one: Controller, other: Controller) -> None:
    a, b = flat(one.state()), flat(other.state())
    assert a.keys() == b.keys()
    different = [k for k, v in a.items() if not (torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k])]
    assert different == []


# Probabilities


def test_probabilities_name_values_and_sum_to_one() -> None:
    found = learn(Controller(DECISIONS), 20).probabilities()
    assert {label: list(row) for label, row in found.items()} == {
        "down_op": ["sep3", "sep5", "hdc3", "identity"],
        "down_in": [0, 1],
        "up_op": ["sep3", "sep5", "hdc3", "identity"],
        "skip0": ["skip", "none", "half"],
    }
    for row in found.values():
        assert sum(row.values()) == pytest.approx(1, abs=1e-6)
        assert min(row.values()) > 0


def test_all_architectures_together_have_probability_one() -> None:
    controller = learn(Controller(DECISIONS), 20)
    score = controller.score(everything(DECISIONS))
    assert score.log_prob.shape == score.entropy.shape == (4 * 2 * 4 * 3,)
    assert score.log_prob.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_log_prob_of_the_greedy_path_is_the_product_of_its_probabilities() -> None:
    controller = learn(Controller(DECISIONS), 20)
    greedy, found = controller.draw(greedy=True), controller.probabilities()
    best = {label: max(row.values()) for label, row in found.items()}
    named = {label: value[0] if isinstance(value, list) else value for label, value in greedy.items()}
    assert {label: found[label][value] for label, value in named.items()} == best
    score = controller.score([greedy])
    assert score.log_prob.item() == pytest.approx(sum(math.log(p) for p in best.values()), abs=1e-5)
    nats = sum(-p * math.log(p) for row in found.values() for p in row.values())
    assert score.entropy.item() == pytest.approx(nats, abs=1e-5)


def test_draws_follow_the_probabilities() -> None:
    controller = learn(Controller({"op": ["a", "b", "c"]}), 30, lambda choices: float(choices["op"] == "b"))
    expected = controller.probabilities()["op"]
    assert expected["b"] > 0.4
    counts = Counter(controller.draw()["op"] for _ in range(3000))
    for value, p in expected.items():
        assert counts[value] / 3000 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 3000))


def test_later_decisions_depend_on_earlier_ones() -> None:
    """The best pairs are (a, a) and (b, b): no product of two independent distributions can prefer both."""
    decisions = {"first": ["a", "b"], "second": ["a", "b"]}
    controller = learn(Controller(decisions, lr=5e-3), 150, lambda c: float(c["first"] == c["second"]))
    score = controller.score(everything(decisions)).log_prob.exp().tolist()
    assert score[0] + score[3] > 0.9


def test_untrained_controller_is_undecided() -> None:
    for seed in range(5):
        assert normalised_entropy(Controller(DECISIONS, seed=seed)) > 0.97


def test_tanh_constant_keeps_every_choice_possible() -> None:
    bound = math.exp(-0.5) / (math.exp(-0.5) + 3 * math.exp(0.5))
    bounded = learn(Controller(DECISIONS, lr=0.1, tanh_constant=0.5), 30)
    free = learn(Controller(DECISIONS, lr=0.1, tanh_constant=None), 30)
    assert min(min(row.values()) for row in bounded.probabilities().values()) >= bound
    assert min(min(row.values()) for row in free.probabilities().values()) < bound / 10


def test_temperature_divides_the_logits() -> None:
    warm, cold = (Controller({"op": ["a", "b"]}, temperature=t, tanh_constant=None) for t in (4.0, 1.0))
    ratio = [math.log(c.probabilities()["op"]["a"] / c.probabilities()["op"]["b"]) for c in (warm, cold)]
    assert ratio[1] == pytest.approx(4 * ratio[0], rel=1e-3)
    assert ratio[1] != 0


# Learning


def test_gradient_of_the_log_probability() -> None:
    controller = learn(Controller(DECISIONS, tanh_constant=None), 10)
    head = controller._network.heads[0]
    p = torch.tensor(list(controller.probabilities()["down_op"].values()))
    (slope,) = torch.autograd.grad(controller.score([BEST]).log_prob.sum(), head.bias)
    one_hot = torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert torch.allclose(slope, one_hot - p, atol=1e-6)


def test_gradient_against_differences() -> None:
    controller = learn(Controller(DECISIONS, hidden=6), 10)
    network = controller._network.double()
    paths = everything(DECISIONS)[::17]
    for name, parameter in network.named_parameters():
        network.zero_grad()
        score = controller.score(paths)
        (score.log_prob.sum() + 0.3 * score.entropy.sum()).backward()
        entry = parameter.view(-1)[-1:]
        slope = float(parameter.grad.view(-1)[-1])
        with torch.no_grad():
            values = []
            for step in (1e-5, -1e-5):
                entry += step
                score = controller.score(paths)
                values.append(float(score.log_prob.sum() + 0.3 * score.entropy.sum()))
                entry -= step
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8), name


def test_baseline_by_hand() -> None:
    controller = Controller(DECISIONS, baseline_decay=0.9)
    assert controller.baseline is None
    controller.update([(BEST, 0.2), (BEST, 0.6)])
    assert controller.baseline == pytest.approx(0.4)
    controller.update([(BEST, 1.0), (BEST, 0.5)])
    assert controller.baseline == pytest.approx(0.81 * 0.4 + 0.19 * 0.75)  # two rewards: 0.9 ** 2
    controller.update([(BEST, 0.0)])
    assert controller.baseline == pytest.approx(0.9 * (0.81 * 0.4 + 0.19 * 0.75))


def test_one_update_raises_the_better_and_lowers_the_worse() -> None:
    controller = Controller(DECISIONS)
    worse = {"down_op": "sep3", "down_in": [0], "up_op": "identity", "skip0": "half"}
    before = controller.score([BEST, worse]).log_prob
    controller.update([(BEST, 0.9), (worse, 0.1)])
    after = controller.score([BEST, worse]).log_prob
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_equal_rewards_teach_nothing() -> None:
    controller = Controller(DECISIONS, entropy=0.0)
    before = controller.probabilities()
    controller.update([(choices, 0.5) for choices in everything(DECISIONS)[:9]])
    assert controller.probabilities() == before


def test_entropy_bonus_pulls_back() -> None:
    controller = learn(Controller(DECISIONS, entropy=1.0, lr=5e-3), 0)
    plain = learn(Controller(DECISIONS, entropy=0.0, lr=5e-3), 15)
    controller.load_state(plain.state())
    low = normalised_entropy(controller)
    assert low < 0.9
    for _ in range(10):
        controller.update([(controller.draw(), controller.baseline or 0.0)])
    assert normalised_entropy(controller) > low + 0.05


def test_learns_a_planted_bandit_with_the_papers_numbers() -> None:
    found = [learn(Controller(DECISIONS, seed=seed), 80).draw(greedy=True) == BEST for seed in range(10)]
    assert sum(found) >= 9


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_rewards_must_be_finite(reward: float) -> None:
    controller = Controller(DECISIONS)
    with pytest.raises(ValueError, match="finite"):
        controller.update([(BEST, 0.5), (BEST, reward)])
    with pytest.raises(ValueError, match="finite"):
        controller.update([])
    assert controller.baseline is None


def test_choices_of_another_space_are_refused() -> None:
    controller = Controller(DECISIONS)
    with pytest.raises(ValueError, match=r"another space: down_in, skip0$"):
        controller.score([{"down_op": "hdc3", "down_in": [2], "up_op": "sep3"}])
    assert controller.score([{**BEST, "more": 1}]).log_prob.shape == (1,)


def test_nothing_to_decide() -> None:
    with pytest.raises(ValueError, match="decisions"):
        Controller({})
    with pytest.raises(ValueError, match="decisions"):
        Controller({"op": []})
    only = Controller({"op": ["conv"]})
    only.update([(only.draw(), 0.3)])
    assert only.probabilities() == {"op": {"conv": 1.0}}


# Order


def test_order_decides_what_is_drawn_first() -> None:
    controller = Controller(DECISIONS, order=["skip", "up", "down"])
    assert controller.labels == ["skip0", "up_op", "down_op", "down_in"]
    assert list(controller.draw()) == list(controller.probabilities()) == controller.labels
    assert Controller(DECISIONS).labels == list(DECISIONS)


def test_order_must_be_a_permutation() -> None:
    with pytest.raises(UserError) as caught:
        Controller(DECISIONS, order=["down", "bridge", "up"])
    text = str(caught.value)
    assert "missing: skip0" in text
    assert "begins with 'bridge'" in text


# Repeating


def test_state_round_trip_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = learn(Controller(DECISIONS, seed=3), 12)
    first = learn(Controller(DECISIONS, seed=3), 5)
    save_tree(tmp_path / "state.safetensors", first.state())
    second = Controller(DECISIONS, seed=99)
    second.load_state(load_tree(tmp_path / "state.safetensors"))
    learn(second, 7)
    assert_same_state(second, whole)
    assert [second.draw() for _ in range(20)] == [whole.draw() for _ in range(20)]


def test_state_before_the_first_update(tmp_path: Path) -> None:
    first, second = Controller(DECISIONS, seed=3), Controller(DECISIONS, seed=4)
    save_tree(tmp_path / "state.safetensors", first.state())
    second.load_state(load_tree(tmp_path / "state.safetensors"))
    assert_same_state(learn(first, 3), learn(second, 3))


def test_state_of_another_space_or_order_is_refused() -> None:
    state = Controller(DECISIONS).state()
    for other in (Controller(DECISIONS, order=["skip", "down", "up"]), Controller({"op": ["a", "b"]})):
        with pytest.raises(ValueError, match="other decisions"):
            other.load_state(state)


def test_seeds() -> None:
    draws = [[Controller(DECISIONS, seed=seed).draw() for _ in range(1)] for seed in range(12)]
    assert draws == [[Controller(DECISIONS, seed=seed).draw()] for seed in range(12)]
    assert len({str(d) for d in draws}) > 6
    assert_same_state(learn(Controller(DECISIONS, seed=2), 3), learn(Controller(DECISIONS, seed=2), 3))


def test_global_random_numbers_are_neither_used_nor_spent() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = learn(Controller(DECISIONS), 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert_same_state(one, learn(Controller(DECISIONS), 2))


def test_it_needs_no_other_library() -> None:
    code = (
        "import sys\n"
        "for name in ('tianshou', 'gym', 'gymnasium', 'nni', 'numba'): sys.modules[name] = None\n"
        "from autoseg_autosegnet.controller import Controller\n"
        "c = Controller({'op': ['a', 'b']}, hidden=4)\n"
        "c.update([(c.draw(), 0.5)])\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('tianshou', 'gym') and sys.modules[m]))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
