from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from inspect import Parameter
from pathlib import Path
from typing import Any

import pytest
from fake_distribution import PLUGINS, install

from autoseg import registry, registry_probe
from autoseg.errors import UserError
from autoseg.plugin_options import accepts_anything, check_against, resolve_paths
from autoseg.plugin_source import find_source, summary_line
from autoseg.registry import Plugin, check_options, get, kind_named, listing, load, options_of, plugins


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path`` for fake distributions."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The values of each probe that really started."""
    calls: list[list[str]] = []
    original = registry_probe._probe

    def spy(values: list[str]) -> dict[str, str | None]:
        calls.append(values)
        return original(values)

    monkeypatch.setattr(registry_probe, "_probe", spy)
    return calls


def rows(kind: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in listing(kind) if not row["distribution"].startswith("autoseg")}


def problem(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0])


# --- finding


def test_own_plugins_come_from_setup_cfg() -> None:
    own = {(p.kind, p.name): p for p in plugins() if p.distribution == "autoseg"}
    assert own["space", "ednas"].value == "autoseg.spaces.ednas:EdNas"
    assert {("dataset", "folder"), ("loss", "*+*"), ("model", "fpn-*"), ("strategy", "enas")} <= own.keys()


def test_plugins_are_sorted_and_carry_their_provenance(site: Path) -> None:
    install(site)
    found = plugins()
    assert [(p.kind, p.name) for p in found] == sorted((p.kind, p.name) for p in found)
    assert get("space", "tiny") == Plugin("tiny", "space", "fakeplugs:Tiny", "fake-plugs", "1.2")
    assert {p.name for p in plugins("space") if p.distribution == "fake-plugs"} == {"tiny", "open"}
    assert load("space", "tiny").__name__ == "Tiny"


def test_kinds_in_singular_and_plural() -> None:
    assert [kind_named(w) for w in ("loss", "losses", "strategies", "autoseg.models")] == [
        "loss", "loss", "strategy", "model",
    ]  # fmt: skip
    assert "did you mean 'space'?" in problem(lambda: listing("spase"))
    assert problem(lambda: listing("unet*")).endswith("  -> for names: autoseg list models 'unet*'")


def test_unknown_name_suggests(site: Path) -> None:
    install(site)
    text = problem(lambda: get("space", "tinny"))
    assert text == "there is no space called 'tinny'\n  -> did you mean 'tiny'?"
    assert "did you mean 'tiny'?" in problem(lambda: get("space", "other-dist:tinny"))


def test_two_distributions_with_one_name(site: Path) -> None:
    for name, module in (("first_plugs", "one"), ("second.plugs", "two")):
        install(site, name, "1.0", {"autoseg.models": {"net": f"{module}:net"}}, {module: "def net(): 'x'"})
    text = problem(lambda: get("model", "net"))
    assert "first_plugs 1.0 and second.plugs 1.0" in text
    assert "write 'first_plugs:net' or 'second.plugs:net'" in text
    assert get("model", "Second-Plugs:net").value == "two:net"
    assert get("model", "first_plugs:net").value == "one:net"
    assert [row["distribution"] for row in listing("model") if row["name"] == "net"] == ["first_plugs", "second.plugs"]


def test_a_shadowed_older_copy_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, value in (("1.0", "old:net"), ("2.0", "new:net")):
        folder = install(tmp_path / version, "dup-plugs", version, {"autoseg.models": {"net": value}}, {})
        monkeypatch.syspath_prepend(str(folder))
    assert [(p.value, p.version) for p in plugins("model") if p.distribution == "dup-plugs"] == [("new:net", "2.0")]


def test_unreadable_entry_points_do_not_break_others(site: Path) -> None:
    install(site)
    install(site, "bad-plugs", "1.0", {}, {})
    (site / "bad_plugs-1.0.dist-info" / "entry_points.txt").write_text("[autoseg.spaces]\nthis line means nothing\n")
    (site / "nameless-1.0.dist-info").mkdir()
    (site / "nameless-1.0.dist-info" / "entry_points.txt").write_text("[autoseg.spaces]\nx = y:z\n")
    names = {p.name for p in plugins("space")}
    assert "tiny" in names
    assert "x" not in names


