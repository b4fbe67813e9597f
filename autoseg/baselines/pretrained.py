"""Pretrained weights of an encoder: from a file on this machine, or downloaded by name.

A file holds the encoder's tensors under the names of segmentation_models_pytorch or of timm, as their
``state_dict()`` has them; of the file of a whole network, such as the ``weights.safetensors`` of a run, the
encoder's part is taken. Nothing in it is ever executed: ``.safetensors`` files hold tensors only, and of
``.pth``, ``.pt`` and ``.bin`` files nothing but plain tensors is read.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import product
from math import isqrt
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import get_encoder
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from autoseg.baselines.encoders import TIMM, with_weights
from autoseg.errors import Problem, UserError
from autoseg.plugin_options import is_file_name

_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
_CLASSIFIERS = ("fc.", "classifier.", "last_linear.", "head.", "_fc.", "linear.")
_PREFIXES = ("", "encoder.", "backbone.", "module.", "network.encoder.")
_ENCODERS = ("network.encoder.", "encoder.", "module.encoder.")
_SHOWN = 3


def downloaded(name: str, weights: Path | str | None, where: str) -> tuple[str, str | bool | None]:
    """Fetch weights that are named, not given as a file, into the cache of Hugging Face's client.

    A download that fails is told from a wrong option this way.

    Args:
        name: The encoder's name, as :func:`autoseg.baselines.encoders.library_name` gives it.
        weights: Value of the option ``weights``.
        where: The option, for messages.

    Returns:
        The name of the encoder with these weights, and what the library must be told about them; the name as it
        was and None where nothing was downloaded.

    Raises:
        UserError: The download failed.
    """
    if weights is None or isinstance(weights, Path) or is_file_name(weights):
        return name, None
    name = with_weights(name, weights)
    try:
        if name.startswith(TIMM):
            timm.create_model(name.removeprefix(TIMM), pretrained=True)
        else:
            get_encoder(name, weights=weights)
    except Exception as error:  # whatever the HTTP client, the cache or the file format raises
        reason = str(error).partition("\n")[0]
        raise UserError(
            Problem(
                f"the pretrained weights of '{name.removeprefix(TIMM)}' could not be downloaded: {reason}",
                where,
                "check the network connection, or give the path of a file with the encoder's weights, or copy the "
                "Hugging Face cache of a machine that has them and set HF_HOME to it, or leave 'weights' out to "
                "train from scratch",
            )
        ) from error
    return name, True if name.startswith(TIMM) else weights


def load_encoder(encoder: nn.Module, name: str, file: Path, where: str, beside: Collection[str] = ()) -> None:
    """Replace the weights of an encoder by those of a file.

    A file for RGB images serves other channel counts too, as in segmentation_models_pytorch: the filters of the
    first convolution are added up for one channel; else they are repeated in turn and scaled by 3 / channels.
    Those of a file for one channel are shared out among all. The position embeddings of a vision transformer for
    images of another size are interpolated.

    Args:
        encoder: An encoder of the library, or a model of timm.
        name: Its name, as :func:`autoseg.baselines.encoders.library_name` gives it.
        file: The file.
        where: The option that named the file, for messages.
        beside: Names in the file that are right although the encoder, of which parts were left out, has them not.

    Raises:
        UserError: The file cannot be read, holds more than tensors, or is of another encoder.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "encoder.pth")
        >>> torch.save({"0.weight": torch.ones(4, 3, 1, 1), "0.bias": torch.zeros(4)}, file)
        >>> encoder = nn.Sequential(nn.Conv2d(1, 4, 1))
        >>> load_encoder(encoder, "example", file, "fpn, weights")
        >>> encoder[0].weight.flatten().tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    wanted = encoder.state_dict()
    found = _encoders_part(read_tensors(file, where), wanted)
    first = next((key for key, value in wanted.items() if value.ndim == 4 and "pos_embed" not in key), "")
    rename = max(_renamings(encoder), key=lambda rule: sum(rule(key) in wanted for key in found))
    given = {rename(key): (key, value) for key, value in found.items()}
    fitted: dict[str, Tensor] = {}
    shapes, missing = [], []
    for key, target in wanted.items():
        if key not in given:
            if not key.endswith("num_batches_tracked"):
                missing.append(key)
            continue
        value = _to_channels(given[key][1], target, key == first)
        if key.endswith("pos_embed"):
            value = _to_size(value, target, getattr(encoder, "model", encoder))
        if value.shape == target.shape:
            fitted[key] = value
        elif key == first and _differ_in_channels(value, target):
            shapes.append(f"{key} is for images of {value.shape[1]} channels, which serve no others: only 1 or 3 do")
        else:
            shapes.append(f"{key} is {tuple(value.shape)}, not {tuple(target.shape)}")
    right = {*wanted, *beside}
    surplus = [key for renamed, (key, _) in given.items() if renamed not in right and not _is_classifier(key)]
    if surplus:
        whole = _keys_of_timm(name)
        surplus = [key for key in surplus if not any(key.removeprefix(prefix) in whole for prefix in _PREFIXES)]
    complaints = [
        f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{' ...' if len(keys) > _SHOWN else ''}"
        for keys, what in ((missing, "missing"), (surplus, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    if complaints:
        what = f"{file} does not hold the weights of '{name.removeprefix(TIMM)}' ({'; '.join(complaints)})"
        raise UserError(Problem(what, where, "give the file of this encoder, or the encoder of this file"))
    encoder.load_state_dict({**wanted, **fitted})


def read_tensors(file: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Args:
        file: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        where: The option that named the file, for messages.

    Raises:
        UserError: The file is missing, cannot be read, or holds something else.
    """
    fix = "give a .safetensors file, or a .pth file of torch.save(encoder.state_dict(), ...)"
    if not file.is_file():
        raise UserError(Problem(f"there is no file {file}", where, "correct the path"))
    try:
        if file.suffix == ".safetensors":
            value: Any = load_file(str(file))
        else:
            value = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers raise whatever they run into
        unpickling = isinstance(error, pickle.UnpicklingError)
        if unpickling and "unsupported global" in str(error).lower():
            what = f"{file} holds more than tensors, and would have to be executed to be read"
            raise UserError(Problem(what, where, fix)) from error
        reason = "" if unpickling else str(error).partition("\n")[0]  # the unpickler's says how to take the risk
        what = f"{file} cannot be read (damaged?): {reason or type(error).__name__}"
        raise UserError(Problem(what, where, fix)) from error
    for wrapper in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
    if not isinstance(value, Mapping) or not value or not all(isinstance(item, Tensor) for item in value.values()):
        raise UserError(Problem(f"{file} is not a dictionary of tensors", where, fix))
    return dict(value)


def _renamings(encoder: nn.Module) -> Iterator[Callable[[str], str]]:
    """Ways to spell the file's names as the encoder's: other prefixes, and stages that timm has flattened."""
    children = {name for name, _ in getattr(encoder, "model", encoder).named_children()}

    def spell(key: str, old: str, new: str, flatten: bool) -> str:
        key = key.removeprefix(old)
        stage = "_".join(key.split(".")[:2])
        return new + (".".join([stage, *key.split(".")[2:]]) if flatten and stage in children else key)

    for old, new, flatten in product(_PREFIXES, ("", "model.", "model.model."), (False, True)):
        yield partial(spell, old=old, new=new, flatten=flatten)


def _encoders_part(found: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the encoder, where a file holds a whole network of ours or of the library."""
    for prefix in _ENCODERS:
        inside = {key: value for key, value in found.items() if key.startswith(prefix)}
        if inside and not any(key.startswith(prefix) for key in wanted):
            return inside
    return found


def _to_channels(value: Tensor, target: Tensor, first: bool) -> Tensor:
    """The filters of a first convolution for RGB or grey images, for as many channels as the target has."""
    if not _differ_in_channels(value, target):
        return value
    ours, theirs = target.shape[1], value.shape[1]
    if theirs == 1 and first:
        return value.expand(-1, ours, -1, -1) / ours
    if theirs != 3:
        return value
    return value.sum(1, keepdim=True) if ours == 1 else value[:, torch.arange(ours) % 3] * (3 / ours)


def _differ_in_channels(value: Tensor, target: Tensor) -> bool:
    """Whether two filters differ in the channels that go in, and in nothing else."""
    ours, theirs = target.shape, value.shape
    return len(ours) == len(theirs) == 4 and (ours[0], ours[2:]) == (theirs[0], theirs[2:]) and ours[1] != theirs[1]


def _to_size(value: Tensor, target: Tensor, vit: nn.Module) -> Tensor:
    """Position embeddings ``(1, tokens, width)`` interpolated to the size of image of a vision transformer of timm."""
    grid = getattr(getattr(vit, "patch_embed", None), "grid_size", None)
    if grid is None or value.ndim != 3 or value.shape == target.shape or value.shape[2] != target.shape[2]:
        return value
    prefix = target.shape[1] - grid[0] * grid[1]
    patches = value.shape[1] - prefix
    if prefix < 0 or patches < 1 or isqrt(patches) ** 2 != patches:
        return value
    resampled: Tensor = resample_abs_pos_embed(value, list(grid), num_prefix_tokens=prefix)
    return resampled


def _is_classifier(key: str) -> bool:
    return any(key.removeprefix(prefix).startswith(_CLASSIFIERS) for prefix in _PREFIXES)


def _keys_of_timm(name: str) -> set[str]:
    """What the state of the whole classification model holds, of which an encoder is a part."""
    if not timm.is_model(name.removeprefix(TIMM)):
        return set()
    with torch.device("meta"):
        return set(timm.create_model(name.removeprefix(TIMM)).state_dict())
