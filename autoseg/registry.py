"""Plugins: everything that can be named in an experiment file, found through entry points.

A distribution registers a plugin by listing it under one of the five groups in :data:`KINDS`; autoseg's
own are registered the same way. A name with a ``*`` registers a family, see :mod:`autoseg.registry_patterns`.
Nothing is imported until a plugin is loaded, and a plugin that cannot be imported never breaks a listing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from autoseg import registry_patterns
from autoseg.errors import Problem, UserError, did_you_mean
from autoseg.plugin_options import check_against, options_of
from autoseg.plugin_source import find_module, summary_line
from autoseg.quiet import load_nni
from autoseg.registry_probe import import_errors, reason

__all__ = ["KINDS", "Plugin", "check_options", "get", "kind_named", "listing", "load", "options_of", "plugins"]

log = logging.getLogger(__name__)

KINDS: dict[str, str] = {
    "dataset": "autoseg.datasets",
    "loss": "autoseg.losses",
    "model": "autoseg.models",
    "space": "autoseg.spaces",
    "strategy": "autoseg.strategies",
}
"""Kind of plugin to entry-point group."""

_OWN = "autoseg"


@dataclass(frozen=True)
class Plugin:
    """A registered plugin and where it comes from; not imported yet.

    Attributes:
        name: The name used in experiment files.
        kind: A key of :data:`KINDS`.
        value: What is loaded, ``"module:attribute"``.
        distribution: The installed distribution that registered it.
        version: The version of that distribution.
        pattern: The registered name with a ``*`` that this plugin belongs to; None for one of its own.

    Example:
        >>> Plugin("problem", "loss", "autoseg.errors:Problem", "autoseg", "0.1.0").description
        'One thing that is wrong.'
    """

    name: str
    kind: str
    value: str
    distribution: str
    version: str
    pattern: str | None = None

    @property
    def description(self) -> str:
        """First docstring line, read from the source text without importing it; empty when there is none."""
        return summary_line(self.value)

    @property
    def qualified_name(self) -> str:
        """``distribution:name``, which stays unique when two distributions use one name."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import the plugin; a member of a family comes from the family's resolver.

        Raises:
            UserError: The import fails, for whatever reason, or the family has no member of this name.
        """
        try:
            if self.kind in ("space", "strategy"):
                load_nni()  # before a third party's module imports NNI with all its noise
            loaded = metadata.EntryPoint(self.name, self.value, KINDS[self.kind]).load()
            return loaded(self.name) if self.pattern else loaded
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and error.name:
                fix = f"install the missing module '{error.name}', or update {self.distribution}"
            else:
                fix = f"update or reinstall {self.distribution}: pip install --upgrade {self.distribution}"
            what = f"{self.kind} '{self.name}' of {self.distribution} {self.version} cannot be loaded: {reason(error)}"
            raise UserError(Problem(what, self.value, fix)) from error


def plugins(kind: str | None = None) -> list[Plugin]:
    """All registered plugins, or those of one kind, sorted by kind and name.

    Raises:
        UserError: There is no such kind.

    Example:
        >>> [plugin.name for plugin in plugins("space") if plugin.distribution == "autoseg"]
        ['autosegnet', 'ednas', 'searchnet']
    """
    kinds = {KINDS[k]: k for k in (KINDS if kind is None else [kind_named(kind)])}
    found: dict[tuple[str, str, str], Plugin] = {}
    for distribution in _distributions():
        name, version = distribution.metadata["Name"], distribution.version
        try:
            points = list(distribution.entry_points)
        except Exception as error:
            log.warning("the entry points of %s %s cannot be read: %s", name, version, reason(error))
            continue
        for point in points:
            if point.group in kinds:
                plugin = Plugin(point.name, kinds[point.group], point.value, name, version)
                found.setdefault((plugin.kind, plugin.name, plugin.distribution), plugin)
    return [found[key] for key in sorted(found)]


def kind_named(word: str) -> str:
    """The kind that ``word`` names, in singular or plural.

    Raises:
        UserError: There is no such kind.

    Example:
        >>> kind_named("spaces"), kind_named("loss")
        ('space', 'loss')
    """
    for kind, group in KINDS.items():
        if word in (kind, group, group.removeprefix("autoseg.")):
            return kind
    if registry_patterns.is_glob(word):
        fix = f"for names: autoseg list models '{word}'"
        raise UserError(Problem(f"'{word}' is no kind of plugin", fix=fix))
    raise UserError(Problem(f"unknown kind of plugin '{word}'", fix=did_you_mean(word, KINDS)))


def get(kind: str, name: str) -> Plugin:
    """Find one plugin: the one registered under exactly this name, else a member of a family.

    Of several families whose patterns match, the one with the longest pattern counts.

    Args:
        kind: A key of :data:`KINDS`.
        name: The plugin's name, or ``distribution:name``; with the distribution, a pattern gives the family itself.

    Raises:
        UserError: No such plugin, or two distributions offer one of this name, or it is a pattern.
    """
    known = plugins(kind)
    distribution, colon, short = name.rpartition(":")
    matches = [p for p in known if p.name == name or (registry_patterns.is_pattern(name) and p.qualified_name == name)]
    if registry_patterns.is_pattern(name) and not (colon and matches):
        raise UserError(registry_patterns.no_name(kind_named(kind), name, known))
    if not matches:
        own = [p for p in known if colon and _normal(p.distribution) == _normal(distribution)]
        matches = _called(short, own) if own else _called(name, known)
    if not matches:
        fix = registry_patterns.suggest(short, known, kind_named(kind))
        raise UserError(Problem(f"there is no {kind_named(kind)} called '{name}'", fix=fix))
    if len(matches) > 1:
        origins = " and ".join(f"{p.distribution} {p.version}" for p in matches)
        choices = " or ".join(f"'{p.qualified_name}'" for p in matches)
        raise UserError(Problem(f"{kind_named(kind)} '{name}' is registered by {origins}", fix=f"write {choices}"))
    return matches[0]


def _called(name: str, among: list[Plugin]) -> list[Plugin]:
    return [p for p in among if p.name == name] or registry_patterns.members(among, name)


def load(kind: str, name: str) -> Any:
    """Find and import one plugin.

    Raises:
        UserError: As for :func:`get` and :meth:`Plugin.load`.
    """
    return get(kind, name).load()


def check_options(
    kind: str, name: str, options: Mapping[str, Any], where: str | Callable[..., str], *, complete: bool = True
) -> list[Problem]:
    """Check option values against the signature of a plugin, which is imported for that.

    Args:
        kind: A key of :data:`KINDS`.
        name: The plugin's name.
        options: Option values, JSON-like.
        where: The key that holds the options, or a function from option name to place, which is called with two
            names for an option inside a section.
        complete: Whether a required option that is missing is a problem.

    Returns:
        All problems: unknown options, wrong types, missing options.

    Raises:
        UserError: There is no such plugin, or it cannot be loaded.
    """

    def place(*keys: str) -> str:
        return where(*keys) if callable(where) else ".".join((where, *keys))

    if registry_patterns.is_pattern(name):
        raise UserError(registry_patterns.no_name(kind_named(kind), name, plugins(kind)))
    return check_against(options_of(load(kind, name)), options, place, complete=complete)


def listing(kind: str | None = None, glob: str | None = None) -> list[dict[str, Any]]:
    """Everything that is registered, for people to look at.

    Plugins of other distributions are imported once, in a process of their own, to learn whether they
    load; the outcome is remembered. Without ``glob``, neither torch nor NNI is imported into this process.

    Args:
        kind: A key of :data:`KINDS`; None for all.
        glob: Only names that match, such as ``"fpn-res*"``. Families, one row each otherwise, are written out
            then as far as they match, and imported for that.

    Returns:
        Dictionaries with name, kind, description, distribution and error (None when it loads).

    Raises:
        UserError: There is no such kind.
    """
    found = plugins(kind)
    foreign = [plugin for plugin in found if _normal(plugin.distribution) != _OWN]
    errors = dict(zip(foreign, import_errors(foreign), strict=True))
    for plugin in found:
        module = plugin.value.partition(":")[0].strip()
        if plugin not in errors and find_module(module) is None:
            errors[plugin] = f"ModuleNotFoundError: No module named '{module}'"
    if glob is None:
        return [_row(plugin, errors.get(plugin)) for plugin in found]
    broken = [plugin for plugin in found if errors.get(plugin)]
    rows = [_row(plugin, errors[plugin]) for plugin in broken if registry_patterns.touches(plugin.name, glob)]
    for item in registry_patterns.expand([plugin for plugin in found if plugin not in broken], glob):
        rows.append(_row(*item) if isinstance(item, tuple) else _row(item, None))
    return sorted(rows, key=lambda row: (row["kind"], row["name"], row["distribution"]))


def _row(plugin: Plugin, error: str | None) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "kind": plugin.kind,
        "description": plugin.description,
        "distribution": plugin.distribution,
        "error": error,
    }


def _distributions() -> Iterator[metadata.Distribution]:
    """Installed distributions that mention one of our groups; a copy shadowed on ``sys.path`` does not count."""
    for distribution in metadata.distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if not any(group in text for group in KINDS.values()):
                continue
            first = metadata.distribution(distribution.metadata["Name"])
            if first.locate_file("") == distribution.locate_file("") or first.read_text("entry_points.txt") == text:
                yield distribution
        except Exception as error:
            log.warning("skipped a distribution with unreadable metadata: %s", reason(error))


def _normal(distribution: str) -> str:
    """A distribution name as package indexes compare it.

    Example:
        >>> _normal("Autoseg_AutoSegNet")
        'autoseg-autosegnet'
    """
    return re.sub(r"[-_.]+", "-", distribution).lower()
