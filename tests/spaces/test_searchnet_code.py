from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from autoseg.nn.ops import EXTRA_OPERATIONS, search_net_operations
from autoseg.spaces.extras import EXTRA_LABELS, EXTRAS, check_extra
from autoseg.spaces.searchnet import SearchNet
from autoseg.spaces.searchnet_code import (
    OPERATIONS,
    UNITS,
    Genotype,
    best_pair,
    derive,
    from_choices,
    pairs,
    parse,
    space_size,
    to_choices,
    values,
)
from autoseg.spaces.searchnet_draw import LABELS, draw_cells
from autoseg.spaces.searchnet_named import UNET_OPTIONS, named_points


def draw(rng: random.Random, nodes: int, extra: tuple[str, ...] = ()) -> dict[str, str]:
    return {label: rng.choice(options) for label, options in values(nodes, extra).items()}


def test_names_are_those_of_the_modules() -> None:
    assert tuple(search_net_operations()) == OPERATIONS
    assert tuple(EXTRA_OPERATIONS) == EXTRAS == tuple(EXTRA_LABELS)
    assert set(LABELS) == set(OPERATIONS + EXTRAS)
    assert UNITS == ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")


@pytest.mark.parametrize(
    ("nodes", "unit", "whole"),
    [
        (1, 7, 5_764_801),
        (2, 343, 191_581_231_380_566_414_401),
        (3, 50_421, 50_421**8),
        (4, 14_823_774, 14_823_774**8),
    ],
)
def test_sizes_of_the_paper_s_space(nodes: int, unit: int, whole: int) -> None:
    assert space_size(nodes) == whole == unit**8
    assert f"{space_size(nodes):.3e}" == {1: "5.765e+06", 2: "1.916e+20", 3: "4.177e+37", 4: "2.332e+57"}[nodes]


def test_size_by_enumeration() -> None:
    """All choices of one unit with three nodes, counted by the edges that they keep."""
    found = set()
    for first, second, third, *others in itertools.product(range(7), repeat=5):
        for kept in pairs(3).values():
            found.add((first, second, third, kept, *others))  # the edge that is not kept adds nothing
    assert len(found) == 50_421
    assert space_size(3) == len(found) ** 8


def test_sizes_with_extra_operations() -> None:
    assert space_size(1, ["se"]) == 8**8
    assert space_size(1, ["se", "context"]) == 9**8
    assert space_size(3, ["context", "se"]) == (9 * 81 * 3 * 81) ** 8


@pytest.mark.parametrize(("nodes", "edges", "choices_of_pairs"), [(1, 1, 0), (2, 3, 0), (3, 6, 1), (4, 10, 2)])
def test_decisions(nodes: int, edges: int, choices_of_pairs: int) -> None:
    found = values(nodes)
    operations = {label for label in found if not label.endswith("_in")}
    assert len(operations) == 8 * edges
    assert len(found) - len(operations) == 8 * choices_of_pairs
    assert all(found[label] == list(OPERATIONS) for label in operations)


def test_pairs_of_a_node() -> None:
    assert list(values(4)["c5_4_in"]) == ["0+1", "0+2", "0+3", "1+2", "1+3", "2+3"]
    assert pairs(4)["1+3"] == (1, 3)
    assert pairs(1) == pairs(2) == {}


@pytest.mark.parametrize("extra", [(), EXTRAS])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_choices_to_tuples_and_back(nodes: int, extra: tuple[str, ...]) -> None:
    rng, seen = random.Random(nodes), set()
    for _ in range(20):
        choices = draw(rng, nodes, extra)
        genotype = from_choices(choices, nodes, extra)
        back = to_choices(genotype)
        assert from_choices(back, nodes, extra) == genotype
        assert list(back) == sorted(values(nodes, extra))
        different = {label for label in choices if choices[label] != back[label]}
        kept = {
            f"{u}_{source}_{node}" for u, edges in zip(UNITS, genotype.units, strict=True) for node, source, _ in edges
        }
        assert not different & kept  # only what the network has not may differ
        assert not any(label.endswith("_in") for label in different)
        assert len(kept) == 8 * sum(min(2, node) for node in range(1, nodes + 1))
        seen.add(str(genotype))
    assert len(seen) == 20


