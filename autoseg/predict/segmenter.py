"""A trained model as a function from image to mask: what ``autoseg.load`` returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autoseg.data.base import DatasetInfo
from autoseg.errors import Problem, UserError
from autoseg.runfolder import RunFolder, read_json
from autoseg.train.compute import Compute
from autoseg.train.evaluate import logits_of
from autoseg.train.modelfile import DESCRIPTION, ModelFile


class Segmenter:
    """Predicts masks with one trained network.

    Args:
        description: How the network was built and trained.
        network: With its weights.
        compute: Device and precision.

    Example:
        >>> from autoseg.data.batches import Normalisation
        >>> from autoseg.train.modelspec import ModelSpec
        >>> spec = ModelSpec("small", "baseline", model="unet", options={"width": 2, "depth": 1})
        >>> info = DatasetInfo("cells", 1, ("background", "cell"), ((0, 0, 0), (230, 159, 0)))
        >>> model = Segmenter(ModelFile(spec, info, Normalisation((0.0,), (1.0,)), {}), spec.build(1, 2), Compute())
        >>> model.predict(np.zeros((5, 7), np.uint8)).shape
        (5, 7)
    """

    def __init__(self, description: ModelFile, network: nn.Module, compute: Compute) -> None:
        self.description = description
        self.compute = compute
        self.network = network.eval().to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def info(self) -> DatasetInfo:
        """Classes, colours and pixel size of the training data."""
        return self.description.info

    @torch.no_grad()
    def probabilities(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Class probabilities of one image.

        Args:
            image: ``(H, W)`` or ``(H, W, C)`` of any size, in the units of the training images.

        Returns:
            ``(num_classes, H, W)``, 0..1, summing to 1 over the classes.

        Raises:
            UserError: The image has another number of channels than the model, or no pixels.
        """
        channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else None
        if channels != self.info.channels or not image.size:
            raise UserError(
                Problem(
                    f"an image of shape {image.shape} does not fit the model: it takes {self.info.channels} channel(s)",
                    "predict",
                    "give images of the same kind as the training images",
                )
            )
        x = self.description.normalisation.apply(image)[None]
        probabilities = logits_of(self.network, x, self.compute)[0].softmax(0)
        return probabilities.cpu().numpy()

    def predict(self, image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Class index of every pixel.

        Args:
            image: As for :meth:`probabilities`.

        Returns:
            ``(H, W)`` uint8, 0..num_classes - 1.

        Raises:
            UserError: As for :meth:`probabilities`.
        """
        return self.probabilities(image).argmax(0).astype(np.uint8)


def find_model(path: Path) -> Path:
    """The folder of a trained model: ``path`` itself, or the best finalist of a run folder.

    The best seed is the one with the highest validation score; the test set has no say. A run without a
    finalist gives its best other model.

    Args:
        path: A run folder, the folder of one training, or one of the two files in it.

    Returns:
        The folder that holds ``model.json``.

    Raises:
        UserError: There is no trained model, or a description is damaged.
    """
    if path.name in (DESCRIPTION, "weights.safetensors"):
        path = path.parent
    if (path / DESCRIPTION).exists():
        return path
    trained = []
    for description in sorted(RunFolder(path).models.glob(f"*/seed-*/{DESCRIPTION}")):
        value = read_json(description)
        try:
            finalist = value["build"]["role"] == "finalist"
            trained.append((finalist, float(value["training"]["best_miou"]), description.parent))
        except (KeyError, TypeError, ValueError) as error:
            what = f"is not a model description ({type(error).__name__}: {error})"
            raise UserError(Problem(what, str(description), "restore it, or delete it and resume the run")) from error
    if not trained:
        raise UserError(
            Problem("holds no trained model", str(path), "give a run folder, or a folder with model.json in it")
        )
    return max(trained, key=lambda item: item[:2])[2]


def load(path: str | Path, device: str = "auto") -> Segmenter:
    """Open a trained model.

    Args:
        path: A run folder (its finalist is taken), or the folder of one training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Returns:
        The model, ready to predict.

    Raises:
        UserError: There is no model, or its files are damaged.
    """
    described, network = ModelFile.load(find_model(Path(path)))
    return Segmenter(described, network, Compute.resolve(device))
