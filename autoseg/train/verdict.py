"""The verdict: was the search worth it, and how sure is that?

The finalist is compared with the best of all other models of the run, hand-designed baselines and random
control alike. The score of a model is its mIoU pooled over the test images, averaged over its seeds. The
interval comes from a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
percentile method): test images and seeds are drawn again with replacement, the same draw for both models,
and the middle 95 % of the resulting differences is the interval. Of S seeds S - 1 are drawn: with the few
seeds that are usual, drawing S makes the spread too small by (S - 1) / S (Hesterberg, Unbiasing the
bootstrap, 2004).

The limits of the interval: few seeds or few images show too little of the chance in them. On simulated
results (two equal models, benchmarks/verdict_coverage.py) a nominal 95 % held the truth in 58 % of the
cases with 1 seed and 20 images, 84 % with 2 and 24, 92 % with 3 and 20, 95 % with 5 and 20. So the text
warns of fewer than three seeds and of fewer than five images, and a single test image never yields a
"worth it".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from autoseg.train.metrics import miou

Role = Literal["finalist", "baseline", "control"]
Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

FEW_IMAGES = 5
"""Below this many test images the verdict warns."""

FEW_SEEDS = 3
"""Below this many seeds the verdict warns."""

_TAILS = (2.5, 97.5)  # percentiles of a 95 % interval
_ROUNDING = 1e-9  # mIoU differences below this are floating-point noise
_CHUNK_NUMBERS = 4_000_000  # numbers held at a time for the resampled matrices (32 MB)


@dataclass(frozen=True, eq=False)
class ModelResult:
    """The test results of one model.

    Attributes:
        role: What the model is in the comparison.
        confusions: ``(S, n, C, C)`` pixel counts of S seeds and n test images; rows are the truth.
        seeds: The S training seeds; 0 to S - 1 when left out.

    Raises:
        ValueError: When the role is unknown or the shapes do not fit.
    """

    role: Role
    confusions: npt.NDArray[np.int64]
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = np.asarray(self.confusions)
        if self.role not in ("finalist", "baseline", "control"):
            raise ValueError(f"role is {self.role!r}; it must be finalist, baseline or control")
        if counts.ndim != 4 or counts.shape[2] != counts.shape[3] or 0 in counts.shape:
            raise ValueError(f"confusions must have the shape (seeds, images, C, C), not {counts.shape}")
        seeds = tuple(self.seeds) or tuple(range(counts.shape[0]))
        if len(seeds) != counts.shape[0] or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds {seeds} must be {counts.shape[0]} different numbers")
        object.__setattr__(self, "confusions", counts)
        object.__setattr__(self, "seeds", seeds)

    @property
    def miou(self) -> float:
        """Mean over the seeds of the mIoU pooled over the images, 0..1."""
        return float(miou(self.confusions.sum(axis=1)).mean())


@dataclass(frozen=True)
class Verdict:
    """What the comparison says; every fraction is 0..1.

    Attributes:
        text: One or two plain sentences, a warning where the data are thin, and the notes.
        gain: mIoU of the finalist minus that of the best other model; None without a comparison.
        interval: 95 % interval of the gain.
        against: Name of the best other model.
        worth_it: True only when the whole interval is above 0.
        notes: What the search itself reported, such as that it has not converged.
    """

    text: str
    gain: float | None = None
    interval: Interval | None = None
    against: str | None = None
    worth_it: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The ``verdict`` object of comparison.json.

        Example:
            >>> Verdict("nothing to compare").to_json()["gain"] is None
            True
        """
        return {
            "text": self.text,
            "gain": self.gain,
            "interval": None if self.interval is None else list(self.interval),
            "against": self.against,
            "worth_it": self.worth_it,
            "notes": list(self.notes),
        }


