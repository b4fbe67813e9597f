"""Claims E1 to E6 of ED-NAS, on drawn ceramic micrographs.

Instead of searches of 61 and 87 GPU hours, architectures are drawn at random from the spaces that are compared,
the same number from each, and all of them are trained alone: what is compared is the space, not the luck of one
search. The best by validation score stands for its space. Every seed has images of its own.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from autoseg import registry
from autoseg.search.control import uniform_draws
from autoseg.spaces.base import decisions
from autoseg.spaces.ednas_code import ED_NAS_N4, to_choices
from claimed.lab import Lab, Protocol, World
from claimed.verdicts import Claim, Criterion, Figures

DRAWS = 3
_BASELINES: dict[str, dict[str, Any]] = {
    "ed-nas-n4": {"width": 8, "layers": 4},
    "segnet": {"width": 8, "depth": 4},
    "deeplabv3": {"encoder": "resnet18"},
    "fcn-16s": {"width": 8},
    "enet": {},
    "unet": {"width": 8},
    "erfnet": {},
}
"""The systems of Table 4, best first."""


def ceramic(lab: Lab, seed: int, **changes: Any) -> World:
    """Micrographs of grains, 64 pixels wide (the paper: 629 crops)."""
    small, large = {"count": 100, "size": 64}, {"count": 629, "size": 256}
    return World("synthetic-ceramic", {**lab.size(small | changes, large), "seed": seed})


def protocol(lab: Lab, **changes: Any) -> Protocol:
    """The same for all networks."""
    return Protocol(**{"epochs": lab.size(30, 150), "batch": 4, "patch": lab.size(64, 256), **changes})


def drawn(kwargs: dict[str, Any], seed: int, count: int = DRAWS) -> list[dict[str, Any]]:
    """Architectures drawn uniformly from an ED-NAS space."""
    values = decisions(registry.load("space", "ednas")(1, 3, **kwargs))
    choices = itertools.islice(uniform_draws(values, seed), count)
    return [{"space": "ednas", "kwargs": kwargs, "choices": point} for point in choices]


def _sampled(lab: Lab, seed: int, **kwargs: Any) -> list[dict[str, Any]]:
    """Trainings of architectures drawn from a space."""
    points = drawn({"width": lab.size(8, 32), **kwargs}, seed)
    return [lab.train(ceramic(lab, seed), point, protocol(lab), seed) for point in points]


def chosen(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The training with the best validation score."""
    return max(results, key=lambda result: float(result["val_miou"]))


def _decoders(lab: Lab, seed: int) -> Figures:
    found = {kind: _sampled(lab, seed, blocks=4, layers=3, decoder=kind) for kind in ("chain", "multi")}
    best = {kind: chosen(results)["miou"] for kind, results in found.items()}
    mean = {kind: statistics.fmean(r["miou"] for r in results) for kind, results in found.items()}
    size = {kind: statistics.fmean(r["params"] for r in results) for kind, results in found.items()}
    return {
        "chain": best["chain"],
        "multi-branch": best["multi"],
        "chain - multi-branch": best["chain"] - best["multi"],
        "mean of all, chain - multi-branch": mean["chain"] - mean["multi"],
        "parameters, chain / multi-branch": size["chain"] / size["multi"],
    }


def _shapes(lab: Lab, seed: int) -> Figures:
    found = {}
    for decoder in ("chain", "multi"):
        wide, deep = (
            chosen(_sampled(lab, seed, blocks=blocks, layers=layers, decoder=decoder))["miou"]
            for blocks, layers in ((4, 3), (3, 4))
        )
        found |= {f"{decoder}, N=4 L=3": wide, f"{decoder}, N=3 L=4": deep, f"{decoder}, difference": wide - deep}
    return found


def _named(lab: Lab, **kwargs: Any) -> dict[str, Any]:
    options = {"width": lab.size(8, 32), "blocks": 4, "layers": 4, **kwargs}
    return {"space": "ednas", "kwargs": options, "choices": to_choices(ED_NAS_N4)}


def _depths(lab: Lab, seed: int) -> Figures:
    world = ceramic(lab, seed, count=32, size=128)
    depths = range(2, 7)
    length = protocol(lab, patch=lab.size(128, 256), epochs=lab.size(16, 150))
    results = [lab.train(world, _named(lab, layers=depth), length, seed) for depth in depths]
    mious = [result["miou"] for result in results]
    inner = chosen(results[1:-1])["miou"]
    return {
        **{f"L={depth}": miou for depth, miou in zip(depths, mious, strict=True)},
        "L=3..5 - L=2": inner - mious[0],
        "L=3..5 - L=6": inner - mious[-1],
    }


