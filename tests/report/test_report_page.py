"""The report page: what it says, how it is built, and what it does when files are missing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from fake_run import CODE, Images, make_run

from autoseg.data.base import DatasetInfo, SegmentationData
from autoseg.errors import UserError
from autoseg.report.figures import training_figure
from autoseg.report.page import render, write_report
from autoseg.report.rundata import ModelRun, SeedRun, read_run
from autoseg.report.search_figures import search_figure

VOID = {"meta", "br", "img", "link", "hr", "input"}
NBSP = "\u00a0"


class Page(HTMLParser):
    """Checks that tags are balanced; collects sections, tables, images, text and classes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.classes: list[str] = []
        self.captions: list[tuple[str, str]] = []
        self.text = ""
        self._table = self._section = ""
        self.feed(html)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.classes += given.get("class", "").split()
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "section":
            self._section = given["id"]
            self.sections.append(given["id"])
        elif tag == "img":
            self.sources.append(given["src"])
        elif tag == "table":
            self._table = given["class"]
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "figcaption":
            self.captions.append((self._section, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            return
        self.text += data
        if "figcaption" in self.stack:
            section, text = self.captions[-1]
            self.captions[-1] = (section, text + data)
        elif {"td", "th"} & set(self.stack) and "svg" not in self.stack:
            row = self.tables[self._table][-1]
            row[-1] = " ".join(f"{row[-1]}{data}".replace(NBSP, " ").split(" ")).replace("\n", " ")


def cells(row: list[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def page(run_dir: Path, data: SegmentationData | None) -> Page:
    return Page(write_report(run_dir, data).read_text(encoding="utf-8"))


def pixels(source: str) -> np.ndarray:
    """The picture in a data URI, as OpenCV reads it."""
    head, content = source.split(",", 1)
    assert head == "data:image/png;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)


def scores(run_dir: Path, model: str = "ed-nas") -> dict[str, float]:
    result = json.loads((run_dir / f"models/{model}/seed-0/test.json").read_text())
    return {image["name"]: image["miou"] for image in result["images"]}


def test_all_sections_are_there_in_order(run_dir: Path, data: SegmentationData) -> None:
    found = page(run_dir, data)
    assert found.sections == [
        "comparison",
        "classes",
        "search",
        "architecture",
        "training",
        "examples",
        "worst",
        "method",
    ]
    assert "missing" not in found.classes


def test_the_verdict_comes_first_and_is_green(run_dir: Path, data: SegmentationData) -> None:
    html = write_report(run_dir, data).read_text()
    assert html.index('class="verdict good"') < html.index("<table")
    text = " ".join(Page(html).text.split())
    assert "The search was worth it: ed-nas reaches 79.0 % mIoU, 1.4 points above the baseline unet" in text
    assert "+1.4 points mIoU against unet 95 % interval +0.6 to +2.1" in text


@pytest.mark.parametrize(
    ("change", "tone"),
    [({"worth_it": False}, "poor"), ({"worth_it": False, "gain": None, "interval": None, "against": None}, "none")],
)
def test_the_colour_of_the_verdict(run_dir: Path, change: dict[str, object], tone: str) -> None:
    path = run_dir / "comparison.json"
    content = json.loads(path.read_text())
    content["verdict"].update(change)
    path.write_text(json.dumps(content))
    html = write_report(run_dir, None).read_text()
    assert f'class="verdict {tone}"' in html
    assert ("mIoU against unet" in html) == (tone == "poor")


def test_the_comparison_table(run_dir: Path, data: SegmentationData) -> None:
    content = json.loads((run_dir / "comparison.json").read_text())["models"]
    head, *rows = (cells(row) for row in page(run_dir, data).tables["comparison"])
    assert head == [
        "Model", "mIoU %", "95 % interval", "Dice %", "Accuracy %", "Parameters", "FLOPs", "Latency", "Training",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["ed-nas finalist", "unet baseline", "random control"]
    assert [row[5] for row in rows] == ["1.94 M", "31.0 M", "2.21 M"]
    assert [row[6] for row in rows] == ["1.2 GFLOPs", "54.7 GFLOPs", "n/a"]
    assert [row[7] for row in rows] == ["3.4 ms", "4.4 ms", "5.4 ms"]
    assert [row[8] for row in rows] == ["1 min 20 s", "1 min 40 s", "2 min"]
    for row, entry in zip(rows, content.values(), strict=True):
        first, second = (100 * seed["miou"] for seed in entry["seeds"])
        low, high = (100 * v for v in entry["miou_interval"])
        assert row[1].split() == [f"{100 * entry['miou']:.1f}", f"{low:.1f}–{high:.1f}"]
        assert row[2] == f"seeds {first:.1f} · {second:.1f}"
        assert row[4] == f"{50 * sum(seed['accuracy'] for seed in entry['seeds']):.1f}"


def test_pretrained_weights_are_marked(run_dir: Path) -> None:
    assert "All models were trained from scratch under the same protocol" in page(run_dir, None).text
    description = run_dir / "models/unet/seed-0/model.json"
    content = json.loads(description.read_text())
    content["build"]["options"] = {"weights": "/home/me/resnet18.pth"}
    description.write_text(json.dumps(content))
    found = page(run_dir, None)
    assert cells(found.tables["comparison"][2])[0] == "unet baseline · pretrained: resnet18.pth"
    assert "All models were trained under the same protocol" in found.text and "from scratch under" not in found.text
    assert "No equal comparison: unet (resnet18.pth) began with pretrained weights" in found.text


def test_the_best_of_each_column_is_marked(run_dir: Path) -> None:
    html = write_report(run_dir, None).read_text()
    table = html[html.index('<table class="comparison">') : html.index("</table>")]
    marked = re.findall(r'<td><span class="best">([^<]*)</span>', table)
    best = json.loads((run_dir / "comparison.json").read_text())["models"]["ed-nas"]["miou"]
    assert marked[0] == f"{100 * best:.1f}"
    assert [text.replace(NBSP, " ") for text in marked[3:]] == ["1.94 M", "1.2 GFLOPs", "3.4 ms", "1 min 20 s"]
    assert len(marked) == 7


def test_classes_absent_everywhere_are_not_available(run_dir: Path, data: SegmentationData) -> None:
    path = run_dir / "comparison.json"
    content = json.loads(path.read_text())
    for entry in content["models"].values():
        for seed in entry["seeds"]:
            seed["iou_per_class"] = [0.5, None, 0.25 if seed["seed"] == 0 else None]
    path.write_text(json.dumps(content))
    head, *rows = (cells(row) for row in page(run_dir, data).tables["classes"])
    assert head == ["Class", "Pixels %", "ed-nas", "unet", "random"]
    masks = np.concatenate([mask.ravel() for _, mask in data.test])
    shares = [f"{100 * np.mean(masks[masks != 255] == k):.1f}" for k in range(3)]
    assert rows == [
        ["background", shares[0], "50.0", "50.0", "50.0"],
        ["lath", shares[1], "n/a", "n/a", "n/a"],
        ["cylinder", shares[2], "25.0", "25.0", "25.0"],
    ]


def test_nothing_is_fetched_and_every_picture_is_inside(run_dir: Path, data: SegmentationData) -> None:
    html = write_report(run_dir, data).read_text()
    for forbidden in ("http://", "https://", 'src="file', "<script", "<link", "@import", "url(http"):
        assert forbidden not in html
    sources = Page(html).sources
    assert len(sources) == (4 + 5) * (2 + 3)
    assert {pixels(source).shape[:2] for source in sources} == {(48, 48)}


def test_ids_are_unique_and_every_reference_is_met(run_dir: Path, data: SegmentationData) -> None:
    html = write_report(run_dir, data).read_text()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used and used <= set(ids)


def test_the_five_worst_images_worst_first(run_dir: Path, data: SegmentationData) -> None:
    expected = sorted(scores(run_dir).items(), key=lambda item: item[1])[:5]
    found = page(run_dir, data)
    assert [text for section, text in found.captions if section == "worst"] == [name for name, _ in expected]
    assert found.text.count("not counted") == 1 + ("grain_00" in dict(expected))
    worst = found.text[found.text.index("Where it fails") :]
    assert re.findall(r"mIoU ([\d.]+)\s%", worst)[::3] == [f"{100 * score:.1f}" for _, score in expected]


def test_pictures_show_the_saved_prediction_in_class_colours(run_dir: Path, data: SegmentationData) -> None:
    found = page(run_dir, data)
    shown = cv2.cvtColor(pixels(found.sources[2]), cv2.COLOR_BGR2RGB)
    mask = cv2.imread(str(run_dir / "models/ed-nas/seed-0/predictions/grain_00.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(shown, np.asarray(data.info.colors, np.uint8)[mask])


def test_the_search_and_its_candidates(run_dir: Path, data: SegmentationData) -> None:
    found = page(run_dir, data)
    for title in ("Supernet loss", "Reward", "Entropy", "warm-up", "Training loss", "Validation mIoU, %"):
        assert title in found.text
    assert found.text.count("warm-up") == 1
    assert [cells(row) for row in found.tables["candidates"][1:]] == [
        ["1", "56.6", "1.94 M", "greedy", CODE],
        ["2", "54.9", "1.94 M", "sampled", "E=[(0,0,1,1)] D=[0 0]"],
    ]


def test_a_space_that_can_be_drawn_is_drawn(
    run_dir: Path, data: SegmentationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def describe(choices: dict[str, object], kwargs: dict[str, object]) -> list[dict[str, object]]:
        seen.append((choices["d0"], kwargs["blocks"]))
        nodes = [{"id": "a", "label": "in & out", "kind": "input"}, {"id": "b", "label": "conv", "kind": "op"}]
        return [{"title": "Cell one", "nodes": nodes, "edges": [["a", "b"]]}]

    monkeypatch.setattr("autoseg.registry.load", lambda kind, name: SimpleNamespace(cells=describe))
    found = page(run_dir, data)
    assert seen == [("dw3", 4)]
    assert "Cell one" in found.text and "in & out" in found.text
    assert "choices" not in found.tables and found.text.count(CODE) == 2


def test_the_cells_of_ed_nas_are_drawn(run_dir: Path) -> None:
    from autoseg.spaces.ednas_code import ED_NAS_N4, to_choices

    content = {"space": "ednas", "kwargs": {"blocks": 4}, "choices": to_choices(ED_NAS_N4), "code": str(ED_NAS_N4)}
    (run_dir / "architecture.json").write_text(json.dumps(content))
    html = write_report(run_dir, None).read_text()
    assert html.count('class="panel"') == 2 and "Decision" not in html
    assert html.count('class="node"') == (1 + 8 + 4 + 1) + (1 + 4 + 1)


@pytest.mark.parametrize("space", [SimpleNamespace(), SimpleNamespace(cells=lambda choices, kwargs: 1 / 0)])
def test_a_space_that_cannot_be_drawn_is_a_table(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, space: SimpleNamespace
) -> None:
    monkeypatch.setattr("autoseg.registry.load", lambda kind, name: space)
    rows = page(run_dir, None).tables["choices"]
    assert rows == [["Decision", "Choice"], ["e0_op1", "conv3"], ["e0_op2", "dw3"], ["d0", "dw3"]]


def test_how_it_was_done(run_dir: Path) -> None:
    found = page(run_dir, None)
    for text in (
        "autoseg run 'my file.yaml'",
        "sha256:5f1d",
        "packages.torch",
        "8 cores",
        "repeats: 2",
        "1.9\u00a0GiB",
        "patch size 48 fits",
    ):
        assert text in found.text
    assert [cells(row) for row in found.tables["stages"][1:]] == [
        ["search", "4 min", "48 s"],
        ["train ed-nas", "3 min", "2 min 41 s"],
        ["train unet", "", "3 min 21 s"],
        ["train random", "", "4 min 1 s"],
    ]


def test_the_size_of_the_image_for_flops_and_latency(run_dir: Path) -> None:
    sentence = "Of one forward pass with an input of 1 × 48 × 64 (channels, height, width), the latency"
    assert sentence in " ".join(page(run_dir, None).text.split())
    for path in run_dir.glob("models/*/seed-0/cost.json"):
        path.write_text("{")
    assert "Of one forward pass, the latency" in " ".join(page(run_dir, None).text.split())


def test_epochs_count_from_one(run_dir: Path) -> None:
    lines = [{"epoch": epoch, "loss": 0.25 - 0.05 * epoch, "phase": "warmup"} for epoch in range(3)]
    model = ModelRun("unet", "baseline", runs=[SeedRun(0, run_dir, history=lines)], color="#123456")
    for figure in (search_figure(lines), training_figure([model])):
        labels = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
        assert [label for label in labels if label.isdigit()] == ["1", "2", "3"]


def test_names_are_escaped(tmp_path: Path, data: SegmentationData) -> None:
    models = (("<b>bold</b>&$x$", "finalist", 10, 20, 0.0), ("unet", "baseline", 30, 40, 0.05))
    run_dir = make_run(tmp_path / "<i>run", data, models)
    (run_dir / "config.yaml").write_text("name: <script>alert(1)</script>\n")
    html = write_report(run_dir, data).read_text()
    assert "<b>" not in html and "<script" not in html
    found = Page(html)
    assert "<script>alert(1)</script>" in found.text
    assert cells(found.tables["comparison"][1])[0] == "<b>bold</b>&$x$ finalist"


def test_without_the_data_set_there_are_no_pictures_but_class_names(run_dir: Path) -> None:
    found = page(run_dir, None)
    assert found.sources == [] and "worst" not in found.sections
    assert "the data set was not at hand" in found.text
    assert [row[0] for row in found.tables["classes"][1:]] == ["background", "lath", "cylinder"]


def test_an_unfinished_run_says_so_and_shows_what_was_tested(run_dir: Path, data: SegmentationData) -> None:
    (run_dir / "comparison.json").unlink()
    shutil.rmtree(run_dir / "models/random/seed-1")
    (run_dir / "models/random/seed-0/test.json").write_text('{"miou": 0.')
    (run_dir / "models/random/seed-0/cost.json").unlink()
    html = write_report(run_dir, data).read_text()
    found = Page(html)
    assert 'class="verdict none"' in html and "The run is not finished" in found.text
    rows = [cells(row) for row in found.tables["comparison"][1:]]
    mean = np.mean([json.loads((run_dir / f"models/ed-nas/seed-{k}/test.json").read_text())["miou"] for k in (0, 1)])
    assert rows[0][:2] == ["ed-nas finalist", f"{100 * mean:.1f}"]
    assert rows[2][:3] == ["random control", "n/a", ""]
    head = cells(found.tables["comparison"][0])
    assert head[2] == "Seeds"
    assert [row[head.index("FLOPs")] for row in rows] == ["1.2 GFLOPs", "54.7 GFLOPs", "n/a"]
    assert [row[head.index("Latency")] for row in rows] == ["3.4 ms", "4.4 ms", "n/a"]


def test_a_run_without_search_and_baseline(tmp_path: Path, data: SegmentationData) -> None:
    run_dir = make_run(tmp_path / "alone", data, [("unet", "baseline", 31_031_810, None, 0.0)])
    shutil.rmtree(run_dir / "search")
    (run_dir / "architecture.json").unlink()
    found = page(run_dir, data)
    assert found.sections == ["comparison", "classes", "training", "examples", "worst", "method"]
    assert "no search journal" in found.text and "Only one model was trained" in found.text
    assert "Supernet loss" not in found.text and "Training loss" in found.text
    assert cells(found.tables["comparison"][0])[5:] == ["Parameters", "Latency", "Training"]


def test_an_empty_folder_gives_a_short_report(tmp_path: Path, data: SegmentationData) -> None:
    found = page(tmp_path, data)
    assert found.sections == ["examples", "method"]
    assert "No trained model was found" in found.text and "no predictions have been saved" in found.text


def test_a_line_cut_by_a_kill_is_skipped(run_dir: Path) -> None:
    path = run_dir / "search/journal.jsonl"
    before = read_run(run_dir)
    path.write_text(path.read_text() + '{"kind": "epoch", "epo')
    history = run_dir / "models/unet/seed-0/history.csv"
    history.write_text(history.read_text() + "13,2.5,0.0")
    after = read_run(run_dir)
    assert len(after.epochs) == len(before.epochs) == 12
    assert after.models[1].runs[0].history[-1]["loss"] is None
    assert "Training loss" in page(run_dir, None).text


def test_sixteen_bit_colour_and_missing_predictions(run_dir: Path, data: SegmentationData) -> None:
    pairs = zip(data.test.names, data.test, strict=True)
    items = [(name, np.dstack([image.astype(np.uint16) * 200] * 3), mask) for name, (image, mask) in pairs]
    info = DatasetInfo(data.info.name, 3, data.info.classes, data.info.colors)
    colour = SegmentationData(info, data.train, data.val, Images(items))
    (run_dir / "models/unet/seed-0/predictions/grain_00.png").unlink()
    found = page(run_dir, colour)
    first = pixels(found.sources[0])
    assert first.ndim == 3 and first.min() == 0 and first.max() == 255
    in_worst = "grain_00" in sorted(scores(run_dir), key=scores(run_dir).__getitem__)[:5]
    assert len(found.sources) == 45 - 1 - in_worst


def test_the_file_is_replaced_whole_and_a_wrong_folder_is_named(run_dir: Path, tmp_path: Path) -> None:
    first = write_report(run_dir, None).read_bytes()
    assert write_report(run_dir, None).read_bytes() == first
    assert [p.name for p in run_dir.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(UserError, match="no such run folder"):
        write_report(tmp_path / "nowhere", None)


def test_unequal_training_times_are_pointed_out(run_dir: Path) -> None:
    run = read_run(run_dir)
    against = run.verdict["against"]
    for seconds, expected in ((30.0, f"took 3.0 times as long as {against}"), (10.0, "")):
        for model in run.models:
            for seed in model.seeds:
                seed["train_seconds"] = seconds if model.role == "finalist" else 10.0
        page = render(run, None)
        assert (expected in page) if expected else ("not the same time" not in page)