def paired_gain(a: ModelResult, b: ModelResult, draws: int = 2000, seed: int = 0) -> tuple[float, Interval]:
    """How much better ``a`` is than ``b``.

    Images are resampled together on both sides. Seeds are too when both sides have the same ones, else each
    side's on its own.

    Args:
        a: Results on the same test images, in the same order, as ``b``.
        b: Results to compare with.
        draws: Bootstrap draws.
        seed: Seed of the draws; equal seeds give equal intervals.

    Returns:
        Difference of the two mIoU values, and its 95 % interval; NaN when no test pixel counts.

    Raises:
        ValueError: When the two do not have the same number of images and classes.

    Example:
        >>> better, worse = np.array([[[[9, 1], [0, 10]]]]), np.array([[[[8, 2], [0, 10]]]])
        >>> gain, _ = paired_gain(ModelResult("finalist", better), ModelResult("baseline", worse))
        >>> round(gain, 4)
        0.0879
    """
    if a.confusions.shape[1:] != b.confusions.shape[1:]:
        raise ValueError(f"cannot pair results of shapes {a.confusions.shape} and {b.confusions.shape}")
    ours, theirs = _bootstrap([a, b], draws, seed)
    return a.miou - b.miou, _percentiles(ours - theirs)


def interval(a: ModelResult, draws: int = 2000, seed: int = 0) -> Interval:
    """95 % bootstrap interval of one model's mIoU over images and seeds.

    Example:
        >>> one_image = np.array([[[[9, 1], [0, 10]]]])
        >>> [round(end, 4) for end in interval(ModelResult("baseline", one_image))]
        [0.9045, 0.9045]
    """
    return _percentiles(_bootstrap([a], draws, seed)[0])


def verdict(models: Mapping[str, ModelResult], draws: int = 2000, seed: int = 0, notes: Sequence[str] = ()) -> Verdict:
    """Compare the finalist with the best of all other models.

    Args:
        models: Results by model name, all on the same test images. With several finalists the first one
            counts: choosing among them by test score would flatter the search.
        draws: Bootstrap draws.
        seed: Seed of the draws.
        notes: What the search reported about itself; the text ends with them as sentences, the gain and its
            interval do not depend on them.

    Returns:
        The verdict; without a finalist or without another model its text says that there is no comparison.

    Raises:
        ValueError: When the models do not have the same number of images and classes.

    Example:
        >>> verdict({"unet": ModelResult("baseline", np.array([[[[9, 1], [0, 10]]]]))}).text
        'There is no finalist, so nothing can be said about the search; the best model is unet with 90.5 % mIoU.'
        >>> verdict({}, notes=["the search has not converged"]).text
        'There are no models to compare. The search has not converged.'
    """
    found = _compare(models, draws, seed)
    kept = tuple(dict.fromkeys(note.strip() for note in notes if note.strip()))
    return replace(found, text=" ".join([found.text, *map(_sentence, kept)]), notes=kept)


