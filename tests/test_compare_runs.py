"""Several runs side by side: data sets, ranks, what is missing, what does not compare, and what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from finished_runs import write_run

from autoseg.compare_notes import protocol, warnings
from autoseg.compare_read import read_runs, series
from autoseg.compare_runs import compare_runs
from autoseg.compare_words import headline, ranks_sentence, short_test
from autoseg.errors import UserError
from autoseg.terminal.tables import runs_table

SCORES = {"searched": 0.7, "unet": 0.6, "random": 0.5}


def problems(*paths: Path) -> list[str]:
    with pytest.raises(UserError) as raised:
        read_runs(paths)
    return [str(problem) for problem in raised.value.problems]


def test_ranks_over_three_data_sets(tmp_path: Path) -> None:
    table = {"tem": (0.7, 0.6, 0.5), "pets": (0.5, 0.8, 0.4), "camvid": (0.9, 0.3, 0.2)}
    runs = [
        write_run(tmp_path / f"run-{name}", name, dict(zip(SCORES, values, strict=True)))
        for name, values in table.items()
    ]
    found = compare_runs(runs)
    assert found.datasets == ["tem", "pets", "camvid"] and found.models == ["searched", "unet", "random"]
    assert found.ranking.mean_ranks == pytest.approx((4 / 3, 5 / 3, 3))
    # 12 / (3 * 3 * 4) * (16 + 25 + 81) - 3 * 3 * 4 = 4.667
    assert found.ranking.chi2 == pytest.approx(14 / 3)
    assert found.mean("unet") == pytest.approx((0.6 + 0.8 + 0.3) / 3)
    assert headline(found) == "searched has the best mean rank: 1.33 of 3 over 3 data sets."
    assert ranks_sentence(found).startswith("Friedman test: chi-squared 4.67 with 2 degrees of freedom, p = 0.097")
    assert short_test(found) == "No difference between the models is shown (Friedman test, p = 0.097)."
    assert found.warnings == []
    assert any("no two of them may be told apart" in note for note in found.notes)
    assert any("rough guide" in note for note in found.notes)


def test_the_json_holds_everything(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, SCORES, notes=("Not converged.",)) for name in ("a", "b")]
    found = json.loads(json.dumps(compare_runs(runs).to_json(), allow_nan=False))
    assert set(found["runs"]) == {"a", "b"} and found["runs"]["a"]["protocol"]["epochs of a training"] == 20
    assert found["datasets"]["b"] == {"runs": ["b"], "miou": SCORES}
    unet = found["models"]["unet"]
    assert (unet["role"], unet["miou"], unet["mean_rank"]) == ("baseline", 0.6, 2.0)
    assert unet["runs"]["a"]["miou_interval"] == [0.58, 0.61] and unet["runs"]["a"]["params"] == 1000
    assert found["ranking"]["ranks"]["random"] == [3, 3] and found["ranking"]["critical_difference"] is None
    assert found["notes"][-1] == "a, b: Not converged."
    assert str(tmp_path) not in json.dumps(found)


def test_a_model_that_is_missing_somewhere_has_no_rank(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "a", {**SCORES, "enet": 0.9})
    second = write_run(tmp_path / "b", "b", {**SCORES, "enet": None, "unet": 0.8})
    third = write_run(tmp_path / "c", "c", SCORES)
    found = compare_runs([first, second, third])
    assert found.left_out == {"enet": ["b", "c"]}
    assert found.models == ["searched", "unet", "random", "enet"]
    assert found.ranking.ranks.shape == (3, 3) and found.mean("enet") is None
    assert "enet has no score on b and c: it is shown as n/a there and left out of the ranks." in found.notes
    assert found.to_json()["models"]["enet"]["runs"]["c"] is None


def test_several_runs_on_one_data_set_count_once(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one" / "run", "tem", {"searched": 0.7, "unet": 0.6})
    other = write_run(tmp_path / "pets", "pets", {"searched": 0.5, "unet": 0.6})
    second = write_run(tmp_path / "two" / "run", "tem", {"searched": 0.5, "unet": 0.7})
    found = compare_runs([first, other, second])
    assert [run.name for run in found.runs] == ["one/run", "two/run", "pets"]
    assert found.datasets == ["tem", "pets"]
    assert found.score("searched", "tem") == pytest.approx(0.6) and found.score("unet", "tem") == pytest.approx(0.65)
    assert found.ranking.ranks.tolist() == [[1, 2], [1, 2]] and found.models == ["unet", "searched"]
    assert any(note.startswith("Several runs on tem") for note in found.notes)


def test_a_model_that_is_missing_in_one_of_two_runs_on_a_data_set(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "tem", {**SCORES, "enet": 0.9, "setr": None})
    second = write_run(tmp_path / "b", "tem", {**SCORES, "searched": 0.6})
    third = write_run(tmp_path / "c", "pets", SCORES)
    found = compare_runs([first, second, third])
    assert found.left_out == {"enet": ["tem", "pets"], "setr": ["tem", "pets"]}
    end = "it is shown as n/a there and left out of the ranks."
    assert f"enet has no score on pets and is not in all runs on tem: {end}" in found.notes
    assert f"setr has no score on tem and pets: {end}" in found.notes


OTHER = {name: score + 0.01 for name, score in SCORES.items()}


def test_a_copied_run_is_no_repetition(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", "tem", SCORES), write_run(tmp_path / "b", "tem", OTHER)]
    runs.append(write_run(tmp_path / "c", "tem", SCORES | {"enet": 0.3}))
    runs.append(write_run(tmp_path / "d", "pets", SCORES))
    assert warnings(read_runs(runs)) == [
        "Not independent: a and c have the same seeds and scores on tem, as copies have. They count as 2 runs, and "
        "are no repetition."
    ]
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    for model in content["models"].values():
        model["seeds"][0]["seed"] = 1
    (tmp_path / "c" / "comparison.json").write_text(json.dumps(content))
    assert warnings(read_runs(runs)) == []


def test_pretrained_weights_are_marked_and_warned_of(tmp_path: Path) -> None:
    said = "No equal comparison: fpn (r18.pth) began with pretrained weights, the others from scratch."
    entry = {"name": "fpn", "options": {"weights": "/home/me/r18.pth"}, "as": "fpn"}
    scores = SCORES | {"fpn": 0.8}
    first = write_run(tmp_path / "a", "a", scores, config={"baselines": [entry]}, notes=(said, "Not converged."))
    other = {**entry, "options": {"weights": "/other/nets/r18.pth"}}
    second = write_run(tmp_path / "b", "b", scores, config={"baselines": [other]})
    found = compare_runs([first, second])
    assert found.warnings == [said]
    assert (found.weights("fpn"), found.weights("unet")) == ("r18.pth", "")
    assert "a: Not converged." in found.notes and not any("pretrained" in note for note in found.notes)
    facts = found.to_json()
    assert facts["models"]["fpn"]["weights"] == "r18.pth" and facts["models"]["unet"]["weights"] is None
    third = write_run(tmp_path / "c", "c", SCORES)
    assert compare_runs([first, second, third]).warnings == [said.replace("scratch.", "scratch (in a and b).")]
    table = runs_table(found, [])
    assert table.count("pretrained") == 1


@pytest.mark.parametrize("baselines", [3, "unet", ["unet", {"as": "unet", "options": "weights"}]])
def test_baselines_that_are_no_list_of_networks_are_passed_over(tmp_path: Path, baselines: object) -> None:
    run = write_run(tmp_path / "a", "a", SCORES, config={"baselines": baselines})
    assert compare_runs([run]).weights("unet") == ""


def test_no_folder_is_shown(tmp_path: Path) -> None:
    strategy = {"name": "enas", "options": {"start": "/home/me/nets/found.json"}}
    fpn = {"name": "fpn", "options": {"weights": "/home/me/r18.pth"}, "as": "fpn"}
    scores = SCORES | {"fpn": 0.8}
    first = write_run(tmp_path / "a", "a", scores, config={"baselines": [fpn], "strategy": strategy})
    fpn = {**fpn, "options": {"weights": "/home/me/r34.pth"}}
    second = write_run(tmp_path / "b", "b", scores, config={"baselines": [fpn], "strategy": strategy})
    found = compare_runs([first, second])
    assert any('(fpn {"weights": "r18.pth"} in a, fpn {"weights": "r34.pth"} in b)' in text for text in found.warnings)
    assert "/home" not in json.dumps(found.to_json())
    assert protocol(found.runs[0])["options of the strategy"] == {"start": "found.json"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("key", ["miou", "dice", "gain", "text"])
def test_numbers_that_are_none_are_problems(tmp_path: Path, number: str, key: str) -> None:
    run = write_run(tmp_path / "a", "a", {"unet": 0.123})
    content = json.loads((run / "comparison.json").read_text())
    if key == "text":
        content["models"]["unet"]["miou"] = number  # a text that reads as one
    else:
        place = {"miou": content["models"]["unet"], "dice": content["models"]["unet"]["seeds"][0]}
        place.get(key, content["verdict"])[key] = 123.5
    text = json.dumps(content).replace("123.5", number)
    (run / "comparison.json").write_text(text)
    (found,) = problems(run)
    assert found.startswith(str(run / "comparison.json")) and "finite number" in found


def test_one_protocol_needs_no_warning(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", "tem", SCORES), write_run(tmp_path / "b", "pets", SCORES)]
    runs.append(write_run(tmp_path / "c", "tem", OTHER, recipe={"momentum": 0.9}))  # older runs do not know it
    assert warnings(read_runs(runs)) == []


def test_runs_on_one_data_set_with_other_protocols_are_not_comparable(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "tem", SCORES, recipe={"epochs": None, "seconds": 100.0})
    near = write_run(tmp_path / "b", "tem", OTHER, recipe={"epochs": None, "seconds": 104.0})
    assert warnings(read_runs([first, near])) == []
    far = write_run(
        tmp_path / "c",
        "tem",
        {"unet": 0.2},
        recipe={"epochs": None, "seconds": 200.0, "patch": 128},
        environment={"data_hash": "f" * 64, "machine": {"device": "cuda", "gpu": "H200", "processor": "P"}},
    )
    assert warnings(read_runs([first, near, far])) == [
        "Not comparable: the runs on tem have not the same images or protocol. They differ in seconds of a training "
        "(1 min 40 s in a, 1 min 44 s in b, 3 min 20 s in c); patch size (128 in c, 64 in a and b); device (H200 in c, "
        "cpu in a and b); data (ffffffffffff in c, tem000000000 in a and b)."
    ]


def test_protocols_that_differ_between_data_sets_are_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, SCORES) for name in "abc"]
    runs.append(write_run(tmp_path / "d", "d", SCORES, recipe={"epochs": 5}, config={"budget": 600}))
    (found,) = warnings(read_runs(runs))
    assert found.startswith("Not comparable across data sets: the protocols differ")
    assert found.endswith(
        "The runs differ in budget (10 min in d, none in the others); epochs of a training (5 in d, 20 in the others)."
    )


def test_equal_images_under_two_names_are_not_independent(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name, SCORES, environment={"data_hash": "e" * 64}) for name in ("a", "b")]
    (found,) = warnings(read_runs(runs))
    assert found == "Not independent: a and b are the same images and masks, and count as several data sets."


def test_one_name_for_two_networks_is_told(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "a", SCORES)
    small = {"baselines": [{"name": "unet", "options": {"width": 8}, "as": "unet"}]}
    second = write_run(tmp_path / "b", "b", SCORES, config=small)
    assert warnings(read_runs([first, second])) == [
        'Not comparable: unet is not the same network in all runs (unet {} in a, unet {"width": 8} in b).'
    ]


def test_all_problems_of_all_runs_at_once(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", "a", SCORES)
    unfinished = write_run(tmp_path / "unfinished", "a", SCORES)
    (unfinished / "comparison.json").unlink()
    torn = write_run(tmp_path / "torn", "a", SCORES)
    (torn / "comparison.json").write_text('{"models": {')
    (torn / "plan.json").write_text("[]")
    shapeless = write_run(tmp_path / "shapeless", "a", SCORES)
    (shapeless / "comparison.json").write_text('{"models": {"unet": {"role": "baseline"}}, "verdict": {}}')
    old = write_run(tmp_path / "old", "a", SCORES, environment={"autoseg": "0.0.9"})
    found = problems(good, unfinished, torn, shapeless, old, tmp_path / "nothing", good, tmp_path)
    assert [line.split(": ", 1)[0] for line in found] == [
        str(good),
        str(unfinished),
        str(torn / "plan.json"),
        str(torn / "comparison.json"),
        str(shapeless / "comparison.json"),
        str(old / "environment.json"),
        str(tmp_path / "nothing"),
        str(tmp_path),
    ]
    assert "given 2 times" in found[0] and "not finished" in found[1] and "holds no object" in found[2]
    assert "is not JSON" in found[3] and "models.unet.miou" in found[4]
    assert "made by autoseg 0.0.9" in found[5] and "no such run folder" in found[6] and "holds no run" in found[7]


def test_no_runs(tmp_path: Path) -> None:
    assert "there is no run to compare" in problems()[0]


def test_releases_that_compare() -> None:
    assert series("0.1.0") == series("0.1.7") != series("0.2.0")
    assert series("1.0.0") == series("1.9.3") != series("2.0.0")
