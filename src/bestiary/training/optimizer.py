"""AdamW over a bank: each slot has its own step, learning rate, weight decay and clipping."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bestiary.config.recipe import Optimizer
from bestiary.model.lora_bank import LoraBank
from bestiary.training.schedule import learning_rate_factor

BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""torch's defaults, which the reference trainer uses."""
CLIP_EPSILON = 1e-6
"""torch adds this to a norm before dividing by it."""


class BankAdamW:
    """The moments of every slot, [slots, size], and the update of their weights."""

    def __init__(self, bank: LoraBank) -> None:
        self._bank = bank
        self.first = torch.zeros_like(bank.weights)
        self.second = torch.zeros_like(bank.weights)

    def clear(self, slot: int) -> None:
        """Reset the moments of a slot."""
        self.first[slot].zero_()
        self.second[slot].zero_()

    def move(self, source: int, target: int) -> None:
        """Copy a slot's moments to another slot."""
        self.first[target] = self.first[source]
        self.second[target] = self.second[source]

    def norms(self, slots: slice) -> Tensor:
        """Each slot's gradient norm over all its layers."""
        assert self._bank.gradients is not None
        norms: Tensor = self._bank.gradients[slots].norm(dim=1)
        return norms

    def step(
        self,
        slots: slice,
        settings: Sequence[Optimizer],
        *,
        steps: Sequence[int],
        ends: Sequence[int],
        norms: Tensor,
    ) -> None:
        """Update neighboring slots; `steps` are those each has finished, `ends` those it takes.

        `norms` are the slots' gradient norms. The gradients are zero afterwards.
        """
        assert self._bank.gradients is not None
        grads, weights = self._bank.gradients[slots], self._bank.weights[slots]
        first, second = self.first[slots], self.second[slots]

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)[:, None]

        rate = column(
            [
                s.learning_rate * learning_rate_factor(step, end, s.warmup)
                for s, step, end in zip(settings, steps, ends, strict=True)
            ]
        )
        decay = 1 - rate * column([s.weight_decay for s in settings])
        count = column(steps) + 1
        columns = (
            column([s.clip for s in settings]),
            decay,
            (1 - BETAS[1] ** count).sqrt(),
            rate / (1 - BETAS[0] ** count),
        )
        # In one copy, because the CPU waits until a GPU has taken it.
        clip, decay, correction, size = torch.cat(columns, 1).to(weights.device).split(1, 1)
        grads *= (clip / (norms[:, None] + CLIP_EPSILON)).clamp(max=1.0).to(grads)
        weights *= decay.to(weights)
        first.lerp_(grads, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(grads, grads, value=1 - BETAS[1])
        root = second.sqrt().div_(correction.to(weights)).add_(EPSILON)
        weights.sub_(first.div(root).mul_(size.to(weights)))
        grads.zero_()
        self._bank.refresh(slots)
