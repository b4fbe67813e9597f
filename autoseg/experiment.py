"""A run: check, plan, search, train, test, compare, report, over a run folder.

Every step leaves files that say it is done, so a run can be killed at any moment and continued: what is
done is skipped, what was cut continues from its saved state. With lengths in epochs a resumed run ends
with the same numbers as an uninterrupted one. Baselines and control do not need the search and are trained
beside it where there are cores to spare.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg import processes
from autoseg.cards import complete_cards
from autoseg.comparison import compare
from autoseg.conduct import Conductor, all_done
from autoseg.config import ExperimentConfig, load_config
from autoseg.config_yaml import dotted
from autoseg.data.facts import data_facts
from autoseg.environment import data_hash, describe_environment
from autoseg.errors import Problem, UserError, raise_if
from autoseg.hiring import hire
from autoseg.jobs import measure_costs
from autoseg.nnibridge.services import check_services
from autoseg.places import worker_count
from autoseg.plan import Plan, make_plan, resumed
from autoseg.prepare import Prepared, load_experiment, prepare
from autoseg.progress import Progress
from autoseg.report.page import write_report
from autoseg.runfolder import RunFolder, read_json, write_json, write_text
from autoseg.search.architecture import Architecture

log = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run folder.
        comparison: The content of comparison.json.
        architecture: What the search found.
    """

    folder: Path
    comparison: dict[str, Any]
    architecture: Architecture

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return str(self.comparison["verdict"]["text"])


def run(
    source: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    resume: bool = False,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    progress: Progress | None = None,
    on_plan: Callable[[Plan, Prepared], None] | None = None,
    began: float | None = None,
) -> Run | None:
    """Execute an experiment.

    Args:
        source: An experiment file, or its content as a dictionary.
        out: Run folder; ``runs/NAME`` by default.
        resume: Continue the run in that folder; where none was started yet, start one.
        preset: Which of the file's presets to put over the file.
        overrides: ``"key.sub=value"``, as ``--set`` on the command line; they count more than the preset.
        dry_run: Stop after the plan; nothing is written.
        progress: Receives the progress.
        on_plan: Called with the plan before work starts.
        began: When the time of the budget began, by ``time.monotonic()``; now unless given.

    Returns:
        The finished run, or None for a dry run.

    Raises:
        UserError: Something the user can mend; nothing was lost.

    Example:
        >>> import autoseg
        >>> config = {"data": {"dataset": "synthetic-ceramic", "options": {"count": 12, "size": 32}}}
        >>> autoseg.run(config, dry_run=True, overrides=["space.options.width=4", "train.epochs=1", "baselines=[]"])
    """
    began = time.monotonic() if began is None else began
    progress = progress or Progress()
    config = load_experiment(source, overrides, preset)
    folder = RunFolder(Path(out) if out is not None else Path("runs") / config.name)
    with ExitStack() as held:
        problems = list(check_services(config))
        if not dry_run:
            try:
                held.enter_context(claimed(folder, resume))
                if folder.config.exists():
                    _same_config(config, folder, preset)
            except UserError as error:
                problems += error.problems
            page = config.ui.enabled and config.compute.service == "local"
            if not problems and (page or worker_count(config.compute.workers, config.compute.device, jobs=2) > 1):
                processes.warm_up()
        progress.stage("Checking the data, planning")
        try:
            begun = not dry_run and not problems and folder.plan.exists()
            prepared = prepare(config, control=read_json(folder.plan).get("control") if begun else None)
        except UserError as error:
            problems += error.problems
        raise_if(problems)
        if dry_run:
            plan = make_plan(prepared, time.monotonic() - began)
            if on_plan:
                on_plan(plan, prepared)
            return None
        held.enter_context(_log_to(folder.log))
        plan = _start(folder, prepared, preset, began)
        if on_plan:
            on_plan(plan, prepared)
        progress.stage(f"Searching {config.space.name} with {config.strategy.name}, training and testing")
        _do_jobs(folder, prepared, plan, progress)
        progress.stage("Comparing and reporting")
        comparison = _conclude(folder, prepared, plan)
        found = Architecture.read(folder.architecture)
    return Run(folder.path, comparison, found)


def _do_jobs(folder: RunFolder, prepared: Prepared, plan: Plan, progress: Progress) -> None:
    """Do what is not done yet."""
    if all_done(folder, plan):
        return
    crew = hire(folder, prepared, plan, progress)
    try:
        Conductor(folder, prepared, plan, crew, progress).run()
    finally:
        crew.stop()