# --- loading


@pytest.mark.parametrize(
    ("source", "reason", "fix"),
    [
        ("import no_such_library", "No module named 'no_such_library'", "install the missing module 'no_such_library'"),
        ("raise SystemExit(3)", "SystemExit: 3", "pip install --upgrade bad-plugs"),
        ("def (", "SyntaxError", "pip install --upgrade bad-plugs"),
        ("other = 1", "has no attribute 'net'", "pip install --upgrade bad-plugs"),
    ],
)
def test_load_failure_names_plugin_distribution_and_reason(site: Path, source: str, reason: str, fix: str) -> None:
    install(site, "bad-plugs", "0.3", {"autoseg.models": {"net": "badmod:net"}}, {"badmod": source})
    text = problem(lambda: load("model", "net"))
    assert "badmod:net: model 'net' of bad-plugs 0.3 cannot be loaded" in text
    assert reason in text
    assert fix in text


def test_malformed_value_is_a_user_error(site: Path) -> None:
    install(site, "bad-plugs", "1.0", {"autoseg.models": {"net": "not a module!"}}, {})
    assert "cannot be loaded" in problem(lambda: load("model", "net"))
    assert rows("model")["net"]["error"]


# --- descriptions


def test_description_does_not_import(site: Path) -> None:
    install(site)
    assert get("space", "tiny").description == "A tiny space."
    assert get("dataset", "grains").description == "Round grains."
    assert get("space", "open").description == ""
    assert "fakeplugs" not in sys.modules


def test_description_follows_packages_reexports_and_assignments(site: Path) -> None:
    package = site / "deep"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise RuntimeError('must not run')\nfrom .inner.code import Thing as Net, made\n"
    )
    (package / "inner" / "__init__.py").write_text("from .code import Thing\nfrom ..loop import x\n")
    (package / "inner" / "code.py").write_text(
        'class Thing:\n    """A thing."""\n    class Part:\n        "A part."\n'
        'made = Thing()\n"""Made here.\n\nx"""\nbare = 1\n'
    )
    (package / "loop.py").write_text("from .loop import x\n")
    assert summary_line("deep.inner.code:Thing") == "A thing."
    assert summary_line("deep.inner.code:Thing.Part") == "A part."
    assert summary_line("deep:Net") == "A thing."
    assert summary_line("deep.inner:Thing [extra]") == "A thing."
    assert summary_line("deep:made") == "Made here."
    for nothing in (
        "deep.inner.code:bare",
        "deep.inner:x",
        "deep.gone:x",
        "deep:gone",
        "json:decoder",
        "math:sin",
        "",
        "..:",
    ):
        assert summary_line(nothing) == "", nothing
    assert not any(name.startswith("deep") for name in sys.modules)


def test_source_of_an_editable_install_and_of_builtins() -> None:
    assert find_source("autoseg.registry") == Path(str(registry.__file__))
    assert find_source("sys") is None
    assert find_source("math") is None


# --- listing


def test_listing_probes_once_and_remembers(site: Path, probes: list[list[str]]) -> None:
    install(site)
    first = rows()
    assert first["tiny"] == {
        "name": "tiny", "kind": "space", "description": "A tiny space.", "distribution": "fake-plugs", "error": None,
    }  # fmt: skip
    assert len(first) == sum(map(len, PLUGINS.values()))
    assert len(probes) == 1
    assert set(probes[0]) >= {"fakeplugs:Tiny", "fakeplugs:Soft"}
    assert not any(value.startswith("autoseg.") for value in probes[0])
    assert rows() == first
    assert rows("space")["tiny"] == first["tiny"]
    assert len(probes) == 1
    assert "fakeplugs" not in sys.modules


