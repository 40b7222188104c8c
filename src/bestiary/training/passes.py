"""Forward and backward passes over batches of several slots, on one bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from bestiary.model.attention import choose_attention
from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import (
    Rows,
    Segment,
    embed,
    pack_batch,
    run_layers,
    supervised_loss,
)
from bestiary.model.routing import TokenRouting
from bestiary.training.job import Batch
from bestiary.training.schedule import split_step
from bestiary.training.slot import Slot


@dataclass(frozen=True)
class Part:
    """Some of an adapter's rows in a batch."""

    rows: Rows
    chosen: Sequence[int]
    inputs: Sequence[Tensor]
    """The prefix's, then each row's: tokens, or states that enter the first computed layer."""

    @property
    def segment(self) -> Segment:
        """Its size."""
        return self.rows.measure(self.chosen)

    @property
    def targets(self) -> list[int]:
        """Supervised tokens of each row."""
        return self.rows.count_targets(self.chosen)


def weigh_losses(
    base: Base,
    bank: LoraBank,
    parts: Sequence[Part],
    weights: Sequence[float],
    *,
    first: int = 0,
    layers: range,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """The sum of a batch's weighted cross-entropies, and each one, by row and part.

    Slot `first` of the bank computes the first part, and each later slot the next one. `weights`
    has one number per row, for each of its supervised tokens.
    """
    device = base.device
    segments = [part.segment for part in parts]
    packed = pack_batch(segments, device=device, attention=choose_attention(base))
    bank.route = TokenRouting(first, packed.sizes, device)
    supervised = [
        part.rows.supervise(part.chosen, starts)
        for part, starts in zip(parts, packed.starts, strict=True)
    ]
    predictors, targets = (
        torch.cat(list(chain(*side))).to(device) for side in zip(*supervised, strict=True)
    )
    counts = torch.tensor([count for part in parts for count in part.targets])
    spread = torch.tensor(weights, dtype=bank.dtype).repeat_interleave(counts).to(device)
    states = torch.cat(list(chain(*(part.inputs for part in parts)))).to(device)
    if not states.is_floating_point():
        with torch.no_grad():  # nothing below the first computed layer is trained
            states = run_layers(base, embed(base, states), packed, range(layers.start))
    states = run_layers(base, states, packed, layers, recompute=recompute)
    total, losses = supervised_loss(base, states.index_select(0, predictors), targets, spread)
    return total, losses * spread


@dataclass(frozen=True)
class SlotRows:
    """Rows of one slot in a batch."""

    index: int
    """The slot's index in the bank."""
    slot: Slot
    rows: Sequence[int]

    @property
    def part(self) -> Part:
        """What is computed of them."""
        return Part(self.slot.rows, self.rows, self.slot.inputs(self.rows))


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
        device = self.base.device
        attention = choose_attention(self.base)
        lengths = [len(row.tokens) for row in rows.rows]
        states = [torch.empty(0)] * (1 + len(lengths))
        for chosen in split_step(range(len(lengths)), lengths, budget=budget):
            segment = Segment(len(rows.prefix), tuple(lengths[row] for row in chosen))
            packed = pack_batch([segment], device=device, attention=attention)
            tokens = torch.cat([rows.prefix, *(rows.rows[row].tokens for row in chosen)])
            found = embed(self.base, tokens.to(device))
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
        parts = [rows.part for rows in batch]
        weights = [rows.slot.weights[row] for rows in batch for row in rows.rows]
        total, weighted = self._weigh(batch[0].index, parts, weights)
        total.backward()
        counts = [sum(part.targets) for part in parts]
        losses = torch.stack([part.sum() for part in weighted.split(counts)]).tolist()
        geometry = tuple((part.segment.prefix, *part.segment.lengths) for part in parts)
        for index, (rows, loss) in enumerate(zip(batch, losses, strict=True)):
            rows.slot.computed.append(
                Batch(rows.slot.step, tuple(rows.rows), geometry, index, loss)
            )

    @torch.no_grad()
    def score(self, index: int, slot: Slot, rows: Sequence[int]) -> list[float]:
        """Log-probability of each row's supervised tokens, summed, in the order of `rows`."""
        scores: dict[int, float] = {}
        for chosen in slot.divide(rows):
            part = SlotRows(index, slot, chosen).part
            _, losses = self._weigh(index, [part], [1.0] * len(chosen))
            sums = [own.sum() for own in losses.split(part.targets)]
            scores |= zip(chosen, (-torch.stack(sums)).tolist(), strict=True)
        return [scores[row] for row in rows]

    def _weigh(
        self, first: int, parts: Sequence[Part], weights: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        return weigh_losses(
            self.base,
            self.bank,
            parts,
            weights,
            first=first,
            layers=self.layers,
            recompute=self.recompute,
        )
