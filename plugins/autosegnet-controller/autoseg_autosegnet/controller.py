"""The controller: a recurrent network that proposes architectures and learns from their rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from autoseg_autosegnet.order import ordered

if TYPE_CHECKING:  # importing spaces imports NNI, which the controller does without
    from autoseg.spaces.base import Choices


class Score(NamedTuple):
    """What the controller thinks of architectures; both tensors carry gradients.

    Attributes:
        log_prob: Logarithm of the probability of each, shape ``(N,)``.
        entropy: Sum of the entropies of the decisions on the way to each, nats, shape ``(N,)``.
    """

    log_prob: Tensor
    entropy: Tensor


class _Network(nn.Module):
    """Recurrent network over decisions: each output gives the logits of one, whose choice is the next input."""

    def __init__(self, sizes: Sequence[int], hidden: int, layers: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(1, hidden))
        self.cells = nn.ModuleList(nn.LSTMCell(hidden, hidden) for _ in range(layers))
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)
        self.embeddings = nn.ModuleList(nn.Embedding(size, hidden) for size in sizes[:-1])

    def forward(self, count: int, choose: Callable[[int, Tensor], Tensor]) -> None:
        """Take all decisions for ``count`` architectures; ``choose`` goes from decision and logits to indices."""
        step = self.start.expand(count, -1)
        memories: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        for number, head in enumerate(self.heads):
            for layer, cell in enumerate(self.cells):
                memories[layer] = memory = cell(step, memories[layer])
                step = memory[0]
            chosen = choose(number, head(step))
            if number < len(self.embeddings):
                step = self.embeddings[number](chosen)


class Controller:
    """Two-layer LSTM with REINFORCE and a moving-average baseline.

    Decisions are taken one after the other; each depends on all before it. The controller has its own
    random numbers, runs on the CPU and works for any space.

    Args:
        decisions: ``{label: [value, ...]}`` as :func:`autoseg.spaces.base.decisions` lists them.
        order: Order of the decisions, as words for :func:`~autoseg_autosegnet.order.ordered`; None takes
            that of ``decisions``.
        seed: Seed of the initial weights and of the draws.
        hidden: Width of the LSTM and of the embeddings.
        layers: Layers of the LSTM.
        lr: Learning rate of Adam.
        entropy: Weight of the entropy bonus, per nat.
        baseline_decay: Decay of the baseline per reward; a batch of n rewards counts with ``1 - decay**n``.
        tanh_constant: Logits are squeezed into -constant..constant, so that no choice becomes impossible;
            None leaves them free.
        temperature: Logits are divided by it before that; more than 1 explores more.

    Attributes:
        labels: The labels in the order in which they are decided.
        baseline: Moving average of the rewards; None before the first.

    Source: AutoSegNet (section on the search strategy) for layers, learning rate, and the order of down,
    bridge, up and skips. Of what it leaves open, width 100, baseline 0.99 and entropy 1e-4 are those of ENAS; the
    tanh constant 2.5 is ours (ENAS: 1.1, divided by 2.5 for operations in its search of cells).

    Raises:
        ValueError: There is no decision, or one without values.
        UserError: ``order`` does not name every decision once.

    Example:
        >>> decisions = {"op": ["conv3", "conv5"], "in": [[0], [1], [2]]}
        >>> controller = Controller(decisions, order=["in", "op"], lr=0.01)
        >>> controller.labels, sorted(controller.draw())
        (['in', 'op'], ['in', 'op'])
        >>> for _ in range(12):
        ...     drawn = [controller.draw() for _ in range(8)]
        ...     controller.update([(choices, float(choices["op"] == "conv5")) for choices in drawn])
        >>> controller.draw(greedy=True)["op"]
        'conv5'
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Any]],
        *,
        order: Sequence[str] | None = None,
        seed: int = 0,
        hidden: int = 100,
        layers: int = 2,
        lr: float = 5e-4,
        entropy: float = 1e-4,
        baseline_decay: float = 0.99,
        tanh_constant: float | None = 2.5,
        temperature: float = 1.0,
    ) -> None:
        if not decisions or not all(decisions.values()):
            raise ValueError("a controller needs decisions, each with at least one value")
        self.labels = ordered(decisions, order)
        self.baseline: float | None = None
        self._values = [list(decisions[label]) for label in self.labels]
        self._entropy, self._decay = entropy, baseline_decay
        self._tanh, self._temperature = tanh_constant, temperature
        self._random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # the layers' own initialisation, replaced below
            self._network = _Network([len(values) for values in self._values], hidden, layers)
        for parameter in self._network.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=self._random)
        self._optimiser = torch.optim.Adam(self._network.parameters(), lr)

    @torch.no_grad()
    def draw(self, greedy: bool = False) -> Choices:
        """One architecture: a random one, or at every decision the most probable.

        Args:
            greedy: Take the most probable; this draws no random numbers.

        Returns:
            ``{label: value}`` in the order of the decisions.
        """
        return self._decode(self._roll(greedy)[0])

    @torch.no_grad()
    def probabilities(self) -> dict[str, dict[Any, float]]:
        """The distribution of every decision, given that all before it went the most probable way.

        Returns:
            ``{label: {value: probability}}``; an input is named by its index, not by a list.
        """
        _, rows = self._roll(greedy=True)
        return {
            label: dict(zip((v[0] if isinstance(v, list) else v for v in values), row.tolist(), strict=True))
            for label, values, row in zip(self.labels, self._values, rows, strict=True)
        }

    def score(self, choices: Sequence[Choices]) -> Score:
        """Log-probability of architectures, and the entropy met on the way, with gradients.

        Args:
            choices: Architectures, N of them; other labels in them are ignored.

        Raises:
            ValueError: A decision is missing or has a value that the space does not offer.
        """
        actions = torch.tensor([self._encode(one) for one in choices]).T  # (decisions, N)
        logs_taken: list[Tensor] = []
        entropies: list[Tensor] = []

        def follow(number: int, logits: Tensor) -> Tensor:
            logs, taken = self._squeeze(logits).log_softmax(-1), actions[number]
            logs_taken.append(logs.gather(1, taken[:, None])[:, 0])
            entropies.append(-(logs.exp() * logs).sum(-1))
            return taken

        self._network(len(choices), follow)
        return Score(torch.stack(logs_taken).sum(0), torch.stack(entropies).sum(0))

    def update(self, batch: Sequence[tuple[Choices, float]]) -> None:
        """One step of REINFORCE: raise the probability of what was better than the baseline.

        The baseline takes the new rewards in first; those of the first batch initialise it with their mean.

        Args:
            batch: Architectures and their rewards, such as validation mIoU 0..1.

        Raises:
            ValueError: The batch is empty, a reward is not finite, or an architecture is of another space.
        """
        rewards = [float(reward) for _, reward in batch]
        if not rewards or not all(math.isfinite(reward) for reward in rewards):
            raise ValueError(f"an update needs finite rewards, got {rewards}")
        score = self.score([choices for choices, _ in batch])
        mean = sum(rewards) / len(rewards)
        kept = 0.0 if self.baseline is None else self._decay ** len(rewards)
        self.baseline = kept * (self.baseline or 0.0) + (1.0 - kept) * mean
        advantage = torch.tensor(rewards) - self.baseline
        loss = -(advantage * score.log_prob + self._entropy * score.entropy).mean()
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def state(self) -> dict[str, Any]:
        """Everything that a controller made with the same arguments needs to go on as this one would.

        Returns:
            A tree of tensors and plain values for :func:`autoseg.statefile.save_tree`.
        """
        return {
            "decisions": [[label, len(values)] for label, values in zip(self.labels, self._values, strict=True)],
            "weights": dict(self._network.state_dict()),
            "optimiser": self._optimiser.state_dict(),
            "random": self._random.get_state(),
            "baseline": self.baseline,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned.

        Raises:
            ValueError: It belongs to other decisions or to another order of them.
        """
        own = [[label, len(values)] for label, values in zip(self.labels, self._values, strict=True)]
        if state["decisions"] != own:
            raise ValueError("the state of the controller belongs to other decisions or to another order of them")
        self._network.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._random.set_state(state["random"])
        self.baseline = state["baseline"]

    def _roll(self, greedy: bool) -> tuple[list[int], list[Tensor]]:
        """Take all decisions: index of the value and distribution of each."""
        actions: list[int] = []
        rows: list[Tensor] = []

        def decide(number: int, logits: Tensor) -> Tensor:
            row = self._squeeze(logits).softmax(-1)
            chosen = row.argmax(-1) if greedy else torch.multinomial(row, 1, generator=self._random)[:, 0]
            rows.append(row[0])
            actions.append(int(chosen))
            return chosen

        self._network(1, decide)
        return actions, rows

    def _squeeze(self, logits: Tensor) -> Tensor:
        logits = logits / self._temperature
        return logits if self._tanh is None else self._tanh * torch.tanh(logits)

    def _encode(self, choices: Choices) -> list[int]:
        unknown = [
            label
            for label, values in zip(self.labels, self._values, strict=True)
            if label not in choices or choices[label] not in values
        ]
        if unknown:
            raise ValueError(f"these decisions are missing or have a value of another space: {', '.join(unknown)}")
        return [values.index(choices[label]) for label, values in zip(self.labels, self._values, strict=True)]

    def _decode(self, actions: Sequence[int]) -> Choices:
        return {label: values[a] for label, values, a in zip(self.labels, self._values, actions, strict=True)}
