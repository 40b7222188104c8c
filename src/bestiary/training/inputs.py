"""What a pass reads of a batch: the rows of several adapters, laid out on the base's device."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import pad

from bestiary.model.attention import choose_attention, round_up
from bestiary.model.base import Base
from bestiary.model.packing import EVEN, PackedBatch, Rows, Segment, pack_batch

SUPERVISED_PARTS = 8
"""Of a batch: what is supervised is filled up to a number of these."""


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

    def fill(self, tokens: int) -> Iterator[Tensor]:
        """The inputs, with others behind them up to so many tokens."""
        yield from self.inputs
        like = self.inputs[0]
        yield like.new_zeros(tokens - self.segment.tokens, *like.shape[1:])


@dataclass(frozen=True)
class Inputs:
    """What a pass over a batch reads, on the base's device."""

    packed: PackedBatch
    entering: Tensor
    """[N] tokens, or [N, width] states that enter the first computed layer."""
    predictors: Tensor
    """[S]: places in the batch whose states predict a supervised token."""
    targets: Tensor
    """[S]: the tokens they predict."""
    weights: Tensor
    """[S]: the weight of each one's cross-entropy; 0 of those that only fill the batch."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that differs between batches of one shape."""
        own = (self.entering, self.predictors, self.targets, self.weights)
        return *own, *self.packed.tensors

    @property
    def shape(self) -> Hashable:
        """Passes over batches of one shape are the same operations."""
        sizes = tuple(tensor.shape for tensor in self.tensors)
        return self.packed.sizes, self.packed.attention.longest, sizes

    def take(self, other: Inputs) -> None:
        """Become another batch of the same shape, in place."""
        for own, new in zip(self.tensors, other.tensors, strict=True):
            own.copy_(new)


def lay_out(
    base: Base,
    parts: Sequence[Part],
    weights: Sequence[float],
    *,
    precision: torch.dtype,
    evened: Sequence[Segment] | None = None,
) -> Inputs:
    """Concatenate the parts of a batch; `weights` has a number per row, in `precision`.

    The parts are filled up to `evened`, and what is supervised to an eighth of the batch, so that
    few batches differ in shape. What fills has no weight, and no other row attends to it.
    """
    device = base.device
    packed = pack_batch(
        evened or [part.segment for part in parts],
        device=device,
        attention=choose_attention(base),
        multiple=EVEN if evened else 1,
    )
    supervised = [
        part.rows.supervise(part.chosen, starts[: len(part.chosen)])
        for part, starts in zip(parts, packed.starts, strict=True)
    ]
    predictors, targets = (torch.cat(list(chain(*side))) for side in zip(*supervised, strict=True))
    counts = torch.tensor([count for part in parts for count in part.targets])
    spread = torch.tensor(weights, dtype=precision).repeat_interleave(counts)
    entering = zip(parts, packed.sizes, strict=True)
    multiple = max(1, sum(packed.sizes) // SUPERVISED_PARTS) if evened else 1
    missing = round_up(len(targets), multiple) - len(targets)
    return Inputs(
        packed,
        torch.cat([tensor for part, size in entering for tensor in part.fill(size)]).to(device),
        *(pad(tensor, (0, missing)).to(device) for tensor in (predictors, targets, spread)),
    )
