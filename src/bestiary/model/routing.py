"""Which slot of a LoRA bank computes which tokens of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LONG = 96
"""Mean tokens per slot from which a CPU is faster with one product per slot."""


def pads_slots(device: torch.device) -> bool:
    """Whether slots are always padded to the longest, as on a GPU, which is bound by launches."""
    return device.type != "cpu"


@dataclass(frozen=True)
class TokenRouting:
    """The slot of every token of a batch: slots are in order, and each slot's tokens adjacent.

    Adapters see a batch as pieces of [slots, tokens, width]: one piece with all slots, padded
    with zeros to the longest, or one piece per slot if padding would cost more than that.
    """

    first: int
    """The first slot of the batch."""
    sizes: tuple[int, ...]
    """Tokens of this slot and of each one after it; may be 0."""
    device: torch.device

    @cached_property
    def even(self) -> bool:
        """Whether all slots have the same number of tokens."""
        return len(set(self.sizes)) == 1

    @cached_property
    def separate(self) -> bool:
        """Whether each slot is a piece."""
        long = sum(self.sizes) >= LONG * len(self.sizes)
        return not self.even and long and not pads_slots(self.device)

    @cached_property
    def _padded_positions(self) -> Tensor:
        """[tokens]: each token's index in the one piece of all slots."""
        sizes = torch.tensor(self.sizes)
        jumps = max(self.sizes) - sizes
        skipped = (jumps.cumsum(0) - jumps).repeat_interleave(sizes)
        return (torch.arange(len(skipped)) + skipped).to(self.device)

    def cut(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows of a bank, [slots, ...], piece by piece."""
        own = rows[self.first : self.first + len(self.sizes)]
        pieces: Sequence[Tensor] = own.split(1) if self.separate else (own,)
        return pieces

    def split(self, tokens: Tensor) -> Sequence[Tensor]:
        """Tokens, [tokens, width], piece by piece: views, unless slots are padded."""
        if self.separate:
            return [part[None] for part in tokens.split(self.sizes)]
        if not self.even:
            filled = tokens.new_zeros(len(self.sizes) * max(self.sizes), tokens.shape[1])
            tokens = filled.index_copy_(0, self._padded_positions, tokens)
        return [tokens.view(len(self.sizes), -1, tokens.shape[1])]

    def add_products_(
        self, out: Tensor, pieces: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> None:
        """Add each piece times its weights to `out`, [tokens, width]."""
        if not self.even and not self.separate:
            product = torch.bmm(pieces[0], weights[0]).flatten(0, 1)
            out.add_(product.index_select(0, self._padded_positions))
            return
        for own, piece, weight in zip(self.split(out), pieces, weights, strict=True):
            own.baddbmm_(piece, weight)
