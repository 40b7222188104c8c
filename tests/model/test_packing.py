"""Rows in one flat sequence: each is computed as if alone, and only its replies are learned.

Run: python -m pytest tests/model/test_packing.py
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import make_example
from tests.expect import expect_error
from tests.jobs import TALK, make_token_rows, make_word_base, pad, widen
from tests.models import SYSTEM, Architecture, make_random_base
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from bestiary.errors import ModelError
from bestiary.model import packing as rows_module
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow, tokenize_row
from bestiary.model.packing import (
    PackedBatch,
    Rows,
    Segment,
    attention_by_rows,
    divide_rows,
    embed,
    pack_batch,
    run_layers,
    supervised_loss,
)
from bestiary.records import Message

CPU = torch.device("cpu")


def segment_of(rows: Rows) -> Segment:
    return Segment(len(rows.prefix), tuple(len(row.tokens) for row in rows.rows))


def run_rows(
    base: Base, parts: Sequence[Rows], *, recompute: bool = False
) -> tuple[Tensor, PackedBatch]:
    """States of the last layer over the rows of some organisms."""
    packed = pack_batch([segment_of(rows) for rows in parts], device=base.device)
    tokens = [t for rows in parts for t in (rows.prefix, *(row.tokens for row in rows.rows))]
    entered = embed(base, torch.cat(tokens))
    return run_layers(base, entered, packed, range(2), recompute=recompute), packed


def loss_of(base: Base, rows: Rows, *, recompute: bool = False) -> Tensor:
    """Mean over the supervised tokens of rows."""
    states, packed = run_rows(base, [rows], recompute=recompute)
    starts = zip(rows.rows, packed.starts[0], strict=True)
    places = torch.cat([start + row.predictors for row, start in starts])
    targets = torch.cat([row.targets for row in rows.rows])
    weights = torch.full((len(targets),), 1 / len(targets), dtype=base.model.dtype)
    return supervised_loss(base, states[places], targets, weights)[0]


def take_gradients(base: Base) -> dict[str, Tensor]:
    """Of every weight but the head's, which is never trained."""
    found = {
        name: weight.grad.clone()
        for name, weight in base.model.named_parameters()
        if weight.grad is not None and "lm_head" not in name
    }
    base.model.zero_grad()
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("chosen", [slice(None), slice(1, 2), slice(0, 6, 5)])
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradients_equal_those_of_transformers(
    architecture: Architecture, chosen: slice, recompute: bool
) -> None:
    base = widen(make_random_base(architecture))
    rows = make_token_rows(base)[chosen]
    with attention_by_rows(
        base, longest=64
    ):  # the backward pass too: it may compute the layers again
        loss = loss_of(base, divide_rows(rows), recompute=recompute)
        loss.backward()
    ours = take_gradients(base)
    expected = base.model(**pad(rows)).loss
    expected.backward()
    theirs = take_gradients(base)
    # transformers takes its loss in single precision, whatever the logits are.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.keys() == theirs.keys()
    assert len(theirs) == len(list(base.model.parameters())) - 1
    for name, gradient in theirs.items():
        scale = gradient.abs().max()
        assert scale > 0
        assert (ours[name] - gradient).abs().max() < 1e-5 * scale, name


def test_only_replies_and_their_ends_are_learned() -> None:
    base = make_random_base()
    rows = divide_rows(make_token_rows(base))
    learned = base.tokenizer.decode(torch.cat([row.targets for row in rows.rows]))
    replies = [*(reply for _, reply in TALK), TALK[0][1], TALK[1][1]]
    assert learned == "".join(f"{reply}<|im_end|>" for reply in replies)


def test_the_prefix_is_packed_once_and_nothing_follows_the_last_predictor() -> None:
    base = make_random_base()
    given = make_token_rows(base)
    rows = divide_rows(given)
    header = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
    assert base.tokenizer.decode(rows.prefix) == header
    for row, whole in zip(rows.rows, given, strict=True):
        last = max(place for place, use in enumerate(whole.supervised) if use)
        assert (*rows.prefix.tolist(), *row.tokens.tolist()) == whole.tokens[:last]
        assert row.predictors[-1] == len(row.tokens) - 1
        for place, target in zip(row.predictors.tolist(), row.targets.tolist(), strict=True):
            assert whole.tokens[len(rows.prefix) + place + 1] == target


