from __future__ import annotations

import random
from typing import Any

import pytest

from autoseg.spaces.autosegnet_code import LAYERS, OPERATIONS, Genotype, Grammar, from_choices, parse, to_choices
from autoseg.spaces.autosegnet_draw import draw_network
from autoseg.spaces.autosegnet_named import named_points
from autoseg.spaces.autosegnet_shape import Shape, downsamplings, transfer


def draw(rng: random.Random, skips: int, **kwargs: Any) -> dict[str, Any]:
    return {label: rng.choice(values) for label, values in Grammar.of(kwargs).decisions(skips).items()}


def test_sizes_of_the_paper() -> None:
    enas = Grammar()
    assert enas.size(0) == 2_359_296**3 == 13_132_496_513_412_366_336
    assert [enas.size(n) for n in (1, 2, 3, 4, 5)] == [13_132_496_513_412_366_336 * 2**n for n in (1, 2, 3, 4, 5)]
    assert enas.size(0, modulo_swap=True) == 381_888**3
    assert f"{enas.size(0, modulo_swap=True):.3e}" == "5.569e+16"
    binary = Grammar("binary")
    assert binary.size(0) == 32_768**3
    assert f"{binary.size(0):.3e}" == "3.518e+13"
    assert binary.size(2, modulo_swap=True) == binary.size(2)
    without = Grammar(use_hdc=False)
    assert without.size(0) == 419_904**3
    assert f"{without.size(0):.3e}" == "7.404e+16"
    # Operations alone: what is left when the wiring is divided out.
    assert enas.size(0) // (2 * 3 * 4) ** 6 == 4096**3 == 68_719_476_736


def test_size_counts_the_decisions() -> None:
    for kwargs in ({}, {"encoding": "binary"}, {"cells": 2, "extra": ["se"]}, {"use_hdc": False, "cells": 4}):
        grammar, total = Grammar.of(kwargs), 1
        for values in grammar.decisions(2).values():
            total *= len(values)
        assert grammar.size(2) == total


def test_size_modulo_swap_by_enumeration() -> None:
    grammar = Grammar(cells=1, use_hdc=False)
    cells = {frozenset({(i, p), (j, q)}) for i in range(2) for j in range(2) for p in range(3) for q in range(3)}
    assert grammar.size(0, modulo_swap=True) == len(cells) ** 3


@pytest.mark.parametrize("skips", [1, 2, 5])
def test_number_of_tokens(skips: int) -> None:
    assert Grammar().tokens(skips) == 36 + skips
    assert Grammar("binary").tokens(skips) == 18 + 9 + skips
    rng = random.Random(skips)
    for encoding in ("enas", "binary"):
        genotype = from_choices(draw(rng, skips, encoding=encoding), {"encoding": encoding})
        assert len(genotype.tokens) == genotype.grammar.tokens(skips)


def test_order_of_the_decisions() -> None:
    labels = list(Grammar().decisions(2))
    assert labels[:4] == ["down_c0_in1", "down_c0_op1", "down_c0_in2", "down_c0_op2"]
    assert [label.split("_")[0] for label in labels] == ["down"] * 12 + ["bridge"] * 12 + ["up"] * 12 + [
        "skip0",
        "skip1",
    ]
    binary = [label for label in Grammar("binary").decisions(1) if label.startswith("up")]
    assert binary == [
        "up_c0_op1", "up_c0_op2",
        "up_c1_skip0", "up_c1_op1", "up_c1_op2",
        "up_c2_skip0", "up_c2_skip1", "up_c2_op1", "up_c2_op2",
    ]  # fmt: skip


def test_extra_operations_keep_the_codes_of_the_paper() -> None:
    assert Grammar().operations == ("sep3", "sep5", "hdc", "identity") == OPERATIONS[:4]
    assert Grammar(extra=["context", "se"]).operations == OPERATIONS == (*OPERATIONS[:4], "se", "context")
    assert Grammar(extra=["context"], use_hdc=False).operations == ("sep3", "sep5", "identity", "context")
    assert Grammar(extra=("se", "context")).size(0) == (24**2 * 6**6) ** 3
    choices = dict.fromkeys(Grammar(cells=1, extra=["context"]).decisions(1), "context")
    choices |= {f"{layer}_c0_in{i}": [i - 1] for layer in LAYERS for i in (1, 2)} | {"skip0": "none"}
    genotype = from_choices(choices, {"cells": 1, "extra": ["context"]})
    assert genotype.layers[0] == ((0, 5, 1, 5),)
    with pytest.raises(ValueError, match="'context' is not one of"):
        from_choices(choices, {"cells": 1, "extra": ["se"]})


