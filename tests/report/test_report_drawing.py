"""Drawings of cells: complete, without overlaps, and refused when they make no sense."""

from __future__ import annotations

import random
import re
from itertools import combinations, pairwise

import pytest

from autoseg.report.drawing import cell_colors, draw_cells
from autoseg.report.folded import fold
from autoseg.report.layout import GAP, Layout, spread

BLOCKS = (("q", "p", "conv", "dw"), ("p", "b0", "pool", "dil"), ("b0", "q", "dw", "dw"), ("b1", "b1", "conv", "conv"))


def encoder(title: str = "E") -> dict[str, object]:
    """A cell of four blocks with two inputs, as ED-NAS has it."""
    nodes = [{"id": i, "label": f"cell {i}", "kind": "input"} for i in "pq"]
    edges = []
    for b, (in1, in2, op1, op2) in enumerate(BLOCKS):
        for k, (source, op) in enumerate(((in1, op1), (in2, op2))):
            nodes.append({"id": f"o{b}{k}", "label": op, "kind": "op"})
            edges += [[source, f"o{b}{k}"], [f"o{b}{k}", f"b{b}"]]
        nodes.append({"id": f"b{b}", "label": "add", "kind": "combine"})
    nodes.append({"id": "out", "label": "concat", "kind": "output"})
    edges += [["b2", "out"], ["b3", "out"]]
    return {"title": title, "nodes": nodes, "edges": edges}


def random_cell(seed: int, count: int = 14) -> dict[str, object]:
    rng = random.Random(seed)
    nodes = [
        {"id": f"n{i}", "label": "x" * rng.randint(1, 30), "kind": rng.choice(["op", "combine"])} for i in range(count)
    ]
    edges = [
        [f"n{j}", f"n{i}"] for i in range(1, count) for j in sorted(rng.sample(range(i), min(i, rng.randint(1, 3))))
    ]
    return {"title": f"cell {seed}", "nodes": nodes, "edges": edges}


def boxes(svg: str) -> list[tuple[str, float, float, float, float]]:
    pattern = r'data-node="([^"]+)"><title>[^<]*</title><rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"'
    return [(n, float(x), float(y), float(w), float(h)) for n, x, y, w, h in re.findall(pattern, svg)]


