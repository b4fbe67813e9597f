from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_distribution import install

from autoseg.config import ExperimentConfig, load_config
from autoseg.config_yaml import dump, read_document
from autoseg.errors import UserError

MINIMAL: dict[str, Any] = {
    "data": {"dataset": "grains", "options": {"images": "pictures"}},
    "space": "tiny",
    "strategy": "guess",
    "train": {"loss": "soft"},
    "baselines": ["flat"],
}
HEAD = "data: {dataset: grains, options: {images: a}}\nspace: tiny\nstrategy: guess\nbaselines: []\n"
"""Four lines that are right; tests add to them from line 5 on."""


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


def problems(source: object, overrides: Sequence[str] = ()) -> list[str]:
    """What load_config complains about, each as 'place: sentence -> hint'."""
    with pytest.raises(UserError) as caught:
        load_config(source, overrides)  # type: ignore[arg-type]
    return [str(problem).replace("\n ", "") for problem in caught.value.problems]


def changed(**changes: Any) -> dict[str, Any]:
    return {**MINIMAL, **changes}


# --- what a good file gives


def test_defaults() -> None:
    config = load_config(changed(train={"loss": "soft"}))
    train = config.train
    assert (config.name, config.seed, config.budget, config.repeats) == ("experiment", 0, None, 2)
    assert (train.epochs, train.seconds, train.batch, train.patch, train.validate_every) == (None,) * 5
    assert (train.lr, train.weight_decay, train.clip, train.augment) == (3e-3, 1e-4, 1.0, True)
    assert (config.compute.device, config.compute.workers, config.compute.precision) == ("auto",) * 3
    assert (config.ui.enabled, config.ui.port) == (True, "auto")
    fields = ExperimentConfig.model_fields
    assert (fields["space"].default.name, fields["strategy"].default.name) == ("ednas", "enas")
    assert ExperimentConfig.model_validate({"data": {"dataset": "x"}}).train.loss.name == "ce+dice"
    default = ExperimentConfig.model_validate({"data": {"dataset": "x"}}).baselines
    assert [(baseline.name, baseline.label) for baseline in default] == [("unet", "unet"), ("random", "random")]
    assert default[0].options == {"width": 16}


def test_limits_of_the_objective() -> None:
    unlimited = load_config(MINIMAL).objective
    assert (unlimited.max_params, unlimited.max_flops, unlimited.max_latency_ms) == (None, None, None)
    for written, value in (("2M", 2_000_000), ("1.5G", 1_500_000_000), ("500 k", 500_000), (7, 7), (1e6, 10**6)):
        objective = load_config(changed(objective={"max_params": written, "max_flops": written})).objective
        assert objective.max_params == objective.max_flops == value
        assert type(objective.max_params) is int
    config = load_config(changed(objective={"max_params": "2M", "max_latency_ms": 20}))
    assert yaml.safe_load(config.to_yaml())["objective"] == {
        "max_params": 2_000_000, "max_flops": None, "max_latency_ms": 20.0,
    }  # fmt: skip


def test_limits_in_a_file(write: Callable[[str], str]) -> None:
    assert load_config(write(HEAD + "objective: {max_params: 2M}\n")).objective.max_params == 2_000_000
    path = write(HEAD + "objective:\n  max_params: 2X\n  max_flops: none\n")
    assert [problem.partition(": ")[0] for problem in problems(path)] == [
        f"{path}, line 6, objective.max_params",
        f"{path}, line 7, objective.max_flops",
    ]


def test_defaults_are_not_shared() -> None:
    one, two = (ExperimentConfig.model_validate({"data": {"dataset": "x"}}) for _ in range(2))
    one.space.options["layers"] = 9
    one.baselines.clear()
    assert two.space.options == {}
    assert len(two.baselines) == 2