def test_listing_reports_why_plugins_break(site: Path, capfd: pytest.CaptureFixture[str]) -> None:
    modules = {
        "good": "print('noise'); import os; os.write(1, b'more noise')\ndef net(): 'Fine.'",
        "missing": "import no_such_library",
        "leaves": "import sys; sys.exit('bye')",
        "skips": "class Odd(BaseException): pass\nraise Odd('odd')",
        "dies": "import os; os._exit(7)",
        "reads": "import sys; assert sys.stdin.read() == ''\nnet = 1",
        "after": "net = 1",
    }
    install(site, "mixed-plugs", "1.0", {"autoseg.models": {name: f"{name}:net" for name in modules}}, modules)
    errors = {name: row["error"] for name, row in rows("model").items() if row["distribution"] == "mixed-plugs"}
    assert errors == {
        "good": None,
        "missing": "ModuleNotFoundError: No module named 'no_such_library'",
        "leaves": "SystemExit: bye",
        "skips": "Odd: odd",
        "dies": "the interpreter ended with status 7",
        "reads": None,
        "after": None,
    }
    assert capfd.readouterr().out == ""


def test_an_edit_or_a_new_package_is_noticed(site: Path, probes: list[list[str]]) -> None:
    groups = {"autoseg.models": {"net": "needy:net"}}
    install(site, "needy-plugs", "1.0", groups, {"needy": "from helper import net"})
    assert rows("model")["net"]["error"] == "ModuleNotFoundError: No module named 'helper'"
    assert rows("model")["net"]["error"] == "ModuleNotFoundError: No module named 'helper'"
    assert len(probes) == 1
    (site / "helper.py").write_text("other = 1")
    assert "cannot import name 'net'" in rows("model")["net"]["error"]
    (site / "helper.py").write_text("other = net = 1")
    assert rows("model")["net"]["error"] is None
    assert len(probes) == 3


def test_a_hanging_plugin_is_given_up_and_not_remembered(
    site: Path, monkeypatch: pytest.MonkeyPatch, probes: list[list[str]]
) -> None:
    monkeypatch.setattr(registry_probe, "PROBE_SECONDS", 1.5)
    modules = {"quick": "net = 1", "stuck": "import time; time.sleep(60)"}
    install(site, "slow-plugs", "1.0", {"autoseg.models": {n: f"{n}:net" for n in modules}}, modules)
    start = time.monotonic()
    found = rows("model")
    assert time.monotonic() - start < 15
    assert (found["quick"]["error"], found["stuck"]["error"]) == (None, "TimeoutError: no end after 2 s")
    rows("model")
    assert probes[1] == ["stuck:net"]


def test_a_file_in_the_current_folder_does_not_shadow_libraries(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site)
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert rows("space")["tiny"]["error"] is None


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"x": 3}'])
def test_a_spoilt_cache_is_ignored(site: Path, tmp_path: Path, content: str) -> None:
    install(site)
    cache = tmp_path / "cache" / "autoseg" / "plugins.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert rows("space")["tiny"]["error"] is None
    assert None in json.loads(cache.read_text()).values()
    assert os.listdir(cache.parent) == ["plugins.json"]


def test_an_unwritable_cache_only_costs_time(site: Path, tmp_path: Path, probes: list[list[str]]) -> None:
    install(site)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert rows("space")["tiny"]["error"] is None
    assert rows("space")["tiny"]["error"] is None
    assert len(probes) == 2


def test_own_plugin_without_module_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "plugins", lambda kind: [Plugin("x", "loss", "autoseg.gone:X", "autoseg", "0.1.0")])
    assert listing()[0]["error"] == "ModuleNotFoundError: No module named 'autoseg.gone'"


# --- families


FAMILY = """
from autoseg.errors import Problem, UserError, did_you_mean

SIZES = {"net-small": 1, "net-large": 9}

def sizes(name):
    '''Nets of some size.

    More text.
    '''
    if name not in SIZES:
        raise UserError(Problem(f"no net is called '{name}'", fix=did_you_mean(name, SIZES)))

    def build(in_channels, num_classes, *, width: int = SIZES[name]):
        return (name, width)

    return build

sizes.names = lambda: [*SIZES, "other-thing"]
sizes.example = "net-small"

def anything(name):
    '''Whatever you like.'''
    return lambda in_channels, num_classes: name

def fails(name):
    raise RuntimeError("out of order")

def explodes():
    raise RuntimeError("no names today")

fails.names = explodes
"""


