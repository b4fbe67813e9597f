"""The pieces of a run that can be done by different processes and machines.

A job is plain data: it travels as the parameters of an NNI trial, and people read it there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from autoseg.runfolder import RunFolder

Kind = Literal["search", "candidate", "training"]


@dataclass(frozen=True)
class Job:
    """A one-shot search, a candidate of a multi-trial search, or a training with its test.

    Example:
        >>> job = Job("candidate", number=3, code="E=[0, 1]", choices={"op": "conv3"}, epochs=2)
        >>> str(job), job.to_json()["code"], Job.from_json(job.to_json()) == job
        ('candidate 4', 'E=[0, 1]', True)

    Attributes:
        kind: What is to be done.
        label: Training: the label of the network. Search: what tells it from the others, empty for the only one.
        seed: Seed of the training or search.
        needs_search: Training: whether it is of the architecture that the search finds.
        number: Candidate: its number in the search, from 0. Search: its number among the searches.
        code: What is trained, as the paper of the space writes it.
        choices: Candidate: its choices.
        epochs: Candidate: length in epochs, or None.
        seconds: Candidate: length in seconds, or None.
        architecture: Training of an architecture: the content of architecture.json that matters, so that a
            machine far away needs no such file.
    """

    kind: Kind
    label: str = ""
    seed: int = 0
    needs_search: bool = False
    number: int = 0
    code: str = ""
    choices: dict[str, Any] | None = None
    epochs: int | None = None
    seconds: float | None = None
    architecture: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, the name of the job first, without what says nothing about a job of this kind."""
        told = {"candidate": ("number",), "search": ("seed",), "training": ("label", "seed")}[self.kind]
        return {"job": str(self)} | {
            key: value for key, value in asdict(self).items() if key == "kind" or key in told or value not in _EMPTY
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Job:
        """Read what :meth:`to_json` wrote.

        Raises:
            TypeError: It has other keys.
        """
        return cls(**{key: entry for key, entry in value.items() if key != "job"})

    def done(self, folder: RunFolder) -> bool:
        """Whether the result is in the run folder."""
        if self.kind == "search":
            return (folder.search_of(self.seed, self.number) / "found.json").exists()
        if self.kind == "candidate":
            return (folder.search / "trials" / f"{self.number}.json").exists()
        return (folder.model(self.label, self.seed) / "test.json").exists()

    def __str__(self) -> str:
        if self.kind == "search":
            return f"search, seed {self.seed}" if self.label else "the search"
        return f"candidate {self.number + 1}" if self.kind == "candidate" else f"{self.label}, seed {self.seed}"


_EMPTY: tuple[Any, ...] = ("", 0, False, None)