def test_a_full_file(write: Callable[[str], str], tmp_path: Path) -> None:
    config = load_config(
        write(
            """
name: ceramic_1
seed: 3
budget: 1h30m
data: {dataset: grains, options: {images: imgs/../a, masks: /abs/m, size: [96, 64]}}
space: {name: tiny, options: {layers: 3, decoder: dense}}
strategy: {name: guess, options: {epochs: 12, temperature: 1e-1}}
train: {seconds: 2min, loss: {name: soft, options: {smooth: 2}}, lr: 1e-3, layers: 5, clip: 0, augment: {flip: true}}
baselines: [flat, {name: flat, options: {width: 8}, as: flat-8}, {name: "fake-plugs:flat", as: third}, random]
repeats: 3
compute: {device: "cuda:1", workers: 0, precision: 16}
ui: {enabled: off, port: 8080}
"""
        )
    )
    assert (config.name, config.seed, config.budget, config.repeats) == ("ceramic_1", 3, 5400.0, 3)
    folder = tmp_path / "exp"
    assert config.data.options == {"images": folder / "a", "masks": Path("/abs/m"), "size": [96, 64]}
    assert isinstance(config.data.options["images"], Path)
    assert config.strategy.options == {"epochs": 12, "temperature": 0.1}
    assert (config.train.seconds, config.train.lr, config.train.clip) == (120.0, 0.001, 0.0)
    assert (config.train.loss.name, config.train.loss.options) == ("soft", {"smooth": 2})
    assert config.train.space_options == {"layers": 5}
    assert config.train.augment == {"flip": True}
    assert [(b.name, b.options, b.label) for b in config.baselines] == [
        ("flat", {}, "flat"), ("flat", {"width": 8}, "flat-8"), ("fake-plugs:flat", {}, "third"),
        ("random", {}, "random"),
    ]  # fmt: skip
    assert (config.compute.device, config.compute.workers, config.compute.precision) == ("cuda:1", 0, "16")
    assert (config.ui.enabled, config.ui.port) == (False, 8080)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"budget": "95s", "name": "other", "train": {"loss": "soft", "layers": 4, "prior": "p"}},
        {"strategy": {"name": "guess", "options": {"temperature": 1e-7}}, "train": {"loss": "soft", "lr": 1e-7}},
        {
            "space": {
                "name": "open",
                "options": {"a": "1e-3", "b": "yes", "c": None, "d": [1, {"ü": "null"}], "e": (1, 2)},
            }
        },
        {"baselines": [{"name": "flat", "as": "x"}, "random"], "compute": {"precision": 32}, "repeats": 20},
    ],
)
def test_round_trip(extra: dict[str, Any], write: Callable[[str], str]) -> None:
    config = load_config(changed(**extra))
    again = load_config(write(config.to_yaml()))
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert load_config(yaml.safe_load(config.to_yaml())) == config


def test_to_yaml_writes_everything() -> None:
    written = yaml.safe_load(load_config(MINIMAL).to_yaml())
    assert list(written) == [
        "name", "seed", "budget", "data", "space", "strategy", "objective", "train", "baselines", "repeats",
        "compute", "ui",
    ]  # fmt: skip
    assert written["baselines"] == [{"name": "flat", "options": {}, "as": "flat"}]
    assert written["data"]["options"]["images"] == str(Path.cwd() / "pictures")