def test_notation() -> None:
    choices = dict.fromkeys(values(2), "conv3") | {"c1_0_2": "mb5", "c1_1_2": "identity", "c8_0_1": "dil5"}
    code = str(from_choices(choices, 2))
    assert code.startswith("C1[in>1 conv3; in>2 mb5; 1>2 identity] C2[in>1 conv3; in>2 conv3; 1>2 conv3] C3[")
    assert code.endswith(" C8[in>1 dil5; in>2 conv3; 1>2 conv3]")
    choices = {label: options[0] for label, options in values(3).items()} | {"c2_3_in": "1+2", "c2_2_3": "mb3"}
    assert str(from_choices(choices, 3)).split("] ")[1].endswith("; 1>3 conv3; 2>3 mb3")
    assert SearchNet.code(choices, {"nodes": 3, "width": 64}) == str(from_choices(choices, 3))


@pytest.mark.parametrize("extra", [(), EXTRAS])
@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_notation_to_choices_and_back(nodes: int, extra: tuple[str, ...]) -> None:
    rng, seen = random.Random(nodes), set()
    kwargs = {"nodes": nodes, "extra": list(extra), "width": 3}
    for _ in range(20):
        choices = draw(rng, nodes, extra)
        code = SearchNet.code(choices, kwargs)
        back = parse(code, kwargs)
        assert SearchNet.code(back, kwargs) == code
        assert list(back) == sorted(choices)
        assert parse(SearchNet.code(back, kwargs), kwargs) == back
        different = [label for label in choices if choices[label] != back[label]]
        if nodes < 3:
            assert not different
        for label in different:  # only operations on edges that are not kept, and these become the first
            unit, source, node = label.split("_")
            assert source not in choices[f"{unit}_{node}_in"].split("+")
            assert back[label] == "conv3"
        seen.add(code)
    assert len(seen) == 20


