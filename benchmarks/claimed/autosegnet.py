"""Claims A1 to A6 of AutoSegNet: search on small crops, hybrid dilated convolution, more data."""

from __future__ import annotations

import random
from typing import Any

from autoseg import registry
from autoseg.search.architecture import Architecture
from autoseg.spaces.base import decisions, plain
from claimed.lab import Lab, Protocol, World
from claimed.searchnet import flaws
from claimed.verdicts import Claim, Criterion, Figures

PUBLISHED = 41_930_000


def membranes(lab: Lab, seed: int) -> World:
    """Sections of tissue (the paper: 30 of 512 pixels)."""
    size = lab.size({"count": 40, "size": 128, "sections": 2}, {"count": 30, "size": 512, "sections": 5})
    return World("synthetic-membranes", {**size, "seed": seed})


def _protocol(lab: Lab, patch: int, **changes: Any) -> Protocol:
    return Protocol(**{"epochs": lab.size(20, 300), "patch": patch, "batch": 4, **changes})


def _space(lab: Lab, **changes: Any) -> tuple[str, dict[str, Any]]:
    return ("autosegnet", {"width": lab.size(8, 64), "input_size": 64, **changes})


def _found(lab: Lab, seed: int, world: World | None = None, **changes: Any) -> dict[str, Any]:
    """What the controller finds on 64-pixel crops."""
    options = lab.size({"epochs": 8, "lr": 0.05, "controller_lr": 0.005}, {"epochs": 200})
    protocol = _protocol(lab, 64, batch=8)
    return lab.search(world or membranes(lab, seed), _space(lab, **changes), ("autosegnet", options), protocol, seed)