@pytest.mark.parametrize(
    ("stem", "name"), [("my run (2)", "my-run-2"), ("über", "ber"), ("...", "experiment"), ("a.b", "a.b")]
)
def test_name_is_made_from_the_file(tmp_path: Path, stem: str, name: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text(HEAD)
    assert load_config(path).name == name


def test_short_forms() -> None:
    folder = load_config(changed(data={"images": "a", "masks": "b"})).data
    assert folder.dataset == "folder"
    assert {key: str(value) for key, value in folder.options.items()} == {
        "images": str(Path.cwd() / "a"), "masks": str(Path.cwd() / "b"),
    }  # fmt: skip
    config = load_config(
        changed(data={"dataset": "grains", "options": {"images": "x"}}, train=None, repeats=None, ui=None)
    )
    assert config.repeats == 2
    assert load_config(changed(data="synthetic-ceramic", space={"name": "tiny", "options": None})).data.options == {}


def test_paths_follow_where_they_were_written(write: Callable[[str], str], tmp_path: Path) -> None:
    path = write(HEAD.replace("images: a", "images: a, masks: b, extra: [c]") + "train: {prior: p}\n")
    options = load_config(path, ["data.options.masks=m"]).data.options
    assert options == {"images": tmp_path / "exp/a", "masks": tmp_path / "m", "extra": [tmp_path / "exp/c"]}
    assert load_config(path).train.space_options == {"prior": tmp_path / "exp/p"}
    assert load_config(path, ["train.prior=p"]).train.space_options == {"prior": tmp_path / "p"}
    assert load_config(MINIMAL).data.options == {"images": tmp_path / "pictures"}


# --- overrides


def test_overrides(write: Callable[[str], str]) -> None:
    path = write(HEAD + "train: {epochs: 3, loss: soft}\n")
    config = load_config(
        path,
        ["train.epochs=null", "train.seconds=90s", "space.options.layers=7", "train.loss.options.smooth=1e-2",
         "baselines=[flat, random]", "baselines.0.as=first", "ui.enabled=false", "name=other", "train.decoder=dense"],
    )  # fmt: skip
    assert (config.train.epochs, config.train.seconds) == (None, 90.0)
    assert (config.space.name, config.space.options) == ("tiny", {"layers": 7})
    assert (config.train.loss.name, config.train.loss.options) == ("soft", {"smooth": 0.01})
    assert [b.label for b in config.baselines] == ["first", "random"]
    assert (config.ui.enabled, config.name) == (False, "other")
    assert config.train.space_options == {"decoder": "dense"}


def test_override_problems(write: Callable[[str], str]) -> None:
    path = write(HEAD + "repeats: 2\n")
    found = problems(
        path, ["train.epochs=x", "train.epcohs=3", "nothing", "=3", "seed=[", "repeats.a=1", "ui={port: 0}"]
    )
    assert found == [
        "--set nothing: not of the form key=value -> write --set train.epochs=5",
        "--set =3: not of the form key=value -> write --set train.epochs=5",
        found[2],
        "--set repeats.a=1: 'repeats' has no 'a' to set -> set the enclosing key as a whole",
        "--set train.epochs=x: this is not a whole number (got 'x')"
        " -> epochs: passes over the training images, 1 or more",
        "--set ui={port: 0}, ui.port: must be auto or a whole number from 1 to 65534 (got 0)"
        " -> port: auto or a port from 1 to 65534; the next one is needed too",
        "--set train.epcohs=3: 'epcohs' is neither a setting of train nor an option of the space"
        " -> did you mean 'epochs'?",
    ]
    assert found[2].startswith("--set seed=[: the value is not YAML")


# --- problems


def test_all_problems_together_with_lines(write: Callable[[str], str]) -> None:
    path = write("""nmae: x
seed: -1
budget: 10 parsecs
data: {dataset: grains, options: {images: a, cuont: 3, size: big}}
space: tinny
strategy:
  name: guess
  options:
    epoch: 5
train:
  epochs: true
  seconds: 10min
  lossy: 1
baselines:
  - flat
  - {name: falt}
  - name: flat
    options: {width: wide}
repeats: 0
""")
    at = {p.partition(": ")[0]: p.partition(": ")[2] for p in problems(path)}
    assert at == {
        f"{path}, line 1, nmae": "unknown key 'nmae' -> did you mean 'name'?",
        f"{path}, line 2, seed": "must be greater than or equal to 0 (got -1)"
        " -> seed: where all random numbers start, 0 or more",
        f"{path}, line 3, budget": "'10 parsecs' is not a length of time"
        " -> budget: time for the whole run such as 10min, 2h or 1h30m",
        f"{path}, line 4, data.options.cuont": "unknown option 'cuont' -> did you mean 'count'?",
        f"{path}, line 4, data.options.size": at[f"{path}, line 4, data.options.size"],
        f"{path}, line 5, space.name": "there is no space called 'tinny' -> did you mean 'tiny'?",
        f"{path}, line 9, strategy.options.epoch": "unknown option 'epoch' -> did you mean 'epochs'?",
        f"{path}, line 11, train.epochs": "this is not a whole number (got True)"
        " -> epochs: passes over the training images, 1 or more",
        f"{path}, line 12, train.seconds": "train.epochs and train.seconds are both given"
        " -> keep the one that shall end the training",
        f"{path}, line 13, train.lossy": "unknown key 'lossy' -> did you mean 'loss'?",
        f"{path}, line 16, baselines[1].name": "there is no model called 'falt' -> did you mean 'flat'?",
        f"{path}, line 17, baselines[2]": "2 baselines are called 'flat'"
        " -> give it a label of its own: {name: flat, as: flat-2}",
        f"{path}, line 18, baselines[2].options.width": at[f"{path}, line 18, baselines[2].options.width"],
        f"{path}, line 19, repeats": "must be greater than or equal to 1 (got 0)"
        " -> repeats: trainings of each network with different seeds, 1 to 20",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": None}, "data: 'data' is missing -> data: the images, such as"),
        ({"data": {}}, "data.dataset: 'dataset' is missing"),
        ({"data": 3}, "data: this is not a section of keys (got 3)"),
        ({"data": {"dataset": "grains", "options": {}}}, "options.images: option 'images' is missing -> give Path"),
        (
            {"data": {"dataset": "grains", "options": {"images": "a"}, "count": 3}},
            "data.count: unknown key 'count' -> known: dataset, options; options of the plugin go under 'options'",
        ),
        ({"epochs": 3}, "epochs: unknown key 'epochs' -> 'epochs' belongs under 'train'"),
        ({"name": "a/b"}, "name: must start with a letter or digit"),
        ({"name": "../b"}, "name: must start with a letter or digit"),
        ({"name": 3}, "name: this is not text (got 3)"),
        ({"seed": 1.5}, "seed: this is not a whole number (got 1.5)"),
        ({"budget": 0}, "budget: must be longer than nothing (got 0)"),
        ({"repeats": 21}, "repeats: must be less than or equal to 20 (got 21)"),
        ({"repeats": "3"}, "repeats: this is not a whole number (got '3')"),
        ({"train": {"loss": "soft", "lr": 0}}, "train.lr: must be greater than 0 (got 0)"),
        ({"train": {"loss": "soft", "lr": float("nan")}}, "train.lr: this is not a finite number"),
        ({"train": {"loss": "soft", "clip": float("inf")}}, "train.clip: this is not a finite number"),
        ({"train": {"loss": "soft", "augment": 3}}, "augment: must be true, false or a section of settings (got 3)"),
        ({"train": {"loss": "sofd"}}, "train.loss.name: there is no loss called 'sofd' -> did you mean 'soft'?"),
        ({"train": {"loss": "soft", "layer": 3}}, "train.layer: 'layer' is neither a setting of train nor an option"),
        ({"train": {"loss": "soft", "layers": "x"}}, "train.layers: option 'layers': input should be a valid integer"),
        ({"train": {"loss": "soft", "seconds": "31min"}, "budget": "1h"}, "takes 1 h 2 min (2 x train.seconds)"),
        ({"train": [1]}, "train: this is not a section of keys (got [1])"),
        ({"space": ["tiny"]}, "space: this is not a section of keys (got ['tiny'])"),
        ({"space": {"name": "tiny", "options": [1]}}, "space.options: this is not a section of keys (got [1])"),
        ({"space": {"name": "tiny", "options": {"decoder": "loop"}}}, "space.options.decoder: option 'decoder'"),
        ({"baselines": "flat"}, "baselines: this is not a list (got 'flat')"),
        ({"baselines": [3]}, "baselines[0]: this is not a section of keys (got 3)"),
        ({"baselines": [{"name": "flat", "as": "random"}]}, "baselines[0]: the label 'random' belongs to the control"),
        ({"baselines": ["random", "random"]}, "baselines[1]: 2 baselines are called 'random'"),
        ({"baselines": [{"name": "random", "options": {"a": 1}}]}, "baselines[0].options: 'random' is a random"),
        ({"objective": {"max_params": "2 million"}}, "objective.max_params: must be a number above 0, such as 500k"),
        ({"objective": {"max_params": 0}}, "objective.max_params: must be a number above 0"),
        ({"objective": {"max_params": 0.4}}, "objective.max_params: must be a number above 0"),
        ({"objective": {"max_flops": True}}, "objective.max_flops: must be a number above 0"),
        ({"objective": {"max_flops": "-3G"}}, "objective.max_flops: must be a number above 0"),
        ({"objective": {"max_latency_ms": 0}}, "objective.max_latency_ms: must be greater than 0 (got 0)"),
        ({"objective": {"max_latency_ms": "fast"}}, "objective.max_latency_ms: this is not a number (got 'fast')"),
        ({"objective": {"max_parms": 3}}, "objective.max_parms: unknown key 'max_parms' -> did you mean 'max_params'"),
        ({"compute": {"device": "gpu"}}, "compute.device: there is no such device (got 'gpu') -> device: auto"),
        ({"compute": {"precision": 64}}, "compute.precision: must be 'auto', '32', 'bf16' or '16' (got '64')"),
        ({"compute": {"workers": True}}, "compute.workers: must be auto or a whole number from 0 to 1024 (got True)"),
        ({3: 4}, "[3]: the key 3 is not text"),
    ],
)  # fmt: skip
def test_one_problem(changes: dict[Any, Any], expected: str) -> None:
    found = problems({**MINIMAL, **changes})
    assert len(found) == 1, found
    assert expected in found[0]


