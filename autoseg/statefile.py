"""Trees of tensors and plain values in one safetensors file: the state of a search or a training.

Optimiser and module states are nested dictionaries and lists. The tensors go into the file as they are,
the structure goes into its header as JSON, so that reading a state can run no code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from autoseg.errors import Problem, UserError
from autoseg.runfolder import write_bytes


def save_tree(path: Path, tree: Any) -> Path:
    """Write a tree of dicts (str or int keys), lists, tensors, strings, numbers, booleans and None.

    Args:
        path: Target; it is replaced whole or not at all.
        tree: What to write. Tensors may be on any device and share memory.

    Returns:
        The path.

    Raises:
        TypeError: Something else is in the tree.

    Example:
        >>> import tempfile
        >>> path = save_tree(Path(tempfile.mkdtemp()) / "s.safetensors", {"a": torch.ones(2), 3: [1, None]})
        >>> load_tree(path)
        {'a': tensor([1., 1.]), 3: [1, None]}
    """
    tensors: dict[str, torch.Tensor] = {}
    header = json.dumps(_pack(tree, tensors))
    return write_bytes(path, save(tensors, metadata={"tree": header}))


def load_tree(path: Path) -> Any:
    """Read what :func:`save_tree` wrote.

    Returns:
        The tree, bit for bit: tensors on the CPU, no two of which share memory; tuples have become lists.

    Raises:
        UserError: The file is damaged or of another kind.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return _unpack(json.loads(metadata["tree"]), tensors)
    except Exception as error:
        raise UserError(
            Problem(f"is not a state file ({error})", str(path), "delete it to start this step again")
        ) from error


def _pack(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, torch.Tensor):
        key = str(len(tensors))
        # A copy: tensors of a module may share memory, which safetensors refuses.
        tensors[key] = node.detach().to("cpu", copy=True).contiguous()
        return {"t": key}
    if isinstance(node, dict):
        if not all(isinstance(k, str | int) for k in node):
            raise TypeError(f"keys must be str or int, got {[type(k).__name__ for k in node]}")
        return {"d": [[str(k) if isinstance(k, str) else k, _pack(v, tensors)] for k, v in node.items()]}
    if isinstance(node, list | tuple):
        return {"l": [_pack(v, tensors) for v in node]}
    if node is None or isinstance(node, str | bool | int | float):
        return {"v": node}
    raise TypeError(f"a state may not hold {type(node).__name__}")


def _unpack(node: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind == "t":
        return tensors[value]
    if kind == "d":
        return {k: _unpack(v, tensors) for k, v in value}
    if kind == "l":
        return [_unpack(v, tensors) for v in value]
    return value