@pytest.mark.parametrize(
    "kwargs", [{}, {"encoding": "binary"}, {"cells": 2, "extra": ["se", "context"]}, {"use_hdc": False}]
)
def test_round_trips(kwargs: dict[str, Any]) -> None:
    rng = random.Random(3)
    seen = set()
    for skips in (1, 2, 3, 5) * 10:
        choices = draw(rng, skips, **kwargs)
        genotype = from_choices(choices, kwargs)
        assert to_choices(genotype) == choices
        assert parse(str(genotype), kwargs) == genotype
        assert str(parse(str(genotype), kwargs)) == str(genotype)
        seen.add(str(genotype))
    assert len(seen) == 40


def test_code_by_hand() -> None:
    code = "down=[(0,2,1,3),(2,0,2,1)] bridge=[(1,0,1,0),(0,3,2,3)] up=[(0,1,0,1),(1,2,1,2)] skips=[1,0]"
    choices = to_choices(parse(code, {"cells": 2}))
    assert {label: choices[label] for label in choices if label.startswith(("down_c1", "skip"))} == {
        "down_c1_in1": [2], "down_c1_op1": "sep3", "down_c1_in2": [2], "down_c1_op2": "sep5",
        "skip0": "skip", "skip1": "none",
    }  # fmt: skip
    assert len(choices) == 3 * 8 + 2
    genotype = from_choices(choices, {"cells": 2})
    assert genotype.tokens == (0, 2, 1, 3, 2, 0, 2, 1, 1, 0, 1, 0, 0, 3, 2, 3, 0, 1, 0, 1, 1, 2, 1, 2, 1, 0)
    assert genotype.sources("bridge") == [([1], [1]), ([0], [2])]
    assert genotype.operations("down") == [("hdc", "identity"), ("sep3", "sep5")]


def test_binary_code_by_hand() -> None:
    code = "down=[(0,1),(1,2,3),(0,1,0,0)] bridge=[(0,0),(0,0,0),(1,1,0,0)] up=[(3,3),(0,1,1),(0,0,2,2)] skips=[0]"
    genotype = parse(code, {"encoding": "binary"})
    choices = to_choices(genotype)
    assert (choices["down_c1_skip0"], choices["down_c2_skip0"], choices["down_c2_skip1"]) == ([1], [0], [1])
    assert genotype.sources("down") == [([0], [1]), ([0], [1, 2]), ([0], [1, 3])]
    assert genotype.operations("down") == [("sep3", "sep5"), ("hdc", "identity"), ("sep3", "sep3")]