def test_a_broken_plugin_is_one_problem_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(tmp_path, "bad-plugs", "1.0", {"autoseg.spaces": {"bad": "badmod:X"}}, {"badmod": "import nowhere"})
    monkeypatch.syspath_prepend(str(site))
    found = problems(changed(space="bad", seed=-1, train={"loss": "soft", "anything": 3, "epoch": 2}))
    assert len(found) == 3
    assert found[0].startswith("seed: must be")
    assert found[1] == (
        "space.name: space 'bad' of bad-plugs 1.0 cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"
        " -> install the missing module 'nowhere', or update bad-plugs"
    )
    assert found[2] == "train.epoch: unknown key 'epoch' -> did you mean 'epochs'?"


def test_a_space_that_takes_anything_takes_extra_train_keys() -> None:
    config = load_config(changed(space="open", train={"loss": "soft", "depth": 3, "space_options": {"patch": 2}}))
    assert config.train.space_options == {"patch": 2, "depth": 3}
    assert config.train.patch is None


# --- files that cannot be read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "exp/my.yaml: the file is empty"),
        ("# only a comment\n", "exp/my.yaml: the file is empty"),
        ("- a\n", "exp/my.yaml: the file has no keys at its top level"),
        ("data: [a, b\nspace: c\n", "exp/my.yaml, line 2, column 6: not valid YAML: expected ',' or ']'"),
        ("train:\n\tepochs: 3\n", "line 2, column 1: not valid YAML: found character '\\t' that cannot"),
        ("a: *b\n", "exp/my.yaml, line 1, column 4: not valid YAML: found undefined alias"),
        ("a: &b [*b]\n", "exp/my.yaml, line 1, a[0]: this alias contains itself"),
        ("a: 2024-13-45\n", "exp/my.yaml: not valid YAML: month must be in 1..12"),
        ("a: !!python/object:os.system {}\n", "line 1, column 4: not valid YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "exp/my.yaml, line 2, column 1: not valid YAML: but found another document"),
        ("a: \x00\n", "exp/my.yaml: not valid YAML"),
        ("? [a]\n: 3\n", "exp/my.yaml, line 1, column 3: not valid YAML: found unhashable key"),
    ],
)  # fmt: skip
def test_bad_yaml(write: Callable[[str], str], text: str, expected: str) -> None:
    found = problems(write(text))
    assert len(found) == 1
    assert found[0].startswith(expected) or expected in found[0]
    assert ("indent with spaces" in found[0]) == ("\t" in text)