def test_parsing_by_hand() -> None:
    first = "C1[in>1 mb5; in>2 dil3; 1>2 identity; 1>3 conv5; 2>3 mb3]"
    rest = " ".join(f"C{i}[2>3 mb3; in>1 mb5; 1>2 dil5; in>2 dil3;   in>3 se]" for i in range(2, 9))
    choices = parse(f"  {first}\n{rest} ", {"nodes": 3, "extra": ["se"]})
    assert {label: value for label, value in choices.items() if label.startswith("c1")} == {
        "c1_0_1": "mb5", "c1_0_2": "dil3", "c1_1_2": "identity",
        "c1_0_3": "conv3", "c1_1_3": "conv5", "c1_2_3": "mb3", "c1_3_in": "1+2",
    }  # fmt: skip
    assert (choices["c8_3_in"], choices["c8_0_3"], choices["c8_1_3"], choices["c8_2_3"]) == (
        "0+2", "se", "conv3", "mb3",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "kwargs", "message"),
    [
        ("in>1 conv3", {}, r"nodes=2: c1_0_2 is missing"),
        ("in>1 conv3; in>2 conv3; 1>2 mb3", {"nodes": 1}, r"nodes=1: there is a node 2$"),
        ("in>1 conv3; in>99999999999 mb3", {}, r"nodes=2: there is a node 99999999999$"),
        ("in>1 conv3; in>2 se; 1>2 mb3", {}, r"c1_0_2='se'"),
        ("in>1 conv3; in>2 pool; 1>2 mb3", {"extra": ["se"]}, r"c1_0_2='pool'"),
        ("in>1 conv3; in>2 mb3", {}, "keep all their edges"),
        ("in>1 conv3; in>2 mb3; 1>2 mb3; 1>2 mb5", {}, "keep all their edges"),
        ("in>1 conv3; in>2 mb3; 1>2 mb3; 2>1 mb3", {}, "keep all their edges"),
        ("in>1 conv3; in>2 mb3; 1>2 mb3; in>3 mb3; 1>3 mb3; 2>3 mb3", {"nodes": 3}, r"c1_3_in='0\+1\+2'"),
        ("in>1 conv3; in>2 mb3; 1>2 mb3; in>3 mb3", {"nodes": 3}, "c1_3_in='0'"),
        ("in>1", {}, "a SEARCH-Net code is"),
        ("0>1 conv3", {}, "a SEARCH-Net code is"),
        ("", {}, "a SEARCH-Net code is"),
    ],
)
def test_texts_that_are_no_code(unit: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(" ".join(f"C{i}[{unit}]" for i in range(1, 9)), kwargs)


def test_texts_of_other_spaces_are_no_code() -> None:
    for code in ("", "E=[(0,0,0,0)] D=[(0,0)]", " ".join(f"C{i}[in>1 conv3]" for i in (1, 2, 3, 4, 5, 6, 8, 7))):
        with pytest.raises(ValueError, match="a SEARCH-Net code is"):
            parse(code, {"nodes": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c1_0_1": None}, r"nodes=3: c1_0_1 is missing$"),
        ({"c9_0_1": "conv3"}, r"nodes=3: c9_0_1 is unknown$"),
        ({"c1_0_1": "pool3"}, r"nodes=3: c1_0_1='pool3'$"),
        ({"c1_0_1": "se"}, r"c1_0_1='se'$"),
        ({"c1_0_1": ["conv3"]}, r"c1_0_1=\['conv3'\]$"),
        ({"c4_3_in": "1+0"}, r"c4_3_in='1\+0'$"),
        ({f"c{i}_0_1": "x" for i in range(1, 9)}, r"c1_0_1='x', c2_0_1='x', c3_0_1='x' and 5 more$"),
    ],
)
def test_choices_of_another_space(change: dict[str, Any], message: str) -> None:
    choices = {label: options[0] for label, options in values(3).items()} | change
    choices = {label: value for label, value in choices.items() if value is not None}
    for call in (SearchNet.code, SearchNet.cells):
        with pytest.raises(ValueError, match=message):
            call(choices, {"nodes": 3})


def test_tuples_that_are_no_unit() -> None:
    good = ((1, 0, "conv3"), (2, 0, "conv3"), (2, 1, "mb3"), (3, 0, "mb3"), (3, 2, "dil3"))
    assert from_choices(to_choices(Genotype((good,) * 8)), 3).units == (good,) * 8
    for bad in (good[:2], good[:-1], (*good[:-1], (3, 2, "pool")), (good[1], good[0], *good[2:])):
        with pytest.raises(ValueError):
            to_choices(Genotype((bad,) * 8))


@pytest.mark.parametrize(
    ("strengths", "pair"), [([0.3, 0.2, 0.5], "0+2"), ([0.2, 0.2, 0.2], "0+1"), ([0.1, 0.2, 0.9, 0.8], "2+3")]
)
def test_the_two_strongest_edges(strengths: list[float], pair: str) -> None:
    assert best_pair(strengths) == pair


def test_derivation_by_hand() -> None:
    """Node 3 of every unit hears 0 faintly, but C6 hears 1 faintly; the best operation counts, not the sum."""
    uniform = dict.fromkeys(OPERATIONS, 1 / 7)
    probabilities = {label: dict(uniform) for label in values(3) if not label.endswith("_in")}
    for unit in UNITS:
        faint = 1 if unit == "c6" else 0
        for source in range(3):
            best = 0.3 if source == faint else 0.5 + 0.1 * source
            probabilities[f"{unit}_{source}_3"] = dict.fromkeys(OPERATIONS, (1 - best) / 6) | {"mb5": best}
    argmax = {label: max(row, key=row.__getitem__) for label, row in probabilities.items()}
    found = SearchNet.derive(argmax, probabilities, {"nodes": 3})
    assert set(found) == set(values(3))
    assert {unit: found[f"{unit}_3_in"] for unit in UNITS} == dict.fromkeys(UNITS, "1+2") | {"c6": "0+2"}
    assert {label: found[label] for label in argmax} == argmax
    # A choice that is there already is replaced.
    assert SearchNet.derive(found | {"c1_3_in": "0+1"}, probabilities, {"nodes": 3}) == found
    del probabilities["c2_1_3"]
    with pytest.raises(ValueError, match="no probabilities for c2_1_3"):
        derive(argmax, probabilities, 3)


def test_derivation_keeps_everything_up_to_two_nodes() -> None:
    choices = draw(random.Random(1), 2)
    assert derive(choices, {}, 2) == choices
    with pytest.raises(ValueError, match="are not choices of the SEARCH-Net space with nodes=1"):
        derive(choices, {}, 1)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
def test_hand_made_points(nodes: int) -> None:
    points = named_points(nodes, is_unet=False)
    assert list(points) == ["unet-like", "all-conv3"]
    assert {op for edges in from_choices(points["all-conv3"], nodes).units for *_, op in edges} == {"conv3"}
    for unit, edges in zip(UNITS, from_choices(points["unet-like"], nodes).units, strict=True):
        chain = {op for node, source, op in edges if source == node - 1}
        beside = {op for node, source, op in edges if source != node - 1}
        assert chain == {"identity" if unit == "c5" else "conv3"}
        assert beside <= {"identity"}


def test_when_the_u_net_itself_is_in_the_space() -> None:
    assert list(SearchNet.named(UNET_OPTIONS)) == ["unet", "all-conv3"]
    assert next(iter(SearchNet.named({"nodes": 1, "calibration": 3, "up": "transposed", "extra": ["se"]}))) == "unet"
    for change in ({"nodes": 2}, {"calibration": 1}, {"up": "bilinear"}, {"c4c5_skip": True}):
        assert next(iter(SearchNet.named({**UNET_OPTIONS, **change}))) == "unet-like"
    assert next(iter(SearchNet.named({}))) == "unet-like"


def test_drawing() -> None:
    choices = {label: options[0] for label, options in values(3).items()}
    choices |= {"c2_3_in": "0+2", "c2_0_1": "mb3", "c2_2_3": "identity"}
    cells = draw_cells(from_choices(choices, 3))
    assert [cell["title"] for cell in cells[:3]] == ["Network", "C1 (full size)", "C2 (1/2)"]
    assert len(cells) == 9
    unit = cells[2]
    labels = {node["id"]: node["label"] for node in unit["nodes"]}
    assert sum(node["kind"] == "op" for node in unit["nodes"]) == 5  # one, two and two edges
    assert (labels["e0_1"], labels["e2_3"]) == ("3x3 SE-MBConv", "identity")
    assert "e1_3" not in labels
    # Node 1 has one edge and no sum; node 3 sums the input and node 2; all three nodes are joined.
    assert ["e0_1", "e1_2"] in unit["edges"]
    assert {tuple(edge) for edge in unit["edges"] if edge[1] == "n3"} == {("e0_3", "n3"), ("e2_3", "n3")}
    assert {edge[0] for edge in unit["edges"] if edge[1] == "out"} == {"e0_1", "n2", "n3"}
    for cell in cells:
        ids = [node["id"] for node in cell["nodes"]]
        assert len(set(ids)) == len(ids)
        assert {end for edge in cell["edges"] for end in edge} == set(ids)


def test_drawing_of_the_network() -> None:
    network = draw_cells(from_choices(dict.fromkeys(values(1), "conv3"), 1))[0]
    assert len(network["edges"]) == 9 + 3
    assert {tuple(edge) for edge in network["edges"]} >= {("c1", "c8"), ("c2", "c7"), ("c3", "c6"), ("c4", "c5")}


def test_drawing_of_the_skip_from_c4_to_c5() -> None:
    choices = dict.fromkeys(values(1), "conv3")
    plain, skip = (SearchNet.cells(choices, {"nodes": 1, "c4c5_skip": on}) for on in (False, True))
    assert plain == SearchNet.cells(choices, {"nodes": 1})
    assert plain[1:] == skip[1:]
    added = [node for node in skip[0]["nodes"] if node not in plain[0]["nodes"]]
    assert added == [{"id": "c4in", "label": "input of C4 (1/8)", "kind": "combine"}]
    edges = [{tuple(edge) for edge in cells[0]["edges"]} for cells in (plain, skip)]
    assert edges[1] - edges[0] == {("c3", "c4in"), ("c4in", "c4"), ("c4in", "c5")}
    assert edges[0] - edges[1] == {("c3", "c4")}


def test_value_of_the_option_extra() -> None:
    assert check_extra([]) == check_extra(()) == ()
    assert check_extra(["context", "se", "se"]) == EXTRAS
    for wrong in ("se", {"se": True}, ["se", "pool"], [1], None):
        with pytest.raises(ValueError, match=r"extra must be a list of \('se', 'context'\)"):
            check_extra(wrong)  # type: ignore[arg-type]
