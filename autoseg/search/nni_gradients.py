"""NNI's gradient-based engines (DARTS, GumbelDARTS, ProxylessNAS), with their defects cured.

What is wrong in NNI 3.0, and what is done here:

1. The parameters of the architecture optimiser come from an unordered set, so that its state cannot be
   stored: :meth:`GradientModule.arch_parameters` orders them.
2. ProxylessNAS exports a random draw: :class:`ProxylessLayer` and :class:`ProxylessInput` export the argmax.
3. In a weight step ProxylessNAS evaluates every path again in the backward pass, for a gradient that is
   thrown away: :meth:`GradientModule.training_step` says which step it is.
4. What GumbelDARTS reports as probabilities contains fresh Gumbel noise: :meth:`GradientModule.distribution`
   is the softmax of the learned numbers.
5. The temperature of GumbelDARTS needs a number of epochs: :class:`GumbelModule` takes the share of the
   search that is done, which a budget in seconds has too.
6. A gradient that is not finite would poison the architecture for good: such a step is left out.
7. The architecture's gradients pile up in the weight step, where they cost time and count in the clipping of
   the weights' gradients; and a warm-up whose length is not known before (a budget in seconds) never ends for
   them: :meth:`GradientModule.training_step` says when they are wanted.
"""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from nni.nas.oneshot.pytorch.supermodule.differentiable import (
    DifferentiableMixedInput,
    DifferentiableMixedLayer,
    GumbelSoftmax,
)
from nni.nas.oneshot.pytorch.supermodule.proxyless import (
    ProxylessMixedInput,
    ProxylessMixedLayer,
    ProxylessMixedRepeat,
    suppress_already_mutated,
)
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from torch import nn

from autoseg.search.health import Distribution, most_probable
from autoseg.spaces.base import Choices, plain
from autoseg.train.distributed import confirm


