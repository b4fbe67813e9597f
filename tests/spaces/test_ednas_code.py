from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from autoseg.spaces.ednas_code import (
    DECODERS,
    ED_NAS_N3,
    ED_NAS_N4,
    OPERATIONS,
    READINGS,
    Genotype,
    candidates,
    from_choices,
    labels,
    space_size,
    to_choices,
)
from autoseg.spaces.ednas_draw import draw_cells


def random_genotype(rng: random.Random, blocks: int, decoder: str, inputs: str) -> Genotype:
    def branches() -> tuple[Any, ...]:
        return tuple(
            (
                rng.randrange(candidates(b, inputs)),
                rng.randrange(candidates(b, inputs)),
                rng.randrange(len(OPERATIONS)),
                rng.randrange(len(OPERATIONS)),
            )
            for b in range(blocks)
        )

    chain = tuple((b, rng.randrange(len(OPERATIONS))) for b in range(blocks))
    return Genotype(branches(), chain if decoder == "chain" else branches(), inputs)


@pytest.mark.parametrize(
    ("blocks", "inputs", "encoder", "chain", "multi", "modulo"),
    [
        (3, "fig", 562_500, 70_312_500, 316_406_250_000, 99_000),
        (3, "enas", 9_000_000, 1_125_000_000, 81_000_000_000_000, 1_386_000),
        (4, "fig", 225_000_000, 140_625_000_000, 50_625_000_000_000_000, 20_790_000),
        (4, "enas", 5_625_000_000, 3_515_625_000_000, 31_640_625_000_000_000_000, 450_450_000),
    ],
)
def test_sizes(blocks: int, inputs: str, encoder: int, chain: int, multi: int, modulo: int) -> None:
    assert space_size(blocks, "chain", inputs) == chain
    assert space_size(blocks, "multi", inputs) == multi
    decoders = 5**blocks
    assert space_size(blocks, "chain", inputs) == encoder * decoders
    assert space_size(blocks, "multi", inputs) == encoder**2
    assert space_size(blocks, "chain", inputs, modulo_swap=True) == modulo * decoders
    assert space_size(blocks, "multi", inputs, modulo_swap=True) == modulo**2


def test_size_by_enumeration() -> None:
    """One block, counted one by one."""
    for inputs, sources in (("enas", 2), ("fig", 1)):
        blocks = [(i, j, p, q) for i in range(sources) for j in range(sources) for p in range(5) for q in range(5)]
        modulo = {frozenset([(i, p), (j, q)]) for i, j, p, q in blocks}
        assert space_size(1, "chain", inputs) == 5 * len(blocks)
        assert space_size(1, "chain", inputs, modulo_swap=True) == 5 * len(modulo)


@pytest.mark.parametrize("inputs", READINGS)
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_encode_decode_encode(blocks: int, decoder: str, inputs: str) -> None:
    rng = random.Random(7)
    seen = set()
    for _ in range(50):
        genotype = random_genotype(rng, blocks, decoder, inputs)
        choices = to_choices(genotype)
        back = from_choices(choices, inputs)
        assert back == genotype
        assert to_choices(back) == choices
        assert list(choices) == labels(blocks, decoder, inputs)
        assert (back.blocks, back.decoder_kind) == (blocks, decoder)
        seen.add(str(genotype))
    if blocks > 1:
        assert len(seen) == 50  # seeds rarely collide


@pytest.mark.parametrize(
    ("blocks", "decoder", "inputs", "count"),
    [
        (3, "chain", "enas", 15),
        (3, "chain", "fig", 13),
        (4, "chain", "enas", 20),
        (4, "chain", "fig", 18),
        (4, "multi", "enas", 32),
        (4, "multi", "fig", 28),
    ],
)
def test_number_of_decisions(blocks: int, decoder: str, inputs: str, count: int) -> None:
    assert len(labels(blocks, decoder, inputs)) == count


def test_candidates() -> None:
    assert [candidates(b, "fig") for b in range(4)] == [1, 2, 3, 4]
    assert [candidates(b, "enas") for b in range(4)] == [2, 3, 4, 5]
    with pytest.raises(ValueError, match="inputs must be one of"):
        candidates(0, "nasnet")


