"""Attention within the rows of one flat sequence, each of which may begin with a shared prefix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from bestiary.errors import ModelError
from bestiary.model.base import Base

ATTENTION = "bestiary_rows"
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose decoder layers are a plain stack after one rotary embedding."""
HALF = (torch.bfloat16, torch.float16)
FLASH_CAPABILITY = (8, 0)
"""The first CUDA devices for which torch has a kernel for rows of different lengths."""
WIDEST_HEAD = 256
"""The widest that this kernel takes; the width must be a multiple of 8, too."""
CAUSAL = (-1, 0)


@dataclass(frozen=True)
class Pieces:
    """R neighboring pieces of a sequence: each row, and each prefix that several rows share.

    A piece attends to its prefix, if it has one further left, and to itself. All are [R].
    """

    start: Tensor
    length: Tensor
    prefix: Tensor
    """Where its prefix starts."""
    shared: Tensor
    """Tokens of its prefix, or 0."""

    @property
    def positions(self) -> Tensor:
        """[N]: each token's position in its own row."""
        return count_up(self.length) + self.shared.repeat_interleave(self.length)


class RowAttention(Protocol):
    """What the tokens of a batch attend to, made from its pieces."""

    @classmethod
    def of(cls, pieces: Pieces, device: torch.device, *, multiple: int = 1) -> Self:
        """Lay the pieces out on a device, as if the longest had a multiple of so many tokens."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of; those of two batches have the same meaning if `longest` is equal."""

    @property
    def longest(self) -> tuple[int, int]:
        """The most tokens and the most keys that a piece can have."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of a sequence's states, [N, heads, width]; the result is [N, heads, width]."""


