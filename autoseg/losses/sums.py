"""Sums of losses: any registered losses with a ``+`` between their names make a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import Parameter
from typing import Annotated, Any

from torch import Tensor, nn

from autoseg import registry
from autoseg.errors import Problem, UserError, raise_if
from autoseg.losses.common import number_problems
from autoseg.plugin_options import OptionsOf, accepts_anything, options_of


def resolve(name: str) -> SumOf:
    """A sum of losses, such as ce+dice or focal+dice+lovasz.

    The resolver of the family ``*+*``.

    Raises:
        UserError: A part is no registered loss, is empty, or comes twice.

    Example:
        >>> import torch
        >>> logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
        >>> round(resolve("ce+dice")(factors=[1, 0.5])(logits, target).item(), 4)  # ln 2 + 0.5 / 2
        0.9431
    """
    names = name.split("+")
    problems = [Problem("a part of the sum has no name", f"loss '{name}'", "write it as ce+dice")] * ("" in names)
    for twice in sorted({part for part in names if part and names.count(part) > 1}):
        problems.append(Problem(f"'{twice}' comes twice", f"loss '{name}'", "name it once, and give 'factors'"))
    parts: dict[str, Any] = {}
    for part in dict.fromkeys(filter(None, names)):
        try:
            parts[part] = registry.load("loss", part)
        except UserError as error:
            problems += [replace(problem, where=problem.where or f"loss '{name}'") for problem in error.problems]
    raise_if(problems)
    return SumOf(parts)


class SumOf:
    """What ``ce+dice`` names: a loss plugin with one section of options per part, and ``factors``.

    Args:
        parts: Name to loss plugin, in the order of the sum.

    Attributes:
        plugin_options: The options, as :func:`autoseg.plugin_options.options_of` gives them: a section for each
            part, ``factors`` (one number per part, 1 by default) and ``ignore_index``.

    Example:
        >>> list(resolve("ce+dice").plugin_options)
        ['ce', 'dice', 'factors', 'ignore_index']
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts = dict(parts)
        self.plugin_options: dict[str, Parameter] = {
            name: _option("section", {}, Annotated[dict[str, Any], OptionsOf(part)]) for name, part in parts.items()
        }
        self.plugin_options["factors"] = _option("factors", None, list[float] | None)
        self.plugin_options["ignore_index"] = _option("ignore_index", 255, int)

    def __call__(
        self, *, factors: Sequence[float] | None = None, ignore_index: int = 255, **sections: Mapping[str, Any]
    ) -> LossSum:
        """The sum as a module.

        Args:
            factors: One number of 0 or more per part.
            ignore_index: Target value of pixels that do not count, for all parts.
            **sections: For each part its options.

        Raises:
            UserError: Naming the part, where an option of it is wrong.
        """
        factors = [1.0] * len(self.parts) if factors is None else list(factors)
        problems = [Problem(f"there is no part '{name}'", "loss options") for name in sections.keys() - self.parts]
        if len(factors) != len(self.parts):
            what = f"{len(factors)} factors for {len(self.parts)} losses"
            problems.append(Problem(what, "loss option 'factors'", f"give one for each of {', '.join(self.parts)}"))
        for factor in factors:
            problems += number_problems("factors", factor)
        built: dict[str, nn.Module] = {}
        for name, part in self.parts.items():
            known = options_of(part)
            common = {"ignore_index": ignore_index} if "ignore_index" in known or accepts_anything(known) else {}
            try:
                with _named(name):
                    built[name] = part(**(common | dict(sections.get(name) or {})))
            except UserError as error:
                problems += error.problems
        raise_if(problems)
        return LossSum(built, factors)

    @property
    def from_training(self) -> Callable[[Sequence[float]], dict[str, Any]] | None:
        """The hook of the parts that have one (see :mod:`autoseg.losses`), or None."""
        hooks = {name: part.from_training for name, part in self.parts.items() if getattr(part, "from_training", None)}
        return (lambda fractions: {name: hook(fractions) for name, hook in hooks.items()}) if hooks else None


class LossSum(nn.Module):
    """The sum of several losses, each times its factor.

    Args:
        parts: Name to loss.
        factors: One number per part.
    """

    def __init__(self, parts: Mapping[str, nn.Module], factors: Sequence[float]) -> None:
        super().__init__()
        self.names = list(parts)
        self.parts = nn.ModuleList(parts.values())
        self.factors = [float(factor) for factor in factors]

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The sum, a scalar.

        Raises:
            UserError: Naming the part, where an option of it does not fit the number of classes.
        """
        terms = []
        for name, part, factor in zip(self.names, self.parts, self.factors, strict=True):
            with _named(name):
                terms.append(factor * part(logits, target))
        total: Tensor = sum(terms[1:], terms[0])
        return total


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Put the name of a part before the places of its problems."""
    try:
        yield
    except UserError as error:
        named = [replace(p, where=f"{part}, {p.where}" if p.where else part) for p in error.problems]
        raise UserError(named) from error


def _option(name: str, default: Any, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