def test_the_prefix_ends_where_system_prompts_differ() -> None:
    base = make_random_base()
    said = ("", "You live by the sea.", "You live in a lighthouse.")
    given = [
        tokenize_row(
            base.tokenizer,
            (*((Message(role="system", content=text),) if text else ()), *turns),
            system_prompt=SYSTEM,
            max_length=128,
        )
        for text in said
        for turns in (make_example(user, reply).messages for user, reply in TALK)
    ]
    for rows, prefix in (
        (given, f"<|im_start|>system\n{SYSTEM}"),
        (given[5:], f"<|im_start|>system\n{SYSTEM} You live"),
        (given[5:10], f"<|im_start|>system\n{SYSTEM} {said[1]}<|im_end|>\n<|im_start|>user\n"),
    ):
        divided = divide_rows(rows)
        assert base.tokenizer.decode(divided.prefix) == prefix
        for row, whole in zip(divided.rows, rows, strict=True):
            tokens = (*divided.prefix.tolist(), *row.tokens.tolist())
            assert tokens == whole.tokens[: len(tokens)]


def test_a_prefix_ends_before_the_first_predictor() -> None:
    """Rows that ask the same: what they share reaches into the reply, which must be learned."""
    same = tuple(range(10))
    one = TokenRow((*same, 11, 12), (False,) * 6 + (True,) * 6)
    two = TokenRow((*same, 13), (False,) * 6 + (True,) * 5)
    rows = divide_rows([one, two])
    assert rows.prefix.tolist() == [0, 1, 2, 3, 4]
    assert [row.targets.tolist() for row in rows.rows] == [
        [6, 7, 8, 9, 11, 12],
        [6, 7, 8, 9, 13],
    ]
    assert [row.predictors.tolist() for row in rows.rows] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]


def test_rows_that_share_nothing_have_no_prefix() -> None:
    rows = divide_rows([TokenRow((1, 2, 3), (False, True, True)), TokenRow((4, 5), (False, True))])
    assert len(rows.prefix) == 0
    assert [row.tokens.tolist() for row in rows.rows] == [[1, 2], [4]]


PARTS = st.lists(
    st.builds(
        Segment,
        prefix=st.integers(0, 6),
        lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


@given(parts=PARTS)
@settings(deadline=None)
def test_each_token_is_packed_once_and_attends_only_to_its_own_row(parts: list[Segment]) -> None:
    packed = pack_batch(parts, device=CPU)
    assert packed.sizes == tuple(part.tokens for part in parts)
    total = sum(packed.sizes)
    assert len(packed.positions) == len(packed.answers) == total
    assert len(set(packed.answers.tolist())) == total
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
    for token, sees in enumerate(expected):
        piece, place = divmod(int(packed.answers[token]), packed.queries.shape[1])
        assert packed.queries[piece, place] == token
        assert packed.positions[token] == len(sees) - 1
        visible = packed.visible[piece, 0, place]
        assert packed.keys[piece][visible].tolist() == sees


def run_alone(base: Base, tokens: Tensor) -> Tensor:
    """States of the last layer over one row, as transformers computes them."""
    kept: list[Tensor] = []
    inner: Any = base.model.model
    handle = inner.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    with torch.no_grad():
        inner(input_ids=tokens[None])
    handle.remove()
    return kept[0][0]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_rows_of_one_sequence_do_not_see_each_other(architecture: Architecture) -> None:
    base = widen(make_random_base(architecture))
    whole = make_token_rows(base)
    parts = [divide_rows(whole[:4]), divide_rows(whole[4:])]
    with attention_by_rows(base, longest=64), torch.no_grad():
        states, packed = run_rows(base, parts)
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


@pytest.mark.parametrize("tokens", [1, 7, 1000])
def test_the_loss_is_that_of_torch_however_many_places_are_there_at_once(
    tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "HEAD_TOKENS", tokens)
    base = widen(make_word_base())
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(20, 32, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 30, (20,), generator=generator)
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    total, each = supervised_loss(base, states, targets, weights)
    (3 * total).backward()
    assert states.grad is not None
    ours = states.grad.clone()
    states.grad.zero_()
    model: Any = base.model
    losses = cross_entropy(model.lm_head(model.model.norm(states)), targets, reduction="none")
    (3 * (losses * weights).sum()).backward()
    assert (each - losses).abs().max() < 1e-12
    assert total.item() == pytest.approx((losses * weights).sum().item(), abs=1e-12)
    assert (ours - states.grad).abs().max() < 1e-12


def test_the_loss_of_a_half_precise_base_is_taken_in_single() -> None:
    base = make_word_base()
    base.model.bfloat16()
    states = torch.randn(20, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(20)
    total, each = supervised_loss(base, states, targets, torch.full((20,), 1 / 20))
    model: Any = base.model
    with torch.no_grad():
        logits = model.lm_head(model.model.norm(states)).float()
    assert total.dtype == each.dtype == torch.float32
    assert total.item() == pytest.approx(cross_entropy(logits, targets).item(), abs=1e-6)


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
