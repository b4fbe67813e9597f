"""Which strategies can search a space: asked before anything starts."""

from __future__ import annotations

from typing import Any

from autoseg import registry
from autoseg.errors import Problem, UserError


def misfit(strategy: Any, name: str, space_name: str, space: Any) -> list[Problem]:
    """The problem of a strategy that cannot search a space, with those that can as its cure; none if it can.

    Args:
        strategy: The strategy with its options, whose ``check(space)``, if it has one, compares these with the
            space; None when its options are wrong.
        name: Its name.
        space_name: Name of the space.
        space: An unfrozen instance of it.
    """
    reason = _refusal(name, space)
    if not reason:
        check = getattr(strategy, "check", None)
        return list(check(space)) if check else []
    able = [plugin.name for plugin in registry.plugins("strategy") if not _refusal(plugin.name, space)]
    what = f"the strategy {name!r} cannot search the space {space_name!r}: {reason}"
    return [Problem(what, "strategy", f"use one of {', '.join(able)}" if able else "use another space")]


def _refusal(strategy: str, space: Any) -> str | None:
    """Why a strategy cannot search a space; None when it can, or does not say."""
    try:
        supports = getattr(registry.load("strategy", strategy), "supports", None)
    except UserError as error:
        return str(error)
    reason: str | None = supports(space) if supports else None
    return reason