def _compare(models: Mapping[str, ModelResult], draws: int, seed: int) -> Verdict:
    """The verdict as far as the test results go."""
    shapes = {name: result.confusions.shape[1:] for name, result in models.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the models were not tested on the same images and classes: (images, C, C) are {shapes}")
    ranked = sorted(models, key=lambda name: -models[name].miou)
    finalist = next((name for name in models if models[name].role == "finalist"), None)
    others = [name for name in ranked if models[name].role != "finalist"]
    if not models:
        return Verdict("There are no models to compare.")
    if finalist is None:
        text = f"There is no finalist, so nothing can be said about the search; the best model is {others[0]}"
        return Verdict(f"{text} with {_percent(models[others[0]].miou)} mIoU.")
    reached = f"{finalist} reaches {_percent(models[finalist].miou)} mIoU"
    if not others:
        return Verdict(f"There is nothing to compare the search with; {reached}.")

    gain, ends = paired_gain(models[finalist], models[others[0]], draws, seed)
    if math.isnan(gain):
        return Verdict("No test pixel has a label, so nothing can be compared.", against=others[0])
    _, images, *_ = models[finalist].confusions.shape
    worth_it = ends[0] > _ROUNDING and images > 1
    opening = "The search was worth it" if worth_it else "The search was not worth it"
    if images == 1 and gain > _ROUNDING:
        opening = "One test image cannot show whether the search was worth it"
    sentences = [f"{opening}: {reached}, {_compared(gain, ends, _title(others[0], models))}."]
    second = next((name for name in others if models[name].role != models[others[0]].role), None)
    if second is not None:
        compared = _compared(*paired_gain(models[finalist], models[second], draws, seed), _title(second, models))
        sentences.append(f"It is {compared}.")
    sentences += _warnings(images, min(len(models[name].seeds) for name in (finalist, others[0])))
    return Verdict(" ".join(sentences), gain, ends, others[0], worth_it)


def _bootstrap(models: Sequence[ModelResult], draws: int, seed: int) -> Floats:
    """``(len(models), draws)`` resampled mIoU values, from the same image draws for all models.

    A draw with replacement is a weight per image (how often it was drawn), so the resampled matrices are
    one matrix product: weights ``(draws, n)`` times counts ``(n, S * C * C)``, done in pieces.
    """
    image_random, *seed_randoms = np.random.default_rng(seed).spawn(1 + len(models))
    _, images, classes, _ = models[0].confusions.shape
    counts, seed_weights = [], []
    drawn: dict[tuple[int, ...], Floats] = {}
    for model, random in zip(models, seed_randoms, strict=True):
        order, key, number = np.argsort(model.seeds), tuple(sorted(model.seeds)), len(model.seeds)
        if key not in drawn:
            drawn_seeds = max(1, number - 1)  # one fewer than there are: see the module's text
            drawn[key] = random.multinomial(drawn_seeds, np.full(number, 1 / number), size=draws) / drawn_seeds
        seed_weights.append(drawn[key])
        counts.append(model.confusions[order].swapaxes(0, 1).reshape(images, -1).astype(np.float64))
    result = np.empty((len(models), draws))
    chunk = max(1, _CHUNK_NUMBERS // max(images, *(matrix.shape[1] for matrix in counts)))
    for start in range(0, draws, chunk):
        part = slice(start, min(start + chunk, draws))
        weights = image_random.multinomial(images, np.full(images, 1 / images), size=part.stop - start)
        for row, matrix, by_seed in zip(result, counts, seed_weights, strict=True):
            pooled = (weights.astype(np.float64) @ matrix).reshape(len(weights), -1, classes, classes)
            row[part] = (miou(pooled) * by_seed[part]).sum(axis=1)
    return result


def _percentiles(values: Floats) -> Interval:
    """The 95 % interval of resampled values; draws without a counted pixel are left out."""
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, _TAILS) if values.size else (math.nan, math.nan)
    return float(low), float(high)


def _compared(gain: float, ends: Interval, other: str) -> str:
    """Such as "1.4 points above the control random (95 % interval 0.6 to 2.1)"."""
    if abs(gain) <= _ROUNDING:
        place = "level with"
    else:
        place = f"{_points(abs(gain))} points {'above' if gain > 0 else 'below'}"
    between = f"95 % interval of the gain {_points(ends[0])} to {_points(ends[1])}"
    if ends[0] <= _ROUNDING and ends[1] >= -_ROUNDING:
        between += ", so no difference is shown"
    return f"{place} {other} ({between})"


def _title(name: str, models: Mapping[str, ModelResult]) -> str:
    """Such as "the best baseline unet", or "the control random" when there is one only."""
    role = models[name].role
    alone = sum(model.role == role for model in models.values()) == 1
    return f"the {role} {name}" if alone else f"the best {role} {name}"


def _warnings(images: int, seeds: int) -> list[str]:
    found = []
    if images < FEW_IMAGES:
        found.append(f"only {images} test image{'s' if images > 1 else ''}")
    if seeds < FEW_SEEDS:
        found.append(f"only {seeds} seed{'s' if seeds > 1 else ''}")
    return [f"Take this with care: with {' and '.join(found)} the interval is too narrow."] if found else []


def _sentence(note: str) -> str:
    """A note with a capital letter and a full stop."""
    return note[0].upper() + note[1:] + ("" if note[-1] in ".!?" else ".")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _points(fraction: float) -> str:
    """A difference of mIoU in points, one decimal, more where that would round it to 0."""
    points = 100 * fraction
    if abs(fraction) <= _ROUNDING:
        return "0.0"
    if abs(points) >= 0.05:
        return f"{points:.1f}"
    return np.format_float_positional(points, precision=1, unique=False, fractional=False, trim="-")
