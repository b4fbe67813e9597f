"""Running a network over whole images: validation during training, and the final test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.data.base import DatasetInfo, Split
from autoseg.data.batches import Normalisation
from autoseg.nn.padding import crop_to, pad_to_multiple
from autoseg.train import metrics
from autoseg.train.compute import Compute

_PIXELS_PER_BATCH = 1 << 18
IGNORE = 255


@dataclass
class Evaluation:
    """Counts per image, from which every score is read.

    Example:
        >>> counts = np.array([[[3, 1], [0, 4]], [[4, 0], [0, 0]]])
        >>> result = Evaluation(["a", "b"], counts)
        >>> round(result.scores.miou, 4), [image["miou"] for image in result.images()]
        (0.8375, [0.775, 1.0])

    Attributes:
        names: Image names.
        confusions: ``(images, C, C)`` pixel counts.
        loss: Mean loss over images, or None when no loss was given.
        predictions: ``{name: (H, W) uint8}`` when they were kept.
    """

    names: list[str]
    confusions: metrics.Counts
    loss: float | None = None
    predictions: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = field(default_factory=dict)

    @property
    def scores(self) -> metrics.Scores:
        """Scores of the pooled counts."""
        return metrics.scores(self.confusions.sum(0))

    def images(self) -> list[dict[str, Any]]:
        """Per image: name, mIoU (None when nothing counts) and confusion matrix, as JSON."""
        return [
            {"name": name, "miou": metrics.scores(counts).to_json()["miou"], "confusion": counts.tolist()}
            for name, counts in zip(self.names, self.confusions, strict=True)
        ]


def logits_of(network: nn.Module, x: Tensor, compute: Compute) -> Tensor:
    """Float32 logits of whole images of any size: padded to the network's divisor, cropped back.

    Args:
        network: In evaluation mode, on the device of ``compute``.
        x: ``(N, C, H, W)`` normalised images.
        compute: Device and precision.

    Returns:
        ``(N, num_classes, H, W)``.

    Example:
        >>> network = nn.Conv2d(1, 3, 3, padding=1)
        >>> tuple(logits_of(network, torch.zeros(1, 1, 5, 7), Compute()).shape)
        (1, 3, 5, 7)
    """
    padded, size = pad_to_multiple(x.to(compute.device), int(getattr(network, "size_divisor", 32)))
    with compute.autocast():
        logits: Tensor = network(padded.to(memory_format=torch.channels_last))
    return crop_to(logits, size).float()


@torch.no_grad()
def evaluate(
    network: nn.Module,
    split: Split,
    info: DatasetInfo,
    normalisation: Normalisation,
    compute: Compute,
    *,
    loss: nn.Module | None = None,
    keep_predictions: bool = False,
    on_image: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score a network on whole images at their own size.

    Args:
        network: Any network; its training mode is restored afterwards.
        split: Images and masks.
        info: Classes and ignore index.
        normalisation: From the training split.
        compute: Device and precision.
        loss: Also compute this loss.
        keep_predictions: Keep the predicted masks.
        on_image: Called with the number of images done.

    Returns:
        Counts per image, in the order of the split.

    Example:
        >>> from autoseg.data.synthetic.ceramic import synthetic_ceramic
        >>> data = synthetic_ceramic(count=12, size=32)
        >>> result = evaluate(nn.Conv2d(1, 3, 1), data.val, data.info, Normalisation((90.0,), (20.0,)), Compute())
        >>> int(result.confusions.sum()) == sum(mask.size for _, mask in data.val)
        True
    """
    was_training = network.training
    network.eval()
    result = Evaluation(list(split.names), np.zeros((len(split), info.num_classes, info.num_classes), np.int64))
    losses: list[float] = []
    done = 0
    for x, masks in _batches(split, normalisation):
        logits = logits_of(network, x, compute)
        predictions = logits.argmax(1).cpu().numpy().astype(np.uint8)
        for row, mask in enumerate(masks):
            target = np.where(mask == info.ignore_index, IGNORE, mask)
            result.confusions[done] = metrics.confusion(predictions[row], target, info.num_classes, IGNORE)
            if loss is not None:
                labels = torch.from_numpy(target.astype(np.int64))[None].to(logits.device)
                losses.append(float(loss(logits[row : row + 1], labels)))
            if keep_predictions:
                result.predictions[result.names[done]] = predictions[row]
            done += 1
        if on_image:
            on_image(done)
    network.train(was_training)
    result.loss = float(np.mean(losses)) if losses else None
    return result


def _batches(split: Split, normalisation: Normalisation) -> Iterator[tuple[Tensor, list[Any]]]:
    """Neighbouring images of one shape together, up to a fixed number of pixels."""
    images: list[Tensor] = []
    masks: list[Any] = []
    for i in range(len(split)):
        image, mask = split[i]
        x = normalisation.apply(image)
        full = len(images) * x.shape[-1] * x.shape[-2] >= _PIXELS_PER_BATCH
        if images and (full or x.shape != images[0].shape):
            yield torch.stack(images), masks
            images, masks = [], []
        images.append(x)
        masks.append(mask)
    if images:
        yield torch.stack(images), masks