def _sizes(lab: Lab, seed: int) -> Figures:
    found = dict(_found(lab, seed)["architecture"])
    large = lab.size(128, 512)
    crops = _protocol(lab, 64, batch=4 * (large // 64) ** 2)  # as many steps of as many pixels
    small_train = lab.train(membranes(lab, seed), found, crops, seed)["miou"]
    large_train = lab.train(membranes(lab, seed), found, _protocol(lab, large), seed, {"input_size": large})["miou"]
    return {"trained on 64": small_train, f"trained on {large}": large_train, "gain of size": large_train - small_train}


def _more_data(lab: Lab, seed: int) -> Figures:
    figures = {}
    for name, world in (("flaws", flaws(lab, seed)), ("membranes", membranes(lab, seed))):
        half = World(world.dataset, world.options, 0.5)
        protocol = _protocol(lab, lab.size(96, 160))
        parts = [
            lab.train(part, "unet", Protocol(**{**vars(protocol), "epochs": epochs}), seed, {"width": lab.size(8, 64)})
            for part, epochs in ((half, 2 * protocol.epochs), (world, protocol.epochs))
        ]
        figures |= {f"{name}, half": parts[0]["miou"], f"{name}, all": parts[1]["miou"]}
        figures[f"{name}, gain"] = parts[1]["miou"] - parts[0]["miou"]
    return figures


def _order(lab: Lab, seed: int) -> Figures:
    figures = {}
    for name, world in (("flaws", flaws(lab, seed)), ("membranes", membranes(lab, seed))):
        protocol = _protocol(lab, lab.size(96, 160))
        found = dict(_found(lab, seed, world)["architecture"])
        side = {"input_size": lab.size(96, 160)}
        searched = lab.train(world, found, protocol, seed, side)["miou"]
        unet = lab.train(world, "unet", protocol, seed, {"width": lab.size(8, 64)})["miou"]
        pspnet = lab.train(world, "pspnet-resnet18", protocol, seed)["miou"]
        figures |= {f"{name}, autosegnet": searched, f"{name}, unet": unet, f"{name}, pspnet": pspnet}
        figures |= {f"{name}, autosegnet - unet": searched - unet, f"{name}, unet - pspnet": unet - pspnet}
    return figures


def _without_hdc(lab: Lab, seed: int) -> Figures:
    protocol = _protocol(lab, lab.size(96, 160))
    mious = [
        lab.train(
            membranes(lab, seed),
            dict(_found(lab, seed, use_hdc=use)["architecture"]),
            protocol,
            seed,
            {"input_size": lab.size(96, 160)},
        )["miou"]
        for use in (True, False)
    ]
    return {"with HDC": mious[0], "without": mious[1], "gain of HDC": mious[0] - mious[1]}


def _hours(lab: Lab, seed: int) -> Figures:
    return {"minutes of search": _found(lab, seed)["seconds"] / 60}


def _parameters(lab: Lab, seed: int) -> Figures:
    """The smallest and the largest of some random networks, four downsamplings, 64 channels."""
    kwargs = {"width": 64, "input_size": 512, "ratio": 16}
    values = decisions(registry.load("space", "autosegnet")(1, 2, **{**kwargs, "width": 1}))
    rng = random.Random(seed)
    counts = []
    for _ in range(4):
        choices = plain({label: rng.choice(options) for label, options in values.items()})
        network = Architecture("autosegnet", kwargs, choices).build(1, 2)
        counts.append(sum(parameter.numel() for parameter in network.parameters()))
    return {
        "smallest, M": min(counts) / 1e6,
        "largest, M": max(counts) / 1e6,
        "smallest / published": min(counts) / PUBLISHED,
        "largest / published": max(counts) / PUBLISHED,
    }


CLAIMS = (
    Claim(
        "A1",
        "AutoSegNet, Table 1",
        "An architecture found on 64-pixel crops is as good when built and trained for large images.",
        "IoU .9051 trained on 64, .9047 on 512 pixels",
        "Found on 64-pixel crops of membranes; trained on 64 pixels and on whole images of 128, equal steps and "
        "pixels, both scored on whole images",
        _sizes,
        (Criterion("gain of size", least=-0.01),),
    ),
    Claim(
        "A2",
        "AutoSegNet, section on the data sets",
        "More images help.",
        "industrial .96 to .9956 (2205 to 4414 crops), medical .90 to .9132 (657 to 1314)",
        "U-Net on half and on all training images, equal steps",
        _more_data,
        (Criterion("flaws, gain", above=0.0), Criterion("membranes, gain", above=0.0)),
    ),
    Claim(
        "A3",
        "AutoSegNet, Table 2",
        "AutoSegNet is better than U-Net, U-Net than PSPNet.",
        "industrial .9956, .9771, .9504; medical .9132, .9119, .8975",
        "Found on each set, trained beside a U-Net of the same width and PSPNet with ResNet-18, equal epochs",
        _order,
        tuple(
            Criterion(f"{name}, {pair}", above=0.0)
            for name in ("flaws", "membranes")
            for pair in ("autosegnet - unet", "unet - pspnet")
        ),
    ),
    Claim(
        "A4",
        "AutoSegNet, section on the ablation",
        "Without hybrid dilated convolution the IoU is lower.",
        "no figure",
        "Found and trained on membranes, with and without it among the operations",
        _without_hdc,
        (Criterion("gain of HDC", above=0.0),),
    ),
    Claim(
        "A5",
        "AutoSegNet, section on the experiments",
        "The search is cheap.",
        "3.5 and 8.75 hours on one RTX 2080",
        "Minutes of the search of A1; the bound is the paper's 3.5 hours",
        _hours,
        (Criterion("minutes of search", most=210.0),),
        large=True,
    ),
    Claim(
        "A6",
        "AutoSegNet, section on the results",
        "The network for 512 pixels has 41.93 million parameters.",
        "41.93 M",
        "Random networks with four downsamplings and 64 channels: the published number lies between the "
        "smallest and the largest of four; which network it was is not known",
        _parameters,
        (Criterion("smallest / published", most=1.0), Criterion("largest / published", least=1.0)),
    ),
)
