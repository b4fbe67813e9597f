from __future__ import annotations

import pytest
from autoseg_autosegnet.order import ordered

from autoseg.errors import UserError

LABELS = ["skip0", "skip1", "up_op1", "upper", "down_in1", "down_op1", "bridge_op1"]


def test_no_order_is_the_order_of_the_space() -> None:
    assert ordered(LABELS) == LABELS


def test_whole_labels() -> None:
    order = ["upper", "skip1", "bridge_op1", "skip0", "down_op1", "up_op1", "down_in1"]
    assert ordered(LABELS, order) == order


def test_beginnings_keep_the_order_of_the_space_and_the_longest_wins() -> None:
    assert ordered(LABELS, ["down", "bridge", "up", "skip"]) == [
        "down_in1", "down_op1", "bridge_op1", "up_op1", "upper", "skip0", "skip1",
    ]  # fmt: skip
    assert ordered(LABELS, ["upper", "down", "skip1", "up", "skip", "bridge"]) == [
        "upper", "down_in1", "down_op1", "skip1", "up_op1", "skip0", "bridge_op1",
    ]  # fmt: skip


def test_what_is_not_a_permutation_is_said_all_at_once() -> None:
    with pytest.raises(UserError) as caught:
        ordered(LABELS, ["down", "brigde_op1", "up", "down"])
    assert [(p.what, p.fix) for p in caught.value.problems] == [
        ("'down' is there twice", "name it once"),
        (
            "these decisions are missing: skip0, skip1, bridge_op1",
            "add them, or words that they begin with; without the option the space's own order is used",
        ),
        ("no decision of this space begins with 'brigde_op1'", "did you mean 'bridge_op1'?"),
    ]
    assert {p.where for p in caught.value.problems} == {"strategy autosegnet, option order"}


def test_a_word_whose_labels_all_belong_to_longer_words_is_refused() -> None:
    with pytest.raises(UserError, match="begins with 'up'"):
        ordered(["up_a", "up_b"], ["up", "up_a", "up_b"])
