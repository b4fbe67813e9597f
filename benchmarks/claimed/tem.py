"""Claims T1 to T5 of the TEM paper: four losses and a depthwise-separable U-Net on small nanoparticles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats
from skimage.measure import label, regionprops

from autoseg.baselines.build import build
from claimed.lab import Lab, Protocol, World, load
from claimed.verdicts import Claim, Criterion, Figures

SMALLEST = 0.5  # nm; what is smaller is taken for noise
LOSSES = ("ce", "weighted-ce", "iou", "dice")


def particles(lab: Lab, seed: int) -> World:
    """TEM images, about a tenth of whose pixels are nanoparticle (the paper: 128 images of 256 pixels)."""
    size = lab.size({"count": 120, "size": 96}, {"count": 128, "size": 256})
    return World("synthetic-tem", {**size, "seed": seed})


def _train(lab: Lab, seed: int, loss: str, network: str = "ds-unet") -> dict[str, Any]:
    world = particles(lab, seed)
    options = {"beta": _background(world)} if loss == "weighted-ce" else {}
    protocol = Protocol(
        epochs=lab.size(10, 100), batch=lab.size(4, 8), patch=lab.size(96, 256), loss=loss, loss_options=options
    )
    return lab.train(world, network, protocol, seed, {"width": lab.size(16, 64)})


def _background(world: World) -> float:
    """Share of the background in the training images, which the paper's beta is taken to be."""
    data, _ = load(world)
    return round(float(np.mean([np.mean(mask == 0) for _, mask in data.train])), 4)


def _losses(lab: Lab, seed: int) -> Figures:
    results = {loss: _train(lab, seed, loss) for loss in LOSSES}
    dice = {loss: row["dice"] for loss, row in results.items()}
    accuracy = [row["accuracy"] for row in results.values()]
    return {
        **{f"Dice, {loss}": value for loss, value in dice.items()},
        "Dice, iou - ce": dice["iou"] - dice["ce"],
        "Dice, dice - ce": dice["dice"] - dice["ce"],
        "Dice, weighted-ce - ce": dice["weighted-ce"] - dice["ce"],
        "mIoU, |iou - dice|": abs(results["iou"]["miou"] - results["dice"]["miou"]),
        "Dice, |iou - dice|": abs(dice["iou"] - dice["dice"]),
        "range of accuracy": max(accuracy) - min(accuracy),
        "range of Dice": max(dice.values()) - min(dice.values()),
        "range of accuracy / range of Dice": (max(accuracy) - min(accuracy))
        / max(1e-9, max(dice.values()) - min(dice.values())),
    }


def _separable(lab: Lab, seed: int) -> Figures:
    dice = {name: _train(lab, seed, "dice", name)["dice"] for name in ("ds-unet", "unet")}
    counts = {}
    for name, channels in (("ds-unet", 1), ("unet", 3)):
        network = build(name, channels, 2)
        counts[name] = sum(parameter.numel() for parameter in network.parameters())
    return {
        "Dice, ds-unet": dice["ds-unet"],
        "Dice, unet": dice["unet"],
        "Dice, ds-unet - unet": dice["ds-unet"] - dice["unet"],
        "parameters at full width, ds-unet / unet": counts["ds-unet"] / counts["unet"],
    }


def diameters(mask: np.ndarray, pixel: float) -> list[float]:
    """Equivalent diameters of whole particles; those at the border are left out, touching ones are not split.

    Example:
        >>> mask = np.zeros((9, 9), np.uint8)
        >>> mask[3:6, 3:6] = 1
        >>> [round(d, 3) for d in diameters(mask, 2.0)], diameters(np.eye(3, dtype=np.uint8), 1.0)
        ([6.77], [])
    """
    height, width = mask.shape
    found = []
    for region in regionprops(label(mask == 1, connectivity=2)):
        top, left, bottom, right = region.bbox
        if top > 0 and left > 0 and bottom < height and right < width:
            found.append(2 * math.sqrt(region.area / math.pi) * pixel)
    return found


def _diameters(lab: Lab, seed: int) -> Figures:
    world = particles(lab, seed)
    data, _ = load(world)
    pixel = float(data.info.pixel_size or math.nan)
    masks = lab.masks(_train(lab, seed, "dice"))
    truth = [d for _, mask in data.test for d in diameters(mask, pixel) if d >= SMALLEST]
    found = [d for name in data.test.names for d in diameters(masks[name], pixel) if d >= SMALLEST]
    if not truth or not found:
        raise RuntimeError("no whole particle in the test images")
    return {
        "particles in the masks": len(truth),
        "particles predicted": len(found),
        "mean of the masks, nm": float(np.mean(truth)),
        "mean predicted, nm": float(np.mean(found)),
        "|error of the mean|, nm": abs(float(np.mean(found)) - float(np.mean(truth))),
        "Kolmogorov-Smirnov p": float(stats.ks_2samp(truth, found).pvalue),
        "share within 1.2 to 2.5 nm": float(np.mean([1.2 <= d <= 2.5 for d in found])),
    }


CLAIMS = (
    Claim(
        "T1",
        "DS-U-Net (TEM), Table 1",
        "IoU and Dice loss are better than weighted cross-entropy, that is better than cross-entropy.",
        "foreground Dice: CE .8394, weighted CE .8602, IoU .8608, Dice loss .8692",
        "ds-unet with each of the four losses; Dice of the foreground on the test images",
        _losses,
        (
            Criterion("Dice, iou - ce", above=0.0),
            Criterion("Dice, dice - ce", above=0.0),
            Criterion("Dice, weighted-ce - ce", above=0.0),
        ),
    ),
    Claim(
        "T2",
        "DS-U-Net (TEM), Table 1",
        "IoU and Dice loss are of one kind.",
        "0.5 points of mIoU and 0.8 points of Dice apart",
        "The same trainings",
        _losses,
        (Criterion("mIoU, |iou - dice|", most=0.005), Criterion("Dice, |iou - dice|", most=0.009)),
    ),
    Claim(
        "T3",
        "DS-U-Net (TEM), Table 1",
        "The accuracy hardly tells the losses apart, Dice does.",
        "accuracy .9718 to .9765, Dice .8394 to .8692",
        "The same trainings: the accuracies lie within 1 point and within half the range of Dice. With a tenth of the "
        "pixels foreground this follows almost by arithmetic",
        _losses,
        (Criterion("range of accuracy", most=0.01), Criterion("range of accuracy / range of Dice", most=0.5)),
    ),
    Claim(
        "T4",
        "DS-U-Net (TEM), section on the network",
        "The separable network has 17 % of U-Net's parameters and loses little.",
        "5,982,210 against 34,894,178 parameters",
        "Dice of ds-unet and unet of equal width; parameters at full width against our U-Net of 31.03 million; "
        "the paper counts 34.89 million",
        _separable,
        (
            Criterion("Dice, ds-unet - unet", least=-0.02),
            Criterion("parameters at full width, ds-unet / unet", least=0.15, most=0.21, exact=True),
        ),
    ),
    Claim(
        "T5",
        "DS-U-Net (TEM), section on particle statistics",
        "Diameters can be measured from the prediction.",
        "basically normal, mainly 1.2 to 2.5 nm",
        "Diameters from predicted against true masks of the test images, whole particles, 0.5 nm and more",
        _diameters,
        (Criterion("|error of the mean|, nm", most=0.05), Criterion("Kolmogorov-Smirnov p", least=0.05)),
    ),
)