def test_missing_folder_and_binary_files(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == [
        f"{tmp_path / 'no.yaml'}: there is no such file -> check the path of the experiment file"
    ]
    assert "this is a folder" in problems(str(tmp_path))[0]
    (tmp_path / "x.png").write_bytes(b"\x89PNG\xff\xfe")
    assert "not a text file" in problems(tmp_path / "x.png")[0]


def test_keys_that_appear_twice(write: Callable[[str], str]) -> None:
    path = write(HEAD + "train:\n  epochs: 3\n  lr: 0.1\n  epochs: 4\nrepeats: 1\nrepeats: 2\n")
    assert problems(path) == [
        f"{path}, line 8, train.epochs: the key 'epochs' appears twice (first on line 6) -> keep one of them",
        f"{path}, line 10, repeats: the key 'repeats' appears twice (first on line 9) -> keep one of them",
    ]


def test_anchors_and_merged_sections_keep_their_lines(write: Callable[[str], str]) -> None:
    path = write(HEAD + "strategy: &s {name: guess, options: {epochs: 2}}\nspace:\n  <<: *s\n  name: tiny\n")
    path = write(Path(path).read_text().replace("space: tiny\nstrategy: guess\n", ""))
    assert problems(path) == [
        f"{path}, line 3, space.options.epochs: unknown option 'epochs' -> known: decoder, layers, prior"
    ]


def test_short_forms_are_named_as_written(write: Callable[[str], str]) -> None:
    path = write("data:\n  images: a\n  masks: b\n  nonsense: 3\nspace: tiny\nstrategy: guess\nbaselines: []\n")
    (found,) = (problem for problem in problems(path) if "nonsense" in problem)
    assert found.startswith(f"{path}, line 4, data.nonsense: unknown option 'nonsense'")


def test_yaml_numbers_and_text_survive(tmp_path: Path) -> None:
    data = {
        "a": 1e-3,
        "b": "1e-3",
        "c": "1E5",
        "d": 1.5e10,
        "e": "e5",
        "f": "-1e+4",
        "g": "yes",
        "h": "ü: x",
        "i": "12:30",
    }
    (tmp_path / "x.yaml").write_text(dump(data), encoding="utf-8")
    back = read_document(tmp_path / "x.yaml").data
    assert back == data
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in data.items()}
    (tmp_path / "x.yaml").write_text("\ufeffa: 1e-3\nb: 2E4\n", encoding="utf-8")
    assert read_document(tmp_path / "x.yaml").data == {"a": 0.001, "b": 20000.0}


