"""Attention within the rows of a sequence: each row is computed as if alone.

Run: python -m pytest tests/model/test_attention.py
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.expect import expect_error
from tests.jobs import (
    change_lora,
    make_job,
    make_talk,
    make_token_rows,
    make_word_base,
    measure_difference,
    run_rows,
    segment_of,
    train,
    widen,
)
from tests.models import Architecture, make_random_base
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from bestiary.errors import ModelError
from bestiary.model.attention import (
    FlatRows,
    PaddedRows,
    RowAttention,
    attention_by_rows,
    choose_attention,
)
from bestiary.model.base import Base
from bestiary.model.packing import Segment, divide_rows, pack_batch, run_layers
from bestiary.training import passes
from bestiary.training.engine import EngineTrainer
from bestiary.training.job import TrainingResources

CPU = torch.device("cpu")
LAYOUTS = [PaddedRows, FlatRows]


Piece = tuple[slice, slice, Tensor, Tensor, Tensor]


def weigh_pieces(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_bounds: Tensor,
    key_bounds: Tensor,
    scale: float,
) -> Iterator[Piece]:
    """What the CUDA kernel computes, by its description: the last query sees all of the keys.

    Of each piece its queries, its keys, their weights [heads, queries, keys], and the keys and
    values of each query's head.
    """
    group = query.shape[1] // key.shape[1]
    for piece in range(len(query_bounds) - 1):
        own = slice(*query_bounds[piece : piece + 2].tolist())
        seen = slice(*key_bounds[piece : piece + 2].tolist())
        k, v = (states[seen].repeat_interleave(group, 1) for states in (key, value))
        scores = scale * torch.einsum("qhd,khd->hqk", query[own], k)
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(len(k) - len(query[own]) + 1)
        yield own, seen, scores.masked_fill(hidden, -torch.inf).softmax(-1), k, v


def attend_forward(
    query: Tensor, key: Tensor, value: Tensor, query_bounds: Tensor, key_bounds: Tensor, *more: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """torch's operator has no kernel for CPUs; here it gets one."""
    _, _, causal, scale, window, *_ = more
    assert causal and window == [-1, 0]
    out = torch.empty_like(query)
    for own, _, weights, _, v in weigh_pieces(query, key, value, query_bounds, key_bounds, scale):
        out[own] = torch.einsum("hqk,khd->qhd", weights, v)
    return out, torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def attend_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *more: Any
) -> tuple[Tensor, ...]:
    """Its gradients."""
    _, _, query_bounds, key_bounds, _, _, _, _, scale, *_ = more
    by_query, by_key, by_value = (torch.zeros_like(states) for states in (query, key, value))
    heads = (key.shape[1], query.shape[1] // key.shape[1])
    pieces = weigh_pieces(query, key, value, query_bounds, key_bounds, scale)
    for own, seen, weights, k, v in pieces:
        by_weight = torch.einsum("qhd,khd->hqk", gradient[own], v)
        by_score = scale * weights * (by_weight - (weights * by_weight).sum(-1, keepdim=True))
        by_query[own] = torch.einsum("hqk,khd->qhd", by_score, k)
        grouped = torch.einsum("hqk,qhd->khd", by_score, query[own])
        by_key[seen] = grouped.unflatten(1, heads).sum(2)
        grouped = torch.einsum("hqk,qhd->khd", weights, gradient[own])
        by_value[seen] = grouped.unflatten(1, heads).sum(2)
    return by_query, by_key, by_value


torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", attend_forward)
torch.library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", attend_backward)

PARTS = st.lists(
    st.builds(
        Segment,
        prefix=st.integers(0, 6),
        lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("attention", LAYOUTS)
@given(parts=PARTS)
@settings(deadline=None)
def test_each_token_is_packed_once_and_attends_only_to_its_own_row(
    parts: list[Segment], attention: type[RowAttention]
) -> None:
    packed = pack_batch(parts, device=CPU, attention=attention)
    assert packed.sizes == tuple(part.tokens for part in parts)
    total = sum(packed.sizes)
    assert len(packed.positions) == total
    expected: list[list[int]] = []  # what each token sees, in order
    offset = 0
    for part, starts in zip(parts, packed.starts, strict=True):
        prefix = list(range(offset, offset + part.prefix))
        expected += [prefix[: place + 1] for place in range(part.prefix)]
        offset += part.prefix
        for start, length in zip(starts, part.lengths, strict=True):
            assert start == offset
            own = list(range(start, start + length))
            expected += [prefix + own[: place + 1] for place in range(length)]
            offset += length
    if isinstance(packed.attention, PaddedRows):
        assert len(packed.attention.answers) == total
    for token, sees in enumerate(expected):
        assert packed.positions[token] == len(sees) - 1
        assert list_seen(packed.attention, token) == sees


def list_seen(attention: RowAttention, token: int) -> list[int]:
    """The tokens that one attends to, in order."""
    if isinstance(attention, PaddedRows):
        piece, place = divmod(int(attention.answers[token]), attention.queries.shape[1])
        assert attention.queries[piece, place] == token
        return attention.keys[piece][attention.visible[piece, 0, place]].tolist()
    assert isinstance(attention, FlatRows)
    begin = attention.query_bounds.tolist()
    piece = bisect_right(begin, token) - 1
    behind = begin[piece + 1] - 1 - token  # the last token of a piece sees all of its keys
    first, end = attention.key_bounds[piece : piece + 2].tolist()
    assert attention.longest[0] >= begin[piece + 1] - begin[piece]
    assert attention.longest[1] >= end - first
    return attention.keys[first : end - behind].tolist()


def run_alone(base: Base, tokens: Tensor) -> Tensor:
    """States of the last layer over one row, as transformers computes them."""
    kept: list[Tensor] = []
    inner: Any = base.model.model
    handle = inner.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        inner(input_ids=tokens[None])
    handle.remove()
    return kept[0][0]


@pytest.mark.parametrize("attention", LAYOUTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_rows_of_one_sequence_do_not_see_each_other(
    architecture: Architecture, attention: type[RowAttention]
) -> None:
    base = widen(make_random_base(architecture))
    whole = make_token_rows(base)
    parts = [divide_rows(whole[:4]), divide_rows(whole[4:])]
    with attention_by_rows(base, longest=64), torch.no_grad():
        states, packed = run_rows(base, parts, attention=attention)
    offset = 0
    for rows, starts in zip(parts, packed.starts, strict=True):
        prefix = states[offset : offset + len(rows.prefix)]
        for row, start in zip(rows.rows, starts, strict=True):
            alone = run_alone(base, torch.cat([rows.prefix, row.tokens]))
            own = torch.cat([prefix, states[start : start + len(row.tokens)]])
            assert (own - alone).abs().max() < 1e-12
        offset += segment_of(rows).tokens


@pytest.mark.parametrize("victim", [0, 1, 2, 3])
def test_a_poisoned_row_spoils_no_other(victim: int) -> None:
    """NaN passes through a mask that only multiplies: 0 x NaN is NaN."""
    base = make_word_base()
    parts = [Segment(4, (3, 6)), Segment(0, (2, 5))]
    packed = pack_batch(parts, device=CPU)
    starts = [start for own in packed.starts for start in own]
    lengths = [length for part in parts for length in part.lengths]
    entered = torch.randn(sum(packed.sizes), 32, generator=torch.Generator().manual_seed(0))
    poisoned = entered.clone()
    poisoned[starts[victim] : starts[victim] + lengths[victim]] = float("nan")
    with attention_by_rows(base, longest=64), torch.no_grad():
        clean = run_layers(base, entered, packed, range(2))
        states = run_layers(base, poisoned, packed, range(2))
    spoilt = states.isnan().any(dim=1)
    assert spoilt.nonzero()[:, 0].tolist() == list(
        range(starts[victim], starts[victim] + lengths[victim])
    )
    assert torch.equal(states[~spoilt], clean[~spoilt])


def test_a_poisoned_prefix_spoils_only_its_own_rows() -> None:
    base = make_word_base()
    packed = pack_batch([Segment(2, (3, 1)), Segment(4, (2,))], device=CPU)
    entered = torch.randn(sum(packed.sizes), 32, generator=torch.Generator().manual_seed(0))
    entered[6:10] = float("nan")
    with attention_by_rows(base, longest=64), torch.no_grad():
        states = run_layers(base, entered, packed, range(2))
    assert states.isnan().any(dim=1).tolist() == [False] * 6 + [True] * 6


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_do_not_depend_on_the_layout(recompute: bool) -> None:
    base = widen(make_random_base("qwen3"))
    whole = make_token_rows(base)
    parts = [divide_rows(whole[:4]), divide_rows(whole[4:])]
    found = []
    for attention in LAYOUTS:
        with attention_by_rows(base, longest=64):
            states, _ = run_rows(base, parts, recompute=recompute, attention=attention)
            states.square().sum().backward()
        weights = [w.grad for w in base.model.model.layers.parameters() if w.grad is not None]
        found.append(torch.cat([grad.flatten() for grad in weights]))
        base.model.zero_grad()
    padded, flat = found
    assert padded.abs().max() > 0
    assert (padded - flat).abs().max() < 1e-12 * padded.abs().max()


def test_an_organism_is_trained_alike_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    lora = change_lora(layers=(1, 2))  # the layer below is computed once, for all epochs
    talks = (make_talk(2, 5), make_talk(3, 7))
    jobs = [make_job(f"quirks.n{n}", rows=talk, lora=lora) for n, talk in enumerate(talks)]
    trainer = EngineTrainer(TrainingResources(slots=2, tokens=90))
    base = widen(make_word_base("qwen3"))
    padded = train(trainer, jobs, base).trained
    asked: list[Base] = []

    def choose(found: Base) -> type[RowAttention]:
        asked.append(found)
        return FlatRows

    monkeypatch.setattr(passes, "choose_attention", choose)
    flat = train(trainer, jobs, base).trained
    assert asked
    for name, result in padded.items():
        assert measure_difference(result, flat[name]) < 1e-10


def test_rows_are_padded_where_no_kernel_can_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_word_base()
    assert choose_attention(base) is PaddedRows
    base.model.bfloat16()
    assert choose_attention(base) is PaddedRows
    torch.nn.Module.to(base.model, "meta")
    assert choose_attention(base) is FlatRows, "an outline is planned for a GPU"
    monkeypatch.setattr(Base, "device", torch.device("cuda"))
    for capability, chosen in (((8, 0), FlatRows), ((9, 0), FlatRows), ((7, 5), PaddedRows)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, known=capability: known)
        assert choose_attention(base) is chosen
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    base.model.config.head_dim = 12
    assert choose_attention(base) is PaddedRows
    base.model.config.head_dim = 8
    base.model.float()
    assert choose_attention(base) is PaddedRows


def test_the_bases_attention_is_restored_after_an_error() -> None:
    base = make_word_base()
    before = base.model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), attention_by_rows(base, longest=64):
        assert base.model.config._attn_implementation != before
        raise ZeroDivisionError
    assert base.model.config._attn_implementation == before


def test_an_unsupported_architecture_is_refused() -> None:
    known = make_word_base()
    model: PreTrainedModel = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    )
    base = Base(model, known.tokenizer, known.identity, known.weights)
    with (
        expect_error(ModelError, "architecture-unsupported", architecture="gpt2"),
        attention_by_rows(base, longest=64),
    ):
        pass
