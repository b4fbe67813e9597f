"""Presets: what they change, what they leave alone, and where their mistakes are said to be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_distribution import install

from autoseg.config import ExperimentConfig, load_config, load_data_section
from autoseg.errors import UserError

FILE = """
seed: 3
budget: 1h
data: {dataset: grains, options: {images: a, count: 7}}
space: {name: tiny, options: {layers: 3}}
strategy: {name: guess, patch: 32, options: {epochs: 12}}
train: {loss: {name: soft, options: {smooth: 2}}, lr: 0.1, layers: 5}
baselines: [flat, {name: flat, as: second}]
"""


@pytest.fixture(autouse=True)
def _plugins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(install(tmp_path_factory.mktemp("site"))))
    yield
    sys.modules.pop("fakeplugs", None)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes exp/my.yaml below the current folder, and gives the relative path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()

    def write(text: str) -> str:
        (tmp_path / "exp" / "my.yaml").write_text(text, encoding="utf-8")
        return "exp/my.yaml"

    return write


def problems(source: Any, preset: str | None = None, overrides: list[str] | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(source, overrides or [], preset)
    return [str(problem).replace("\n ", "") for problem in caught.value.problems]


def with_preset(write: Callable[[str], str], preset: str, file: str = FILE, **arguments: Any) -> ExperimentConfig:
    """The file with one preset, called ``paper``, chosen."""
    indented = "".join(f"    {line}\n" for line in preset.strip().splitlines())
    return load_config(write(f"{file}presets:\n  paper:\n{indented}"), preset="paper", **arguments)


def test_dictionaries_merge_and_the_rest_is_replaced(write: Callable[[str], str]) -> None:
    config = with_preset(
        write,
        """
