"""``autoseg fetch``: the terms first, then the download, then how to use it."""

from __future__ import annotations

import sys
from pathlib import Path

from autoseg.data.fetch import fetch, target_of
from autoseg.data.sources import data_home, is_there, source_named
from autoseg.terminal.bars import shown_progress
from autoseg.terminal.tables import wrapped


def fetch_data(name: str, to: Path | None) -> Path:
    """Download a data set and say under what terms.

    Args:
        name: Name of the data set.
        to: Its folder; by default where the data set plugin looks for it.

    Returns:
        The folder.

    Raises:
        UserError: As :func:`autoseg.data.fetch.fetch`.
    """
    source, target = source_named(name), target_of(name, to)
    if is_there(name, target):
        _say(f"{name} is already here and is kept; remove the folder to download it again")
        return target
    _say(source.title)
    for archive in source.archives:
        _say(f"  from {archive.url}")
    _say(wrapped(f"licence: {source.licence}", "  "))
    _say(wrapped(f"please cite: {source.citation}", "  "))
    with shown_progress() as progress:
        folder = fetch(name, to, progress).folder
    if folder != (data_home() / name).resolve():
        _say(f"use it with --set data.options.path={folder}")
    return folder


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
