"""A trained model on disk: ``weights.safetensors`` and ``model.json``, enough to predict without the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import nn

from autoseg import __version__
from autoseg.data.base import DatasetInfo
from autoseg.data.batches import Normalisation
from autoseg.errors import Problem, UserError
from autoseg.runfolder import read_json, write_bytes, write_json
from autoseg.train.modelspec import ModelSpec

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


@dataclass
class ModelFile:
    """What a trained model needs to be used.

    Example:
        >>> import tempfile
        >>> spec = ModelSpec("small", "baseline", model="unet", options={"width": 2, "depth": 1})
        >>> info = DatasetInfo("cells", 1, ("background", "cell"), ((0, 0, 0), (230, 159, 0)))
        >>> folder = Path(tempfile.mkdtemp())
        >>> ModelFile(spec, info, Normalisation((90.0,), (20.0,)), {"seed": 0}).save(folder, spec.build(1, 2))
        >>> described, network = ModelFile.load(folder)
        >>> described.info.classes, network.training
        (('background', 'cell'), False)

    Attributes:
        spec: How the network is built.
        info: Classes, colours, channels, pixel size.
        normalisation: Mean and standard deviation of the raw training images.
        training: How it was trained: recipe, seed, best epoch, seconds.
        card: What others should know of it, see :mod:`autoseg.card`; empty when it has not been tested.
    """

    spec: ModelSpec
    info: DatasetInfo
    normalisation: Normalisation
    training: dict[str, Any]
    card: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path, network: nn.Module) -> None:
        """Write both files, the weights first: where there is a description, the weights are there too.

        Args:
            folder: Where to; it is made if need be.
            network: A network as ``spec`` builds it, on any device.
        """
        tensors = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in network.state_dict().items()}
        # One entry of metadata: the order of several is random, and equal weights should be equal files.
        write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        described = {
            "autoseg": __version__,
            "build": self.spec.to_json(),
            "info": asdict(self.info),
            "normalisation": self.normalisation.to_json(),
            "training": self.training,
        }
        write_json(folder / DESCRIPTION, described | ({"card": self.card} if self.card else {}))

    @classmethod
    def load(cls, folder: Path) -> tuple[ModelFile, nn.Module]:
        """Read both files.

        Returns:
            The description and the network, in evaluation mode on the CPU.

        Raises:
            UserError: A file is missing or damaged, or the weights are of another network.
        """
        value = read_json(folder / DESCRIPTION)
        try:
            info = value["info"]
            described = cls(
                ModelSpec.from_json(value["build"]),
                DatasetInfo(
                    **{**info, "classes": tuple(info["classes"]), "colors": tuple(tuple(c) for c in info["colors"])}
                ),
                Normalisation.from_json(value["normalisation"]),
                value["training"],
                dict(value.get("card") or {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                Problem(
                    f"is not a model description ({type(error).__name__}: {error})",
                    str(folder / DESCRIPTION),
                    "use model.json of a run",
                )
            ) from error
        spec = described.spec
        if spec.options.get("weights"):  # pretrained weights are about to be replaced; do not fetch them
            spec = replace(spec, options={**spec.options, "weights": None})
        network = spec.build(described.info.channels, described.info.num_classes)
        try:
            network.load_state_dict(load_file(str(folder / WEIGHTS)))
        except Exception as error:
            raise UserError(
                Problem(
                    f"the weights cannot be loaded ({str(error).splitlines()[0]})",
                    str(folder / WEIGHTS),
                    "use weights.safetensors and model.json of one training",
                )
            ) from error
        return described, network.eval()
