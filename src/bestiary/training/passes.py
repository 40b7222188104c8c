"""Forward and backward passes over batches of several slots, on one bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank, TokenRouting
from bestiary.model.packing import (
    PackedBatch,
    Rows,
    Segment,
    embed,
    pack_batch,
    run_layers,
    supervised_loss,
)
from bestiary.training.job import Batch
from bestiary.training.schedule import split_step
from bestiary.training.slot import Slot


@dataclass(frozen=True)
class SlotRows:
    """Rows of one slot in a batch."""

    index: int
    """The slot's index in the bank."""
    slot: Slot
    rows: Sequence[int]


@dataclass(frozen=True)
class Passes:
    """Passes through the base with the bank attached."""

    base: Base
    bank: LoraBank
    recompute: bool
    """Whether layers keep only their inputs for the backward pass."""

    @property
    def layers(self) -> range:
        """The layers from the first adapted one up."""
        return range(self.bank.first_layer, self.base.model.config.num_hidden_layers)

    @torch.no_grad()
    def lower_states(self, rows: Rows, *, budget: int) -> list[Tensor]:
        """States of the prefix and of each row at the first adapted layer, [tokens, width] each."""
        lengths = [len(row.tokens) for row in rows.rows]
        states = [torch.empty(0)] * (1 + len(lengths))
        for chosen in split_step(range(len(lengths)), lengths, budget=budget):
            segment = Segment(len(rows.prefix), tuple(lengths[row] for row in chosen))
            packed = pack_batch([segment], device=self.base.device)
            tokens = torch.cat([rows.prefix, *(rows.rows[row].tokens for row in chosen)])
            found = embed(self.base, tokens.to(self.base.device))
            below = range(self.bank.first_layer)
            cut = run_layers(self.base, found, packed, below).split(
                (segment.prefix, *segment.lengths)
            )
            states[0] = cut[0]
            for row, own in zip(chosen, cut[1:], strict=True):
                states[1 + row] = own
        return states

    def learn(self, batch: Sequence[SlotRows]) -> None:
        """Add a batch's gradients to the bank's, and record the batch in its slots."""
        segments = [part.slot.measure(part.rows) for part in batch]
        weights = [part.slot.weights[row] for part in batch for row in part.rows]
        total, weighted = self._weighted_losses(batch, segments, weights)
        total.backward()
        counts = [sum(_count_targets(part)) for part in batch]
        losses = torch.stack([part.sum() for part in weighted.split(counts)]).tolist()
        geometry = tuple((segment.prefix, *segment.lengths) for segment in segments)
        for index, (part, loss) in enumerate(zip(batch, losses, strict=True)):
            part.slot.computed.append(
                Batch(part.slot.step, tuple(part.rows), geometry, index, loss)
            )

    @torch.no_grad()
    def score(self, index: int, slot: Slot, rows: Sequence[int]) -> list[float]:
        """Log-probability of each row's supervised tokens, summed, in the order of `rows`."""
        scores: dict[int, float] = {}
        for chosen in slot.divide(rows):
            part = SlotRows(index, slot, chosen)
            ones = [1.0] * len(chosen)
            _, losses = self._weighted_losses([part], [slot.measure(chosen)], ones)
            sums = [own.sum() for own in losses.split(_count_targets(part))]
            scores |= zip(chosen, (-torch.stack(sums)).tolist(), strict=True)
        return [scores[row] for row in rows]

    def _weighted_losses(
        self, batch: Sequence[SlotRows], segments: Sequence[Segment], weights: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """The sum of all weighted cross-entropies, and each one, by row and slot.

        `weights` has one number per row, for each of its supervised tokens.
        """
        device = self.base.device
        packed = pack_batch(segments, device=device)
        self.bank.route = TokenRouting(batch[0].index, packed.sizes, device)
        supervised = [
            part.slot.supervise(part.rows, starts)
            for part, starts in zip(batch, packed.starts, strict=True)
        ]
        predictors, targets = (
            torch.cat(list(chain(*side))).to(device) for side in zip(*supervised, strict=True)
        )
        counts = torch.tensor([count for part in batch for count in _count_targets(part)])
        spread = torch.tensor(weights, dtype=self.bank.dtype).repeat_interleave(counts).to(device)
        states = self._last_states(batch, packed).index_select(0, predictors)
        total, losses = supervised_loss(self.base, states, targets, spread)
        return total, losses * spread

    def _last_states(self, batch: Sequence[SlotRows], packed: PackedBatch) -> Tensor:
        inputs = chain(*(part.slot.inputs(part.rows) for part in batch))
        states = torch.cat(list(inputs)).to(self.base.device)
        if self.bank.first_layer == 0:
            states = embed(self.base, states)
        return run_layers(self.base, states, packed, self.layers, recompute=self.recompute)


def _count_targets(part: SlotRows) -> list[int]:
    return [len(part.slot.rows.rows[row].targets) for row in part.rows]
