"""The command line: one function per command, no logic.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 the user can
mend it, 1 our fault, 130 interrupted. torch and NNI are imported only by the commands that need them.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from autoseg.terminal.guard import guarded

app = typer.Typer(
    name="autoseg",
    help="Plugin-based AutoML for semantic segmentation: search, train, compare honestly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="An experiment file (YAML).", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/NAME unless given.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key, such as train.epochs=20.", metavar="KEY=VALUE")
]
Preset = Annotated[str | None, typer.Option("--preset", help="A preset of the file, put over it before --set.")]
Budget = Annotated[str | None, typer.Option(help="Time for the whole run, such as 10min or 2h.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _overrides(settings: list[str] | None, budget: str | None, device: str | None, no_ui: bool = False) -> list[str]:
    extra = [f"budget={budget}"] if budget else []
    extra += [f"compute.device={device}"] if device else []
    extra += ["ui.enabled=false"] if no_ui else []
    return [*(settings or []), *extra]


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Plugin-based AutoML for semantic segmentation."""
    if show:
        from autoseg import __version__

        typer.echo(f"autoseg {__version__}")
        raise typer.Exit


@app.command()
def run(
    file: File,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    budget: Budget = None,
    preset: Preset = None,
    settings: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="Do not start NNI's web page.")] = False,
    device: Device = None,
) -> None:
    """Search, train, compare and report: the whole experiment."""
    began = time.monotonic()  # importing torch is part of the budget
    from autoseg.terminal.commands import run_experiment

    run_experiment(file, out, resume, preset, _overrides(settings, budget, device, no_ui), dry_run, began)


@app.command()
def plan(file: File, preset: Preset = None, settings: Set = None, budget: Budget = None, device: Device = None) -> None:
    """Show what a run would do and what it would cost; start nothing."""
    began = time.monotonic()
    from autoseg.terminal.commands import run_experiment

    run_experiment(file, None, False, preset, _overrides(settings, budget, device), True, began)


@app.command()
def check(
    target: Annotated[
        Path, typer.Argument(metavar="FILE|DIR", help="An experiment file, or a folder of images and masks.")
    ],
    preset: Preset = None,
    settings: Set = None,
) -> None:
    """Find everything wrong with an experiment file or a data folder, at once."""
    from autoseg.terminal.commands import check_target

    check_target(target, preset, settings or [])


@app.command("list")
def list_plugins(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="spaces, strategies, datasets, models or losses.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Only these names, families in full, such as 'fpn-res*'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the plugins that are installed, and what is wrong with those that do not load."""
    from autoseg import registry
    from autoseg.terminal.tables import plugin_table

    rows = registry.listing(registry.kind_named(kind) if kind else None, pattern)
    typer.echo(json.dumps(rows, indent=2) if as_json else plugin_table(rows, pattern))


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="camvid, isbi2012 or pets.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="Its folder; $AUTOSEG_DATA/NAME or ~/.cache/autoseg/NAME unless given.")
    ] = None,
) -> None:
    """Download a public data set, after its licence, and check that it is whole."""
    from autoseg.terminal.fetch import fetch_data

    typer.echo(fetch_data(name, to))


@app.command()
def show(run: RunDir, as_json: AsJson = False) -> None:
    """Show the verdict and the comparison of a finished run."""
    from autoseg.runfolder import RunFolder, read_json
    from autoseg.terminal.tables import comparison_table

    comparison = read_json(RunFolder(run).comparison)
    typer.echo(json.dumps(comparison, indent=2) if as_json else comparison_table(comparison))


@app.command()
def report(run: RunDir) -> None:
    """Write report.html of a run again."""
    from autoseg.terminal.commands import write_report_again

    typer.echo(write_report_again(run))


@app.command()
def train(
    file: File,
    model: Annotated[str, typer.Option("--model", help="A registered model, or an architecture.json.")],
    out: Out = None,
    preset: Preset = None,
    settings: Set = None,
    device: Device = None,
) -> None:
    """Train one network under the protocol of an experiment file, and test it."""
    from autoseg.terminal.commands import train_one

    typer.echo(json.dumps(train_one(file, model, out, preset, _overrides(settings, None, device)), indent=2))


@app.command()
def test(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|MODEL", help="A run folder or a trained model.", show_default=False)
    ],
    data: Annotated[Path, typer.Option("--data", help="An experiment file whose test split is scored.")],
    preset: Preset = None,
    settings: Set = None,
    device: Device = None,
) -> None:
    """Score a trained model on the test split of a data set."""
    from autoseg.terminal.commands import test_model

    typer.echo(json.dumps(test_model(model, data, preset, _overrides(settings, None, None), device), indent=2))


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A run folder or a trained model.", show_default=False)
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks and overlays.")],
    device: Device = None,
) -> None:
    """Segment images: class indices as PNG, and a coloured overlay to look at."""
    from autoseg.terminal.commands import predict_images

    for path in predict_images(model, images, out, device):
        typer.echo(path)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Write compare.html and compare.json there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put finished runs side by side: models over data sets, ranks, and what does not compare."""
    from autoseg.terminal.compare import show_comparison

    typer.echo(show_comparison(runs, out, as_json))


@app.command()
def ui(
    run: RunDir,
    port: Annotated[
        int | None, typer.Option(min=1, max=65534, help="Where to look for a free port first; 8080 unless given.")
    ] = None,
) -> None:
    """Show NNI's web page of a run: live, finished or interrupted."""
    from autoseg.terminal.page import serve_page

    serve_page(run, port)


@app.command()
def audit(
    run: RunDir,
    count: Annotated[int, typer.Option(help="Random architectures to train alone.")] = 20,
    seconds: Annotated[
        str | None, typer.Option(help="Time for each, such as 90s or 2min; a fourth of a training of the run.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Length of each in epochs instead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of draw and trainings; that of the run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask whether the ranking by a run's supernet is right: train random architectures alone, compare."""
    from autoseg.terminal.commands import audit_run
    from autoseg.terminal.tables import audit_table

    found = audit_run(run, count, seconds, epochs, seed)
    typer.echo(json.dumps(found, indent=2) if as_json else audit_table(found))


@app.command()
def trial(file: File, settings: Set = None) -> None:
    """Be a trial of your own NNI experiment: take its parameters, search, train, report to it."""
    from autoseg.trial_command import run_trial_command

    typer.echo(json.dumps(run_trial_command(file, settings or []), indent=2))


@app.command()
def doctor(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="An experiment file whose machines are checked too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the installation and this machine, and what to mend."""
    from autoseg.terminal.doctor import show_checks

    show_checks(file, as_json)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the ``autoseg`` script; returns the exit code."""
    code = guarded(app, arguments if arguments is not None else sys.argv[1:])
    if arguments is None:
        sys.exit(code)
    return code
