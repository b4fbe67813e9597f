"""Networks that did not begin from scratch: which they are, whose their weights are, and what that does to a race."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoseg.card_folders import without_folders

_OPTIONS = ("weights", "encoder_weights", "pretrained")


def pretrained_weights(build: Mapping[str, Any]) -> str | None:
    """The pretrained weights from which a network began.

    Args:
        build: The ``build`` of model.json, or an entry of ``baselines`` in config.yaml.

    Returns:
        Their name, or that of their file; None for a network that was trained from scratch.

    Example:
        >>> pretrained_weights({"options": {"weights": "/data/resnet18.safetensors"}})
        'resnet18.safetensors'
        >>> pretrained_weights({"options": {"weights": None}}) is None
        True
    """
    options = {**_mapping(_mapping(build.get("architecture")).get("kwargs")), **_mapping(build.get("options"))}
    for key in _OPTIONS:
        given = options.get(key)
        if given:
            return "of the library" if given is True else str(without_folders(str(given)))
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    """What should be a mapping; empty where a damaged file holds something else."""
    return value if isinstance(value, Mapping) else {}


def licence_of(build: Mapping[str, Any]) -> str:
    """Whose the weights are, in words.

    Args:
        build: The ``build`` of model.json.

    Example:
        >>> licence_of({"options": {"weights": "/data/resnet18.safetensors"}})[:60]
        'The encoder began from the pretrained weights resnet18.safet'
    """
    weights = pretrained_weights(build)
    if weights is None:
        return (
            "Trained from scratch, from no other weights: they are yours, and autoseg claims no right to them. The "
            "licence of the training images may say more."
        )
    return (
        f"The encoder began from the pretrained weights {weights}. Their licence holds for these weights too: look it "
        "up where they come from before you pass this model on or sell what it does."
    )


def unequal_start(weights: Mapping[str, str | None]) -> str:
    """What to say of a comparison in which some networks began from pretrained weights and others from scratch.

    Args:
        weights: From :func:`pretrained_weights`, for each network of the comparison.

    Returns:
        A sentence; empty where all began from scratch, or none did.

    Example:
        >>> unequal_start({"searched": None, "fpn": "imagenet", "dpt": "vit.pth"})
        'No equal comparison: fpn (imagenet) and dpt (vit.pth) began with pretrained weights, the others from scratch.'
    """
    began = [f"{label} ({name})" for label, name in weights.items() if name]
    if len(began) in (0, len(weights)):
        return ""
    return f"No equal comparison: {' and '.join(began)} began with pretrained weights, the others from scratch."
