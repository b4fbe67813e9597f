"""Claims S1 to S4 of SEARCH-Net: DARTS over eight units, against a U-Net of the same widths."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from scipy import stats

from autoseg import registry
from autoseg.search.control import uniform_draws
from autoseg.spaces.base import decisions
from claimed.ednas import ceramic, systems
from claimed.lab import Lab, Protocol, World
from claimed.verdicts import Claim, Criterion, Figures

DRAWS = 3


def flaws(lab: Lab, seed: int) -> World:
    """Surfaces with flaws: the set to which an architecture is carried over."""
    size = lab.size({"count": 100, "size": 64}, {"count": 117, "size": 160})
    return World("synthetic-flaws", {**size, "seed": seed})


def _protocol(lab: Lab, **changes: Any) -> Protocol:
    """Dice loss with squares, as the paper's."""
    patch = lab.size(64, 160)
    return Protocol(**{"epochs": lab.size(20, 200), "batch": 4, "patch": patch, "loss": "dice-squared", **changes})


def _space(lab: Lab) -> dict[str, Any]:
    return {"width": lab.size(8, 64), "nodes": 2}


def _found(lab: Lab, seed: int) -> dict[str, Any]:
    """The architecture that DARTS finds on micrographs."""
    options = {"epochs": lab.size(5, 100)}
    search = lab.search(ceramic(lab, seed), ("searchnet", _space(lab)), ("darts", options), _protocol(lab), seed)
    return dict(search["architecture"])


def _unet(lab: Lab) -> dict[str, Any]:
    """Four scales of the same widths."""
    return {"width": lab.size(8, 64), "depth": 3}


def _gain(lab: Lab, seed: int) -> Figures:
    world = ceramic(lab, seed)
    searched = lab.train(world, _found(lab, seed), _protocol(lab), seed)
    unet = lab.train(world, "unet", _protocol(lab), seed, _unet(lab))
    return {
        "searched": searched["miou"],
        "unet": unet["miou"],
        "gain": searched["miou"] - unet["miou"],
        "CPU seconds of training, searched / unet": searched["cpu_seconds"] / unet["cpu_seconds"],
    }


def _transfer(lab: Lab, seed: int) -> Figures:
    world = flaws(lab, seed)
    carried = lab.train(world, _found(lab, seed), _protocol(lab), seed)["miou"]
    unet = lab.train(world, "unet", _protocol(lab), seed, _unet(lab))["miou"]
    return {"searched elsewhere": carried, "unet": unet, "gain": carried - unet}


def _losses(lab: Lab, seed: int) -> Figures:
    results = list(systems(lab, seed).values())
    tau = stats.kendalltau([-row["loss"] for row in results], [row["miou"] for row in results]).statistic
    return {"Kendall's tau of loss and mIoU": float(tau)}


def _mbconv(lab: Lab, seed: int) -> Figures:
    """Mean of architectures with all operations, and of the same with each MBConv made a plain convolution."""
    kwargs = _space(lab)
    values = decisions(registry.load("space", "searchnet")(1, 3, **kwargs))
    gains = []
    for choices in itertools.islice(uniform_draws(values, seed), DRAWS):
        plain = {
            label: value.replace("mb", "conv") if isinstance(value, str) else value for label, value in choices.items()
        }
        both = [
            lab.train(
                ceramic(lab, seed), {"space": "searchnet", "kwargs": kwargs, "choices": point}, _protocol(lab), seed
            )["miou"]
            for point in (choices, plain)
        ]
        gains.append(both[0] - both[1])
    return {"gain of MBConv": statistics.fmean(gains)}


CLAIMS = (
    Claim(
        "S1",
        "SEARCH-Net, Tables 1 and 2",
        "The searched network is better than U-Net.",
        "95.3 against 81.2 % (Pet), 66.7 against 46.2 % mIoU (CamVid)",
        "DARTS on ceramic micrographs, retrained beside a U-Net of the same widths, same loss and epochs",
        _gain,
        (Criterion("gain", above=0.0),),
    ),
    Claim(
        "S2",
        "SEARCH-Net, Table 2",
        "An architecture found on one set, trained on another, is still better than U-Net there.",
        "found on Pet, 66.7 against 46.2 % on CamVid",
        "That of S1 trained on surfaces with flaws",
        _transfer,
        (Criterion("gain", above=0.0),),
    ),
    Claim(
        "S3",
        "SEARCH-Net, Table 1",
        "The order by loss is not the order by mIoU.",
        "FPN has a lower loss than U-Net and a lower mIoU; so has SEARCH-Net against UNet++",
        "The seven networks of E6: Kendall's tau of test loss and test mIoU is below 1",
        _losses,
        (Criterion("Kendall's tau of loss and mIoU", most=0.999),),
    ),
    Claim(
        "S4",
        "SEARCH-Net, section on the search unit",
        "MBConv with squeeze-and-excitation helps.",
        "no figure",
        f"{DRAWS} random architectures, and the same with plain convolutions in place of MBConv",
        _mbconv,
        (Criterion("gain of MBConv", above=0.0),),
    ),
)