def _conclude(folder: RunFolder, prepared: Prepared, plan: Plan) -> dict[str, Any]:
    """Compare, report, and take away what only a run that goes on needs."""
    folder.sweep()
    for leftover in folder.models.glob("*/seed-*/state.safetensors"):  # a kill came just after the result
        leftover.unlink()
    trained = [
        spec
        for spec in prepared.specs(Architecture.read(folder.architecture))
        if (folder.model(spec.label, plan.seeds[0]) / "test.json").exists()
    ]
    measure_costs(folder, prepared, trained, plan.seeds[0])
    comparison = compare(folder, plan.models, plan.seeds)
    write_json(folder.comparison, comparison)
    complete_cards(folder, comparison, plan.data)
    write_report(folder.path, prepared.data)
    shutil.rmtree(folder.data, ignore_errors=True)
    return comparison


@contextmanager
def claimed(folder: RunFolder, resume: bool = False) -> Iterator[None]:
    """Open a run folder and hold it for this process.

    A folder that is new and in which nothing was started, because the data are bad, is taken away again.

    Args:
        folder: The run folder.
        resume: Continue the run in it; a folder that does not exist yet is made.

    Raises:
        UserError: Another process works in it, or it may not be used.
    """
    new = not folder.path.exists()
    with ExitStack() as held:
        if (folder.path / LOCK).exists():  # opening cleans up; not under the feet of another process
            held.enter_context(folder.lock())
            folder.open(resume)
        else:
            folder.open(resume and not new)
            held.enter_context(folder.lock())
        try:
            yield
        finally:
            if new and {entry.name for entry in folder.path.iterdir()} <= {LOCK, folder.log.name}:
                with suppress(OSError):
                    shutil.rmtree(folder.path)


def _same_config(config: ExperimentConfig, folder: RunFolder, preset: str | None) -> None:
    """A run may only be resumed with the configuration it was started with; the preset may be what differs."""
    before = load_config(folder.config)
    old, new = (c.model_dump(mode="json", by_alias=True, exclude={"ui", "compute"}) for c in (before, config))
    begun = read_json(folder.environment).get("preset", preset) if folder.environment.exists() else preset
    if old != new and begun != preset:
        what = f"the run was started {_with(begun)}, and is resumed {_with(preset)}"
        fix = f"resume it {_with(begun)}, or start anew with --out"
        raise UserError(Problem(what, str(folder.environment), fix))
    raise_if(
        [
            Problem(
                f"'{key}' is {now}, but the run was started with {then}",
                str(folder.config),
                "resume with the same settings, or start anew with --out",
            )
            for key, then, now in _differences(old, new)
        ]
    )


def _with(preset: str | None) -> str:
    return f"with --preset {preset}" if preset else "without a preset"


def _differences(old: Any, new: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[str, str, str]]:
    """The keys whose values differ, each with both values as text."""
    if isinstance(old, dict) and isinstance(new, dict):
        for part in {**old, **new}:
            yield from _differences(old.get(part), new.get(part), (*key, part))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, (*key, index))
    elif old != new:
        yield dotted(key), json.dumps(old), json.dumps(new)


def _start(folder: RunFolder, prepared: Prepared, preset: str | None, began: float) -> Plan:
    """Write config, environment and plan, or read the plan back when the run is resumed."""
    if folder.plan.exists():
        plan = Plan.from_json(read_json(folder.plan))
        facts = {} if plan.data else data_facts(prepared.data)  # older runs have none: once here, not in every job
        if read_json(folder.environment)["data_hash"] != (facts["hash"] if facts else data_hash(prepared.data)):
            raise UserError(
                Problem("the images or masks have changed since the run was started", "data", "start anew with --out")
            )
        plan = replace(resumed(plan, prepared), data=plan.data or facts)
        write_text(folder.config, prepared.config.to_yaml())  # compute and ui may have changed
        write_json(folder.plan, plan.to_json())
        return plan
    facts = data_facts(prepared.data)  # it reads every image, and its time counts towards the budget
    plan = make_plan(prepared, time.monotonic() - began)  # it may refuse; then nothing has been started
    plan = replace(plan, data=facts)
    write_text(folder.config, prepared.config.to_yaml())
    environment = describe_environment(plan.seeds, facts["hash"], prepared.compute.device)
    write_json(folder.environment, {**environment, "preset": preset})
    write_json(folder.plan, plan.to_json())
    return plan


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Append everything the library logs to a file while the run lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("autoseg")
    previous = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    except UserError as error:
        log.error("%s", error)
        raise
    except Exception:
        log.exception("the run failed")
        raise
    except BaseException as ending:
        log.info("ended by %s", type(ending).__name__)
        raise
    finally:
        root.removeHandler(handler)
        root.setLevel(previous)
        handler.close()
