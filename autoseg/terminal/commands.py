"""What the commands do that need torch: glue between the library and the terminal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from autoseg import registry
from autoseg.audit import audit
from autoseg.cards import complete_cards
from autoseg.comparison import compare
from autoseg.conduct import all_done
from autoseg.config import BaselineConfig, ExperimentConfig, load_config
from autoseg.data.facts import data_facts
from autoseg.data.images import read_image
from autoseg.durations import parse_duration
from autoseg.errors import Interrupted, Problem, UserError, raise_if
from autoseg.experiment import claimed, run
from autoseg.jobs import measure_costs, train_and_test
from autoseg.nnibridge.services import check_services
from autoseg.plan import Plan, infer_recipe
from autoseg.predict.segmenter import find_model, load
from autoseg.prepare import CONTROL, Prepared, load_data, load_experiment, prepare
from autoseg.report.page import write_report
from autoseg.runfolder import RunFolder, read_json, write_bytes, write_json
from autoseg.search.architecture import Architecture
from autoseg.terminal.bars import shown_progress
from autoseg.terminal.tables import comparison_table, plan_table, wrapped
from autoseg.train.evaluate import evaluate
from autoseg.train.modelspec import ModelSpec


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_experiment(
    file: Path,
    out: Path | None,
    resume: bool,
    preset: str | None,
    overrides: list[str],
    dry_run: bool,
    began: float,
) -> None:
    """``autoseg run`` and ``autoseg plan``."""

    def on_plan(plan: Plan, prepared: Prepared) -> None:
        info = prepared.data.info
        counts = ", ".join(f"{len(prepared.data.split(s))} {s}" for s in ("train", "val", "test"))
        _say(wrapped(f"{info.name}: {counts}; {info.channels} channel(s); classes: {', '.join(info.classes)}", "  "))
        table = plan_table(plan.to_json())
        print(table) if dry_run else _say(table)

    try:
        with shown_progress() as progress:
            finished = run(
                file,
                out=out,
                resume=resume,
                preset=preset,
                overrides=overrides,
                dry_run=dry_run,
                progress=progress,
                on_plan=on_plan,
                began=began,
            )
    except Interrupted as interruption:
        if dry_run:
            raise
        changes = [word for text in overrides for word in ("--set", text)]
        chosen = ["--preset", preset] if preset else []
        again = ["autoseg", "run", str(file), *(["--out", str(out)] if out else []), *chosen, *changes, "--resume"]
        raise Interrupted(f"The state is saved; continue with\n  {shlex.join(again)}") from interruption
    if finished:
        print(comparison_table(finished.comparison))
        _say(f"\nreport: {finished.folder / 'report.html'}")
        if (finished.folder / "nni").exists():
            _say(f"web page of the trials again: {shlex.join(['autoseg', 'ui', str(finished.folder)])}")


def check_target(target: Path, preset: str | None, overrides: list[str]) -> None:
    """``autoseg check``: raises with all problems, or says what is there."""
    source: Any = {"data": {"path": str(target)}} if target.is_dir() else target
    config = load_experiment(source, overrides, preset)
    raise_if(check_services(config))
    data = load_data(config) if target.is_dir() else prepare(config).data
    for name in ("train", "val", "test"):
        print(f"{name}: {len(data.split(name))} images")
    print(f"classes: {', '.join(data.info.classes)}")
    for note in data.notes:
        print(f"note: {note}")
    print("no problems found")


def write_report_again(path: Path) -> Path:
    """``autoseg report``: without the data set, the report has no pictures of it."""
    folder = RunFolder(path)
    config = load_config(folder.config)
    try:
        data = load_data(config)
    except UserError as error:
        _say(f"note: the data set cannot be read, so the report has no pictures of it ({error.problems[0]})")
        data = None
    if folder.plan.exists():
        plan = Plan.from_json(read_json(folder.plan))
        if all_done(folder, plan) or (folder.failures.exists() and folder.comparison.exists()):
            comparison = compare(folder, plan.models, plan.seeds)
            write_json(folder.comparison, comparison)
            complete_cards(folder, comparison, plan.data or (data_facts(data) if data else None))
    return write_report(path, data)


def train_one(file: Path, model: str, out: Path | None, preset: str | None, overrides: list[str]) -> dict[str, Any]:
    """``autoseg train``: one network, the seed of the experiment."""
    config = load_experiment(file, [*overrides, "repeats=1"], preset)
    baseline = None if model.endswith(".json") else _baseline(config, model)
    if baseline is None:
        options = dict(config.train.space_options)
        spec = ModelSpec(Path(model).stem, "finalist", architecture=Architecture.read(model), options=options)
    else:
        spec = ModelSpec(baseline.label, "baseline", model=baseline.name, options=dict(baseline.options))
        if spec.options:
            given = ", ".join(f"{key}={value}" for key, value in spec.options.items())
            _say(wrapped(f"note: {spec.label}, as among the baselines of {file}: {given}", "  "))
    config = config.model_copy(update={"baselines": [] if baseline is None else [baseline]})
    folder = RunFolder(out or Path("runs") / f"{config.name}-{spec.label}")
    with claimed(folder), shown_progress() as progress:
        prepared = prepare(config)
        recipe, notes = infer_recipe(config, prepared.data, prepared.loss_options)
        for note in notes:
            _say(wrapped(f"note: {note}", "  "))
        plan = Plan(recipe, None, [spec.label], [config.seed])
        train_and_test(folder, prepared, plan, spec, config.seed, progress)
        measure_costs(folder, prepared, [spec], config.seed)
        complete_cards(folder)
    result: dict[str, Any] = read_json(folder.model(spec.label, config.seed) / "test.json")
    _say(f"model: {folder.model(spec.label, config.seed)}, described in its card.html")
    return {key: result[key] for key in ("model", "seed", "miou", "dice", "accuracy", "iou_per_class", "params")}


def _baseline(config: ExperimentConfig, model: str) -> BaselineConfig | None:
    """The baseline of the experiment with this label, else with this name, else a registered model; None for a file.

    Raises:
        UserError: Several baselines have the name, or there is no such model, or it is the random control.
    """
    found = [b for b in config.baselines if b.label == model] or [b for b in config.baselines if b.name == model]
    if len(found) > 1:
        labels = " or ".join(f"'{b.label}'" for b in found)
        raise UserError(Problem(f"{len(found)} baselines are a {model}", "--model", f"give the label: {labels}"))
    if (found and found[0].name == CONTROL) or model == CONTROL:
        what = f"'{CONTROL}' is the control of a run, a random architecture, and no model of its own"
        raise UserError(Problem(what, "--model", "give the architecture.json of a run, or the name of a model"))
    if found:
        return found[0]
    if Path(model).is_file():
        return None
    registry.check_options("model", model, {}, "--model")  # whether there is such a model
    return BaselineConfig.model_validate({"name": model})


def test_model(
    model: Path, data_file: Path, preset: str | None, overrides: list[str], device: str | None
) -> dict[str, Any]:
    """``autoseg test``: scores on the test split of another experiment file."""
    segmenter = load(model, device or "auto")
    data = load_data(load_experiment(data_file, overrides, preset))
    if (data.info.channels, data.info.num_classes) != (segmenter.info.channels, segmenter.info.num_classes):
        raise UserError(
            Problem(
                f"the data have {data.info.channels} channel(s) and {data.info.num_classes} classes, the model "
                f"{segmenter.info.channels} and {segmenter.info.num_classes}",
                str(data_file),
                "test a model on data like those it was trained on",
            )
        )
    result = evaluate(segmenter.network, data.test, data.info, segmenter.description.normalisation, segmenter.compute)
    return {"model": str(find_model(model)), "split": "test", "images": len(data.test), **result.scores.to_json()}


def predict_images(model: Path, images: list[Path], out: Path, device: str | None) -> Iterator[Path]:
    """``autoseg predict``: a mask and an overlay per image."""
    problems = [Problem("there is no such file", str(path), "check the path") for path in images if not path.is_file()]
    stems = [path.stem for path in images]
    problems += [
        Problem(f"several images are called {stem!r}", str(out), "predict them into different folders")
        for stem in sorted({s for s in stems if stems.count(s) > 1})
    ]
    raise_if(problems)
    segmenter = load(model, device or "auto")
    colors = np.array(segmenter.info.colors, np.uint8)
    for path in images:
        try:
            image = read_image(path)
            mask = segmenter.predict(image)
        except UserError as error:  # the other images are done all the same
            problems += [replace(p, where=str(path)) for p in error.problems]
            continue
        grey = (image if image.ndim == 2 else image[..., :3].mean(-1)).astype(np.float32)
        low, high = float(grey.min()), float(grey.max())
        shown = np.repeat(((grey - low) / max(high - low, 1e-9) * 255).astype(np.uint8)[..., None], 3, axis=2)
        blend = np.where(mask[..., None] > 0, (0.55 * shown + 0.45 * colors[mask]).astype(np.uint8), shown)
        for name, picture in ((f"{path.stem}.png", mask), (f"{path.stem}_overlay.png", blend[..., ::-1])):
            yield write_bytes(out / name, cv2.imencode(".png", picture)[1].tobytes())
    raise_if(problems)


def audit_run(path: Path, count: int, seconds: str | None, epochs: int | None, seed: int | None) -> dict[str, Any]:
    """``autoseg audit``."""
    each = None if seconds is None else parse_duration(seconds)
    try:
        with shown_progress() as progress:
            found = audit(path, count=count, seconds=each, epochs=epochs, seed=seed, progress=progress)
    except Interrupted as interruption:
        options = {"--count": count, "--seconds": seconds, "--epochs": epochs, "--seed": seed}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        again = shlex.join(["autoseg", "audit", str(path), *given])
        raise Interrupted(f"The state is saved; continue with\n  {again}") from interruption
    _say(f"picture: {path / 'audit' / 'audit.png'}")
    return found
