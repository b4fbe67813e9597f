"""How often the verdict's 95 % interval holds the truth, on simulated results of two equal models.

Run: ``python benchmarks/verdict_coverage.py`` (about a minute). Prints seeds, images, coverage and the rate
of false "worth it" (nominal 2.5 %). Spread between seeds is a quarter of the spread between images.
"""

from __future__ import annotations

import numpy as np

from autoseg.train.verdict import ModelResult, paired_gain

PIXELS = 1000


def coverage(seeds: int, images: int, repeats: int = 300, seed_spread: float = 0.25) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    inside = false = 0
    for repeat in range(repeats):
        image_effect = rng.normal(0, 1, images)
        counts = []
        for _ in range(2):
            effect = 0.7 * image_effect + 0.3 * rng.normal(0, 1, (seeds, images))
            effect = effect + rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 0.5, (1, images))
            missed = (np.clip(0.2 + 0.03 * effect, 0.01, 0.6) * PIXELS).astype(int)
            matrix = np.zeros((seeds, images, 2, 2), np.int64)
            matrix[..., 1, 1], matrix[..., 1, 0] = PIXELS - missed, missed
            matrix[..., 0, 0], matrix[..., 0, 1] = 5 * PIXELS - missed, missed
            counts.append(matrix)
        low_high = paired_gain(ModelResult("finalist", counts[0]), ModelResult("baseline", counts[1]), 400, repeat)[1]
        inside += low_high[0] <= 0 <= low_high[1]
        false += low_high[0] > 0
    return inside / repeats, false / repeats


if __name__ == "__main__":
    print("seeds images coverage false")
    for seeds, images in ((1, 20), (2, 12), (2, 24), (3, 5), (3, 20), (3, 100), (5, 20), (5, 100), (10, 50)):
        print(f"{seeds:5d} {images:6d} {coverage(seeds, images)[0]:8.2f} {coverage(seeds, images)[1]:5.2f}", flush=True)
