"""``autoseg audit``: is the ranking of a supernet right?

A one-shot search ranks architectures by scores with shared weights. Here random architectures of the space are
scored that way and also trained on their own, all for an equal time from the same seed on the same batches, and
the two rankings are compared. The truth is the mIoU on validation images; the test split is not looked at.

What was done is in ``audit/`` of the run folder: an audit that was killed goes on from there, and one that is
asked for again with more architectures trains the further ones only.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoseg.agreement import rank_agreement
from autoseg.config import load_config
from autoseg.environment import data_hash
from autoseg.errors import Problem, UserError, raise_if
from autoseg.experiment import claimed
from autoseg.jobs import search_task
from autoseg.plan import Plan
from autoseg.prepare import FINALIST, Prepared, prepare
from autoseg.progress import Progress
from autoseg.report.audit_figure import audit_scatter
from autoseg.report.page import write_report
from autoseg.runfolder import RunFolder, read_json, write_bytes, write_json
from autoseg.search.audit_trials import draw, measure
from autoseg.search.oneshot import STATE
from autoseg.search.task import SearchTask
from autoseg.statefile import load_tree

FOLDER = "audit"
_SHARE = 4  # each training is that many times shorter than one of the run, unless the user says otherwise


def audit(
    run: Path | str,
    *,
    count: int = 20,
    seconds: float | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare the ranking by a run's supernet with that of networks trained alone.

    Args:
        run: The folder of a run whose search is finished.
        count: Random architectures to train.
        seconds: Length of each training; by default a fourth of the length of a training in the run.
        epochs: Length of each training in epochs instead; then the result does not depend on interruptions.
        seed: Of the draw and of the trainings; by default that of the run.
        progress: Receives the progress.

    Returns:
        The content of ``audit/audit.json``: the fields of :class:`autoseg.agreement.Agreement` with codes in
        place of indices, and ``architectures``, the supernet's favourite first.

    Raises:
        UserError: The run has no supernet, an option is wrong or differs from that of an audit that was begun,
            the data have changed, or another process works in the folder.
    """
    progress = progress or Progress()
    folder = RunFolder(Path(run))
    raise_if(_wrong_options(count, seconds, epochs) + _unfinished(folder))
    with claimed(folder, resume=True):
        progress.stage("Checking the run")
        plan = Plan.from_json(read_json(folder.plan))
        prepared = prepare(load_config(folder.config), control=plan.control)
        weights = _shared_weights(folder, prepared)
        settings = _settings(folder, plan, prepared, seconds, epochs, seed)
        task = replace(
            search_task(folder, prepared, plan, progress),
            recipe=plan.recipe,
            seed=settings["seed"],
            folder=folder.path / FOLDER,
            seconds=None,
        )
        prepared.compute.prepare()
        paths = draw(task, count)
        rows = measure(task, weights, paths, seconds=settings["seconds"], epochs=settings["epochs"])
        found = _result(task, prepared.config.strategy.name, count, rows, settings)
        write_bytes(task.folder / "audit.png", _picture(found))
        write_json(task.folder / "audit.json", found)
        if folder.report.exists():
            write_report(folder.path, prepared.data)
    return found


def _wrong_options(count: int, seconds: float | None, epochs: int | None) -> list[Problem]:
    checks = [
        (count >= 2, "count", "must be 2 or more, to have something to rank"),
        (seconds is None or seconds > 0, "seconds", "must be positive"),
        (epochs is None or epochs >= 1, "epochs", "must be 1 or more"),
        (seconds is None or epochs is None, "seconds and epochs", "cannot both be given"),
    ]
    return [Problem(why, option, "change it") for ok, option, why in checks if not ok]


def _unfinished(folder: RunFolder) -> list[Problem]:
    """Why there is nothing to audit yet."""
    if not folder.config.exists():
        return [Problem("is not a run folder", str(folder.path), "give the folder that autoseg run has written")]
    if not (folder.architecture.exists() and folder.plan.exists()):
        fix = "finish it with autoseg run --resume"
        return [Problem("the search of this run is not finished", str(folder.path), fix)]
    return []


