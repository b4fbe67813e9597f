"""What all losses share: class weights and the checks of their options."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoseg.errors import Problem, UserError, raise_if


class ClassLoss(nn.Module):
    """A loss that may weigh the classes and leaves out the pixels that do not count.

    Args:
        weight: One weight (0 or more) per class, background included, or None for equal weights of 1.
        ignore_index: Target value of pixels that do not count.

    Raises:
        UserError: A weight is negative or not finite, or all are 0.

    Example:
        >>> ClassLoss([1.0, 3.0]).weight_like(torch.zeros(1, 2, 4, 4))
        tensor([1., 3.])
    """

    weight: Tensor | None

    def __init__(self, weight: Sequence[float] | None = None, *, ignore_index: int = 255) -> None:
        super().__init__()
        raise_if(weight_problems(weight))
        values = None if weight is None else torch.tensor([float(w) for w in weight])
        self.register_buffer("weight", values, persistent=False)
        self.ignore_index = ignore_index

    def weight_like(self, logits: Tensor) -> Tensor | None:
        """The class weights ``(C,)`` in the precision of the logits, or None.

        Raises:
            UserError: There are not as many weights as classes.
        """
        if self.weight is None:
            return None
        if len(self.weight) != logits.shape[1]:
            raise UserError(
                Problem(
                    f"{len(self.weight)} class weights for {logits.shape[1]} classes",
                    "loss option 'weight'",
                    "give one weight per class, background included",
                )
            )
        return self.weight.to(logits.dtype)


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits, those in half precision raised to float32.

    Example:
        >>> at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype
        torch.float32
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def weight_problems(weight: Sequence[float] | None, option: str = "weight") -> list[Problem]:
    """What is wrong with class weights.

    Example:
        >>> [problem.what for problem in weight_problems([1.0, -2.0])]
        ['-2.0 is no class weight']
    """
    if weight is None:
        return []
    where, fix = f"loss option '{option}'", "give one number of 0 or more per class"
    problems = [Problem(f"{w} is no class weight", where, fix) for w in weight if not (math.isfinite(w) and w >= 0)]
    if not any(weight):
        problems.append(Problem("no class has a weight above 0", where, fix))
    return problems


def number_problems(option: str, value: float, *, above_zero: bool = False) -> list[Problem]:
    """What is wrong with a number that must be 0 or more, or above 0.

    Example:
        >>> print(number_problems("gamma", -1.0)[0])
        loss option 'gamma': -1.0 is out of range
          -> give a number of 0 or more
    """
    if math.isfinite(value) and (value > 0 if above_zero else value >= 0):
        return []
    fix = f"give a number {'above 0' if above_zero else 'of 0 or more'}"
    return [Problem(f"{value} is out of range", f"loss option '{option}'", fix)]