seed: 4
data: {options: {count: 8}}
space: {options: {decoder: dense}}
strategy: {batch: 1, options: {temperature: 0.5}}
train: {lr: 0.2, batch: 2, optimiser: sgd, schedule: {name: exponential, options: {gamma: 0.9}}}
baselines: [random]
""",
    )
    assert (config.seed, config.budget) == (4, 3600.0)
    assert {key: value for key, value in config.data.options.items() if key != "images"} == {"count": 8}
    assert config.space.options == {"layers": 3, "decoder": "dense"}
    assert (config.strategy.patch, config.strategy.batch) == (32, 1)
    assert config.strategy.options == {"epochs": 12, "temperature": 0.5}
    assert (config.train.lr, config.train.batch, config.train.optimiser) == (0.2, 2, "sgd")
    assert (config.train.schedule.name, config.train.schedule.options) == ("exponential", {"gamma": 0.9})
    assert (config.train.loss.options, config.train.space_options) == ({"smooth": 2}, {"layers": 5})
    assert [baseline.label for baseline in config.baselines] == ["random"]


def test_without_a_preset_nothing_changes_and_none_is_saved(write: Callable[[str], str]) -> None:
    plain = load_config(write(FILE))
    path = write(FILE + "presets: {paper: {seed: 9, train: {lr: 0.5}}, empty: }\n")
    assert load_config(path) == plain == load_config(path, preset="empty")
    chosen = load_config(path, preset="paper")
    assert (chosen.seed, chosen.train.lr) == (9, 0.5)
    assert "presets" not in yaml.safe_load(chosen.to_yaml())
    assert load_config(write(chosen.to_yaml())) == chosen


@pytest.mark.parametrize(
    ("preset", "section", "expected"),
    [
        ("space: open", "space", {}),
        ("space: {name: open, options: {depth: 2}}", "space", {"depth": 2}),
        ("space: {name: tiny, options: {decoder: dense}}", "space", {"layers": 3, "decoder": "dense"}),
        ("space: tiny", "space", {"layers": 3}),
        ("strategy: fake-plugs:guess", "strategy", {}),
        ("data: synthetic-ceramic", "data", {}),
        ("data: {dataset: synthetic-ceramic, options: {count: 12}}", "data", {"count": 12}),
        ("data: {options: {images: b}}", "data", {"images": "exp/b", "count": 7}),
    ],
)
def test_options_of_another_plugin_do_not_stay(
    write: Callable[[str], str], tmp_path: Path, preset: str, section: str, expected: dict[str, Any]
) -> None:
    options = getattr(with_preset(write, preset), section).options
    assert {key: str(v.relative_to(tmp_path)) if isinstance(v, Path) else v for key, v in options.items()} == expected


def test_another_space_takes_its_options_out_of_the_training_too(write: Callable[[str], str]) -> None:
    assert with_preset(write, "space: open").train.space_options == {}
    assert with_preset(write, "space: open\ntrain: {depth: 2}").train.space_options == {"depth": 2}
    assert with_preset(write, "space: {options: {layers: 9}}").train.space_options == {"layers": 5}


def test_other_losses_and_schedules(write: Callable[[str], str]) -> None:
    assert with_preset(write, "train: {loss: ce}").train.loss.options == {}
    assert with_preset(write, "train: {loss: soft}").train.loss.options == {"smooth": 2}
    file = FILE.replace("lr: 0.1", "schedule: {options: {final: 0}}")  # the default's
    assert with_preset(write, "train: {schedule: {options: {warmup: 0.2}}}", file).train.schedule.options == {
        "final": 0,
        "warmup": 0.2,
    }
    assert with_preset(write, "train: {schedule: constant}", file).train.schedule.options == {}


def test_null_takes_away(write: Callable[[str], str]) -> None:
    file = FILE.replace("lr: 0.1", "lr: 0.1, seconds: 1min")
    config = with_preset(write, "budget: null\ntrain: {seconds: null, epochs: 4}\nbaselines: null\n", file)
    assert (config.budget, config.train.seconds, config.train.epochs) == (None, None, 4)
    assert [baseline.label for baseline in config.baselines] == ["unet", "random"]


@pytest.mark.parametrize(
    ("preset", "section", "expected"),
    [
        ("data: {options: {count: null}}", "data", {}),
        ("data: {count: null}", "data", {}),
        ("space: null", "space", {}),
        ("space: {name: null, options: {width: 4}}", "space", {"width": 4}),
        ("space: {options: null}", "space", {}),
        ("strategy: {patch: null, options: {epochs: null, temperature: 0.5}}", "strategy", {"temperature": 0.5}),
        ("train: {lr: null, layers: null, loss: {options: {smooth: null}}}", "train.loss", {}),
        ("train: {space_options: null, loss: {options: null}}", "train.loss", {}),
        ("train: {space_options: {layers: null}, schedule: null, loss: null}", "train.loss", {}),
        ("train: {schedule: {options: {final: null}}}", "train.schedule", {"warmup": 0.2}),
        ("train: {schedule: {name: null}}", "train.schedule", {}),
        ("train: {schedule: null}", "train.schedule", {}),
    ],
)
def test_null_takes_away_at_any_depth(
    write: Callable[[str], str], preset: str, section: str, expected: dict[str, Any]
) -> None:
    schedule = "lr: 0.1, schedule: {name: cosine, options: {warmup: 0.2, final: 0}}"
    config = with_preset(write, preset, FILE.replace("lr: 0.1", schedule))
    found = config.train.loss if section == "train.loss" else config.train.schedule
    options = (found if section.startswith("train.") else getattr(config, section)).options
    assert {key: value for key, value in options.items() if key != "images"} == expected
    assert config.train.lr == (3e-3 if "lr: null" in preset else 0.1)
    assert config.strategy.patch == (None if "patch" in preset else 32)
    gone = any(text in preset for text in ("layers: null", "space: null", "space: {name: null", "space_options: null"))
    assert config.train.space_options == ({} if gone else {"layers": 5})
    assert config.train.loss.name == ("ce+dice" if "loss: null" in preset else "soft")
    assert config.space.name == ("ednas" if "space: null" in preset or "name: null, options" in preset else "tiny")


def test_networks_of_presets_that_are_not_chosen_are_not_imported(
    write: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family of networks takes seconds to import; its name is looked up all the same."""
    site = tmp_path_factory.mktemp("large")
    groups = {"autoseg.models": {"large": "largeplugs:large"}}
    modules = {"largeplugs": "def large(in_channels, num_classes, width=4): ..."}
    install(site, "large-plugs", groups=groups, modules=modules)
    monkeypatch.syspath_prepend(str(site))
    path = write(FILE + "presets: {paper: {baselines: [{name: large, options: {depth: 3}}]}}\n")
    load_config(path)
    assert "largeplugs" not in sys.modules
    (found,) = problems(path, "paper")
    assert "unknown option 'depth'" in found and sys.modules.pop("largeplugs")
    (found,) = problems(write(FILE + "presets: {paper: {baselines: [larg]}}\n"))
    assert found.endswith("there is no model called 'larg' -> did you mean 'large'?")


