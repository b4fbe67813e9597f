"""An architecture: the plain-JSON name of a network, and how to build it.

It holds the space's name, the space's options and the choices. Choices are independent of width and
depth, so ``build`` accepts other options than those of the search.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg import __version__, registry
from autoseg.errors import Problem, UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """What a search returns and ``architecture.json`` holds.

    Attributes:
        space: Name of a registered space.
        kwargs: Options of the space, without channels and classes.
        choices: ``{label: value}``.

    Example:
        >>> from autoseg.spaces.ednas_code import ED_NAS_N3, to_choices
        >>> small = Architecture("ednas", {"blocks": 3, "layers": 2, "width": 4}, to_choices(ED_NAS_N3))
        >>> small.build(1, 3, layers=4, width=8).size_divisor
        16
    """

    space: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)

    def build(self, in_channels: int, num_classes: int, **overrides: Any) -> nn.Module:
        """The network, with only the chosen operations in it.

        Args:
            in_channels: Image channels.
            num_classes: Classes, background included.
            **overrides: Options of the space that replace ``kwargs`` (deeper, wider).

        Returns:
            A module from ``(N, in_channels, H, W)`` to logits ``(N, num_classes, H, W)``, freshly initialised
            from torch's generator.

        Raises:
            UserError: The space is unknown, or the choices do not fit it.
        """
        from autoseg.quiet import load_nni

        load_nni()
        from nni.mutable.exception import SampleValidationError
        from nni.nas.space import model_context

        space = registry.load("space", self.space)
        try:
            with model_context(dict(self.choices)):
                network: nn.Module = space(in_channels, num_classes, **{**self.kwargs, **overrides})
        except (SampleValidationError, ValueError, TypeError) as error:
            raise self._misfit(error) from error
        return network

    def _misfit(self, error: Exception) -> UserError:
        return UserError(
            Problem(
                f"the choices do not fit the space {self.space!r}: {error}",
                "architecture",
                "use choices and options that belong together, for instance those of one architecture.json",
            )
        )

    @property
    def code(self) -> str:
        """A short readable form: the paper's notation where the space has one, else the JSON of the choices.

        Raises:
            UserError: The space is unknown, or the choices do not fit it.
        """
        code = getattr(registry.load("space", self.space), "code", None)
        try:
            return code(self.choices, self.kwargs) if code else json.dumps(self.choices, sort_keys=True)
        except ValueError as error:
            raise self._misfit(error) from error

    def to_json(self) -> dict[str, Any]:
        """What ``architecture.json`` holds."""
        return {
            "space": self.space,
            "kwargs": self.kwargs,
            "choices": self.choices,
            "autoseg": __version__,
            "code": self.code,
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "architecture") -> Architecture:
        """Read what :meth:`to_json` wrote; other keys are ignored.

        Args:
            value: A parsed JSON document.
            where: What to call it in errors, such as the path of the file.

        Raises:
            UserError: A key is missing or has the wrong type.
        """
        if not isinstance(value, dict):
            raise UserError(Problem("an architecture is a JSON object", where, "see architecture.json of a run"))
        types = {"space": str, "kwargs": dict, "choices": dict}
        problems = [
            Problem(f"{key!r} is missing or not a {kind.__name__}", where, "see architecture.json of a run")
            for key, kind in types.items()
            if not isinstance(value.get(key, {} if key == "kwargs" else None), kind)
        ]
        if problems:
            raise UserError(problems)
        return cls(value["space"], dict(value.get("kwargs", {})), dict(value["choices"]))

    @classmethod
    def read(cls, path: str | Path) -> Architecture:
        """Read an ``architecture.json``.

        Raises:
            UserError: The file is missing, is not JSON, or is no architecture.
        """
        path = Path(path)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(Problem(f"cannot be read: {error.strerror}", str(path), "check the path")) from error
        except ValueError as error:
            raise UserError(Problem(f"is not JSON: {error}", str(path), "use architecture.json of a run")) from error
        return cls.from_json(value, str(path))
