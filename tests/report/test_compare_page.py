"""The page of a comparison: its tables and figures hold the numbers, and it needs no other file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from finished_runs import write_run

from autoseg.compare_runs import ComparedRuns, compare_runs
from autoseg.errors import UserError
from autoseg.ranks import rank
from autoseg.report.compare_figures import rank_figure
from autoseg.report.compare_page import render_comparison, write_comparison


@pytest.fixture
def compared(tmp_path: Path) -> ComparedRuns:
    """Four data sets; enet is missing on the last one."""
    runs = []
    for number, name in enumerate(("tem", "pets", "camvid", "<steel>")):
        scores = {"searched": 0.812, "unet": 0.7, "random": 0.6} | ({"enet": 0.65} if number < 3 else {})
        runs.append(write_run(tmp_path / f"run{number}", name, scores, recipe={"epochs": 5 if number == 2 else 20}))
    return compare_runs(runs)


def test_the_page_holds_scores_ranks_and_warnings(compared: ComparedRuns) -> None:
    page = render_comparison(compared)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "4 models on 4 data sets" in text and "&lt;steel&gt;" in page and "<steel>" not in page
    assert "searched has the best mean rank: 1.00 of 3 over 4 data sets." in text
    assert "Friedman test: chi-squared 8.00 with 2 degrees of freedom, p = 0.018" in text
    assert '<span class="best">81.2</span><span class="note">79.2–82.2</span><span class="note">rank 1</span>' in page
    assert "enet has no score on &lt;steel&gt;" in text
    assert page.count("<td>n/a") == 3 + 4  # no rank, score and mean of one; no FLOPs of any
    assert "Not comparable across data sets" in text and "5 in run2, 20 in the others" in text
    assert page.count('class="text differs"') == 2 * 4  # the epochs and the data of the four runs
    assert "What run3 says." in text and "Demsar" in text


def test_the_page_needs_no_other_file(compared: ComparedRuns) -> None:
    page = render_comparison(compared)
    assert not re.search(r'(src|href)="(?!#)|url\((?!#)|@import|http', page)
    assert page.count("<svg") == 2
    assert render_comparison(compared) == page


def test_both_files_are_written(compared: ComparedRuns, tmp_path: Path) -> None:
    page, facts = write_comparison(compared, tmp_path / "new" / "out")
    assert (page.name, facts.name) == ("compare.html", "compare.json")
    assert json.loads(facts.read_text()) == json.loads(json.dumps(compared.to_json()))


def test_one_run_has_a_page_without_ranks_to_test(tmp_path: Path) -> None:
    page = render_comparison(compare_runs([write_run(tmp_path / "only", "tem", {"unet": 0.5, "enet": None})]))
    assert page.count("<svg") == 1 and "Before you compare" not in page
    assert "1 data set and 1 model scored on all of them" in page
    assert "unet has the best mIoU on tem: 50.0 %." in page


def test_several_runs_of_one_data_set_are_told_apart(tmp_path: Path) -> None:
    scores = {"first": {"unet": 0.5, "enet": 0.7, "fpn": 0.9}, "second": {"unet": 0.8, "enet": 0.64}}
    page = render_comparison(compare_runs([write_run(tmp_path / name, "tem", scores[name]) for name in scores]))
    assert "tem, 2 runs" in page and '<span class="note">second</span>' in page
    # The mean of the runs has the ranks: enet (0.7 + 0.64) / 2, unet (0.5 + 0.8) / 2; fpn has none.
    assert '<span class="note">mean of 2 runs</span>' in page
    assert '<td><span class="best">67.0</span><span class="note">rank 1</span></td>' in page
    assert '<td>65.0<span class="note">rank 2</span></td>' in page and page.count(">rank ") == 2
    assert '<span class="best">90.0</span><span class="note">88.0–91.0</span></td>' in page
    assert "fpn is not in all runs on tem" in page


def test_pretrained_weights_are_marked(tmp_path: Path) -> None:
    entry = {"name": "fpn", "options": {"weights": "/home/me/r18.pth"}, "as": "fpn"}
    run = write_run(tmp_path / "a", "tem", {"searched": 0.5, "fpn": 0.7}, config={"baselines": [entry]})
    page = render_comparison(compare_runs([run]))
    assert '<span class="note">baseline · pretrained: r18.pth</span>' in page and page.count("pretrained: ") == 1
    assert "fpn (r18.pth) began with pretrained weights, the others from scratch." in page and "/home" not in page


@pytest.mark.parametrize("where", ["/proc/x", "file", "file/x", "closed/x", "a" * 300])
def test_a_folder_that_cannot_be_written_is_a_problem_of_the_user(
    compared: ComparedRuns, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    if where == "closed/x":  # permissions do not stop root

        def refused(*arguments: object, **named: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("autoseg.runfolder.tempfile.mkstemp", refused)
    with pytest.raises(UserError, match="the comparison cannot be written there") as raised:
        write_comparison(compared, tmp_path / where)
    assert raised.value.problems[0].where == str(tmp_path / where)


def test_the_diagram_has_every_model_the_distance_and_a_line_for_each_group() -> None:
    scores = {name: [1 - 0.1 * place] * 12 for place, name in enumerate("abcdef")}
    drawn = rank_figure(rank(scores))
    assert all(f"{name}  {place}.00" in drawn for place, name in enumerate("abc", start=1))
    assert all(f"{place}.00  {name}" in drawn for place, name in enumerate("def", start=4))
    assert "critical difference 2.18" in drawn
    assert drawn.count("stroke-width: 4") == 4
    assert rank_figure(rank({"a": [0.1], "b": [0.2]})) == ""


def test_a_distance_beyond_the_axis_is_cut_and_told() -> None:
    drawn = rank_figure(rank({"a": [0.9, 0.8, 0.7], "b": [0.5, 0.8, 0.6], "c": [0.4, 0.3, 0.2]}))
    assert "critical difference 1.91<" in drawn and "more than" not in drawn
    names = {name: [1.0, 1.0, 0.5 + 0.01 * place] for place, name in enumerate("abc")}
    assert "critical difference 1.91" in rank_figure(rank(names))