def _cheaper(lab: Lab, seed: int) -> Figures:
    space = {"width": lab.size(8, 32), "blocks": 4, "layers": 3}
    options = {"epochs": lab.size(3, 30)}
    seconds = {
        decoder: lab.search(
            ceramic(lab, seed), ("ednas", {**space, "decoder": decoder}), ("enas", options), protocol(lab), seed
        )["cpu_seconds"]
        for decoder in ("chain", "multi")
    }
    return {"ratio of search times": seconds["chain"] / seconds["multi"]}


def _indices(lab: Lab, seed: int) -> Figures:
    world = ceramic(lab, seed)
    with_indices, without = (
        lab.train(world, _named(lab, pooling_indices=indices), protocol(lab), seed)["miou"] for indices in (True, False)
    )
    segnet, unet = (
        lab.train(world, name, protocol(lab), seed, _BASELINES[name])["miou"] for name in ("segnet", "unet")
    )
    return {
        "with indices": with_indices,
        "without": without,
        "segnet": segnet,
        "unet": unet,
        "gain of indices": with_indices - without,
        "segnet - unet": segnet - unet,
    }


def systems(lab: Lab, seed: int) -> dict[str, dict[str, Any]]:
    """Every system of Table 4, trained alike."""
    return {
        name: lab.train(ceramic(lab, seed), name, protocol(lab), seed, lab.size(options, {}))
        for name, options in _BASELINES.items()
    }


def _ranks(lab: Lab, seed: int) -> Figures:
    mious = {name: result["miou"] for name, result in systems(lab, seed).items()}
    correlation = stats.kendalltau(list(mious.values()), range(len(mious), 0, -1)).statistic
    return {
        **mious,
        "Kendall's tau with the paper's order": float(correlation),
        "ed-nas-n4 - segnet": mious["ed-nas-n4"] - mious["segnet"],
    }


CLAIMS = (
    Claim(
        "E1",
        "ED-NAS, Table 3",
        "A chain decoder cell is at least as good as a multi-branch one at equal blocks.",
        "54.9 against 51.3 % (N=3), 56.6 against 53.5 % (N=4) validation mIoU",
        f"Test mIoU of the best by validation of {DRAWS} architectures drawn from each space, N=4, L=3. A block of a "
        "multi-branch cell has two inputs and two operations, so equal blocks are not equal size",
        _decoders,
        (Criterion("chain - multi-branch", least=-0.005),),
    ),
    Claim(
        "E2",
        "ED-NAS, Table 3",
        "N=4, L=3 is at least as good as N=3, L=4 at equal blocks.",
        "+1.7 points with the chain, +2.2 with the multi-branch decoder",
        f"Test mIoU of the best by validation of {DRAWS} architectures drawn from each of the four spaces",
        _shapes,
        (Criterion("chain, difference", least=-0.005), Criterion("multi, difference", least=-0.005)),
    ),
    Claim(
        "E3",
        "ED-NAS, Figure 9",
        "The mIoU rises with the depth from L=3 to 5 and falls at 6.",
        "best at L=5",
        "The published N=4 cells (wiring assumed) at L=2 to 6, 128-pixel images: the best of L=3..5 by validation "
        "is better than both ends",
        _depths,
        (Criterion("L=3..5 - L=2", above=0.0), Criterion("L=3..5 - L=6", above=0.0)),
    ),
    Claim(
        "E4",
        "ED-NAS, Table 3",
        "Searching chain decoders is cheaper.",
        "61 against 87 GPU hours, a ratio of 0.70",
        "CPU seconds of two ENAS searches of equal steps",
        _cheaper,
        (Criterion("ratio of search times", most=1.0),),
    ),
    Claim(
        "E5",
        "ED-NAS, Table 4",
        "Pooling indices matter: networks with them are above all without.",
        "SegNet 68.0, ED-NAS 68.9 %; the others at most 59.1, U-Net 47.7 %",
        "The published N=4 cells with and without indices; SegNet against U-Net, equal epochs",
        _indices,
        (Criterion("gain of indices", above=0.0), Criterion("segnet - unet", above=0.0)),
    ),
    Claim(
        "E6",
        "ED-NAS, Table 4",
        "ED-NAS, SegNet, DeepLabv3, FCN-16, ENet, U-Net, ERFNet, in this order.",
        "68.9, 68.0, 59.1, 58.1, 48.8, 47.7, 40.4 %",
        "All seven trained alike, small ones; agreement of seven beyond chance means tau >= 0.62 (5 %, one-sided)",
        _ranks,
        (Criterion("Kendall's tau with the paper's order", least=0.62),),
    ),
)
