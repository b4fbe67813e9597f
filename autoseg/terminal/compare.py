"""``autoseg compare``: finished runs side by side, without waiting for torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from autoseg.compare_runs import compare_runs
from autoseg.compare_words import headline, ranks_sentence
from autoseg.terminal.tables import runs_table


def show_comparison(runs: list[Path], out: Path | None, as_json: bool) -> str:
    """Compare runs, write the page where one is wanted, and return what is printed.

    Args:
        runs: Run folders.
        out: A folder for compare.html and compare.json, or None for neither.
        as_json: Whether compare.json is printed in place of the table.

    Raises:
        UserError: With all problems of all runs; or the folder cannot be used.
    """
    compared = compare_runs(runs)
    if out is not None:
        from autoseg.report.compare_page import write_comparison

        page, _ = write_comparison(compared, out)
        print(f"page: {page}", file=sys.stderr)
    if as_json:
        return json.dumps(compared.to_json(), indent=2)
    notes = [f"note: {note}" for note in compared.notes if note != compared.ranking.why_not]
    return runs_table(compared, [headline(compared), ranks_sentence(compared), *compared.warnings, *notes])
