"""Rows in one flat sequence: what each token sees, what each state is to predict, and the loss.

Nothing is computed that training does not read: no padding, the beginning that an organism's
rows share once a batch, no token after the last that is predicted from, and the head on
supervised places alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface

from bestiary.errors import ModelError
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow
from bestiary.model.decoding import share_beginning

ATTENTION = "bestiary_rows"
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose decoder layers are known to be a plain stack behind one rotary embedding."""
HEAD_TOKENS = 256
"""Supervised places whose logits are there at once."""


@dataclass(frozen=True)
class Row:
    """One row without the beginning that all of an organism's rows share."""

    tokens: Tensor
    """Up to the last token from which something is predicted."""
    places: Tensor
    """Places in `tokens` whose state predicts a supervised token."""
    targets: Tensor
    """These tokens."""


@dataclass(frozen=True)
class Rows:
    """An organism's training rows and the beginning that they share."""

    beginning: Tensor
    rows: tuple[Row, ...]


def divide_rows(rows: Sequence[TokenRow]) -> Rows:
    """Divide rows into what all begin with and what is their own.

    A row keeps the token before its first supervised one: its state predicts it.
    """
    firsts = [row.supervised.index(True) - 1 for row in rows]
    shared = max(0, min(share_beginning([row.tokens for row in rows]), *firsts))
    return Rows(
        beginning=torch.tensor(rows[0].tokens[:shared], dtype=torch.long),
        rows=tuple(_cut_row(row, shared) for row in rows),
    )


def _cut_row(row: TokenRow, shared: int) -> Row:
    learned = [place for place, use in enumerate(row.supervised) if use]
    return Row(
        tokens=torch.tensor(row.tokens[shared : learned[-1]]),
        places=torch.tensor([place - 1 - shared for place in learned]),
        targets=torch.tensor([row.tokens[place] for place in learned]),
    )


@dataclass(frozen=True)
class Part:
    """What a batch holds of one organism: its rows' lengths behind its beginning's."""

    beginning: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens without any padding."""
        return self.beginning + sum(self.lengths)


@dataclass(frozen=True)
class Layout:
    """Where the rows of a batch lie in one sequence of N tokens, and what each token sees.

    For attention the sequence is cut into R pieces: each row, and each beginning that several
    rows share. A piece has up to Q tokens, and sees up to K: its part's beginning and itself.
    """

    sizes: tuple[int, ...]
    """Tokens of each part."""
    starts: tuple[tuple[int, ...], ...]
    """Where each row of each part starts."""
    positions: Tensor
    """[N]: each token's place in its own row."""
    queries: Tensor
    """[R, Q]: the tokens of each piece; past its end its last one again."""
    keys: Tensor
    """[R, K]: the tokens that each piece sees."""
    visible: Tensor
    """[R, 1, Q, K]: which of these a token sees."""
    answers: Tensor
    """[N]: where each token's attention lies among the R x Q."""


def lay_out(parts: Sequence[Part], *, device: torch.device) -> Layout:
    """Lay parts one after the other, each with its beginning and then its rows."""
    pieces: list[tuple[int, int, int, int]] = []  # start, length, start and length of beginning
    starts: list[tuple[int, ...]] = []
    offset = 0
    for part in parts:
        first, own = offset, offset + part.beginning
        *begun, offset = accumulate(part.lengths, initial=own)
        starts.append(tuple(begun))
        if len(begun) == 1:  # a beginning that nobody else has is a row's own
            pieces.append((first, part.tokens, first, 0))
            continue
        if part.beginning:
            pieces.append((first, part.beginning, first, 0))
        pieces += [
            (start, length, first, part.beginning)
            for start, length in zip(begun, part.lengths, strict=True)
        ]
    start, length, before, shared = (column[:, None] for column in torch.tensor(pieces).T)
    query = torch.arange(int(length.max()))
    key = torch.arange(int((length + shared).max()))
    inside = query < length
    query = query.minimum(length - 1)
    queries = start + query
    answers, positions = torch.zeros(2, offset, dtype=torch.long)
    answers[queries[inside]] = torch.arange(queries.numel()).view_as(queries)[inside]
    positions[queries] = shared + query
    return Layout(
        sizes=tuple(part.tokens for part in parts),
        starts=tuple(starts),
        positions=positions.to(device),
        queries=queries.to(device),
        keys=torch.where(key < shared, before + key, start + (key - shared).minimum(length - 1)).to(
            device
        ),
        visible=(key <= (shared + query)[..., None])[:, None].to(device),
        answers=answers.to(device),
    )


