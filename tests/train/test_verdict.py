from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from autoseg.train import verdict as verdict_module
from autoseg.train.metrics import scores
from autoseg.train.verdict import ModelResult, Verdict, interval, paired_gain, verdict


def results(errors: npt.ArrayLike, pixels: int = 1000) -> np.ndarray:
    """``(S, n, 2, 2)`` confusions with ``errors[s][i]`` wrong pixels in each of two classes of ``pixels``."""
    wrong = np.asarray(errors, dtype=np.int64)
    rows = [np.stack([pixels - wrong, wrong], -1), np.stack([wrong, pixels - wrong], -1)]
    return np.stack(rows, -2)


def pooled_miou(wrong: float, pixels: int = 1000) -> float:
    """mIoU when ``wrong`` of ``pixels`` are wrong in both classes."""
    return (pixels - wrong) / (pixels + wrong)


def simulated(random: np.random.Generator, seeds: int, images: int, better: float = 0.0) -> list[np.ndarray]:
    """Two models on the same images; ``better`` is how much lower the error logit of the first is."""
    difficulty = random.normal(0, 0.4, images)
    models = []
    for shift in (better, 0.0):
        logit = -2.2 - shift + difficulty + random.normal(0, 0.05, (seeds, 1)) + random.normal(0, 0.15, (seeds, images))
        models.append(results(np.round(1000 / (1 + np.exp(-logit)))))
    return models


def test_identical_models_gain_nothing():
    counts = results([[100, 150, 80, 120, 90, 300]] * 3)
    found = verdict({"ednas": ModelResult("finalist", counts), "unet": ModelResult("baseline", counts)})
    assert found.gain == 0
    assert found.interval == (0, 0)
    assert not found.worth_it
    assert found.text.startswith("The search was not worth it: ednas reaches ")
    assert (
        "level with the baseline unet (95 % interval of the gain 0.0 to 0.0, so no difference is shown)" in found.text
    )


def test_clearly_better_is_worth_it():
    worse = np.array([[100, 150, 80, 120, 90, 300]] * 3)
    models = {
        "unet": ModelResult("baseline", results(worse)),
        "ednas": ModelResult("finalist", results(worse - 20)),
        "segnet": ModelResult("baseline", results(worse + 50)),
    }
    found = verdict(models)
    expected = pooled_miou(120) - pooled_miou(140)
    assert found.gain == pytest.approx(expected)
    assert found.interval[0] > 0.02
    assert found.interval[0] < expected < found.interval[1] < 0.05
    assert found.worth_it
    assert found.against == "unet"
    assert found.text.startswith(
        "The search was worth it: ednas reaches 78.6 % mIoU, 3.1 points above the best baseline unet (95 %"
    )
    assert "no difference" not in found.text
    assert "care" not in found.text


def test_better_on_average_but_noisy_is_not_worth_it():
    worse = np.full((3, 10), 120)
    noise = np.array([150, -140, 100, -110, 60, -90, 110, -120, 30, -50])
    found = verdict(
        {"ednas": ModelResult("finalist", results(worse + noise)), "unet": ModelResult("baseline", results(worse))}
    )
    assert found.gain == pytest.approx(pooled_miou(114) - pooled_miou(120))
    assert found.gain > 0
    assert found.interval[0] < 0 < found.interval[1]
    assert not found.worth_it
    assert found.text.startswith("The search was not worth it: ")
    assert "points above the baseline unet" in found.text
    assert "so no difference is shown" in found.text


def test_clearly_worse_says_below():
    better = np.array([[100, 150, 80, 120, 90, 300]] * 2)
    found = verdict(
        {"ednas": ModelResult("finalist", results(better + 30)), "unet": ModelResult("baseline", results(better))}
    )
    assert found.gain < 0
    assert found.interval[1] < 0
    assert not found.worth_it
    assert "points below the baseline unet (95 % interval of the gain -" in found.text
    assert "no difference" not in found.text


def test_control_better_than_finalist_is_said_and_both_kinds_are_named():
    base = np.array([[100, 150, 80, 120, 90, 300]] * 3)
    found = verdict(
        {
            "ednas": ModelResult("finalist", results(base)),
            "unet": ModelResult("baseline", results(base + 40)),
            "segnet": ModelResult("baseline", results(base + 60)),
            "random": ModelResult("control", results(base - 20)),
        }
    )
    assert found.against == "random"
    assert not found.worth_it
    assert found.text.startswith(
        "The search was not worth it: ednas reaches 75.4 % mIoU, 3.1 points below the control "
    )
    assert "below the control random" in found.text
    assert "It is 5.9 points above the best baseline unet (95 %" in found.text
    assert pooled_miou(140) - pooled_miou(180) == pytest.approx(0.0595, abs=1e-4)
    assert "segnet" not in found.text


def test_worth_it_names_the_control_second():
    base = np.array([[100, 150, 80, 120, 90, 300]] * 3)
    found = verdict(
        {
            "random": ModelResult("control", results(base + 60)),
            "ednas": ModelResult("finalist", results(base)),
            "unet": ModelResult("baseline", results(base + 20)),
        }
    )
    assert found.worth_it
    assert found.text.index("the baseline unet") < found.text.index("the control random")