def test_short_forms_meet_long_ones(write: Callable[[str], str], tmp_path: Path) -> None:
    short = FILE.replace("{dataset: grains, options: {images: a, count: 7}}", "{images: a, masks: b}")
    long = FILE.replace("dataset: grains, options: {images: a, count: 7}", "dataset: folder, options: {images: a}")
    images = {"images": tmp_path / "exp/c"}
    assert with_preset(write, "data: {images: c}", short).data.options == {**images, "masks": tmp_path / "exp/b"}
    assert with_preset(write, "data: {images: c}", long).data.options == images
    assert with_preset(write, "data: {images: c}").data.dataset == "folder"
    config = with_preset(write, "data: synthetic-ceramic", short)
    assert (config.data.dataset, config.data.options) == ("synthetic-ceramic", {})
    assert with_preset(write, "train: {space_options: {layers: 8}}").train.space_options == {"layers": 8}
    assert with_preset(write, "strategy: {options: {epochs: 3}}", FILE.replace("{name: guess, patch: 32, options: {epochs: 12}}", "guess")).strategy.options == {"epochs": 3}  # fmt: skip  # noqa: E501


def test_set_counts_more_than_the_preset(write: Callable[[str], str], tmp_path: Path) -> None:
    preset = "data: {images: c}\ntrain: {lr: 0.2, layers: 8, schedule: exponential}"
    overrides = [
        "train.lr=0.3", "train.layers=9", "data.images=x", "data.options.masks=m", "train.schedule.options.gamma=0.5",
    ]  # fmt: skip
    config = with_preset(write, preset, overrides=overrides)
    assert (config.train.lr, config.train.space_options) == (0.3, {"layers": 9})
    assert config.data.options == {"images": tmp_path / "x", "masks": tmp_path / "m"}
    assert (config.train.schedule.name, config.train.schedule.options) == ("exponential", {"gamma": 0.5})


def test_places_in_the_preset_that_was_chosen(write: Callable[[str], str]) -> None:
    path = write(
        FILE
        + """presets:
  paper:
    seed: -1
    strategy:
      options: {epoch: 3}
    train:
      lrr: 2
      layers: x
      schedule: {name: exponential, options: {gamma: 2}}
    baselines: [flat, falt]
"""
    )
    hints = problems(path, "paper")
    assert [hint.partition(": ")[0] for hint in hints] == [
        f"{path}, line 11, presets.paper.seed",
        f"{path}, line 13, presets.paper.strategy.options.epoch",
        f"{path}, line 18, presets.paper.baselines[1].name",
        f"{path}, line 17, presets.paper.train.schedule.options.gamma",
        f"{path}, line 16, presets.paper.train.layers",
        f"{path}, line 15, presets.paper.train.lrr",
    ]
    assert hints[3].endswith("'gamma' must be above 0 and at most 1 -> change it")
    assert hints[5].endswith("'lrr' is neither a setting of train nor an option of the space -> did you mean 'lr'?")
    assert problems(path) == hints  # the same when it was not chosen


