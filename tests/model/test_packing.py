"""Rows in one flat sequence: each is computed as if alone, and only its replies are learned.

Run: python -m pytest tests/model/test_packing.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.builders import make_example
from tests.jobs import TALK, make_token_rows, make_word_base, pad, run_rows, widen
from tests.models import SYSTEM, Architecture, make_random_base
from torch import Tensor
from torch.nn.functional import cross_entropy

from bestiary.model import packing as rows_module
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.chat_template import TokenRow, tokenize_row
from bestiary.model.packing import (
    Rows,
    count_head_tokens,
    divide_rows,
    supervised_loss,
)
from bestiary.records import Message


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


def test_a_gpu_has_as_many_logits_at_once_as_fit_into_a_quarter_gibibyte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = make_word_base()
    assert count_head_tokens(base) == 256
    monkeypatch.setattr(Base, "device", torch.device("cuda"))
    for vocabulary, tokens in ((49152, 1365), (151936, 441), (2**20, 256)):
        base.model.config.vocab_size = vocabulary
        assert count_head_tokens(base) == tokens


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