def _shared_weights(folder: RunFolder, prepared: Prepared) -> dict[str, Any]:
    """The weights of the supernet, from the state of the search."""
    strategy = prepared.config.strategy.name
    path = folder.winning_search(read_json(folder.architecture)) / STATE
    if not getattr(prepared.strategy, "one_shot", False):
        what = f"the strategy {strategy!r} trains every candidate by itself: there is no supernet to audit"
        fix = "audit a run of a one-shot strategy, such as enas, darts or oneshot-evolution"
        raise UserError(Problem(what, str(folder.path), fix))
    state = load_tree(path) if path.exists() else {}
    if "weights" not in state:
        what = f"the strategy {strategy!r} has left no weights of a supernet"
        raise UserError(Problem(what, str(path), "run the search anew, into another folder"))
    if read_json(folder.environment)["data_hash"] != data_hash(prepared.data):
        what = "the images or masks have changed since the run was started"
        raise UserError(Problem(what, "data", "bring back the old ones, or run the experiment anew with --out"))
    weights: dict[str, Any] = state["weights"]
    return weights


def _settings(
    folder: RunFolder, plan: Plan, prepared: Prepared, seconds: float | None, epochs: int | None, seed: int | None
) -> dict[str, Any]:
    """Seed and length of the trainings: those of the audit that was begun, or new ones, which are written."""
    path = folder.path / FOLDER / "settings.json"
    asked = {"seconds": seconds, "epochs": epochs, "seed": seed}
    if path.exists():
        begun: dict[str, Any] = read_json(path)
        raise_if(
            [
                Problem(
                    f"the audit in this folder was begun with {name} = {begun[name]}, now it is {value}",
                    str(path.parent),
                    "leave the option out to continue it, or remove that folder to start anew",
                )
                for name, value in asked.items()
                if value is not None and value != begun[name]
            ]
        )
        return begun
    if seconds is None and epochs is None:
        asked["seconds"] = round(max(1.0, _training_seconds(folder, plan) / _SHARE), 1)
    if seed is None:
        asked["seed"] = prepared.config.seed
    write_json(path, asked)
    return asked


def _training_seconds(folder: RunFolder, plan: Plan) -> float:
    """Length of one training of the run: measured, or predicted where none is finished."""
    tested = folder.model(FINALIST, plan.seeds[0]) / "test.json"
    if tested.exists():
        return float(read_json(tested)["train_seconds"])
    predicted = next(stage["seconds"] for stage in plan.stages if stage["name"] == f"train {FINALIST}")
    return float(predicted) / len(plan.seeds)


def _result(
    task: SearchTask, strategy: str, count: int, rows: list[dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    """The content of audit.json."""
    shown = sorted(rows, key=lambda row: (-row["supernet"], row["params"]))
    found = rank_agreement([row["supernet"] for row in shown], [row["alone"] for row in shown])
    notes = [f"{row['code']}: {row['note']}" for row in shown if row["note"]]
    if len(rows) < count:
        notes.insert(0, f"The space has no more than {len(rows)} architectures that could be drawn.")
    return {
        "space": task.space,
        "strategy": strategy,
        **settings,
        **asdict(found),
        "favourite": shown[found.favourite]["code"],
        "best": shown[found.best]["code"],
        "text": found.text,
        "notes": notes,
        "architectures": [{key: row[key] for key in row if key not in ("kind", "note")} for row in shown],
    }


def _picture(found: dict[str, Any]) -> bytes:
    """The scatter plot, PNG."""
    rows = found["architectures"]
    tau = float("nan") if found["tau"] is None else found["tau"]
    return audit_scatter(
        [row["supernet"] for row in rows], [row["alone"] for row in rows], tau, [row["code"] for row in rows]
    )