def attend_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: Layout,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each row, in the form that transformers calls: [1, heads, N, width]."""
    pieces, length = rows.queries.shape
    cut = [
        states[0].transpose(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)
        for states, places in ((query, rows.queries), (key, rows.keys), (value, rows.keys))
    ]
    q, k, v = (states.transpose(1, 2) for states in cut)
    grouped = q.shape[1] != k.shape[1]
    if grouped and q.device.type == "cuda":  # whose fast kernels take no mask with grouped heads
        k, v = (heads.repeat_interleave(q.shape[1] // k.shape[1], 1) for heads in (k, v))
        grouped = False
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=rows.visible, scale=scaling, enable_gqa=grouped
    )
    flat = out.transpose(1, 2).reshape(pieces * length, -1)
    return flat.index_select(0, rows.answers)[None], None


AttentionInterface.register(ATTENTION, attend_rows)


@contextmanager
def attention_by_rows(base: Base, *, longest: int) -> Iterator[None]:
    """Within, the base's layers take their attention from a Layout.

    Raises ModelError where they would attend in another way to a row of `longest` tokens.
    """
    kind = base.model.config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{base.identity.name} is a {kind}, and the engine knows {', '.join(ARCHITECTURES)}; "
            "build with --trainer reference"
        )
    window = getattr(base.model.config, "sliding_window", None)
    if window is not None and window < longest:
        raise ModelError(
            f"{base.identity.name} sees {window} tokens back, and rows may have {longest}: the "
            "engine knows no such window; lower max_length in the recipe, or build with "
            "--trainer reference"
        )
    before = base.model.config._attn_implementation
    base.model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        base.model.config._attn_implementation = before


def embed(base: Base, tokens: Tensor) -> Tensor:
    """Token embeddings, [N, width]."""
    states: Tensor = base.model.get_input_embeddings()(tokens)
    return states


def run_layers(
    base: Base, states: Tensor, layout: Layout, layers: range, *, recompute: bool = False
) -> Tensor:
    """Send the states of a layout's tokens, [N, width], through some of the base's layers.

    `recompute` keeps no more of a layer than its input for the backward pass.
    """
    inner: Any = base.model.model
    states = states[None]
    positions = layout.positions[None]
    rotary = inner.rotary_emb(states, position_ids=positions)
    for number in layers:
        layer = inner.layers[number]
        options = {"position_embeddings": rotary, "position_ids": positions, "rows": layout}
        if recompute:
            states = checkpoint(layer, states, use_reentrant=False, **options)
        else:
            states = layer(states, **options)
    return states[0]


def supervised_loss(
    base: Base, states: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross-entropies of `targets`, and each one, from states [S, width].

    `states` come out of the last layer; `weights`, [S], in the precision that is computed in.
    """
    inner: Any = base.model.model
    total, losses = _SupervisedLoss.apply(  # type: ignore[no-untyped-call]
        inner.norm(states), base.model.get_output_embeddings(), targets, weights
    )
    return total, losses


class _SupervisedLoss(torch.autograd.Function):
    """Cross-entropy and its gradient in one pass, HEAD_TOKENS places at a time.

    The full logits of a batch would be its largest tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, head: nn.Linear, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty_like(weights)
        back = torch.empty_like(states)
        for start in range(0, len(targets), HEAD_TOKENS):
            part = slice(start, start + HEAD_TOKENS)
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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return back * grads[0].to(back.dtype), None, None, None
