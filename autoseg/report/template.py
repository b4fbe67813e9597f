"""Filling the page templates: every page holds its style, its figures and its pictures, and fetches nothing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

CARD = "card.html"
"""Name of the card of a model, in the folder of its training."""


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(template: str, **values: Any) -> str:
    """A page as text.

    Args:
        template: File name in ``templates/``.
        values: What it shows; text in it is escaped, except :class:`markupsafe.Markup`.

    Raises:
        jinja2.UndefinedError: The template needs a value that was not given.
    """
    return _environment().get_template(template).render(**values)