class GradientModule(DartsLightningModule):
    """NNI's DARTS module with the cures listed above; first order, architecture step before weight step.

    The arguments are those of NNI's ``DartsLightningModule`` and one more. Batches are ``{"train": ..., "val": ...}``.

    Args:
        arc_weight_decay: Weight decay of the architecture's Adam.

    Attributes:
        rewards: Validation mIoU of the mixture at the end of the epoch, 0..1; the caller empties it.
        complete: The state is complete after every step.
    """

    complete = True

    def __init__(self, *args: Any, arc_weight_decay: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arc_weight_decay = arc_weight_decay
        self.rewards: list[float] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """One architecture step on the validation batch (after the warm-up), one weight step on the other.

        Returns:
            The loss of the weight step.
        """
        if self.trainer.current_epoch >= self.warmup_epochs:
            optimiser: Any = self.architecture_optimizers()
            self._learn_architecture(True)
            self.resample()
            self.manual_backward(self.training_module.training_step(batch["val"], batch_idx))
            optimiser.step()
            optimiser.zero_grad()
        self._learn_architecture(False)
        self.resample()
        loss = self.training_module.training_step(batch["train"], batch_idx)
        self.advance_optimization(loss, batch_idx)
        if self.trainer.is_last_batch:
            self.rewards.append(float(self.training_module.validation_step(batch["val"], batch_idx)))
        return loss

    def resample(self) -> Any:
        """Draw the path of the next step, where one is drawn; all ranks draw the same."""
        sample = super().resample()
        confirm(self.training_module.compute, "the path", sorted(sample.items()))
        return sample

    def _learn_architecture(self, learn: bool) -> None:
        optimiser: Any = self.architecture_optimizers()
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(learn)
        for module in self.supernet_modules():
            if isinstance(module, ProxylessLayer | ProxylessInput):
                module.learning = learn

    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture's numbers, each once, in the order of the modules."""
        found = [p for m in self.supernet_modules() for p in getattr(m, "arch_parameters", tuple)()]
        return list(dict.fromkeys(found))

    def configure_architecture_optimizers(self) -> torch.optim.Optimizer:
        """Adam as published with DARTS; a step with a gradient that is not finite does nothing.

        Raises:
            ValueError: The space has nothing to decide.
        """
        optimiser: torch.optim.Optimizer = super().configure_architecture_optimizers()
        for group in optimiser.param_groups:
            group["weight_decay"] = self.arc_weight_decay
        optimiser.register_step_pre_hook(_drop_non_finite)
        return optimiser

    @torch.no_grad()
    def distribution(self) -> Distribution:
        """Softmax of the learned numbers: ``{label: {value: probability}}``."""
        found: dict[str, dict[Any, float]] = {}
        for module in self.supernet_modules():
            if isinstance(module, DifferentiableMixedLayer):
                names: list[Any] = list(module.names)
            elif isinstance(module, DifferentiableMixedInput):
                names = list(range(module.n_candidates))
            else:
                continue
            shares = module._arch_alpha.softmax(-1).tolist()
            found["".join(module.label)] = dict(zip(names, shares, strict=True))
        return found

    def draw(self, greedy: bool = False) -> Choices:
        """A path: every decision drawn from its softmax, or the most probable value of each."""
        shares = self.distribution()
        if greedy:
            chosen = most_probable(shares)
        else:
            chosen = {
                label: list(row)[int(torch.multinomial(torch.tensor(list(row.values())), 1))]
                for label, row in shares.items()
            }
        return plain({label: [value] if isinstance(value, int) else value for label, value in chosen.items()})

    def export(self) -> Choices:
        """The most probable value of every decision."""
        return self.draw(greedy=True)

    def search_state(self) -> Any:
        """The architecture's optimiser; its numbers are among the weights of the supernet."""
        optimiser: Any = self.architecture_optimizers()
        return optimiser.optimizer.state_dict()

    def load_search_state(self, state: Any) -> None:
        """Restore what :meth:`search_state` returned; without a trainer there is no optimiser to restore."""
        if self._trainer is not None:
            optimiser: Any = self.architecture_optimizers()
            optimiser.optimizer.load_state_dict(state)


def _drop_non_finite(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Take all gradients away when one of them is not finite; parameters without gradient are left alone."""
    parameters = [p for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    if not all(bool(torch.isfinite(p.grad).all()) for p in parameters if p.grad is not None):
        for parameter in parameters:
            parameter.grad = None


class GumbelModule(GradientModule):
    """Mixes by Gumbel-softmax with a temperature that falls from ``init`` to ``final`` over the search."""

    def __init__(self, *args: Any, temperature: tuple[float, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def on_train_epoch_start(self) -> None:
        """Set the temperature of this epoch."""
        init, final = self.temperature
        done = self.training_module.clock.fraction(self.trainer.current_epoch, 0, 1)
        for module in self.modules():
            if isinstance(module, GumbelSoftmax):
                module.tau = init + (final - init) * done
        super().on_train_epoch_start()


class ProxylessLayer(ProxylessMixedLayer):
    """One sampled operation per step; the others are evaluated for the architecture's gradient only."""

    learning = True
    export = DifferentiableMixedLayer.export

    def forward(self, *args: Any) -> Any:
        """The sampled operation; in a weight step nothing else."""
        return super().forward(*args) if self.learning else self.forward_path(self._sample_idx, *args)


class ProxylessInput(ProxylessMixedInput):
    """One sampled input per step."""

    learning = True
    export = DifferentiableMixedInput.export

    def forward(self, inputs: Any) -> Any:
        """The sampled input."""
        return super().forward(inputs) if self.learning else inputs[self._sampled[0]]  # type: ignore[index]


class _Cured(DARTS):
    """What the three strategies share: our module, and how it learns the architecture.

    The arguments are those of NNI's strategy and one more.

    Args:
        arc_weight_decay: Weight decay of the architecture's Adam.
    """

    def __init__(self, *, arc_weight_decay: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.arc_weight_decay = arc_weight_decay

    def _arguments(self) -> dict[str, Any]:
        return {
            "arc_learning_rate": self.arc_learning_rate,
            "arc_weight_decay": self.arc_weight_decay,
            "warmup_epochs": self.warmup_epochs,
            "log_prob_every_n_step": 1 << 30,
        }

    def configure_oneshot_module(self, training_module: Any) -> GradientModule:
        """Our module in place of NNI's."""
        return GradientModule(training_module, **self._arguments())


class CuredDarts(_Cured):
    """NNI's DARTS with :class:`GradientModule`."""


class CuredGumbelDarts(_Cured, GumbelDARTS):
    """NNI's GumbelDARTS with :class:`GumbelModule`."""

    def configure_oneshot_module(self, training_module: Any) -> GradientModule:
        """Our module in place of NNI's."""
        return GumbelModule(training_module, temperature=self.temperature, **self._arguments())


class CuredProxyless(_Cured, Proxyless):
    """NNI's ProxylessNAS with layers that export what they learned."""

    def default_mutation_hooks(self) -> list[Any]:
        """Our layers in place of NNI's."""
        hooks = [suppress_already_mutated, ProxylessLayer.mutate, ProxylessInput.mutate, ProxylessMixedRepeat.mutate]
        return [*hooks, super().default_mutation_hooks()[-1]]


def freeze_affine(space: ModelSpace) -> None:
    """Fix the scales and shifts of normalisation inside the operations, as DARTS does while it searches.

    A learned scale could make up for a small architecture weight, so that the weights would not compare.

    Args:
        space: A supernet whose layer choices have been made into mixtures; changed in place.
    """
    for layer in space.modules():
        if isinstance(layer, DifferentiableMixedLayer):
            for module in layer.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    for parameter in module.parameters(recurse=False):
                        parameter.requires_grad_(False)