# --- other machines


def machine(path: Path, **changes: Any) -> dict[str, Any]:
    (path / "key").write_text("")
    return {"host": "127.0.0.1", "key": str(path / "key"), "python": "/opt/venv/bin/python", **changes}


def test_machines(tmp_path: Path, write: Callable[[str], str]) -> None:
    (tmp_path / "exp" / "id").write_text("")
    config = load_config(
        write(
            HEAD + "compute:\n  service: remote\n  bind: 10.0.0.7\n  machines:\n"
            "    - {host: gpu1, port: 2222, user: me, key: id, python: /opt/venv/bin/python}\n"
            "    - {host: 10.0.0.9, key: id, python: /usr/bin/python3}\n"
        )
    )
    first, second = config.compute.machines
    assert (first.host, first.port, first.user, first.key) == ("gpu1", 2222, "me", tmp_path / "exp" / "id")
    assert (second.port, second.key, str(first)) == (22, tmp_path / "exp" / "id", "me@gpu1:2222")
    assert second.user
    compute = config.compute
    assert (compute.concurrency, compute.slots, compute.data, compute.bind) == ("auto", 2, "copy", "10.0.0.7")
    assert load_config(write(config.to_yaml())) == config
    assert load_config("exp/my.yaml", ["compute.concurrency=5", "compute.data=path"]).compute.slots == 5


def test_compute_defaults() -> None:
    compute = load_config(MINIMAL).compute
    assert (compute.service, compute.machines, compute.devices, compute.bind) == ("local", [], 1, None)
    assert (compute.kubernetes, compute.data, compute.concurrency) == ({}, "copy", "auto")
    assert load_config(MINIMAL).strategy.repeats == 1
    assert load_config(changed(strategy={"name": "guess", "repeats": 3})).strategy.repeats == 3