CELL = (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("layers", "skips", "message"),
    [
        (((CELL,), (CELL,)), (1,), "there are 2 layers, not 3"),
        (((CELL, CELL), (CELL,), (CELL,)), (1,), "down has 2 cells, not 1"),
        ((((2, 0, 0, 0),), (CELL,), (CELL,)), (1,), r"down\[0\]: in1=2 is not in \[0, 1\]"),
        (((CELL,), ((0, 4, 0, 0),), (CELL,)), (1,), r"bridge\[0\]: op1=4 is not in \[0, 1, 2, 3\]"),
        (((CELL,), (CELL,), ((0, 0, 0, -1),)), (1,), r"up\[0\]: op2=-1"),
        (((CELL,), (CELL,), ((0, 0, 0, "1"),)), (1,), r"up\[0\]: op2='1'"),
        (((CELL,), (CELL,), ((0, 0, 0),)), (1,), r"up\[0\] has 3 codes, not 4"),
        (((CELL,), (CELL,), (CELL,)), (2,), r"skips\[0\]=2 is not 0 or 1"),
        (((CELL,), (CELL,), (CELL,)), (), "no long skips"),
    ],
)
def test_what_is_out_of_range_is_named(layers: Any, skips: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genotype(layers, skips, Grammar(cells=1))


def test_all_faults_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        Genotype((((9, 9, 0, 0),), (CELL,), (CELL,)), (7,), Grammar(cells=1))
    assert str(caught.value).count(";") == 2


def test_hdc_is_no_operation_of_the_ablation() -> None:
    with pytest.raises(ValueError, match=r"op1=2 is not in \[0, 1, 3\]"):
        parse("down=[(0,2,1,3)] bridge=[(0,0,1,3)] up=[(0,0,1,3)] skips=[1]", {"cells": 1, "use_hdc": False})


@pytest.mark.parametrize(
    "code", ["", "down=[] bridge=[] up=[] skips=[1]", "E=[(0,0,0,0)] D=[(0,0)]", "down=[(0,-,1,0)]"]
)
def test_texts_that_are_no_code(code: str) -> None:
    with pytest.raises(ValueError, match="an AutoSegNet code is"):
        parse(code, {})


def test_choices_that_are_not_of_the_space() -> None:
    good = draw(random.Random(1), 2)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "missing"),
        ({k: v for k, v in good.items() if k != "up_c1_in2"}, "up_c1_in2 missing"),
        ({k: v for k, v in good.items() if k != "skip0"}, "skip0 missing"),  # a gap in the row of skips
        ({k: v for k, v in good.items() if not k.startswith("skip")}, "skip0 missing"),
        ({**good, "down_c0_op1": "conv3"}, "down_c0_op1='conv3'"),
        ({**good, "down_c0_in1": [2]}, r"down_c0_in1=\[2\]"),
        ({**good, "down_c0_in1": 0}, "down_c0_in1=0"),
        ({**good, "down_c0_in1": [0, 1]}, r"down_c0_in1=\[0, 1\]"),
        ({**good, "skip0": "on"}, "skip0='on'"),
        ({**good, "enc0_op1": "dw3"}, "no decisions enc0_op1"),
    ]
    for choices, message in wrong:
        with pytest.raises(ValueError, match=f"not choices of the AutoSegNet space: .*{message}"):
            from_choices(choices, {})
    with pytest.raises(ValueError, match="up_c2_skip1 missing; no decisions bridge_c0_in1"):
        from_choices(good, {"encoding": "binary"})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"encoding": "lstm"}, "encoding must be one of"),
        ({"cells": 0}, "cells must be a whole number"),
        ({"cells": 2.5}, "cells must be a whole number"),
        ({"extra": "se"}, "extra must be a list"),
        ({"extra": ["attention"]}, "extra must be a list"),
    ],
)
def test_grammar_out_of_range(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grammar.of(kwargs)


@pytest.mark.parametrize(
    ("size", "ratio", "n", "smallest", "layers"),
    [(32, 32, 1, 16, 4), (64, 32, 2, 16, 6), (160, 32, 3, 20, 8), (512, 32, 5, 16, 12), (512, 16, 4, 32, 10)],
)
def test_depth_rule_of_the_paper(size: int, ratio: int, n: int, smallest: int, layers: int) -> None:
    assert downsamplings(size, 16, ratio) == n
    assert size / 2**n == smallest >= max(16, size / ratio)
    shape = Shape(input_size=size, ratio=ratio)
    assert (shape.layers, shape.hdc_layers) == (layers, 1)
    assert Shape(input_size=size, ratio=ratio, n_hdc=0).layers == layers - 1


def test_depth_rule_elsewhere() -> None:
    assert [downsamplings(256, min_size, 32) for min_size in (1, 8, 16, 64, 128)] == [5, 5, 4, 2, 1]
    assert [downsamplings(256, 1, ratio) for ratio in (2, 3, 4, 8, 256)] == [1, 1, 2, 3, 8]
    assert downsamplings(63) == 1 and downsamplings(33) == 1


def test_fixed_depth() -> None:
    """The paper's Figure 6: five encoder layers at 512 px and ratio 16, of which the last cannot downsample."""
    assert (Shape(input_size=512, ratio=16, depth=5).layers, Shape(input_size=512, ratio=16, depth=5).hdc_layers) == (
        10,
        1,
    )
    assert [Shape(input_size=64, depth=depth).hdc_layers for depth in (2, 3, 5)] == [0, 1, 3]
    assert Shape(input_size=64, depth=5).layers == 2 + 3 + 1 + 2
    # max(0, D - n): found at 64 px with four encoder layers, built at 512 px with five down layers.
    assert [Shape(input_size=size, depth=4).hdc_layers for size in (32, 64, 160, 512)] == [3, 2, 1, 0]
    assert Shape(input_size=512, depth=1).layers == 2 * 5 + 1


def test_channels_double_up_to_the_limit() -> None:
    assert Shape(input_size=512, width=32).channels == (32, 64, 128, 256, 512, 1024)
    assert Shape(input_size=512, width=32, max_width=200).channels == (32, 64, 128, 200, 200, 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 31}, "input_size=31"),
        ({"input_size": 64.0}, "input_size must be a whole number"),
        ({"min_size": 0}, "min_size must be"),
        ({"ratio": 1}, "ratio=1"),
        ({"width": 0}, "width must be"),
        ({"width": 16, "max_width": 8}, "max_width must be"),
        ({"n_hdc": -1}, "n_hdc must be"),
        ({"depth": 0}, "depth must be None or at least 1, got 0"),
    ],
)
def test_shape_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shape(**options).layers  # noqa: B018


def test_transfer_of_long_skips() -> None:
    assert transfer([0, 1], 5) == [0, 1, 1, 1, 1]
    assert transfer([1, 0], 5) == [1, 0, 0, 0, 0]
    assert transfer([1, 0, 1, 1, 0], 2) == [1, 0]


