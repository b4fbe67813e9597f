"""``autoseg ui``: NNI's web page of a run, without waiting for torch where it is not needed."""

from __future__ import annotations

import sys
from pathlib import Path

from autoseg.errors import Interrupted
from autoseg.nnibridge.serve import served
from autoseg.runfolder import RunFolder


def serve_page(run_folder: Path, port: int | None) -> None:
    """``autoseg ui``: the page of a run, until Ctrl-C."""
    with served(RunFolder(run_folder), port) as (url, gone):
        print(url, flush=True)
        if gone is None:
            print("The page of this run is up.", file=sys.stderr)
            return
        print("The page is up, for this machine alone; Ctrl-C takes it down.", file=sys.stderr, flush=True)
        try:
            while not gone.wait(1):
                pass
        except Interrupted:
            return
    print("The page has stopped.", file=sys.stderr)