@pytest.fixture
def families(site: Path) -> Path:
    groups = {"autoseg.models": {"net-*": "famplugs:sizes", "net": "famplugs:anything", "any-*": "famplugs:anything"}}
    return install(site, "fam-plugs", "2.0", groups, {"famplugs": FAMILY})


def test_a_family_gives_its_members(families: Path) -> None:
    plugin = get("model", "net-small")
    assert plugin == Plugin("net-small", "model", "famplugs:sizes", "fam-plugs", "2.0", "net-*")
    assert plugin.description == "Nets of some size."
    assert plugin.load()(3, 2) == ("net-small", 1)
    assert load("model", "Fam.Plugs:net-large")(3, 2, width=4) == ("net-large", 4)
    assert options_of(load("model", "net-large"))["width"].default == 9
    assert get("model", "net").pattern is None
    text = str(check_options("model", "net-small", {"widht": 3}, "x")[0])
    assert "did you mean 'width'?" in text


@pytest.mark.parametrize("name", ["net-*", "fam-plugs:net-*"])
def test_a_family_is_no_member_of_itself(families: Path, name: str) -> None:
    text = f"'{name}' is a family\n  -> name a member such as net-small; autoseg list model 'net-*'"
    assert problem(lambda: check_options("model", name, {}, "x")) == text
    if name == "net-*":
        assert problem(lambda: get("model", name)) == problem(lambda: load("model", name)) == text


def test_with_its_distribution_a_pattern_gives_the_family(families: Path) -> None:
    plugin = get("model", "fam-plugs:net-*")
    assert (plugin.name, plugin.pattern) == ("net-*", None)
    assert plugin.load().__name__ == "sizes"


def test_other_patterns_are_no_names_either(families: Path) -> None:
    assert problem(lambda: get("model", "net-s*")) == (
        "'net-s*' is a pattern, not the name of a model\n  -> autoseg list model 'net-s*' shows the names"
    )
    assert problem(lambda: get("model", "any-*")).endswith("name a member; autoseg list model 'any-*'")


def test_an_exact_name_comes_first_and_then_the_longest_pattern(site: Path, families: Path) -> None:
    more = {"net-small": "more:exact", "net-l*": "more:special", "n*": "more:broad"}
    source = "def exact(): 'x'\ndef special(name): return 'special ' + name\ndef broad(name): return 'broad ' + name"
    install(site, "more-plugs", "1.0", {"autoseg.models": more}, {"more": source})
    assert get("model", "net-small").value == "more:exact"
    assert load("model", "net-large") == "special net-large"
    assert load("model", "nothing-else") == "broad nothing-else"
    assert load("model", "fam-plugs:net-small")(3, 2) == ("net-small", 1)
    assert get("model", "net-other").value == "famplugs:sizes"
    assert "no net is called 'net-other'" in problem(lambda: load("model", "net-other"))


def test_two_distributions_with_one_pattern(site: Path, families: Path) -> None:
    install(
        site, "twin-plugs", "1.0", {"autoseg.models": {"net-*": "twin:net"}}, {"twin": "def net(name): return name"}
    )
    text = problem(lambda: get("model", "net-small"))
    assert "model 'net-small' is registered by fam-plugs 2.0 and twin-plugs 1.0" in text
    assert "write 'fam-plugs:net-small' or 'twin-plugs:net-small'" in text
    assert load("model", "twin-plugs:net-small") == "net-small"


def test_names_inside_families_are_suggested(families: Path) -> None:
    assert problem(lambda: load("model", "net-smal")).endswith("did you mean 'net-small'?")
    assert problem(lambda: get("model", "ned-large")).endswith("did you mean 'net-large'?")
    assert problem(lambda: get("model", "nett")).endswith("did you mean 'net'?")
    far = problem(lambda: get("model", "zzzzzzzzzzzzzz"))
    assert far.endswith("called 'zzzzzzzzzzzzzz'\n  -> autoseg list model shows what there is")


