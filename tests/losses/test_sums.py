from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loss_cases import random_case
from torch import Tensor, nn

from autoseg import registry
from autoseg.config import load_config
from autoseg.errors import UserError
from autoseg.losses.cross_entropy import CrossEntropy, WeightedCrossEntropy
from autoseg.losses.dice import Dice
from autoseg.losses.lovasz import Lovasz
from autoseg.losses.sums import LossSum, resolve

DATA = {"dataset": "synthetic-ceramic", "options": {"count": 6, "size": 32}}


def problems_of(options: dict[str, Any], name: str = "ce+dice") -> list[str]:
    return [f"{p.where}: {p.what} -> {p.fix}" for p in registry.check_options("loss", name, options, "loss")]


def test_the_sum_is_the_sum() -> None:
    logits, target = random_case()
    weight = [0.2, 1.0, 3.0]
    both = CrossEntropy()(logits, target) + Dice()(logits, target)
    assert torch.equal(registry.load("loss", "ce+dice")()(logits, target), both)
    expected = 2 * CrossEntropy(weight)(logits, target) + 0.5 * Dice(1e-3)(logits, target)
    loss = registry.load("loss", "ce+dice")(ce={"weight": weight}, dice={"smooth": 1e-3}, factors=[2, 0.5])
    assert loss(logits, target).item() == pytest.approx(expected.item())


def test_three_parts_and_names_with_a_hyphen() -> None:
    logits, target = random_case(2)
    loss = registry.load("loss", "weighted-ce+dice+lovasz")(**{"weighted-ce": {"beta": 0.8}, "factors": [1, 0, 3]})
    expected = WeightedCrossEntropy(0.8)(logits, target) + 3 * Lovasz()(logits, target)
    assert loss(logits, target).item() == pytest.approx(expected.item())


def test_one_ignore_index_for_all_parts() -> None:
    logits, target = random_case()
    marked = target.where(target != 2, -1)
    loss = registry.load("loss", "ce+dice+focal")
    other = loss()(logits, target.where(target != 2, 255))
    assert loss(ignore_index=-1)(logits, marked).item() == pytest.approx(other.item())


def test_options_are_checked_part_by_part() -> None:
    assert problems_of({"ce": {"weight": [1, 2]}, "dice": {}, "factors": [1, 0.5]}) == []
    assert problems_of({"dice": {"smoth": 1.0}, "ce": {"weight": "heavy"}, "factor": [1]}) == [
        "loss.factor: unknown option 'factor' -> did you mean 'factors'?",
        "loss.ce.weight: option 'weight': input should be a valid array, got 'heavy' -> "
        "'weight' takes collections.abc.Sequence[float] | None (default: None)",
        "loss.dice.smoth: unknown option 'smoth' -> did you mean 'smooth'?",
    ]
    assert problems_of({"smooth": 1.0}) == ["loss.smooth: unknown option 'smooth' -> did you mean 'dice.smooth'?"]
    assert problems_of({"dicee": {}})[0].endswith("did you mean 'dice'?")
    assert "'dice' takes a section of options" in problems_of({"dice": 3})[0]


def test_the_line_of_an_option_of_a_part_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "data: {dataset: synthetic-ceramic, options: {count: 6, size: 32}}\n"
        "train:\n  loss:\n    name: ce+dice\n    options:\n      dice:\n        smooht: 1\n"
    )
    with pytest.raises(UserError) as caught:
        load_config(file)
    assert [p.where for p in caught.value.problems] == [f"{file}, line 7, train.loss.options.dice.smooht"]
    with pytest.raises(UserError) as caught:
        load_config({"data": DATA}, ["train.loss=focal+dice", "train.loss.options.focal.gama=1"])
    assert [p.where for p in caught.value.problems] == ["--set train.loss.options.focal.gama=1"]


def test_options_of_a_part_come_through_an_experiment_file(tmp_path: Path) -> None:
    changes = ["train.loss=focal+dice", "train.loss.options.focal.gamma=0.0", "train.loss.options.factors=[1, 0.5]"]
    loss = load_config({"data": DATA}, changes).train.loss
    assert loss.options == {"focal": {"gamma": 0.0}, "factors": [1, 0.5]}
    logits, target = random_case()
    value = registry.load("loss", loss.name)(**loss.options)(logits, target)
    assert value.item() == pytest.approx((CrossEntropy()(logits, target) + 0.5 * Dice()(logits, target)).item())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ce+dise", "there is no loss called 'dise'"),
        ("ce+dise", "did you mean 'dice'?"),
        ("ce+", "a part of the sum has no name"),
        ("+", "a part of the sum has no name"),
        ("dice+ce+dice", "'dice' comes twice"),
    ],
)
def test_names_that_are_no_sum(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        registry.load("loss", name)
    assert message in str(caught.value)


def test_every_wrong_option_is_named_with_its_part() -> None:
    with pytest.raises(UserError) as caught:
        resolve("ce+dice")(ce={"weight": [1.0, -1.0]}, dice={"smooth": 0.0}, factors=[1, -2, 3])
    assert [p.where for p in caught.value.problems] == [
        "loss option 'factors'",
        "loss option 'factors'",
        "ce, loss option 'weight'",
        "dice, loss option 'smooth'",
    ]
    assert "3 factors for 2 losses" in str(caught.value)
    with pytest.raises(UserError, match="dice, loss option 'weight': 2 class weights for 3 classes"):
        resolve("ce+dice")(dice={"weight": [1, 1]})(*random_case(3))


def test_a_part_without_an_ignore_index_is_not_given_one() -> None:
    class Plain(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return logits.mean()

    from autoseg.losses.sums import SumOf

    logits, target = random_case()
    loss = SumOf({"plain": Plain, "dice": Dice})(ignore_index=7)
    assert loss(logits, target).item() == pytest.approx((logits.mean() + Dice()(logits, target)).item())


def test_parts_move_with_the_sum_and_only_parts_with_the_hook_are_asked() -> None:
    loss = resolve("ce+dice")(ce={"weight": [1, 2]})
    assert isinstance(loss, LossSum)
    assert [buffer.dtype for buffer in loss.double().buffers()] == [torch.float64]
    assert resolve("ce+dice").from_training is None
    hook = resolve("weighted-ce+dice").from_training
    assert hook is not None and hook([0.9, 0.1]) == {"weighted-ce": {"beta": 0.9}}


def test_the_family_is_listed_as_one_row() -> None:
    rows = {row["name"]: row for row in registry.listing("loss") if row["distribution"] == "autoseg"}
    assert rows["*+*"]["description"] == "A sum of losses, such as ce+dice or focal+dice+lovasz."
    assert sorted(rows) == [
        "*+*", "ce", "dice", "dice-squared", "focal", "iou", "lovasz", "tversky", "weighted-ce",
    ]  # fmt: skip
    assert rows["*+*"]["error"] is None