def test_all_problems_of_machines_together(write: Callable[[str], str]) -> None:
    path = write(
        HEAD
        + "ui: {enabled: false}\n"
        + "compute:\n"
        + "  service: remote\n"
        + "  bind: 0.0.0.0\n"
        + "  kubernetes: {a: 1}\n"
        + "  machines:\n"
        + "    - {host: gpu1, key: nokey, python: python3}\n"
        + "    - {host: gpu1, port: 22, key: nokey, python: /usr/bin/python3, user: -o}\n"
        + "    - {hots: gpu2, key: nokey, python: /usr/bin/python3}\n"
    )
    found = {problem.partition(": ")[0].partition("line ")[2]: problem.partition(": ")[2] for problem in problems(path)}
    assert set(found) == {
        "5, ui.enabled", "8, compute.bind", "9, compute.kubernetes", "11, compute.machines[0].key",
        "11, compute.machines[0].python", "12, compute.machines[1]", "12, compute.machines[1].key",
        "12, compute.machines[1].user", "13, compute.machines[2].host", "13, compute.machines[2].hots",
        "13, compute.machines[2].key",
    }  # fmt: skip
    assert found["8, compute.bind"].startswith("must be the one address that the workers reach")
    assert found["11, compute.machines[0].key"].startswith("there is no key file ")
    assert found["11, compute.machines[0].python"].startswith(
        "must be an absolute path on that machine (got 'python3')"
    )
    assert found["12, compute.machines[1]"].startswith("gpu1, port 22 is there twice")
    assert found["13, compute.machines[2].hots"].endswith("did you mean 'host'?")
    assert "--no-ui" in found["5, ui.enabled"]


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ({"machines": []}, None),
        ({"service": "local", "concurrency": "auto", "data": "copy"}, None),
        ({"bind": "10.0.0.7"}, "compute.bind: compute.bind is for other machines, but the service is local"),
        ({"data": "path"}, "compute.data: compute.data is for other machines"),
        ({"concurrency": 3}, "compute.concurrency: compute.concurrency is for other machines"),
        ({"kubernetes": {"a": 1}}, "compute.kubernetes: compute.kubernetes is for other machines"),
        ({"service": "remote"}, "compute.service: there is no machine for the remote service"),
        ({"service": "kubeflow"}, "compute.service: there are no settings of the kubeflow service"),
        ({"service": "kubeflow", "kubernetes": {"a": 1}}, None),
        ({"service": "romete"}, "compute.service: must be 'local', 'remote', 'kubeflow' or 'frameworkcontroller'"),
        ({"service": "remote", "machines": 3}, "compute.machines: this is not a list (got 3)"),
        ({"bind": "gpu1", "service": "kubeflow", "kubernetes": {"a": 1}}, "compute.bind: must be an IPv4 address"),
        ({"devices": 0}, "compute.devices: must be greater than or equal to 1"),
        (
            {"concurrency": 0, "service": "kubeflow", "kubernetes": {"a": 1}},
            "compute.concurrency: must be auto or a whole number from 1 to 1024",
        ),
    ],
)
def test_one_problem_of_compute(compute: dict[str, Any], expected: str | None) -> None:
    if expected is None:
        assert load_config(changed(compute=compute)).compute.devices == 1
    else:
        (found,) = problems(changed(compute=compute))
        assert found.startswith(expected)


@pytest.mark.parametrize(
    ("host", "bind", "reached"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("gpu1", None, False),
        ("10.0.0.9", "10.0.0.7", True),
        ("gpu1", "127.0.0.1", False),
    ],
)
def test_machines_elsewhere_need_an_address_of_ours(tmp_path: Path, host: str, bind: str | None, reached: bool) -> None:
    compute = {"service": "remote", "machines": [machine(tmp_path, host=host)], "bind": bind}
    if reached:
        assert load_config(changed(compute=compute)).compute.machines[0].host == host
    else:
        (found,) = problems(changed(compute=compute))
        assert found == (
            "compute.machines: the machines cannot reach NNI's manager, which listens on this machine alone"
            " -> give compute.bind: an address of this machine that the workers can reach; NNI's manager listens there"
            " without a password, see docs/security.md"
        )


def test_what_does_not_count_is_not_the_choice_of_the_loss() -> None:
    """The targets of every training have 255 there; with another value, void pixels would be a class of their own."""
    for options, place in (({"ignore_index": 0}, "ignore_index"), ({"ce": {"ignore_index": 3}}, "ce.ignore_index")):
        loss = {"name": "ce+dice", "options": options}
        with pytest.raises(UserError) as caught:
            load_config({"data": "synthetic-ceramic", "train": {"loss": loss}})
        (problem,) = caught.value.problems
        assert (problem.where, problem.fix) == (f"train.loss.options.{place}", "leave it out")
        assert "are 255 in the targets of every training, not " in problem.what
    for options in ({"ignore_index": 255}, {"dice": {"ignore_index": 255}}):
        load_config({"data": "synthetic-ceramic", "train": {"loss": {"name": "ce+dice", "options": options}}})
