from __future__ import annotations

from autoseg.spaces.graph import draw_blocks


def test_graph_of_two_blocks_by_hand() -> None:
    """Block 0 reads input 1; block 1 reads block 0, and input 1 with block 0 added; input 0 has no reader."""
    blocks = [[([1], "a"), ([1], "b")], [([2], "c"), ([1, 2], "d")]]
    cell = draw_blocks("Cell", ["previous", "before"], blocks, word="block", output="concat")
    assert cell == {
        "title": "Cell",
        "nodes": [
            {"id": "in1", "label": "before", "kind": "input"},
            {"id": "op0_0", "label": "a", "kind": "op"},
            {"id": "op0_1", "label": "b", "kind": "op"},
            {"id": "add0", "label": "add (block 0)", "kind": "combine"},
            {"id": "op1_0", "label": "c", "kind": "op"},
            {"id": "op1_1", "label": "d", "kind": "op"},
            {"id": "add1", "label": "add (block 1)", "kind": "combine"},
            {"id": "out", "label": "concat", "kind": "output"},
        ],
        "edges": [
            ["in1", "op0_0"],
            ["op0_0", "add0"],
            ["in1", "op0_1"],
            ["op0_1", "add0"],
            ["add0", "op1_0"],
            ["op1_0", "add1"],
            ["in1", "op1_1"],
            ["add0", "op1_1"],
            ["op1_1", "add1"],
            ["add1", "out"],
        ],
    }


def test_blocks_that_nobody_reads_reach_the_output() -> None:
    cell = draw_blocks("Cell", ["x"], [[([0], "a")], [([0], "b")], [([1], "c")]], word="cell", output="join")
    assert [edge for edge in cell["edges"] if edge[1] == "out"] == [["add1", "out"], ["add2", "out"]]
    assert [node["label"] for node in cell["nodes"] if node["kind"] == "combine"] == [
        "add (cell 0)",
        "add (cell 1)",
        "add (cell 2)",
    ]