def test_capital_letters_do_not_hide_what_was_meant(families: Path) -> None:
    assert problem(lambda: get("model", "UNET")).endswith("did you mean 'unet'?")
    assert problem(lambda: get("model", "NET-LARGE")).endswith("did you mean 'net-large'?")


def test_a_colon_before_a_pattern_that_matches_everything(site: Path) -> None:
    install(site, "sum-plugs", "1.0", {"autoseg.losses": {"*%*": "sums:both"}}, {"sums": "def both(name): return name"})
    assert load("loss", "a%b") == "a%b"
    assert load("loss", "sum-plugs:a%b") == "a%b"
    assert load("loss", "sum-plugs:*%*").__name__ == "both"


def test_a_resolver_that_breaks_is_a_user_error(site: Path) -> None:
    install(site, "fam-plugs", "2.0", {"autoseg.models": {"bad-*": "famplugs:fails"}}, {"famplugs": FAMILY})
    text = problem(lambda: load("model", "bad-one"))
    assert "model 'bad-one' of fam-plugs 2.0 cannot be loaded: RuntimeError: out of order" in text
    assert "'zzzzzzzzzzzz'" in problem(lambda: get("model", "zzzzzzzzzzzz"))
    (row,) = [row for row in listing("model", "bad-*") if row["distribution"] == "fam-plugs"]
    assert (row["name"], row["error"]) == ("bad-*", "RuntimeError: no names today")


def test_listing_with_a_glob_writes_families_out(families: Path) -> None:
    def listed(glob: str | None) -> list[str]:
        return [row["name"] for row in listing("model", glob) if row["distribution"] == "fam-plugs"]

    assert listed(None) == ["any-*", "net", "net-*"]
    assert "famplugs" not in sys.modules
    assert listed("unrelated*") == []
    assert "famplugs" not in sys.modules
    assert listed("net*") == ["net", "net-large", "net-small"]
    assert listed("*-s*") == ["net-small"]
    assert listed("net-small") == ["net-small"]
    assert listed("any*") == ["any-*"]
    row = next(row for row in listing("model", "net-s*") if row["name"] == "net-small")
    assert row == {
        "name": "net-small", "kind": "model", "description": "Nets of some size.", "distribution": "fam-plugs",
        "error": None,
    }  # fmt: skip


def test_a_family_that_does_not_import_is_one_row(site: Path) -> None:
    groups = {"autoseg.models": {"lost-*": "lostmod:family"}}
    install(site, "lost-plugs", "1.0", groups, {"lostmod": "import no_such_library"})
    for glob in (None, "lost*", "lost-one", "*-on*"):
        row = next(row for row in listing("model", glob) if row["name"] == "lost-*")
        assert row["error"] == "ModuleNotFoundError: No module named 'no_such_library'"


# --- options


class Base:
    def __init__(self, in_channels: int, num_classes: int, *, width: int = 16, depth: int = 4) -> None: ...


class Passing(Base):
    def __init__(
        self, in_channels: int, num_classes: int, *, depth: int = 5, extra: str = "x", **kwargs: Any
    ) -> None: ...


class Closed(Base):
    def __init__(self, in_channels: int, num_classes: int, *, only: int = 1) -> None: ...


class Inheriting(Closed):
    pass


class Plain:
    pass


def names(obj: object) -> list[str]:
    return list(options_of(obj))


def test_options_of_classes() -> None:
    assert names(Base) == ["width", "depth"]
    assert names(Passing) == ["depth", "extra", "width"]
    assert options_of(Passing)["depth"].default == 5
    assert names(Closed) == names(Inheriting) == ["only"]
    assert names(Plain) == []


def test_options_of_callables() -> None:
    def network(in_channels: int, num_classes: int, /, width: int = 1, *args: int, **more: int) -> None: ...

    @functools.wraps(Base.__init__)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    class Call:
        def __call__(self, size: int) -> None: ...

    assert names(network) == ["width", "**more"]
    assert accepts_anything(options_of(network))
    assert names(functools.partial(network, width=3)) == ["width", "**more"]
    assert names(wrapper) == ["self", "width", "depth"]
    assert names(Call()) == ["size"]
    assert names(lambda num_classes=3, count=2: None) == ["num_classes", "count"]
    assert names(lambda num_classes, count=2: None) == ["count"]
    assert accepts_anything(options_of(dict.fromkeys)) is False