@dataclass(frozen=True)
class PaddedRows:
    """Pieces padded to the longest, for any device and precision.

    A piece has up to Q tokens and attends to up to K.
    """

    queries: Tensor
    """[R, Q]: the tokens of each piece, padded with its last one."""
    keys: Tensor
    """[R, K]: the tokens that each piece attends to."""
    visible: Tensor
    """[R, 1, Q, K]: which of these each token attends to."""
    answers: Tensor
    """[N]: index of each token among the R x Q queries."""

    @classmethod
    def of(cls, pieces: Pieces, device: torch.device, *, multiple: int = 1) -> Self:
        """Lay the pieces out on a device, as if the longest had a multiple of so many tokens."""
        start, length, prefix, shared = (
            column[:, None]
            for column in (pieces.start, pieces.length, pieces.prefix, pieces.shared)
        )
        query = torch.arange(round_up(int(length.max()), multiple))
        key = torch.arange(round_up(int((length + shared).max()), multiple))
        inside = query < length
        query = query.minimum(length - 1)
        keys = torch.where(key < shared, prefix + key, start + (key - shared).minimum(length - 1))
        return cls(
            queries=(start + query).to(device),
            keys=keys.to(device),
            visible=(key <= (shared + query)[..., None])[:, None].to(device),
            answers=inside.flatten().nonzero()[:, 0].to(device),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.queries, self.keys, self.visible, self.answers

    @property
    def longest(self) -> tuple[int, int]:
        """The most tokens and the most keys that a piece can have."""
        return self.queries.shape[1], self.keys.shape[1]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of a sequence's states, [N, heads, width]; the result is [N, heads, width]."""
        cut = [
            states.index_select(0, tokens.flatten()).unflatten(0, tokens.shape)
            for states, tokens in ((query, self.queries), (key, self.keys), (value, self.keys))
        ]
        q, k, v = (states.transpose(1, 2) for states in cut)
        grouped = q.shape[1] != k.shape[1]
        if grouped and q.device.type == "cuda":  # its kernels take no mask with grouped heads
            k, v = (heads.repeat_interleave(q.shape[1] // k.shape[1], 1) for heads in (k, v))
            grouped = False
        if q.device.type == "cpu":  # its kernel takes twice as long in half precision
            q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=self.visible, scale=scaling, enable_gqa=grouped
        )
        flat = out.to(query.dtype).transpose(1, 2).flatten(0, 1)
        return flat.index_select(0, self.answers)


@dataclass(frozen=True)
class FlatRows:
    """Pieces without padding, for the kernel that takes rows of different lengths."""

    keys: Tensor
    """[K]: the tokens that each piece attends to, one piece after the other."""
    query_bounds: Tensor
    """[R + 1], int32: the start of each piece in the sequence, and the end of the last."""
    key_bounds: Tensor
    """[R + 1], int32: the start of each piece's keys, and the end of the last."""
    longest: tuple[int, int]
    """The most tokens and the most keys that a piece can have."""

    @classmethod
    def of(cls, pieces: Pieces, device: torch.device, *, multiple: int = 1) -> Self:
        """Lay the pieces out on a device, as if the longest had a multiple of so many tokens."""
        counts = pieces.shared + pieces.length
        key = count_up(counts)
        start, prefix, shared = (
            column.repeat_interleave(counts)
            for column in (pieces.start, pieces.prefix, pieces.shared)
        )
        return cls(
            keys=torch.where(key < shared, prefix + key, start + key - shared).to(device),
            query_bounds=_bound(pieces.length).to(device),
            key_bounds=_bound(counts).to(device),
            longest=(
                round_up(int(pieces.length.max()), multiple),
                round_up(int(counts.max()), multiple),
            ),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.keys, self.query_bounds, self.key_bounds

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Attention of a sequence's states, [N, heads, width]; the result is [N, heads, width].

        The kernel aligns a piece's last token with its last key, so that its first token attends
        to the whole prefix.
        """
        from torch.nn.attention.varlen import varlen_attn  # takes a second that CPUs can save

        out = varlen_attn(
            query,
            key.index_select(0, self.keys),
            value.index_select(0, self.keys),
            self.query_bounds,
            self.key_bounds,
            *self.longest,
            scale=scaling,
            window_size=CAUSAL,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(out, Tensor)
        return out


def choose_attention(base: Base) -> type[RowAttention]:
    """Without padding where a kernel can do it: on a GPU, in half precision, for usual heads.

    An outline, whose weights have no values, is planned for a GPU.
    """
    width = head_width(base.model.config)
    if base.model.dtype not in HALF or width % 8 or width > WIDEST_HEAD:
        return PaddedRows
    if base.device.type == "cuda":
        known = torch.cuda.get_device_capability(base.device) >= FLASH_CAPABILITY
        return FlatRows if known else PaddedRows
    return FlatRows if base.device.type == "meta" else PaddedRows


def head_width(config: Any) -> int:
    """Numbers in a query or a key of one head."""
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def round_up(count: int, multiple: int) -> int:
    """The first multiple from `count` up."""
    return -(-count // multiple) * multiple


def count_up(lengths: Tensor) -> Tensor:
    """From 0 to each length, one after the other: 0 1 2 0 1 for 3 and 2."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1])) - (ends - lengths).repeat_interleave(lengths)


def _bound(lengths: Tensor) -> Tensor:
    return torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).int()


def attend_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    rows: RowAttention,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each row, as transformers calls it: states are [1, heads, N, width]."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    return rows.attend(q, k, v, scaling).flatten(1)[None], None


AttentionInterface.register(ATTENTION, attend_rows)


def check_attention(base: Base, *, longest: int) -> None:
    """Raises ModelError if the engine would attend to a row of `longest` tokens unlike the base."""
    kind = base.model.config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{base.identity.name} is a {kind}; the engine supports {', '.join(ARCHITECTURES)}",
            "build with --trainer reference",
            code="architecture-unsupported",
            base=base.identity.name,
            architecture=kind,
        )
    window = getattr(base.model.config, "sliding_window", None)
    if window is not None and window < longest:
        raise ModelError(
            f"{base.identity.name} attends to a window of {window} tokens, and rows may have "
            f"{longest}: the engine does not support sliding windows",
            "lower max_length in the recipe, or build with --trainer reference",
            code="window-too-short",
            base=base.identity.name,
            window=window,
            longest=longest,
        )


@contextmanager
def attention_by_rows(base: Base, *, longest: int) -> Iterator[None]:
    """Inside the context, the base's layers attend as a batch's RowAttention says.

    Raises ModelError if the base's own attention to a row of `longest` tokens would differ.
    """
    check_attention(base, longest=longest)
    before = base.model.config._attn_implementation
    base.model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        base.model.config._attn_implementation = before