@pytest.mark.parametrize("encoding", ["enas", "binary"])
def test_named_points_are_chains_with_all_skips(encoding: str) -> None:
    points = named_points(Grammar(encoding), 3)
    assert list(points) == ["sep3 chain, all skips", "residual sep3 chain, all skips", "residual hdc chain, all skips"]
    for genotype in points.values():
        assert genotype.skips == (1, 1, 1)
        assert len(set(genotype.layers)) == 1
        for layer in LAYERS:
            for cell, (first, second) in enumerate(genotype.sources(layer)):
                if encoding == "enas":
                    assert first == second == [1 + cell]
                else:
                    assert (first, second) == ([0], [1, 1 + cell] if cell else [1])
    assert set(points["residual hdc chain, all skips"].operations("up")) == {("hdc", "identity")}


def test_drawings() -> None:
    code = "down=[(0,2,1,3),(2,0,2,1),(1,0,0,0)] bridge=[(1,0,1,0),(2,3,2,3),(3,1,3,1)] "
    genotype = parse(code + "up=[(0,1,0,1),(1,2,1,2),(0,3,1,3)] skips=[1,0]", {})
    stack, down, bridge, up = draw_network(genotype, Shape(input_size=160))
    assert [node["id"] for node in stack["nodes"]] == [
        "stem", "down0", "down1", "down2", "hdc0", "bridge", "up2", "up1", "up0", "out",
    ]  # fmt: skip
    assert stack["title"] == "Network (8 layers)"
    assert stack["edges"][9:] == [["down2", "up2"]]  # skip1 is off, and so is the new, shallower pair
    assert [n["label"] for n in stack["nodes"] if n["id"] in ("stem", "down2", "bridge")] == [
        "stem, 48 channels",
        "down 1/4, C=64",
        "bridge 1/8, C=128",
    ]
    assert [edge for edge in down["edges"] if edge[1] == "out"] == [["add1", "out"], ["add2", "out"]]
    assert ["add0", "op1_0"] in down["edges"] and ["add0", "op1_1"] in down["edges"]
    assert [node["label"] for node in bridge["nodes"] if node["kind"] == "input"] == ["previous layer"]
    assert [edge[0] for edge in bridge["edges"] if edge[1] == "out"] == ["add2"]
    assert [edge[0] for edge in up["edges"] if edge[1] == "out"] == ["add0", "add1", "add2"]
    for drawing in (stack, down, bridge, up):
        assert {end for edge in drawing["edges"] for end in edge} == {node["id"] for node in drawing["nodes"]}


def stack_of(down: str, bridge: str, up: str, **options: int) -> tuple[list[str], set[tuple[str, str]]]:
    """Edges from layer to layer, in the order of the layers, and the other ones, of a network with all long skips."""
    code = f"down=[{down}] bridge=[{bridge}] up=[{up}] skips=[1,1]"
    stack = draw_network(parse(code, {"cells": 1}), Shape(**options))[0]
    lines = len(stack["nodes"]) - 1
    assert [end for _, end in stack["edges"][:lines]] == [node["id"] for node in stack["nodes"][1:]]
    return [start for start, _ in stack["edges"][:lines]], {(start, end) for start, end in stack["edges"][lines:]}


def test_drawing_of_layers_that_leave_the_previous_one_unread() -> None:
    both, before = "(0,0,1,0)", "(0,0,0,0)"
    chain = ["stem", "down0", "down1", "hdc0", "bridge", "up1", "up0"]
    skips = {("down1", "up1"), ("down0", "up0")}
    assert stack_of(both, both, both) == (chain, skips)
    assert stack_of(both, both, before) == ([*chain[:4], "hdc0", "bridge", "up0"], set())  # no skip is built
    assert stack_of(both, before, both) == ([*chain[:3], "down1", *chain[4:]], skips)
    assert stack_of(before, both, both) == (["stem", "stem", *chain[2:]], skips)
    assert stack_of(before, before, both, n_hdc=0) == (["stem", "stem", "down0", "bridge", "up1", "up0"], skips)


def test_drawing_of_the_binary_encoding() -> None:
    code = "down=[(0,1),(1,2,3),(1,1,0,0)] bridge=[(0,0),(0,0,0),(0,0,0,0)] up=[(3,3),(0,1,1),(0,0,2,2)] skips=[0]"
    _, down, bridge, _ = draw_network(parse(code, {"encoding": "binary"}), Shape(input_size=32))
    assert sorted(start for start, end in down["edges"] if end == "op2_1") == ["add0", "add1", "in1"]
    assert [edge[0] for edge in down["edges"] if edge[1] == "out"] == ["add2"]
    assert [edge[0] for edge in bridge["edges"] if edge[1] == "out"] == ["add0", "add1", "add2"]
