"""The section on the search: its cost, its curves, its operations, its candidates and the Pareto list."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_run import COSTS, OPERATIONS, make_journal_of_now, make_trials, make_uniform_supernet
from test_report_page import Page, cells, page

from autoseg.report.page import write_report
from autoseg.report.rundata import read_run
from autoseg.report.search_figures import histogram_figure, pareto_figure, search_figure, trials_figure
from autoseg.report.search_section import search_section

NOTE = "The search has not converged: it is still undecided (entropy 0.85 of 1)."


def as_ednas(run_dir: Path) -> None:
    """Make the architecture one of ED-NAS, which can be drawn."""
    from autoseg.spaces.ednas_code import ED_NAS_N4, to_choices

    content = json.loads((run_dir / "architecture.json").read_text())
    content |= {"space": "ednas", "kwargs": {"blocks": 4}, "choices": to_choices(ED_NAS_N4)}
    (run_dir / "architecture.json").write_text(json.dumps(content))


def height(svg: str, fill: str) -> float:
    """Of the last step of the area of one colour, in units of the picture."""
    path = re.search(rf'd="([^"]+)"[^>]*style="fill: {fill}', svg)[1]
    points = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
    right = [y for x, y in points if x == max(x for x, _ in points)]
    return max(right) - min(right)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_cost_and_notes_are_said(run_dir: Path) -> None:
    make_journal_of_now(run_dir)
    with (run_dir / "config.yaml").open("a") as stream:
        stream.write("strategy: {name: enas}\n")
    found = page(run_dir, None)
    text = " ".join(found.text.replace("\u00a0", " ").split())
    assert "The search with enas took 50 s (1 min 24 s of CPU time): 12 epochs, 7 candidates scored." in text
    assert found.text.count(NOTE) == 1
    assert "warnings" in found.classes


def test_curves_of_a_one_shot_search(run_dir: Path) -> None:
    make_journal_of_now(run_dir)
    found = texts(search_figure(read_run(run_dir).epochs))
    for title in ("Supernet loss", "Reward", "Entropy", "Argmax stability", "best candidate", "median"):
        assert found.count(title) == 1
    without_reward = [{"epoch": 0, "best": 0.5, "median": 0.4}, {"epoch": 1, "best": 0.6, "median": 0.5}]
    assert "Candidates" in texts(search_figure(without_reward)) and "Reward" not in texts(search_figure(without_reward))


def test_operations_have_the_colours_and_names_of_the_drawing(run_dir: Path) -> None:
    make_journal_of_now(run_dir)
    as_ednas(run_dir)
    html = write_report(run_dir, None).read_text()
    boxes = dict(re.findall(r'<title>([^<]+)</title><rect[^>]*fill="([^"]+)"', html))
    legend = re.findall(r'background:(#\w+);box-shadow:inset 0 0 0 1.5px (#\w+)"></span>([^<]+)<', html)
    assert [name for *_, name in legend] == [
        "3x3 conv", "3x3 dilated", "3x3 separable", "5x5 separable", "3x3 max pool",
    ]  # fmt: skip
    shared = [(fill, name) for fill, _, name in legend if name in boxes]
    assert len(shared) >= 3 and all(boxes[name] == fill for fill, name in shared)
    assert len({fill for fill, *_ in legend}) == 5


def test_the_histogram_stacks_shares_over_epochs() -> None:
    colors = {name: (f"#{i}{i}0000", f"#{i}{i}00ff") for i, name in enumerate(["A", "b"], 1)}
    lines = [{"epoch": 0, "histogram": {"a": 0.25, "b": 0.75}}, {"epoch": 1, "histogram": {"a": 1.0}}, {"epoch": 2}]
    svg = histogram_figure(lines, colors, {"a": "A"}, "epoch")
    heights = {}
    for color in ("#110000", "#220000"):
        path = re.search(rf'd="([^"]+)"[^>]*style="fill: {color}', svg)[1]
        ys = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
        heights[color] = max(ys) - min(ys)
    assert heights["#220000"] == pytest.approx(0.75 * heights["#110000"], rel=1e-3)
    assert histogram_figure([{"epoch": 0}], {}, {}, "epoch") == ""


def test_the_pareto_list(run_dir: Path) -> None:
    make_journal_of_now(run_dir)
    found = page(run_dir, None)
    head, *rows = (cells(row) for row in found.tables["pareto"])
    assert head == ["Validation mIoU %", "Parameters", "FLOPs", "Latency", "Architecture"]
    assert [row[:4] for row in rows] == [
        ["63.0", "4.80 M", "1.9 GFLOPs", "12.6 ms"],
        ["62.0", "2.60 M", "1.0 GFLOPs", "8.2 ms"],
        ["58.0", "1.40 M", "560.0 MFLOPs", "5.8 ms"],
        ["55.0", "900 k", "360.0 MFLOPs", "4.8 ms"],
    ]
    text = " ".join(found.text.replace("\u00a0", " ").split())
    assert "The mIoU is that with the shared weights of the supernet." in text
    assert "Limits: at most 5.00 M parameters." in text


def test_the_scatter_has_a_panel_for_each_cost_and_near_limits() -> None:
    lines = [{"miou": m, "params": 1e6 * p, "latency_ms": p, "flops": 1e9 * p, "pareto": False} for m, p in COSTS]
    found = texts(pareto_figure(lines, {}))
    assert "parameters, millions" in found and "latency, ms" in found and "GFLOPs" not in found
    assert "Pareto list" not in found and "limit" not in found
    assert "limit" in texts(pareto_figure(lines, {"max_params": 5e6}))
    assert "limit" not in texts(pareto_figure(lines, {"max_params": 5e7})), "far to the right of all candidates"
    assert "GFLOPs" in texts(pareto_figure(lines, {"max_flops": 5e9}))
    assert "latency, ms" not in texts(pareto_figure([{**line, "latency_ms": None} for line in lines], {}))
    assert pareto_figure(lines[:1], {}) == ""


def test_a_multi_trial_search(run_dir: Path) -> None:
    make_trials(run_dir)
    section = search_section(read_run(run_dir))
    assert section.curves == "" and section.pareto == "" and len(section.candidates) == 8
    assert "best so far" in texts(section.trials) and section.scored == "after a short training"
    assert [name for name, *_ in section.legend] == sorted(OPERATIONS)
    text = " ".join(page(run_dir, None).text.replace("\u00a0", " ").split())
    assert "The search took 2 min (3 min of CPU time): 20 candidates scored." in text
    assert "Candidates are scored after a short training" in text


@pytest.mark.parametrize("watched", [False, True])
def test_a_supernet_that_learns_nothing_shows_its_candidates(run_dir: Path, watched: bool) -> None:
    as_ednas(run_dir)
    make_uniform_supernet(run_dir, ["conv3", "conv3", "dw3", "dw3"], watched=watched)
    section = search_section(read_run(run_dir))
    assert texts(section.curves).count("Supernet loss") == 1
    assert texts(section.curves).count("Reward") == watched
    assert {"candidate", "best so far", "median so far"} <= set(texts(section.trials))
    assert "candidate" in texts(section.histogram) and "epoch" not in texts(section.histogram)
    fills = {name: fill for name, fill, _ in section.legend}
    assert list(fills) == ["3x3 conv", "3x3 separable"]
    assert height(section.histogram, fills["3x3 conv"]) == pytest.approx(
        height(section.histogram, fills["3x3 separable"]), rel=1e-3
    ), "two of four candidates each in the end"
    text = " ".join(page(run_dir, None).text.replace("\u00a0", " ").split())
    assert "operations of the candidates so far" in text and "most probable operation" not in text
    assert "Each candidate in turn, scored with the shared weights of the supernet." in text
    assert "Scores of the candidates" in text and "4 epochs, 4 candidates scored" in text


def test_the_space_of_a_search_that_is_not_finished_is_that_of_the_experiment(run_dir: Path) -> None:
    as_ednas(run_dir)
    make_uniform_supernet(run_dir, ["conv3", "dw3"])
    (run_dir / "architecture.json").unlink()
    config = (run_dir / "config.yaml").read_text()
    (run_dir / "config.yaml").write_text(config.replace("my-space", "ednas"))
    assert [name for name, *_ in search_section(read_run(run_dir)).legend] == ["3x3 conv", "3x3 separable"]


def fails(*args: object) -> None:
    raise RuntimeError("a plugin")


@pytest.mark.parametrize(
    ("space", "legend"),
    [
        (SimpleNamespace(is_operation=fails), []),
        (SimpleNamespace(operation_labels=3), ["conv3"]),
        (SimpleNamespace(operation_labels={"conv3": 3, "dw3": "x"}), ["3"]),
        (SimpleNamespace(is_operation=lambda label: label == "enc0_op1"), ["conv3"]),
        (None, []),
    ],
)
def test_whatever_a_space_does_the_candidates_are_shown(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, space: object, legend: list[str]
) -> None:
    as_ednas(run_dir)
    make_uniform_supernet(run_dir, ["conv3", "conv3"])
    monkeypatch.setattr("autoseg.registry.load", lambda kind, name: space if space else fails())
    section = search_section(read_run(run_dir))
    assert [name for name, *_ in section.legend] == legend
    assert bool(section.histogram) == bool(legend)
    assert "best so far" in texts(section.trials)


def test_candidates_that_broke_a_limit_are_not_counted_as_scored(run_dir: Path) -> None:
    journal = make_trials(run_dir, 4) / "search/journal.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rows[1]["miou"] = None
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert search_section(read_run(run_dir)).lead.endswith(": 3 candidates scored.")


def test_the_best_so_far_never_falls() -> None:
    svg = trials_figure([{"number": i, "miou": miou} for i, miou in enumerate([0.5, 0.3, None, 0.6])])
    line = next(d for d in re.findall(r'd="([^"]+)"[^>]*style="[^"]*stroke: #0072b2', svg) if d.count("L") >= 3)
    ys = [float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", line)]
    assert ys == sorted(ys, reverse=True) and len(set(ys)) == 2
    assert trials_figure([{"miou": None}]) == ""


@pytest.mark.parametrize("content", ["[]", '{"candidates": 3, "objective": 4}', '{"candidates": [{}]}', "{"])
def test_a_strange_pareto_list_is_left_out(run_dir: Path, content: str) -> None:
    (run_dir / "search/pareto.json").write_text(content)
    found = Page(write_report(run_dir, None).read_text())
    assert "pareto" not in found.tables and "candidates" in found.tables
    assert "Candidates by cost" not in found.text


@pytest.mark.parametrize(("notes", "shown"), [("one text", []), (None, []), (["a", 3], ["a", "3"])])
def test_only_a_list_of_notes_is_shown(run_dir: Path, notes: object, shown: list[str]) -> None:
    content = json.loads((run_dir / "architecture.json").read_text())
    (run_dir / "architecture.json").write_text(json.dumps(content | {"notes": notes}))
    assert search_section(read_run(run_dir)).notes == shown


def test_runs_from_before_still_have_their_report(run_dir: Path) -> None:
    found = page(run_dir, None)
    assert "Argmax stability" not in found.text and "Pareto" not in found.text and "Operations" not in found.text
    assert "warnings" not in found.classes
    text = " ".join(found.text.replace("\u00a0", " ").split())
    assert "The search took 48 s: 12 epochs, 3 candidates scored." in text


def test_the_trained_network_is_drawn_and_both_sets_of_options_are_said(run_dir: Path) -> None:
    from autoseg.spaces.autosegnet import AutoSegNet

    point = AutoSegNet.named({})["sep3 chain, all skips"]
    content = {"space": "autosegnet", "kwargs": {"input_size": 64, "width": 8}, "choices": point}
    path = run_dir / "architecture.json"
    path.write_text(json.dumps(content | {"final_kwargs": {"input_size": 512, "width": 8}}))
    text = " ".join(page(run_dir, None).text.split())
    assert "Network (12 layers)" in text and "Network (6 layers)" not in text
    assert (
        "Space autosegnet, searched with input_size 64, width 8; trained with input_size 512, otherwise the same."
        in text
    )
    for final in ({}, {"width": 8}, None, [3]):
        path.write_text(json.dumps(content | {"final_kwargs": final}))
        section = search_section(read_run(run_dir))
        assert section.space == "Space autosegnet, input_size 64, width 8."
        assert ("Network (6 layers)" in section.cells) == (final != [3])


@pytest.mark.parametrize(
    ("damage", "shown"),
    [
        ({"interval": [None, 0.5]}, "Kendall's tau 0.41; regret"),
        ({"interval": ["a", "b"]}, "Kendall's tau 0.41; regret"),
        ({"interval": [0.1, 0.7, 0.8]}, "Kendall's tau 0.41; regret"),
        ({"interval": 7}, "Kendall's tau 0.41; regret"),
        ({"interval": [0.1, 0.7]}, "Kendall's tau 0.41 (95 % interval 0.10 to 0.70); regret"),
        ({"tau": None}, "better than chance; regret of its favourite 1.2 points, of a random pick 3.4."),
        ({"tau": [1], "regret": {}, "text": 3}, "Audit of the ranking 3."),
    ],
)
def test_a_damaged_audit_never_breaks_the_report(run_dir: Path, damage: dict[str, object], shown: str) -> None:
    audit = {
        "text": "It ranks better than chance.", "tau": 0.41, "interval": [0.1, 0.7],
        "regret": 0.012, "random_regret": 0.034,
    }  # fmt: skip
    (run_dir / "audit/audit.png").mkdir(parents=True)
    (run_dir / "audit/audit.json").write_text(json.dumps(audit | damage))
    assert shown in " ".join(page(run_dir, None).text.replace("\u00a0", " ").split())