def test_small_gains_are_not_rounded_to_nothing():
    base = np.full((2, 6), 100_000)
    found = verdict(
        {
            "ednas": ModelResult("finalist", results(base - 10, pixels=1_000_000)),
            "unet": ModelResult("baseline", results(base, pixels=1_000_000)),
        }
    )
    assert found.worth_it
    assert "0.002 points above" in found.text
    assert "0.0 to" not in found.text


def test_nothing_to_compare():
    model = results([[100] * 6])
    alone = verdict({"ednas": ModelResult("finalist", model)})
    assert alone == Verdict("There is nothing to compare the search with; ednas reaches 81.8 % mIoU.")
    assert alone.to_json() == {
        "text": alone.text,
        "gain": None,
        "interval": None,
        "against": None,
        "worth_it": False,
        "notes": [],
    }
    others = verdict({"unet": ModelResult("baseline", model), "random": ModelResult("control", results([[50] * 6]))})
    assert others.gain is None
    assert "no finalist" in others.text
    assert "the best model is random with 90.5 % mIoU" in others.text
    assert verdict({}).gain is None


def test_unlabelled_test_images_give_no_verdict():
    empty = np.zeros((1, 6, 2, 2), np.int64)
    found = verdict({"ednas": ModelResult("finalist", empty), "unet": ModelResult("baseline", empty)})
    assert found.gain is None
    assert found.interval is None
    assert not found.worth_it


@pytest.mark.parametrize(
    ("seeds", "images", "warning"),
    [
        (3, 5, None),
        (1, 5, "with only 1 seed the interval is too narrow"),
        (3, 4, "with only 4 test images the interval is too narrow"),
        (1, 2, "with only 2 test images and only 1 seed the interval is too narrow"),
    ],
)
def test_thin_data_are_warned_of(seeds, images, warning):
    worse = np.full((seeds, images), 150) + np.arange(images)
    found = verdict(
        {"ednas": ModelResult("finalist", results(worse - 20)), "unet": ModelResult("baseline", results(worse))}
    )
    assert found.worth_it
    assert (f"Take this with care: {warning}." in found.text) if warning else ("care" not in found.text)


def test_one_test_image_never_shows_a_gain():
    better, worse = results([[100]] * 3), results([[150]] * 3)
    found = verdict({"ednas": ModelResult("finalist", better), "unet": ModelResult("baseline", worse)})
    assert found.interval[0] > 0
    assert not found.worth_it
    assert found.text.startswith("One test image cannot show whether the search was worth it: ")
    lost = verdict({"ednas": ModelResult("finalist", worse), "unet": ModelResult("baseline", better)})
    assert lost.text.startswith("The search was not worth it: ")


def test_the_first_of_several_finalists_counts():
    base = results([[100] * 6] * 2)
    models = {
        "first": ModelResult("finalist", results([[120] * 6] * 2)),
        "second": ModelResult("finalist", results([[50] * 6] * 2)),
        "unet": ModelResult("baseline", base),
    }
    assert verdict(models).gain == pytest.approx(pooled_miou(120) - pooled_miou(100))


def slow_interval(a: ModelResult, b: ModelResult | None, draws: int, seed: int) -> tuple[float, float]:
    """The same bootstrap, one draw and one image at a time."""
    models = [a] if b is None else [a, b]
    image_random, *seed_randoms = np.random.default_rng(seed).spawn(1 + len(models))
    count, images = a.confusions.shape[:2]
    paired = b is not None and a.seeds == b.seeds
    values = []
    for _ in range(draws):
        drawn_images = image_random.multinomial(images, np.full(images, 1 / images))
        drawn_seeds = seed_randoms[0].multinomial(count - 1, np.full(count, 1 / count))
        means = []
        for index, model in enumerate(models):
            if index and not paired:
                drawn_seeds = seed_randoms[1].multinomial(count - 1, np.full(count, 1 / count))
            seed_scores = []
            for s, times in enumerate(drawn_seeds):
                pooled = sum(t * c for t, c in zip(drawn_images, model.confusions[s], strict=True))
                seed_scores += [scores(pooled).miou] * int(times)
            means.append(np.mean(seed_scores))
        values.append(means[0] - means[1] if b is not None else means[0])
    return tuple(np.percentile(values, [2.5, 97.5]))


@pytest.mark.parametrize("seeds_of_b", [(0, 1, 2), (3, 4, 5)])
@pytest.mark.parametrize("chunk", [1, 300, 4_000_000])
def test_vectorised_equals_the_slow_loop(monkeypatch, seeds_of_b, chunk):
    monkeypatch.setattr(verdict_module, "_CHUNK_NUMBERS", chunk)
    counts = np.random.default_rng(0).integers(0, 100, (2, 3, 7, 3, 3))
    a, b = ModelResult("finalist", counts[0]), ModelResult("baseline", counts[1], seeds_of_b)
    _, found = paired_gain(a, b, draws=40, seed=5)
    assert found == pytest.approx(slow_interval(a, b, 40, 5), abs=1e-12)
    assert interval(a, draws=40, seed=5) == pytest.approx(slow_interval(a, None, 40, 5), abs=1e-12)