def test_options_of_nni_spaces_and_torch_modules() -> None:
    pytest.importorskip("nni")
    from nni.nas.nn.pytorch import ModelSpace
    from torch import nn

    class Space(ModelSpace):
        def __init__(self, in_channels: int, num_classes: int, *, layers: int = 3) -> None:
            super().__init__()

    class Wider(Space):
        def __init__(self, in_channels: int, num_classes: int, *, width: int = 16, **kwargs: Any) -> None:
            super().__init__(in_channels, num_classes, **kwargs)

    class Same(Space):
        pass

    class Loss(nn.Module):
        def __init__(self, *, smooth: float = 1.0, **kwargs: Any) -> None:
            super().__init__()

    class Bare(nn.Module):
        pass

    assert names(Space) == names(Same) == ["layers"]
    assert names(Wider) == ["width", "layers"]
    assert options_of(Space)["layers"].annotation is int
    assert names(Loss) == ["smooth", "**kwargs"]
    assert names(Bare) == []


def complaints(annotation: Any, value: object) -> list[str]:
    known = {"x": Parameter("x", Parameter.KEYWORD_ONLY, annotation=annotation)}
    return [p.what for p in check_against(known, {"x": value}, str)]


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 3), (float, 3), (float, float("inf")), (bool, True), (str, "a"), (int | None, None),
        (tuple[int, ...], [1, 2]),
        (Path, "a"), (Path | None, Path("a")), (dict[str, int], {"a": 1}), (Callable[[], int], len),
        (Parameter.empty, object()),
        ("NoSuchType", 3), (Parameter, 3), (int | str, "a"),
    ],
)  # fmt: skip
def test_values_that_fit(annotation: Any, value: object) -> None:
    assert complaints(annotation, value) == []


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, True), (int, "3"), (int, 3.5), (float, "3"), (bool, 1), (str, 3), (int, None), (tuple[int, int], [1]),
        (list[int], [1, "a"]), (dict[str, int], {"a": "b"}), (int | None, "a"), (Path, 3), (Callable[[], int], "a"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(annotation: Any, value: object) -> None:
    assert len(complaints(annotation, value)) == 1


def test_check_options(site: Path) -> None:
    install(site)
    options = {"cuont": 1, "count": "many", "size": [1, 2], "masks": "m"}
    assert [str(p) for p in check_options("dataset", "grains", options, "data.options")] == [
        "data.options.cuont: unknown option 'cuont'\n  -> did you mean 'count'?",
        "data.options.count: option 'count': input should be a valid integer, got 'many'\n"
        "  -> 'count' takes int (default: 3)",
        "data.options.images: option 'images' is missing\n  -> give Path",
    ]
    assert len(check_options("dataset", "grains", options, "x", complete=False)) == 2
    assert check_options("space", "open", {"whatever": object()}, "x") == []
    assert "'chain' or 'dense'" in check_options("space", "tiny", {"decoder": "loop"}, lambda o: f"<{o}>")[0].what
    assert check_options("space", "tiny", {"decoder": "loop"}, lambda o: f"<{o}>")[0].where == "<decoder>"
    assert "did you mean 'grains'?" in problem(lambda: check_options("dataset", "grain", {}, "x"))


def test_resolve_paths(site: Path) -> None:
    install(site)
    known = options_of(load("dataset", "grains"))
    given = {"images": "a/../b", "masks": None, "extra": ["c", "/d"], "count": 3, "other": "e"}
    base = Path("/base")
    assert resolve_paths(known, given, lambda option: base) == {
        "images": Path("/base/b"), "masks": None, "extra": [Path("/base/c"), Path("/d")], "count": 3, "other": "e",
    }  # fmt: skip
    assert resolve_paths(known, {"images": "~/x"}, lambda option: base) == {"images": Path.home() / "x"}
