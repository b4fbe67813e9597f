"""Names with a ``*``: one entry point that stands for a family of plugins, such as ``fpn-*``.

What such an entry point names is called the family's resolver: a callable from the full name
(``"fpn-resnet34"``) to the plugin itself. It raises :class:`~autoseg.errors.UserError` for a name it does
not know, and may have a function ``names()`` with all the names it does know, for listings and suggestions, and
a text ``example`` with one of them, for messages.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from autoseg.errors import Problem, UserError, did_you_mean
from autoseg.registry_probe import reason

if TYPE_CHECKING:
    from autoseg.registry import Plugin

log = logging.getLogger(__name__)

_SPECIAL = "*?["
_FEW = 12  # names that a message can hold


def members(plugins: Iterable[Plugin], name: str) -> list[Plugin]:
    """The plugins called ``name`` that families offer, from the most specific pattern that matches it.

    Args:
        plugins: Registered plugins of one kind; those without a ``*`` in their name are skipped.
        name: The full name.

    Returns:
        One plugin for each distribution with the longest of the matching patterns; empty when none matches.

    Example:
        >>> from autoseg.registry import Plugin
        >>> families = [Plugin(p, "model", f"a:{len(p)}", "a", "1") for p in ("fpn-*", "fpn-res*")]
        >>> [(plugin.name, plugin.pattern) for plugin in members(families, "fpn-resnet18")]
        [('fpn-resnet18', 'fpn-res*')]
    """
    matching = [plugin for plugin in plugins if is_pattern(plugin.name) and fnmatchcase(name, plugin.name)]
    longest = max((len(plugin.name) for plugin in matching), default=0)
    by_distribution = {p.distribution: p for p in reversed(matching) if len(p.name) == longest}
    return [replace(plugin, name=name, pattern=plugin.name) for _, plugin in sorted(by_distribution.items())]


def is_pattern(name: str) -> bool:
    """Whether a registered name stands for a family.

    Example:
        >>> is_pattern("fpn-*"), is_pattern("fpn")
        (True, False)
    """
    return "*" in name


def is_glob(text: str) -> bool:
    """Whether a text has a wildcard.

    Example:
        >>> is_glob("unet*"), is_glob("fpn-resnet??"), is_glob("unet")
        (True, True, False)
    """
    return any(character in text for character in _SPECIAL)


def no_name(kind: str, pattern: str, plugins: Iterable[Plugin]) -> Problem:
    """What to say where a pattern stands in the place of a name.

    Args:
        kind: Kind of plugin, in singular.
        pattern: What was given; a distribution may stand before it.
        plugins: Registered plugins of the kind.
    """
    short = pattern.rpartition(":")[2]
    family = next((plugin for plugin in plugins if plugin.name in (short, pattern)), None)
    show = f"autoseg list {kind} '{short}'"
    if family is None:
        return Problem(f"'{pattern}' is a pattern, not the name of a {kind}", fix=f"{show} shows the names")
    try:
        example = getattr(family.load(), "example", "")
    except UserError:
        example = ""
    named = f"name a member such as {example}; " if example else "name a member; "
    return Problem(f"'{pattern}' is a family", fix=f"{named}{show}")


def names_within(family: Plugin) -> list[str]:
    """The names that a family says it offers, sorted; the family is imported for that.

    Args:
        family: A plugin whose name is a pattern.

    Returns:
        Names that match the pattern; empty for a family that does not say.

    Raises:
        UserError: The family cannot be loaded.
    """
    listed = getattr(family.load(), "names", None)
    return sorted(name for name in set(listed()) if fnmatchcase(name, family.name)) if callable(listed) else []


def could_hold(pattern: str, glob: str) -> bool:
    """Whether a name may match both, judged by what stands before and behind their wildcards.

    Example:
        >>> could_hold("fpn-*", "fpn-res*"), could_hold("fpn-*", "unet*"), could_hold("fpn-*", "*net34")
        (True, False, True)
    """
    (start, end), (first, last) = _ends(pattern), _ends(glob)
    fit = start.startswith(first) or first.startswith(start)
    return fit and (end.endswith(last) or last.endswith(end))


def touches(name: str, glob: str) -> bool:
    """Whether a glob hits a registered name, or may hit inside the family that it stands for.

    Example:
        >>> touches("fpn", "fpn*"), touches("fpn-*", "fpn-res*"), touches("fpn-*", "unet*")
        (True, True, False)
    """
    return fnmatchcase(name, glob) or (is_pattern(name) and could_hold(name, glob))


def suggest(name: str, plugins: Sequence[Plugin], kind: str) -> str:
    """What somebody who wrote an unknown name may have meant.

    Capital letters do not matter. The names inside the families are looked at only where no other is close, because
    they must be imported.

    Args:
        name: The unknown name.
        plugins: Registered plugins of the kind.
        kind: The kind, for the command that shows them where nothing is close and there are many.
    """
    known = {plugin.name for plugin in plugins if not is_pattern(plugin.name)}
    if close := _closest(name, known):
        return f"did you mean '{close}'?"
    offered: set[str] = set()
    for family in (plugin for plugin in plugins if is_pattern(plugin.name)):
        try:
            offered.update(names_within(family))
        except (Exception, SystemExit) as error:
            log.debug("the names of %s are not known: %s", family.name, reason(error))
    if close := _closest(name, offered):
        return f"did you mean '{close}'?"
    return did_you_mean(name, known) if len(known) <= _FEW else f"autoseg list {kind} shows what there is"


def _closest(name: str, known: Iterable[str]) -> str:
    """The known name that differs least, or not at all but for capital letters; empty when none is close."""
    lower = {text.lower(): text for text in sorted(known)}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return lower[close[0]] if close else ""


def expand(plugins: Iterable[Plugin], glob: str) -> list[Plugin | tuple[Plugin, str]]:
    """The plugins whose name matches ``glob``, with families written out as far as they match.

    Args:
        plugins: Registered plugins.
        glob: A pattern with ``*``, ``?`` and ``[...]``; capital letters matter.

    Returns:
        The plugins in the order given. A family that does not tell its names stands for itself where the
        glob matches its pattern; one whose names cannot be learned comes as ``(plugin, reason)``.
    """
    found: list[Plugin | tuple[Plugin, str]] = []
    for plugin in plugins:
        if is_pattern(plugin.name) and could_hold(plugin.name, glob):
            try:
                names = names_within(plugin)
            except (Exception, SystemExit) as error:
                cause = error.__cause__ if isinstance(error, UserError) and error.__cause__ else error
                found.append((plugin, reason(cause)))
                continue
            found += [replace(plugin, name=n, pattern=plugin.name) for n in names if fnmatchcase(n, glob)]
            if names:
                continue
        if fnmatchcase(plugin.name, glob):
            found.append(plugin)
    return found


def _ends(pattern: str) -> tuple[str, str]:
    """The literal text before the first and behind the last wildcard."""
    special = [index for index, character in enumerate(pattern) if character in f"{_SPECIAL}]"]
    return (pattern[: special[0]], pattern[special[-1] + 1 :]) if special else (pattern, pattern)
