"""Pictures of architectures as files: complete, alone, and never worth a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from autoseg.report.audit_figure import audit_scatter
from autoseg.report.pictures import cells_of, save_architecture, save_cells

SVG = "{http://www.w3.org/2000/svg}"
CELL = {
    "title": "Cell",
    "nodes": [{"id": "a", "label": "in & out", "kind": "input"}, {"id": "b", "label": "3x3 conv", "kind": "op"}],
    "edges": [["a", "b"]],
}


def found() -> dict[str, object]:
    from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices

    return {"space": "ednas", "kwargs": {"blocks": 3}, "choices": to_choices(ED_NAS_N3)}


def test_svg_and_png_show_the_same_and_stand_alone(tmp_path: Path) -> None:
    svg, png = save_cells([CELL], tmp_path / "new" / "cells.json")
    assert (svg.name, png.name) == ("cells.svg", "cells.png")
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg" and "sans-serif" in root.attrib["font-family"]
    assert [text.text for text in root.iter(f"{SVG}text")] == ["Cell", "in & out", "3x3 conv"]
    left, top, width, height = (float(v) for v in root.attrib["viewBox"].split())
    assert (float(root.attrib["width"]), float(root.attrib["height"])) == (width, height)
    image = cv2.cvtColor(cv2.imread(str(png)), cv2.COLOR_BGR2RGB)
    assert image.shape == (2 * height, 2 * width, 3)
    assert (image[0] == 255).all() and (image[:, -1] == 255).all()
    boxes = [group.find(f"{SVG}rect").attrib for group in root.iter(f"{SVG}g") if "data-node" in group.attrib]
    for box in boxes:
        x, y = (round(2 * (float(box[k]) - start)) for k, start in (("x", left), ("y", top)))
        fill = tuple(int(box["fill"][i : i + 2], 16) for i in (1, 3, 5))
        assert tuple(image[y + 12, x + 20]) == fill
        inside = image[y + 10 : y + 58, x + 20 : x + round(2 * float(box["width"])) - 20]
        assert inside.min() < 90, "the label is written, with a font that needs no system"


def test_the_same_cells_give_the_same_bytes(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in save_cells([CELL], tmp_path / "a")]
    assert [path.read_bytes() for path in save_cells([CELL], tmp_path / "b")] == first


def test_the_pictures_of_an_architecture(tmp_path: Path) -> None:
    files = save_architecture(found(), tmp_path / "architecture.json")
    assert [path.name for path in files] == ["architecture.svg", "architecture.png"]
    root = ElementTree.fromstring(files[0].read_text(encoding="utf-8"))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "Encoder cell" in texts and "Decoder cell (chain)" in texts


@pytest.mark.parametrize(
    "cells",
    [
        lambda choices, kwargs: 1 / 0,
        lambda choices, kwargs: [{"title": "x", "nodes": [], "edges": [["a", "b"]]}],
        lambda choices, kwargs: [{}],
        None,
    ],
)
def test_a_space_that_draws_nothing_or_nonsense_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: object
) -> None:
    monkeypatch.setattr("autoseg.registry.load", lambda kind, name: SimpleNamespace(cells=cells))
    assert save_architecture(found(), tmp_path / "architecture") == []
    assert list(tmp_path.iterdir()) == []


def test_choices_that_do_not_fit_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert cells_of({"space": "ednas", "choices": {"nothing": 1}}) == []
    assert "the architecture is not drawn" in caplog.text


def colored(png: bytes, color: str) -> np.ndarray:
    """Rows of the pixels of one colour."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.argwhere((image == rgb).all(-1))


def test_the_audit_marks_the_chosen_and_the_best() -> None:
    png = audit_scatter([0.3, 0.5, 0.4], [0.7, 0.6, 0.65], -1.0, ["best", "chosen", "third"])
    best, chosen, other = (colored(png, color) for color in ("#d55e00", "#0072b2", "#8fa3b8"))
    assert min(map(len, (best, chosen, other))) > 20
    assert best[:, 0].min() < other[:, 0].min() < chosen[:, 0].min(), "trained alone, the best is the highest"
    one = audit_scatter([0.3, 0.5], [0.6, 0.7], 1.0, ["a", "b"])
    assert len(colored(one, "#0072b2")) > 20 and len(colored(one, "#d55e00")) == 0


@pytest.mark.parametrize("names", [["a"], []])
def test_an_audit_of_unequal_lists_is_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="all must be as many"):
        audit_scatter([0.1, 0.2][: 2 * len(names)], [0.1, 0.2][: 2 * len(names)], 0.0, names)
