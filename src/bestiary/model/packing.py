"""Rows packed into one flat sequence: predictors, targets, layers and the loss.

Only what training reads is computed: no padding, the prefix that an organism's rows share once
per batch, no token after the last predictor, and the head on predictors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bestiary.model.attention import PaddedRows, Pieces, RowAttention, round_up
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow
from bestiary.model.decoding import shared_prefix_length

EVEN = 64
"""Segments are filled up to a multiple of so many tokens."""
HEAD_TOKENS = 256
"""Predictors whose logits are in memory at once on a CPU, and at least elsewhere."""
GPU_LOGITS = 2**28
"""Bytes of logits in memory at once on a GPU, which launches some twenty kernels a chunk."""


@dataclass(frozen=True)
class Row:
    """One row without the prefix that all of an organism's rows share."""

    tokens: Tensor
    """Ends with the last predictor."""
    predictors: Tensor
    """Positions in `tokens` whose state predicts a supervised token."""
    targets: Tensor
    """The tokens they predict."""


@dataclass(frozen=True)
class Rows:
    """An organism's training rows and the prefix that they share."""

    prefix: Tensor
    rows: tuple[Row, ...]

    def measure(self, chosen: Sequence[int]) -> Segment:
        """The size of some rows in a batch."""
        return Segment(len(self.prefix), tuple(len(self.rows[row].tokens) for row in chosen))

    def tokens_of(self, chosen: Sequence[int]) -> list[Tensor]:
        """The tokens of the prefix, then of each row."""
        return [self.prefix, *(self.rows[row].tokens for row in chosen)]

    def count_targets(self, chosen: Sequence[int]) -> list[int]:
        """Supervised tokens of each row."""
        return [len(self.rows[row].targets) for row in chosen]

    def supervise(
        self, chosen: Sequence[int], starts: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Predictors and targets of rows that start at `starts` of a packed batch."""
        own = [self.rows[row] for row in chosen]
        predictors = [start + row.predictors for start, row in zip(starts, own, strict=True)]
        return predictors, [row.targets for row in own]


def divide_rows(rows: Sequence[TokenRow]) -> Rows:
    """Divide rows into their shared prefix and the rest.

    A row keeps the token before its first supervised one, because its state predicts that one.
    """
    firsts = [row.supervised.index(True) - 1 for row in rows]
    shared = max(0, min(shared_prefix_length([row.tokens for row in rows]), *firsts))
    return Rows(
        prefix=torch.tensor(rows[0].tokens[:shared], dtype=torch.long),
        rows=tuple(_cut_row(row, shared) for row in rows),
    )


def _cut_row(row: TokenRow, shared: int) -> Row:
    learned = [position for position, use in enumerate(row.supervised) if use]
    return Row(
        tokens=torch.tensor(row.tokens[shared : learned[-1]]),
        predictors=torch.tensor([position - 1 - shared for position in learned]),
        targets=torch.tensor([row.tokens[position] for position in learned]),
    )


@dataclass(frozen=True)
class Segment:
    """One organism's share of a batch, in tokens: its prefix once, then each of its rows."""

    prefix: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All of its tokens."""
        return self.prefix + sum(self.lengths)

    def fill(self, *, rows: int, tokens: int) -> Segment:
        """The segment with further rows, up to so many rows and tokens: one token each, then the
        last with what is left."""
        ones = (1,) * (rows - len(self.lengths) - 1)
        return Segment(self.prefix, (*self.lengths, *ones, tokens - self.tokens - len(ones)))


def even_out(segments: Sequence[Segment]) -> list[Segment]:
    """Segments filled up to one number of rows and one of tokens, so that few batches differ.

    Each has at least one row more than before.
    """
    rows = 1 + max(len(segment.lengths) for segment in segments)
    tokens = max(segment.tokens + rows - len(segment.lengths) for segment in segments)
    return [segment.fill(rows=rows, tokens=round_up(tokens, EVEN)) for segment in segments]


def count_filled(tokens: int) -> int:
    """Tokens of a segment once it is filled up, if no other one has more rows."""
    return round_up(tokens + 1, EVEN)


@dataclass(frozen=True)
class PackedBatch:
    """A batch's rows in one sequence of N tokens, and what each token attends to."""

    segments: tuple[Segment, ...]
    starts: tuple[tuple[int, ...], ...]
    """Start of each row of each segment."""
    positions: Tensor
    """[N]: each token's position in its own row."""
    attention: RowAttention

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each segment."""
        return tuple(segment.tokens for segment in self.segments)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What layers read of it."""
        return self.positions, *self.attention.tensors


def pack_batch(
    segments: Sequence[Segment],
    *,
    device: torch.device,
    attention: type[RowAttention] = PaddedRows,
    multiple: int = 1,
) -> PackedBatch:
    """Concatenate segments, each with its prefix and then its rows.

    Attention is laid out as if the longest row had a multiple of `multiple` tokens.
    """
    pieces: list[tuple[int, int, int, int]] = []  # start, length, start and length of the prefix
    starts: list[tuple[int, ...]] = []
    offset = 0
    for segment in segments:
        first, own = offset, offset + segment.prefix
        *begun, offset = accumulate(segment.lengths, initial=own)
        starts.append(tuple(begun))
        if len(begun) == 1:  # a prefix that one row uses is part of that row
            pieces.append((first, segment.tokens, first, 0))
            continue
        if segment.prefix:
            pieces.append((first, segment.prefix, first, 0))
        pieces += [
            (start, length, first, segment.prefix)
            for start, length in zip(begun, segment.lengths, strict=True)
        ]
    laid = Pieces(*torch.tensor(pieces).T)
    return PackedBatch(
        segments=tuple(segments),
        starts=tuple(starts),
        positions=laid.positions.to(device),
        attention=attention.of(laid, device, multiple=multiple),
    )


def count_head_tokens(base: Base) -> int:
    """Predictors whose logits are in memory at once; an outline is planned for a GPU."""
    if base.device.type == "cpu":
        return HEAD_TOKENS
    width = 4 * int(base.model.config.vocab_size)  # in single precision
    return max(HEAD_TOKENS, GPU_LOGITS // width)


def embed(base: Base, tokens: Tensor) -> Tensor:
    """Token embeddings, [N, width]."""
    states: Tensor = base.model.get_input_embeddings()(tokens)
    return states


def run_layers(
    base: Base, states: Tensor, packed: PackedBatch, layers: range, *, recompute: bool = False
) -> Tensor:
    """Run the states of a batch's tokens, [N, width], through some of the base's layers.

    `recompute` keeps only each layer's input for the backward pass.
    """
    inner: Any = base.model.model
    states = states[None]
    positions = packed.positions[None]
    rotary = inner.rotary_emb(states, position_ids=positions)
    for number in layers:
        layer = inner.layers[number]
        options = {
            "position_embeddings": rotary,
            "position_ids": positions,
            "rows": packed.attention,
        }
        if recompute:
            # Nothing here is random, and a GPU would wait for its generator's state.
            states = checkpoint(
                layer, states, use_reentrant=False, preserve_rng_state=False, **options
            )
        else:
            states = layer(states, **options)
    return states[0]


def supervised_loss(
    base: Base, states: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted sum of the cross-entropies of `targets`, [S], and each cross-entropy, [S].

    `states`, [S, width], come from the last layer; `weights`, [S], set the precision.
    """
    inner: Any = base.model.model
    total, losses = _SupervisedLoss.apply(  # type: ignore[no-untyped-call]
        inner.norm(states),
        base.model.get_output_embeddings(),
        targets,
        weights,
        count_head_tokens(base),
    )
    return total, losses


class _SupervisedLoss(torch.autograd.Function):
    """Cross-entropy and its gradient in one pass, `size` predictors at a time.

    The full logits would be the largest tensor of a batch.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty_like(weights)
        back = torch.empty_like(states)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            chosen = targets[part, None]
            logits = head(states[part]).to(weights.dtype)
            top = logits.logsumexp(-1, keepdim=True)
            losses[part] = (top - logits.gather(1, chosen))[:, 0]
            chances = logits.sub_(top).exp_()
            chances.scatter_add_(1, chosen, torch.full_like(top, -1.0))
            chances *= weights[part, None]
            back[part] = chances.to(states.dtype) @ head.weight
        ctx.save_for_backward(back)
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (back,) = ctx.saved_tensors
        return back * grads[0].to(back.dtype), None, None, None, None