def test_choices_by_hand() -> None:
    genotype = Genotype(((0, 1, 2, 4), (2, 0, 3, 1)), ((0, 0), (1, 2)))
    assert str(genotype) == "E=[(0,1,2,4),(2,0,3,1)] D=[(0,0),(1,2)]"
    assert to_choices(genotype) == {
        "enc0_in1": [0],
        "enc0_in2": [1],
        "enc0_op1": "conv3",
        "enc0_op2": "pool3",
        "enc1_in1": [2],
        "enc1_in2": [0],
        "enc1_op1": "dil3",
        "enc1_op2": "dw5",
        "dec0_op1": "dw3",
        "dec1_op1": "conv3",
    }


GOOD = ((0, 1, 2, 4), (2, 0, 3, 1))


@pytest.mark.parametrize(
    ("encoder", "decoder", "inputs", "message"),
    [
        (((2, 0, 0, 0), GOOD[1]), ((0, 0), (1, 0)), "enas", r"E\[0\]: I1=2 is not in 0\.\.1"),
        ((GOOD[0], (0, 3, 0, 0)), ((0, 0), (1, 0)), "enas", r"E\[1\]: I2=3 is not in 0\.\.2"),
        ((GOOD[0], (0, 0, 5, 0)), ((0, 0), (1, 0)), "enas", r"E\[1\]: OP1=5 is not in 0\.\.4"),
        ((GOOD[0], (0, 0, 0, -1)), ((0, 0), (1, 0)), "enas", r"E\[1\]: OP2=-1 is not in 0\.\.4"),
        (((0, 1, 0, 0),), ((0, 0),), "fig", r"E\[0\]: I2=1 is not in 0\.\.0"),
        (((0, 0, 0, "1"),), ((0, 0),), "fig", r"E\[0\]: OP2='1' is not in 0\.\.4"),
        (((0, 0, 0),), ((0, 0),), "fig", r"E\[0\] has 3 codes, not 4"),
        (GOOD, ((0, 0), (0, 0)), "enas", r"D\[1\]: I1=0, but block 1 of a chain reads the block before it"),
        (GOOD, ((0, 0), (1, 7)), "enas", r"D\[1\]: OP1=7 is not in 0\.\.4"),
        (GOOD, (GOOD[0], (0, 4, 0, 0)), "enas", r"D\[1\]: I2=4 is not in 0\.\.2"),
        (GOOD, (GOOD[0], (0, 4)), "enas", r"D\[1\] has 2 codes, not 4"),
        (GOOD, ((0, 0),), "enas", r"E has 2 blocks and D has 1"),
        ((), (), "enas", r"E has no blocks"),
        (GOOD, ((0, 0), (1, 0)), "both", r"inputs must be one of"),
    ],
)
def test_what_is_out_of_range_is_named(encoder: Any, decoder: Any, inputs: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genotype(encoder, decoder, inputs)


def test_all_faults_at_once() -> None:
    with pytest.raises(ValueError) as caught:
        Genotype(((9, 0, 0, 8),), ((0, 5),))
    assert str(caught.value).count(";") == 2


def test_choices_that_are_not_of_the_space() -> None:
    good = to_choices(ED_NAS_N3)
    wrong: list[dict[str, Any]] = [
        {},
        {"op": "conv3"},
        {k: v for k, v in good.items() if k != "dec1_op1"},
        {k: v for k, v in good.items() if k != "enc1_in2"},  # a missing input is not silently the first one
        {**good, "enc1_op1": "conv7"},
        {**good, "enc1_in1": [9]},
        {**good, "enc1_in1": []},
        {**good, "enc1_in1": [0, 1]},
        {**good, "enc1_in1": 0},
        {**good, "enc1_in1": ["0"]},
        {**good, "dec3_op1": "dw3"},
        {**good, "width": 3},
    ]
    for choices in wrong:
        with pytest.raises(ValueError, match="not choices of the ED-NAS space"):
            from_choices(choices)
    with pytest.raises(ValueError, match="enc0_in1, enc0_in2"):
        from_choices(good, "fig")  # the other reading has no choice there


def test_unknown_decoder() -> None:
    with pytest.raises(ValueError, match="decoder must be one of"):
        space_size(3, "tree")


@pytest.mark.parametrize(
    ("genotype", "pairs", "encoder", "decoder"),
    [
        (ED_NAS_N3, [(1, 2), (0, 0), (1, 0)], {"dw5": 2, "conv3": 1, "dw3": 3}, ["dw3", "dw3", "conv3"]),
        (
            ED_NAS_N4,
            [(2, 0), (4, 3), (0, 0), (2, 2)],
            {"conv3": 3, "dw3": 3, "pool3": 1, "dil3": 1},
            ["dw3", "conv3", "dw3", "conv3"],
        ),
    ],
)
def test_published_cells(
    genotype: Genotype, pairs: list[tuple[int, int]], encoder: dict[str, int], decoder: list[str]
) -> None:
    assert [block[2:] for block in genotype.encoder] == pairs
    assert Counter(OPERATIONS[op] for pair in pairs for op in pair) == encoder
    assert [OPERATIONS[op] for _, op in genotype.decoder] == decoder
    # The wiring was lost: every block reads the previous cell twice, so that all blocks are loose.
    assert genotype.wiring == "assumed"
    assert {block[:2] for block in genotype.encoder} == {(0, 0)}
    assert genotype.inputs == "enas"
    assert genotype.source.startswith("ED-NAS, Figure 7")


def test_drawing_of_a_chain() -> None:
    encoder, decoder = draw_cells(ED_NAS_N3)
    assert [node["id"] for node in encoder["nodes"] if node["kind"] == "input"] == ["in0"]  # nobody reads in1
    assert [node["label"] for node in encoder["nodes"] if node["kind"] == "op"] == [
        "5x5 separable",
        "3x3 conv",
        "3x3 separable",
        "3x3 separable",
        "5x5 separable",
        "3x3 separable",
    ]
    assert [edge for edge in encoder["edges"] if edge[1] == "out"] == [
        ["add0", "out"],
        ["add1", "out"],
        ["add2", "out"],
    ]
    assert decoder["edges"] == [["in", "b0"], ["b0", "b1"], ["b1", "b2"], ["b2", "out"]]
    assert [node["label"] for node in decoder["nodes"]] == [
        "unpooled input",
        "3x3 separable",
        "3x3 separable",
        "3x3 conv",
        "output",
    ]


@pytest.mark.parametrize("inputs", READINGS)
def test_drawing_of_branches(inputs: str) -> None:
    first = 2 if inputs == "enas" else 1  # the code of block 0
    blocks = ((0, 0, 0, 1), (first, first - 1, 2, 3))  # block 1 reads block 0 and the last of the cells
    encoder, decoder = draw_cells(Genotype(blocks, blocks, inputs))
    assert (encoder["title"], decoder["title"]) == ("Encoder cell", "Decoder cell (multi-branch)")
    for cell in (encoder, decoder):
        known = {node["id"] for node in cell["nodes"]}
        assert {end for edge in cell["edges"] for end in edge} == known
        assert {node["id"] for node in cell["nodes"] if node["kind"] == "input"} == {f"in{i}" for i in range(first)}
        assert [edge for edge in cell["edges"] if edge[1] == "out"] == [["add1", "out"]]  # block 0 is not loose
        assert ["add0", "op1_0"] in cell["edges"]
        assert [f"in{first - 1}", "op1_1"] in cell["edges"]


def test_codes_of_extra_operations() -> None:
    genotype = Genotype(((0, 1, 5, 6), (2, 0, 4, 0)), ((0, 6), (1, 2)), extra=("se", "context"))
    assert str(genotype) == "E=[(0,1,5,6),(2,0,4,0)] D=[(0,6),(1,2)]"
    choices = to_choices(genotype)
    assert (choices["enc0_op1"], choices["enc0_op2"], choices["dec0_op1"]) == ("se", "context", "context")
    assert from_choices(choices, extra=["context", "se"]) == genotype
    assert [node["label"] for node in draw_cells(genotype)[1]["nodes"]][1:3] == ["global context", "3x3 conv"]
    with pytest.raises(
        ValueError, match=r"E\[0\]: OP1=5 is not in 0\.\.4; E\[0\]: OP2=6 is not in 0\.\.4; D\[0\]: OP1=6"
    ):
        from_choices(choices)
    with pytest.raises(ValueError, match=r"E\[0\]: OP1=5 is not in 0\.\.4, 6$"):
        from_choices(choices, extra=["context"])
    with pytest.raises(ValueError, match=r"E\[0\]: OP2=6 is not in 0\.\.5; D\[0\]: OP1=6 is not in 0\.\.5$"):
        from_choices(choices, extra=["se"])


def test_sizes_with_extra_operations() -> None:
    assert space_size(4, extra=["se", "context"]) == (120**2 * 49**4) * 7**4
    assert space_size(3, "multi", "fig", extra=["se"]) == (6**2 * 36**3) ** 2
