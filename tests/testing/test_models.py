"""The contract finds defects: each planted one fails the tests that are about it, and a sound network fails none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.errors import UserError
from autoseg.nn.batchnorm import BatchNorm2d
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.testing import ModelContract

ONNX = "test_onnx_gives_the_same_logits"


class Sound(nn.Module):
    """A network with one halving; the defects are planted in subclasses."""

    size_divisor = 2

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.norm = BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, num_classes, 1)

    def logits(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        return F.interpolate(self.head(F.relu(self.body(x))), scale_factor=2.0)

    def forward(self, x: Tensor) -> Tensor:
        x, size = pad_to_multiple(x, self.size_divisor)
        return crop_to(self.logits(x), size)


class RandomInEvaluation(Sound):
    def logits(self, x: Tensor) -> Tensor:
        return F.dropout(super().logits(x), 0.5, training=True)


class BatchStatisticsInEvaluation(Sound):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.norm = BatchNorm2d(8, track_running_stats=False)


class DeadParameter(Sound):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.forgotten = nn.Conv2d(8, 8, 1)


class ShrinksTheOutput(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., : max(1, x.shape[-2] - 1), :]


class PadsOnTheWrongSide(Sound):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (width % 2, 0, height % 2, 0), mode="replicate")
        return self.logits(x)[..., -height:, -width:]


class PadsWithZeros(Sound):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return crop_to(self.logits(F.pad(x, (0, width % 2, 0, height % 2))), (height, width))


class RefusesOddSides(Sound):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class WritesIntoTheImage(Sound):
    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x.clamp_(-1, 1))


class OrdinaryNormalisationOfPooledValues(Sound):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.pooled = nn.BatchNorm2d(8)

    def logits(self, x: Tensor) -> Tensor:
        features = F.relu(self.norm(self.stem(x)))
        features = features + self.pooled(features.mean((2, 3), keepdim=True))
        return self.head(F.relu(self.body(features)))


class TiedWeights(Sound):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.again = self.head

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) + 0 * self.again(F.relu(self.body(self.stem(x))))


class HiddenState(Sound):
    """What it learned stands in no state dict."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes)
        self.hidden = torch.rand(1, num_classes, 1, 1)

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) + self.hidden


class NeverLearns(Sound):
    def logits(self, x: Tensor) -> Tensor:
        return 1e-6 * super().logits(x)


def unseeded(in_channels: int, num_classes: int) -> nn.Module:
    torch.seed()
    return Sound(in_channels, num_classes)


class FixedInAnExport(Sound):
    """A side length becomes a plain number while the graph is recorded."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x) + int(x.shape[-2])


class BranchesOnTheSide(Sound):
    """Recorded with an odd side, the graph pads even ones too."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 1, 0, 1), mode="reflect")
        return self.logits(x)[..., :height, :width] + (height % 2)


def cases(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments a parametrized test is called with, except those of fixtures."""
    marks = [mark.args for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    for values in itertools.product(*(choices for _, choices in marks)):
        yield dict(zip((name for name, _ in marks), values, strict=True))


def failing(contract: type[ModelContract], *, onnx: Path | None = None) -> set[str]:
    """Names of the tests that fail, the one of ONNX only where a folder is given."""
    failed = set()
    for name in dir(contract):
        test = getattr(contract, name)
        if not name.startswith("test_") or (name == ONNX and onnx is None):
            continue
        for arguments in cases(test):
            try:
                torch.manual_seed(0)
                test(contract(), **arguments, **({"tmp_path": onnx} if name == ONNX else {}))
            except Exception:
                failed.add(name)
    return failed


def contract_of(network: Any, **attributes: Any) -> type[ModelContract]:
    return type("Contract", (ModelContract,), {"model": network, **attributes})


def test_a_sound_network_fails_nothing(tmp_path: Path) -> None:
    assert failing(contract_of(Sound), onnx=tmp_path) == set()


SHAPES = "test_logits_have_the_size_of_the_input"
PADDING = "test_padding_inside_equals_padding_outside"
EVALUATION = "test_evaluation_is_deterministic_and_looks_at_one_image_at_a_time"
GRADIENTS = "test_gradients_reach_every_parameter"
BATCH_OF_ONE = "test_trains_on_a_batch_of_one"
ROUND_TRIP = "test_state_dict_round_trip"
LOSS = "test_loss_falls_when_trained"
CHANNELS_LAST = "test_channels_last_gives_the_same_logits"


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (RandomInEvaluation, {EVALUATION, PADDING, ROUND_TRIP, CHANNELS_LAST}),
        (BatchStatisticsInEvaluation, {EVALUATION}),
        (DeadParameter, {GRADIENTS, BATCH_OF_ONE}),
        (PadsOnTheWrongSide, {PADDING}),
        (PadsWithZeros, {PADDING}),
        (WritesIntoTheImage, {"test_the_image_is_left_alone"}),
        (OrdinaryNormalisationOfPooledValues, {BATCH_OF_ONE}),
        (TiedWeights, {"test_state_dict_is_tensors_of_their_own"}),
        (HiddenState, {ROUND_TRIP}),
        (NeverLearns, {LOSS}),
        (unseeded, {"test_same_seed_gives_the_same_weights"}),
    ],
)
def test_a_defect_fails_the_tests_that_are_about_it(network: Any, expected: set[str]) -> None:
    assert failing(contract_of(network)) == expected


@pytest.mark.parametrize("network", [ShrinksTheOutput, RefusesOddSides])
def test_a_wrong_size_of_the_output_is_noticed(network: Any) -> None:
    assert {SHAPES, PADDING, GRADIENTS} <= failing(contract_of(network))


def test_a_side_that_becomes_a_number_in_the_file_is_noticed(tmp_path: Path) -> None:
    test = getattr(contract_of(FixedInAnExport)(), ONNX)
    with pytest.raises(UserError, match="cannot be written as ONNX"):
        test(tmp_path)


def test_a_file_that_holds_for_some_sizes_only_is_noticed(tmp_path: Path) -> None:
    test = getattr(contract_of(BranchesOnTheSide)(), ONNX)
    with pytest.raises(AssertionError, match="not close"):
        test(tmp_path)


def test_a_parameter_may_be_unused_when_the_author_says_so() -> None:
    names = frozenset({"forgotten.weight", "forgotten.bias"})
    assert failing(contract_of(DeadParameter, unused=names)) == set()
    assert failing(contract_of(Sound, unused=names)) == {GRADIENTS}


def test_registered_models_are_built_by_name() -> None:
    contract = contract_of("unet", options={"width": 2, "depth": 1})()
    assert type(contract.build()).__name__ == "UNet"
    assert contract.build(1, 5)(torch.zeros(1, 1, 3, 3)).shape == (1, 5, 3, 3)
