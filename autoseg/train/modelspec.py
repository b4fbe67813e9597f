"""A network in a comparison: its label, its role, and how it is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from autoseg import registry
from autoseg.errors import AutosegError, Problem, UserError
from autoseg.search.architecture import Architecture

ROLES = ("finalist", "baseline", "control")


@dataclass(frozen=True)
class ModelSpec:
    """How to build one network of a run, as plain values.

    Attributes:
        label: Its name in the run folder and the report.
        role: ``"finalist"``, ``"baseline"`` or ``"control"``.
        model: Name of a registered model, or None for an architecture.
        architecture: A point of a space, or None for a registered model.
        options: Options of the model, or options of the space that replace those of the search.

    Example:
        >>> ModelSpec("small", "baseline", model="unet", options={"width": 4}).build(1, 2).size_divisor
        16
    """

    label: str
    role: str
    model: str | None = None
    architecture: Architecture | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, in_channels: int, num_classes: int) -> nn.Module:
        """The network, initialised from torch's global generator.

        Raises:
            UserError: Its options do not fit.
        """
        if self.architecture is not None:
            return self.architecture.build(in_channels, num_classes, **self.options)
        try:
            network: nn.Module = registry.load("model", str(self.model))(in_channels, num_classes, **self.options)
        except AutosegError:
            raise
        except (ValueError, TypeError) as error:
            raise UserError(Problem(str(error), f"model {self.label!r}", "change its options")) from error
        return network

    def to_json(self) -> dict[str, Any]:
        """Plain values for model.json, which :meth:`from_json` reads back."""
        return {
            "label": self.label,
            "role": self.role,
            "model": self.model,
            "architecture": self.architecture.to_json() if self.architecture else None,
            "options": {key: str(value) if isinstance(value, Path) else value for key, value in self.options.items()},
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelSpec:
        """Read what :meth:`to_json` wrote."""
        architecture = value.get("architecture")
        return cls(
            value["label"],
            value["role"],
            value.get("model"),
            Architecture.from_json(architecture) if architecture else None,
            dict(value.get("options") or {}),
        )
