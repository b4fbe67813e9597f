"""The card of a model: its facts, what it warns of, whose the weights are, and that it comes home from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoseg.card import compared, made_with, new_card
from autoseg.card_folders import without_folders
from autoseg.card_limits import limits
from autoseg.card_weights import licence_of, unequal_start
from autoseg.cards import complete_cards, write_card
from autoseg.job import Job
from autoseg.nnibridge.outcome import merge
from autoseg.report.card_page import render_card
from autoseg.runfolder import RunFolder, read_json, write_json
from autoseg.train.modelfile import ModelFile


def split(**changes: Any) -> dict[str, Any]:
    usual = {"images": 20, "sizes": [[64, 64], [64, 64]], "dtype": "uint8", "values": [0.0, 200.0]}
    return {**usual, "class_shares": [0.9, 0.1], **changes}


def facts(train: dict[str, Any] | None = None, test: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    usual = {"name": "steel", "hash": "5f1d", "channels": 1, "classes": ["matrix", "crack"], "pixel_size": None}
    splits = {"train": train or split(), "val": split(images=4), "test": test or split(images=3)}
    return {**usual, "pixel_unit": None, "licence": None, "notes": [], "splits": splits, **changes}


def build(**changes: Any) -> dict[str, Any]:
    return {
        "label": "unet",
        "role": "baseline",
        "model": "unet",
        "architecture": None,
        "options": {"width": 8},
        **changes,
    }


def model(**changes: Any) -> dict[str, Any]:
    training = {"recipe": {"epochs": 3, "patch": 64}, "seed": 1, "best_epoch": 2, "best_miou": 0.5, "seconds": 8.0}
    normalisation = {"mean": [90.0], "std": [20.0]}
    return {"build": build(), "normalisation": normalisation, "training": {**training, "notes": []}, **changes}


TEST = {
    "miou": 0.8, "dice": 0.88, "accuracy": 0.9, "iou_per_class": [0.8, 0.05], "dice_per_class": [0.9, 0.09],
    "params": 1234,
    "images": [{"name": name, "miou": 0.8, "confusion": [[8, 2], [0, 10]]} for name in "abc"],
}  # fmt: skip
COMPARISON = {
    "models": {
        "searched": {"role": "finalist", "miou": 0.9, "miou_interval": [0.8, 0.95], "seeds": [{}, {}]},
        "unet": {"role": "baseline", "miou": 0.7, "miou_interval": [0.6, 0.75], "seeds": [{}, {}]},
        "random": {"role": "control", "miou": None, "miou_interval": [None, None], "seeds": [{}, {}]},
    },
    "verdict": {"text": "It was worth it.", "notes": ["The search has not converged."]},
}


def test_the_facts_of_a_training() -> None:
    card = new_card(model(), TEST, facts(), made_with({"autoseg": "0.1.0", "machine": {"device": "cpu"}}))
    assert card["model"]["params"] == 1234 and card["model"]["options"] == {"width": 8}
    assert card["data"]["hash"] == "5f1d" and card["data"]["splits"]["test"]["images"] == 3
    assert card["protocol"]["recipe"] == {"epochs": 3, "patch": 64} and card["protocol"]["seed"] == 1
    assert card["test"]["images"] == 3 and card["test"]["miou"] == 0.8
    assert card["test"]["intervals"]["accuracy"] == [0.9, 0.9]
    assert card["test"]["intervals"]["iou_per_class"][0] == [pytest.approx(0.8)] * 2
    assert card["made"]["machine"] == {"device": "cpu"} and card["comparison"] is None
    assert card["usage"] == "autoseg predict models/unet/seed-1 IMAGE.png --out masks"
    json.dumps(card, allow_nan=False)


def test_the_options_of_the_final_training_replace_those_of_the_search() -> None:
    architecture = {"space": "ednas", "kwargs": {"layers": 3, "width": 8}, "code": "E=[0] D=[0]"}
    searched = build(label="searched", role="finalist", model=None, architecture=architecture, options={"layers": 5})
    card = new_card(model(build=searched), TEST, facts(), {})
    assert card["model"]["options"] == {"layers": 5, "width": 8}
    assert (card["model"]["space"], card["model"]["code"]) == ("ednas", "E=[0] D=[0]")
    assert "found by a search of the space ednas" in render_card(card)


def test_the_comparison_adds_place_costs_and_the_notes_of_the_search() -> None:
    cost = {"flops": 2_000_000, "latency_ms": 3.5, "image": [1, 64, 64], "device": "cpu"}
    first = new_card(model(), TEST, facts(), {})
    found = compared(first, COMPARISON, cost)
    assert found["comparison"] == {
        "seeds": 2, "miou": 0.7, "miou_interval": [0.6, 0.75], "place": 2, "models": 3, "verdict": None,
    }  # fmt: skip
    assert (found["model"]["flops"], found["model"]["latency_ms"]) == (2_000_000, 3.5)
    assert any("one seed" in text for text in first["limits"])
    assert not any("one seed" in text for text in found["limits"])
    finalist = new_card(model(build=build(label="searched", role="finalist")), TEST, facts(), {})
    found = compared(finalist, COMPARISON, {})
    assert (
        found["limits"][0] == "The search has not converged." and found["comparison"]["verdict"] == "It was worth it."
    )
    alone = compared(first, {}, cost)
    assert alone["comparison"] is None and alone["model"]["flops"] == 2_000_000


def test_one_seed_has_one_interval() -> None:
    entry = {"role": "baseline", "miou": 0.8, "miou_interval": [0.61, 0.93], "seeds": [{}]}
    first = new_card(model(), TEST, facts(), {})
    card = compared(first, {"models": {"unet": entry, "other": {**entry, "miou": 0.9}}, "verdict": {}}, {})
    assert card["test"]["intervals"]["miou"] == [0.61, 0.93]
    assert card["test"]["intervals"]["accuracy"] == first["test"]["intervals"]["accuracy"]
    page = render_card(card)
    assert "This network takes place 2 of 2 in its run." in page and page.count("61.0–93.0") == 1


def test_published_cells_were_not_designed_by_hand() -> None:
    card = new_card(model(build=build(model="ed-nas-n4")), TEST, facts(), {})
    assert "The network ed-nas-n4: published cells, found by a search." in render_card(card)
    assert "The network unet, designed by hand." in render_card(new_card(model(), TEST, facts(), {}))


def test_limits_name_what_was_not_seen() -> None:
    train = split(images=4, class_shares=[0.998, 0.002, 0.0], dtype="uint16", values=[100.0, 300.0])
    test = split(images=2, class_shares=[1.0, None, 0.0], values=[100.0, 320.0], sizes=[[64, 64], [96, 64]])
    data = facts(train, test, classes=["matrix", "crack", "pore"], channels=3, pixel_size=0.5, pixel_unit="um")
    found = limits(data, {"notes": ["stopped early"]}, images=2, seeds=3, iou=[0.9, 0.05, None])
    assert found == [
        "Stopped early.",
        "Never seen in training, so it cannot find: pore.",
        "Rare in training (under 0.5% of the pixels): crack.",
        "Not in the test images, so how well it finds them is not known: crack, pore.",
        "Hardly found on the test images (IoU under 10%): crack.",
        "It was trained on 4 images only.",
        "It was tested on 2 images only: the intervals are too narrow.",
        "Out of range: the test images have values 100 to 320, those of the training 100 to 300.",
        "Out of range: the test images have 64 x 64 to 96 x 64 pixels, those of the training 64 x 64.",
        "It has seen colour images (three channels) of type uint16 with values 100 to 300, 64 x 64 pixels "
        "(height x width). Outside of that its answers are guesses.",
        "It has seen pixels of 0.5 um; images of another pixel size should be scaled to it first.",
    ]


def test_values_a_little_beyond_the_range_are_no_warning() -> None:
    near = facts(test=split(values=[0.0, 209.0]))
    assert not any("Out of range" in text for text in limits(near, {}, images=20))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Trained from scratch"),
        ({"weights": None}, "Trained from scratch"),
        ({"weights": "imagenet"}, "pretrained weights imagenet."),
        ({"weights": "/home/me/resnet.safetensors"}, "pretrained weights resnet.safetensors."),
        ({"encoder_weights": "file:///home/me/resnet.pth"}, "pretrained weights resnet.pth."),
        ({"pretrained": True}, "pretrained weights of the library."),
    ],
)
def test_whose_the_weights_are(options: dict[str, Any], said: str) -> None:
    text = licence_of(build(options=options))
    assert said in text and "/home" not in text


def test_where_all_began_alike_nothing_is_said() -> None:
    assert unequal_start({"searched": None, "unet": None}) == unequal_start({"fpn": "imagenet"}) == ""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("file:///home/me/x.pth", "x.pth"),
        ("key:/home/me/a", "key:a"),
        ("weights=/home/me/a", "weights=a"),
        ("/home/me/my nets/the best.pth", "the best.pth"),
        (r"C:\Users\Me Too\x.png", "x.png"),
        (r"\\server\share\me\x.png", "x.png"),
        ("~/nets/x.pth", "x.pth"),
        ("could not read '/home/me/my data/x.png'.", "could not read 'x.png'."),
        ("the model's /home/me/x isn't there", "the model's x isn't there"),
        ("1 /10 of", "1 /10 of"),
        ("1/2 of and/or https://a.org/b/c", "1/2 of and/or https://a.org/b/c"),
        ("nets/x.pth", "nets/x.pth"),
        ("E=[(0,0,2,0)] D=[0 2]", "E=[(0,0,2,0)] D=[0 2]"),
    ],
)
def test_paths_are_cut_to_their_last_part(given: str, shown: str) -> None:
    assert without_folders(given) == shown
    assert without_folders({given: [given, 1, None]}) == {shown: [shown, 1, None]}


def test_keys_that_become_equal_are_all_kept() -> None:
    assert without_folders({"/a/b/x.png": 1, "/a/c/x.png": 2}) == {"x.png": 1, "x.png (2)": 2}


def test_a_card_names_no_folder() -> None:
    weights = {"weights": "/home/me/models/resnet.pth"}
    data = facts(notes=["Read from /home/me/data/steel, 20 of 24 images."])
    made = made_with({"command": ["/home/me/bin/autoseg"], "machine": {"device": "cpu"}, "git": "0df6"})
    card = new_card(model(build=build(options=weights)), TEST, data, made)
    assert "/home" not in json.dumps(card) and "/home" not in render_card(card)
    assert card["data"]["notes"] == ["Read from steel, 20 of 24 images."]
    assert card["model"]["options"] == {"weights": "resnet.pth"}
    assert without_folders({"a": [r"C:\data\x.png", "7:1:2", "1/2", "https://a.org/b/c"]})["a"] == [
        "x.png", "7:1:2", "1/2", "https://a.org/b/c",
    ]  # fmt: skip


def test_the_page_shows_the_facts() -> None:
    card = compared(new_card(model(), TEST, facts(licence="CC0 <x>"), {"packages": {"torch": "2.9"}}), COMPARISON, {})
    page = render_card(card)
    assert "This network reaches 70.0\xa0% mIoU over 2 seeds (95\xa0% interval 60.0–75.0), place 2 of 3" in page
    assert "80.0&nbsp;%" in page and "autoseg predict models/unet/seed-1 IMAGE.png --out masks" in page
    assert "Licence of the images: CC0 &lt;x&gt;." in page and "5f1d" in page and "64 × 64" in page
    assert "1.23\xa0k" in page and "packages.torch" in page


def training(path: Path) -> Path:
    write_json(path / "model.json", model())
    write_json(path / "test.json", TEST)
    return path


def test_the_card_is_written_beside_the_model_and_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    place = training(folder.model("unet", 1))
    write_card(place, TEST, facts(), {"autoseg": "0.1.0"})
    assert read_json(place / "model.json")["card"]["comparison"] is None
    assert read_json(place / "model.json")["training"] == model()["training"]
    write_json(folder.model("unet", 0) / "cost.json", {"flops": 7, "latency_ms": 1.5})
    assert complete_cards(folder, COMPARISON) == [place / "card.html"]
    card = read_json(place / "model.json")["card"]
    assert card["comparison"]["place"] == 2 and card["model"]["flops"] == 7
    assert (place / "card.html").read_text() == render_card(card)


def test_older_runs_get_cards_where_the_data_are_at_hand(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    place = training(folder.model("unet", 0))
    write_json(folder.model("torn", 0) / "model.json", {"card": {"model": 3}})
    assert complete_cards(folder, COMPARISON) == []
    assert complete_cards(folder, COMPARISON, facts()) == [place / "card.html"]


def test_a_card_comes_home_with_its_model(tmp_path: Path) -> None:
    away, home = RunFolder(tmp_path / "away"), RunFolder(tmp_path / "home")
    write_card(training(away.model("unet", 1)), TEST, facts(), {})
    merge(away.path, Job("training", "unet", 1), home)
    assert (home.model("unet", 1) / "card.html").exists()
    assert read_json(home.model("unet", 1) / "model.json")["card"]["model"]["label"] == "unet"


def test_the_cards_of_a_run(tiny_folder: Path) -> None:
    described, _ = ModelFile.load(tiny_folder / "models/searched/seed-0")
    card, comparison = described.card, read_json(tiny_folder / "comparison.json")
    assert card["test"]["miou"] == comparison["models"]["searched"]["seeds"][0]["miou"]
    assert card["comparison"]["miou_interval"] == comparison["models"]["searched"]["miou_interval"]
    assert card["data"]["hash"] == read_json(tiny_folder / "environment.json")["data_hash"]
    assert card["data"]["splits"]["train"]["images"] == 9 and card["made"]["packages"]["nni"] == "3.0"
    low, high = card["test"]["intervals"]["miou"]
    assert low <= card["test"]["miou"] <= high
    assert card["model"]["flops"] == read_json(tiny_folder / "models/searched/seed-0/cost.json")["flops"]
    report = (tiny_folder / "report.html").read_text()
    for page in tiny_folder.glob("models/*/seed-*/card.html"):
        assert f'<a href="{page.relative_to(tiny_folder)}">' in report
        assert str(tiny_folder.parent) not in page.read_text()
    assert len(list(tiny_folder.glob("models/*/seed-*/card.html"))) == 6
