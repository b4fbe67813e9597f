"""``autoseg doctor``: the checks as text or JSON; what must be mended decides the exit code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from autoseg.doctor import examine, text_of
from autoseg.errors import Problem, raise_if


def show_checks(file: Path | None, as_json: bool) -> None:
    """Print all checks.

    Args:
        file: An experiment file whose machines are checked too.
        as_json: Print JSON.

    Raises:
        UserError: Something must be mended.
    """
    checks = examine(file)
    print(json.dumps([asdict(check) for check in checks], indent=2) if as_json else text_of(checks))
    raise_if([Problem(check.found, check.name, check.fix) for check in checks if check.status == "problem"])
