"""Forward and backward passes over batches of several slots, on one bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bestiary.model.attention import choose_attention
from bestiary.model.base import Base
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import (
    Rows,
    Segment,
    count_filled,
    embed,
    even_out,
    pack_batch,
    run_layers,
    supervised_loss,
)
from bestiary.model.routing import TokenRouting
from bestiary.training.inputs import Inputs, Part, lay_out
from bestiary.training.job import Batch
from bestiary.training.repeated_passes import RepeatedPasses
from bestiary.training.schedule import split_step
from bestiary.training.slot import Slot


def weigh_losses(
    base: Base,
    bank: LoraBank,
    inputs: Inputs,
    *,
    first: int = 0,
    layers: range,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """The sum of a batch's weighted cross-entropies, and each one, by row and part.

    Slot `first` of the bank computes the first part, and each later slot the next one. Nothing is
    read on the CPU, so that a GPU can record it.
    """
    packed, states = inputs.packed, inputs.entering
    bank.route = TokenRouting(first, packed.sizes, base.device)
    if not states.is_floating_point():
        with torch.no_grad():  # nothing below the first computed layer is trained
            states = run_layers(base, embed(base, states), packed, range(layers.start))
    states = run_layers(base, states, packed, layers, recompute=recompute)
    predicting = states.index_select(0, inputs.predictors)
    total, losses = supervised_loss(base, predicting, inputs.targets, inputs.weights)
    return total, losses * inputs.weights


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


class Passes:
    """Passes through the base with the bank attached.

    `recompute` has layers keep only their inputs for the backward pass. A batch of up to `evened`
    tokens is filled up to one of few shapes, each of which a GPU records once.
    """

    def __init__(self, base: Base, bank: LoraBank, *, recompute: bool, evened: int) -> None:
        self.base, self.bank = base, bank
        self._recompute, self._evened = recompute, evened
        self._repeated = RepeatedPasses(base.device)

    def count_tokens(self, slot: Slot) -> int:
        """Tokens of a slot's step in a batch, once it is filled up."""
        return count_filled(slot.tokens) if self._evened else slot.tokens

    def forget(self) -> None:
        """Free the memory of recorded passes."""
        self._repeated.forget()

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
        first, parts = batch[0].index, [rows.part for rows in batch]
        weights = [rows.slot.weights[row] for rows in batch for row in rows.rows]
        evened = even_out([part.segment for part in parts])
        if sum(segment.tokens for segment in evened) <= self._evened:
            inputs = self._lay_out(parts, weights, evened)
            weighted = self._repeated(first, inputs, self._differentiate)
        else:
            inputs = self._lay_out(parts, weights)
            weighted = self._differentiate(first, inputs)
        counts = [sum(part.targets) for part in parts]
        losses = [part.sum() for part in weighted[: sum(counts)].split(counts)]
        geometry = tuple((own.prefix, *own.lengths) for own in inputs.packed.segments)
        for index, (rows, loss) in enumerate(zip(batch, torch.stack(losses).tolist(), strict=True)):
            rows.slot.computed.append(
                Batch(rows.slot.step, tuple(rows.rows), geometry, index, loss)
            )

    def _differentiate(self, first: int, inputs: Inputs) -> Tensor:
        """Add a batch's gradients to the bank's; its weighted losses, [S]."""
        total, weighted = self._weigh(first, inputs)
        total.backward()
        return weighted

    @torch.no_grad()
    def score(self, index: int, slot: Slot, rows: Sequence[int]) -> list[float]:
        """Log-probability of each row's supervised tokens, summed, in the order of `rows`."""
        scores: dict[int, float] = {}
        for chosen in slot.divide(rows):
            part = SlotRows(index, slot, chosen).part
            _, losses = self._weigh(index, self._lay_out([part], [1.0] * len(chosen)))
            sums = [own.sum() for own in losses.split(part.targets)]
            scores |= zip(chosen, (-torch.stack(sums)).tolist(), strict=True)
        return [scores[row] for row in rows]

    def _lay_out(
        self,
        parts: Sequence[Part],
        weights: Sequence[float],
        evened: Sequence[Segment] | None = None,
    ) -> Inputs:
        return lay_out(self.base, parts, weights, precision=self.bank.dtype, evened=evened)

    def _weigh(self, first: int, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return weigh_losses(
            self.base,
            self.bank,
            inputs,
            first=first,
            layers=self.layers,
            recompute=self._recompute,
        )