@pytest.mark.parametrize("cell", [encoder(), *(random_cell(seed) for seed in range(8))])
def test_every_node_and_edge_once_and_no_overlap(cell: dict[str, object]) -> None:
    svg = draw_cells([cell])
    found = boxes(svg)
    assert sorted(b[0] for b in found) == sorted(node["id"] for node in cell["nodes"])
    lines = re.findall(r'class="edge" data-from="([^"]+)" data-to="([^"]+)"', svg)
    assert sorted(map(list, lines)) == sorted(cell["edges"])
    width, height = (float(v) for v in re.search(r'class="panel" width="(\S+)" height="(\S+)"', svg).groups())
    for (_, ax, ay, aw, ah), (_, bx, by, bw, bh) in combinations(found, 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    for _, x, y, w, h in found:
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


@pytest.mark.parametrize("cell", [encoder(), *(random_cell(seed) for seed in range(8))])
def test_edges_go_down_and_keep_clear_of_boxes(cell: dict[str, object]) -> None:
    svg = draw_cells([cell])
    found = {name: (x, y, w, h) for name, x, y, w, h in boxes(svg)}
    for start, end, path in re.findall(r'data-from="([^"]+)" data-to="([^"]+)" d="([^"]+)"', svg):
        assert found[start][1] < found[end][1]
        numbers = [float(v) for v in re.findall(r"-?[\d.]+", path)]
        knots = [(numbers[0], numbers[1])]
        for i in range(2, len(numbers), 6):
            (x0, y0), (x1, y1, x2, y2, x3, y3) = knots[-1], numbers[i : i + 6]
            for t in (k / 20 for k in range(1, 21)):
                a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
                px, py = a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
                for name, (x, y, w, h) in found.items():
                    inside = x < px < x + w and y < py < y + h
                    assert not inside or name in (start, end), f"{start} -> {end} runs through {name}"
            knots.append((x3, y3))


def test_a_cell_that_can_be_drawn_without_crossings_is() -> None:
    cell = encoder()
    widths = {node["id"]: 60.0 for node in cell["nodes"]}
    operations = frozenset(node["id"] for node in cell["nodes"] if node["kind"] == "op")
    layout = Layout(widths, [tuple(edge) for edge in cell["edges"]], operations)
    assert layout._crossings() == 0
    assert layout.layer["o10"] == layout.layer["b1"] - 1


def test_a_chain_runs_from_left_to_right() -> None:
    names = [f"n{i}" for i in range(5)]
    nodes = [{"id": n, "label": "conv 3x3", "kind": "op"} for n in reversed(names)]
    found = boxes(draw_cells([{"title": "D", "nodes": nodes, "edges": [list(p) for p in pairwise(names)]}]))
    assert [name for name, *_ in sorted(found, key=lambda b: b[1])] == names
    assert len({y for _, _, y, _, _ in found}) == 1


def test_same_operation_same_colour_in_all_cells() -> None:
    svg = draw_cells([encoder("one"), encoder("two")])
    fills: dict[str, set[str]] = {}
    for label, fill in re.findall(r'<title>([^<]+)</title><rect[^>]*fill="([^"]+)"', svg):
        fills.setdefault(label, set()).add(fill)
    assert all(len(values) == 1 for values in fills.values())
    assert len({next(iter(fills[label])) for label in ("conv", "dw", "dil", "pool")}) == 4


def test_labels_are_escaped_and_long_ones_cut_with_the_full_text_at_hand() -> None:
    label = "<b>" + "w" * 60
    svg = draw_cells([{"title": "<i>", "nodes": [{"id": 'a"', "label": label, "kind": "op"}], "edges": []}])
    assert "<b>" not in svg and "<i>" not in svg and 'data-node="a&#34;"' in svg
    assert f"<title>&lt;b&gt;{'w' * 60}</title>" in svg and "…</text>" in svg


def test_cycles_and_unknown_nodes_are_refused() -> None:
    nodes = [{"id": i, "label": i, "kind": "op"} for i in "ab"]
    with pytest.raises(ValueError, match="cycle"):
        draw_cells([{"title": "", "nodes": nodes, "edges": [["a", "b"], ["b", "a"]]}])
    with pytest.raises(ValueError, match="unknown node 'c'"):
        draw_cells([{"title": "", "nodes": nodes, "edges": [["a", "c"]]}])


def test_spread_keeps_free_boxes_and_parts_close_ones() -> None:
    assert spread([0.0, 200.0], [1.0, 1.0], [50.0, 50.0]) == [0.0, 200.0]
    left, right = spread([10.0, 0.0], [3.0, 1.0], [50.0, 30.0])
    assert right - left == pytest.approx(40 + GAP)
    assert 3 * left + right == pytest.approx(3 * 10.0)


def overview(depth: int, skips: list[int], bottom: int = 2) -> dict[str, object]:
    """An encoder-decoder of ``depth`` layers down and up, with long skips at some of them."""
    names = [*(f"down {i}" for i in range(depth)), *(f"mid {i}" for i in range(bottom))]
    names += [f"up {i}" for i in reversed(range(depth))]
    nodes = [{"id": n, "label": n, "kind": "op"} for n in names]
    nodes = [{"id": "in", "label": "image", "kind": "input"}, *nodes, {"id": "out", "label": "head", "kind": "output"}]
    edges = [[a["id"], b["id"]] for a, b in pairwise(nodes)] + [[f"down {i}", f"up {i}"] for i in skips]
    return {"title": "Network", "nodes": nodes, "edges": edges}


@pytest.mark.parametrize(("depth", "skips", "bottom"), [(4, [0, 1, 2, 3], 2), (4, [2], 1), (5, [0, 4], 3), (6, [], 2)])
def test_an_encoder_decoder_is_a_u_with_level_skips(depth: int, skips: list[int], bottom: int) -> None:
    cell = overview(depth, skips, bottom)
    svg = draw_cells([cell])
    found = {name: (x + w / 2, y, w) for name, x, y, w, _ in boxes(svg)}
    assert sorted(found) == sorted(str(node["id"]) for node in cell["nodes"])
    lines = re.findall(r'class="edge" data-from="([^"]+)" data-to="([^"]+)" d="([^"]+)"', svg)
    assert sorted([a, b] for a, b, _ in lines) == sorted(cell["edges"])
    for level in range(depth):
        down, up = found[f"down {level}"], found[f"up {level}"]
        assert down[0] < up[0]
        assert down[1] == up[1] or level not in skips
        if level:
            assert down[1] > found[f"down {level - 1}"][1] and up[1] > found[f"up {level - 1}"][1]
            assert down[0] == found["down 0"][0] and up[0] == found["up 0"][0]
    for (_, ax, ay, aw, ah), (_, bx, by, bw, bh) in combinations(boxes(svg), 2):
        assert ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
    for level in skips:
        path = next(d for a, b, d in lines if (a, b) == (f"down {level}", f"up {level}"))
        (x0, y0), (x1, y1) = re.findall(r"([-\d.]+) ([-\d.]+)", path)
        assert y0 == y1 and float(x0) < float(x1)


def test_what_is_no_u_is_not_folded() -> None:
    path = [(f"n{i}", f"n{i + 1}") for i in range(7)]
    nodes = [f"n{i}" for i in range(8)]
    assert fold(nodes, [*path, ("n0", "n7"), ("n1", "n5")]) is not None
    assert fold(nodes, [*path, ("n0", "n3"), ("n4", "n7")]) is None, "skips side by side"
    assert fold(nodes, [*path, ("n0", "n5"), ("n2", "n7")]) is None, "skips that cross"
    assert fold([*nodes, "m"], [*path, ("n0", "m"), ("m", "n7")]) is None, "a branch"


def test_layers_of_an_overview_share_the_colour_of_their_kind_and_not_that_of_an_operation() -> None:
    cells = [overview(4, [0]), encoder()]
    colors = cell_colors(cells)
    assert list(colors) == ["conv", "dil", "dw", "pool", "down", "mid", "up"]
    assert len(set(colors.values())) == 7
    fills = dict(re.findall(r'<title>([^<]+)</title><rect[^>]*fill="([^"]+)"', draw_cells(cells)))
    assert fills["down 0"] == fills["down 3"] == colors["down"][0] != fills["up 3"] == colors["up"][0]
    assert fills["conv"] == colors["conv"][0] and fills["image"] == "#eceff3"


def test_panels_of_a_full_row_are_equally_high_and_end_together() -> None:
    svg = draw_cells([overview(4, [0, 1]), encoder("one"), encoder("two"), overview(4, [1])])
    sizes = [(float(w), float(h)) for w, h in re.findall(r'class="panel" width="(\S+)" height="(\S+)"', svg)]
    lefts = [tuple(map(float, place)) for place in re.findall(r'translate\((\S+) (\S+)\)"><rect class="panel"', svg)]
    rows = {top: [(x + w, h) for (x, y), (w, h) in zip(lefts, sizes, strict=True) if y == top] for _, top in lefts}
    assert len(rows) > 1
    for row in rows.values():
        assert len({height for _, height in row}) == 1
    total = float(re.search(r'viewBox="-1 -1 (\S+)', svg)[1])
    assert max(end for row in rows.values() for end, _ in row) <= total