def test_gain_is_the_mean_over_seeds_of_pooled_scores():
    counts = np.random.default_rng(1).integers(0, 100, (2, 3, 7, 3, 3))
    gain, _ = paired_gain(ModelResult("finalist", counts[0]), ModelResult("baseline", counts[1]), draws=10)
    by_hand = [np.mean([scores(seed.sum(axis=0)).miou for seed in model]) for model in counts]
    assert gain == pytest.approx(by_hand[0] - by_hand[1])


def test_same_seed_same_interval():
    a, b = (ModelResult("finalist", counts) for counts in simulated(np.random.default_rng(0), 3, 12))
    assert paired_gain(a, b, seed=1) == paired_gain(a, b, seed=1)
    assert paired_gain(a, b, seed=1)[1] != paired_gain(a, b, seed=2)[1]


def test_order_of_the_seeds_does_not_matter():
    a, b = (ModelResult("finalist", counts) for counts in simulated(np.random.default_rng(0), 3, 12))
    turned = ModelResult("baseline", b.confusions[::-1], b.seeds[::-1])
    assert paired_gain(a, turned)[1] == pytest.approx(paired_gain(a, b)[1], abs=1e-12)


def test_pairing_takes_out_what_images_and_seeds_share():
    random = np.random.default_rng(3)
    shared = np.round(150 + random.normal(0, 30, 20) + random.normal(0, 30, (4, 1)))
    a, b = ModelResult("finalist", results(shared - 5)), ModelResult("baseline", results(shared))
    _, (low, high) = paired_gain(a, b)
    own_low, own_high = interval(a)
    assert high - low < 0.1 * (own_high - own_low)
    other_seeds = ModelResult("baseline", b.confusions, (10, 11, 12, 13))
    _, (loose_low, loose_high) = paired_gain(a, other_seeds)
    assert loose_high - loose_low > 5 * (high - low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    """Equal models by construction, so the true gain is 0; 200 repetitions, sd of the rate 1.5 points."""
    random = np.random.default_rng(4)
    covered = claimed = 0
    for repetition in range(200):
        a, b = (ModelResult("finalist", counts) for counts in simulated(random, seeds=10, images=30))
        _, (low, high) = paired_gain(a, b, draws=300, seed=repetition)
        covered += low <= 0 <= high
        claimed += low > 0
    assert 0.88 <= covered / 200 <= 0.99
    assert claimed / 200 <= 0.07


def test_a_real_gain_is_found():
    random = np.random.default_rng(5)
    found = [
        paired_gain(*(ModelResult("finalist", counts) for counts in simulated(random, 5, 30, better=0.2)), draws=200)
        for _ in range(50)
    ]
    assert np.mean([low > 0 for _, (low, _) in found]) > 0.95


def test_a_class_missing_from_a_draw_is_left_out():
    counts = np.zeros((1, 6, 2, 2), np.int64)
    counts[:, :, 0, 0] = 90
    counts[0, 0, 1] = (5, 5)
    low, high = interval(ModelResult("baseline", counts), draws=200)
    assert not math.isnan(low)
    assert high == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("winner", np.ones((1, 2, 2, 2))), "role is 'winner'"),
        (("finalist", np.ones((2, 2, 2))), r"shape \(seeds, images, C, C\), not \(2, 2, 2\)"),
        (("finalist", np.ones((1, 2, 2, 3))), "shape"),
        (("finalist", np.ones((1, 0, 2, 2))), "shape"),
        (("finalist", np.ones((2, 2, 2, 2)), (1,)), r"seeds \(1,\) must be 2 different numbers"),
        (("finalist", np.ones((2, 2, 2, 2)), (1, 1)), "different"),
    ],
)
def test_wrong_results_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModelResult(*arguments)


def test_results_on_other_images_cannot_be_paired():
    a, b = ModelResult("finalist", np.ones((1, 3, 2, 2), int)), ModelResult("baseline", np.ones((1, 4, 2, 2), int))
    with pytest.raises(ValueError, match="cannot pair"):
        paired_gain(a, b)
    with pytest.raises(ValueError, match="not tested on the same images"):
        verdict({"ednas": a, "unet": b})


def test_notes_of_the_search_end_the_text_and_change_no_number():
    a, b = (results(values) for values in ([[100, 150, 80, 120, 90, 300]] * 3, [[120, 160, 90, 130, 95, 320]] * 3))
    models = {"ednas": ModelResult("finalist", a), "unet": ModelResult("baseline", b)}
    plain = verdict(models)
    note = "The search has collapsed: 80 % of the chosen operations only pass their input on."
    noted = verdict(models, notes=["the search has not converged", note, "  ", note])
    assert noted.text == f"{plain.text} The search has not converged. {note}"
    assert noted.notes == ("the search has not converged", note)
    assert (noted.gain, noted.interval, noted.worth_it) == (plain.gain, plain.interval, plain.worth_it)
    assert noted.to_json()["notes"] == list(noted.notes)
    assert plain.notes == () and plain.to_json()["notes"] == []
