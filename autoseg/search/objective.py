"""What a search looks for: the best validation mIoU, under hard limits on what the final network costs.

The limits hold for the network that is trained in the end (``train`` may make it deeper or wider than the
one that was searched), because that is what the user gets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from autoseg.errors import Problem
from autoseg.runfolder import Journal
from autoseg.spaces.base import Choices, choices_key
from autoseg.train.cost import Cost, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autoseg.search.task import Candidate, SearchTask

_LATENCY_RUNS = 3
_TITLES = {"params": "parameters", "flops": "FLOPs", "latency_ms": "ms per image"}


@dataclass(frozen=True)
class Objective:
    """Hard limits on the final network; among those within them the validation mIoU decides.

    Args:
        max_params: Most parameters.
        max_flops: Most floating-point operations of one forward pass on a validation image.
        max_latency_ms: Most milliseconds of that pass on the device of the run.

    Raises:
        ValueError: A limit is not positive.

    Example:
        >>> objective = Objective(max_params=1_000_000)
        >>> objective.admits(Cost(params=900_000)), objective.problem(Cost(params=2_000_000))
        (True, '2,000,000 parameters are more than max_params = 1,000,000')
    """

    max_params: int | None = None
    max_flops: int | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        wrong = [name for name, limit in asdict(self).items() if limit is not None and not limit > 0]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} must be positive")

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in asdict(self).values())

    def admits(self, cost: Cost) -> bool:
        """Whether a network of this cost is within all limits."""
        return not self.problem(cost)

    def problem(self, cost: Cost) -> str:
        """Which limits a network of this cost breaks, in words; empty when it breaks none."""
        found = []
        for name, limit in asdict(self).items():
            value = getattr(cost, name.removeprefix("max_"))
            if limit is not None and value is None:
                found.append(f"its {_TITLES[name.removeprefix('max_')]} cannot be counted, and {name} is set")
            elif limit is not None and value > limit:
                title = _TITLES[name.removeprefix("max_")]
                found.append(f"{_number(value)} {title} are more than {name} = {_number(limit)}")
        return "; ".join(found)


class CostMeter:
    """Measures what the final network of some choices costs, each once.

    Under a limit of the latency the measurements are kept in ``costs.jsonl`` of the search, because a resumed
    search has to judge an architecture by the same number. The generator of torch stays as it is, so that a
    search does not depend on what has been measured before.

    Args:
        task: The search; its ``final_kwargs`` are the options of the final network.
    """

    def __init__(self, task: SearchTask) -> None:
        self.task = task
        self._known: dict[str, Cost] = {}
        self._full: set[str] = set()
        self._journal: Journal | None = None
        if task.objective.max_latency_ms is not None:
            self._journal = Journal(task.folder / "costs.jsonl")
            for row in self._journal.rows:
                self._known[choices_key(row["choices"])] = Cost(row["params"], row["flops"], row["latency_ms"])

    def of(self, choices: Choices, full: bool = False) -> Cost:
        """The cost of the network with these choices.

        Args:
            choices: A point of the space.
            full: Also measure what no limit asks for.
        """
        key = choices_key(choices)
        before = self._known.get(key)
        if before is None or (full and key not in self._full):
            task, limits = self.task, self.task.objective
            channels, (height, width) = task.info.channels, task.val[0][1].shape[:2]
            with torch.random.fork_rng(devices=[]):
                cost = measure(
                    task.architecture(choices).build(channels, task.info.num_classes, **task.final_kwargs),
                    (channels, height, width),
                    task.compute.device,
                    flops=full or limits.max_flops is not None,
                    latency=full or limits.max_latency_ms is not None,
                    runs=_LATENCY_RUNS,
                )
            if before is not None and before.latency_ms is not None:
                cost = replace(cost, latency_ms=before.latency_ms)  # by which it was judged
            self._known[key] = cost
            if self._journal is not None:
                self._journal.append({"kind": "cost", "choices": choices, **asdict(cost)})
            if full:
                self._full.add(key)
        return self._known[key]

    def admits(self, choices: Choices) -> bool:
        """Whether the network with these choices is within all limits; True at once where there are none."""
        return not self.task.objective.limited or self.task.objective.admits(self.of(choices))

    def nothing_admitted(self) -> Problem:
        """That no network is within the limits, and how far the smallest of those that were measured is from it."""
        objective = self.task.objective
        refused = [cost for cost in self._known.values() if not objective.admits(cost)]
        smallest = min(refused, key=lambda cost: cost.params)
        return Problem(
            f"no architecture that was found is within the limits: of the smallest, {objective.problem(smallest)}",
            "objective",
            "raise the limit, or make the networks of the space smaller (width, layers)",
        )


def none_admitted(objective: Objective, refused: Sequence[Mapping[str, Any]]) -> Problem:
    """Names the limits that stood in the way of all candidates, and how near these came to each.

    Args:
        objective: The limits.
        refused: Journal rows of the candidates: ``params``, ``flops`` and ``latency_ms``, None where not measured.
    """
    limits = {k: v for k, v in asdict(objective).items() if v is not None}
    nearest = []
    for name, limit in limits.items():
        values = [row[name.removeprefix("max_")] for row in refused]
        measured = [value for value in values if value is not None]
        smallest = f"the smallest of these has {min(measured):,}" if measured else "it cannot be measured here"
        if not measured or min(measured) > limit:
            nearest.append(f"{name} is {limit:,} and {smallest}")
    reason = "; ".join(nearest) or "each breaks one limit or another"
    what = f"none of the {len(refused)} architectures that were tried keeps the limits: {reason}"
    return Problem(what, "objective", "raise the limit, or make the space narrower or shallower")


def pareto_front(candidates: Sequence[Candidate]) -> list[bool]:
    """Which candidates no other one beats: at least as good in mIoU, parameters and latency, and better in one.

    A latency that was not measured of both counts as equal.

    Example:
        >>> from autoseg.search.task import Candidate
        >>> pareto_front([Candidate({}, 0.8, "named", 900), Candidate({}, 0.7, "named", 950),
        ...     Candidate({}, 0.6, "named", 100)])
        [True, False, True]
    """
    return [not any(_beats(other, candidate) for other in candidates) for candidate in candidates]


def _beats(a: Candidate, b: Candidate) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better, in what was measured of both."""
    pairs: list[tuple[float, float]] = [(-a.miou, -b.miou), (a.params, b.params)]
    if a.latency_ms is not None and b.latency_ms is not None:
        pairs.append((a.latency_ms, b.latency_ms))
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def pareto_json(task: SearchTask, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The content of ``search/pareto.json``: all candidates with their costs, best first, and the front."""
    front = pareto_front(candidates)
    return {
        "objective": asdict(task.objective),
        "candidates": [
            {
                "code": task.architecture(candidate.choices).code,
                "choices": candidate.choices,
                "source": candidate.source,
                "miou": candidate.miou,
                "params": candidate.params,
                "flops": candidate.flops,
                "latency_ms": candidate.latency_ms,
                "pareto": on_front,
            }
            for candidate, on_front in zip(candidates, front, strict=True)
        ],
    }


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