def test_places_of_what_the_preset_left_alone(write: Callable[[str], str]) -> None:
    file = FILE.replace("lr: 0.1", "lr: 0").replace("epochs: 12", "epoch: 12")
    path = write(file + "presets:\n  paper:\n    train: {clip: 2}\n    strategy: {batch: 2}\n")
    expected = [f"{path}, line 7, train.lr", f"{path}, line 6, strategy.options.epoch"]
    assert [hint.partition(": ")[0] for hint in problems(path, "paper")] == expected
    assert [hint.partition(": ")[0] for hint in problems(path)] == expected  # once


def test_short_forms_in_a_preset_are_named_as_written(write: Callable[[str], str]) -> None:
    path = write(FILE + "presets:\n  paper:\n    data:\n      images: c\n      nonsense: 3\n")
    (found,) = (hint for hint in problems(path, "paper") if "nonsense" in hint)
    assert found.startswith(f"{path}, line 13, presets.paper.data.nonsense: unknown option 'nonsense'")
    (found,) = problems(path, "paper", ["data.nonsense=4"])
    assert found.startswith("--set data.nonsense=4: unknown option 'nonsense'")


def test_what_only_the_file_and_a_preset_together_get_wrong(write: Callable[[str], str]) -> None:
    path = write(FILE.replace("lr: 0.1", "seconds: 1min") + "presets:\n  paper:\n    train: {epochs: 3}\n")
    expected = f"{path}, line 7, train.seconds: train.epochs and train.seconds are both given"
    for preset in (None, "paper"):
        (found,) = problems(path, preset)
        assert found.startswith(expected)


def test_unknown_presets(write: Callable[[str], str]) -> None:
    path = write(FILE + "presets: {paper: {seed: 4}, quick: {seed: 5}}\n")
    assert problems(path, "papre") == ["--preset papre: there is no preset called 'papre' -> did you mean 'paper'?"]
    assert problems(write(FILE), "paper") == [
        "--preset paper: there is no preset called 'paper' -> the file has no presets; leave it out"
    ]


@pytest.mark.parametrize(
    ("presets", "expected"),
    [
        ("presets: [paper]\n", "line 9, presets: this is not a section of presets"),
        ("presets: {paper: 3}\n", "line 9, presets.paper: this is not a section of keys"),
        ("presets: {3: {seed: 1}}\n", "presets.3: 3 is not text"),
        ("presets: {paper: {presets: {a: {}}}}\n", "line 9, presets.paper.presets: unknown key 'presets'"),
        ("presets: {paper: {seeds: 4}}\n", "line 9, presets.paper.seeds: unknown key 'seeds' -> did you mean 'seed'?"),
    ],
)
def test_what_is_no_preset(write: Callable[[str], str], presets: str, expected: str) -> None:
    (found,) = problems(write(FILE + presets))
    assert expected in found


def test_plugins_that_are_not_installed_matter_when_they_are_chosen(write: Callable[[str], str]) -> None:
    path = write(FILE + "presets: {paper: {strategy: faraway, space: nowhere}, slip: {strategy: gess}}\n")
    assert problems(path) == [
        f"{path}, line 9, presets.slip.strategy.name: there is no strategy called 'gess' -> did you mean 'guess'?"
    ]
    found = problems(path, "paper")
    assert len(found) == 3 and found[0].startswith(f"{path}, line 9, presets.paper.space.name: there is no space")


def test_presets_of_a_dictionary() -> None:
    source = {**yaml.safe_load(FILE), "presets": {"paper": {"train": {"lr": 0.7}}}}
    assert load_config(source, preset="paper").train.lr == 0.7
    source["presets"]["paper"]["train"] = {"lrr": 0.7}
    assert problems(source)[0].startswith("presets.paper.train.lrr: 'lrr' is neither")


def test_the_data_of_a_preset(write: Callable[[str], str]) -> None:
    path = write(FILE + "presets: {paper: {data: {options: {count: 9}}, train: {lr: -1}}}\n")
    assert load_data_section(path).data.options["count"] == 7
    assert load_data_section(path, preset="paper").data.options["count"] == 9
