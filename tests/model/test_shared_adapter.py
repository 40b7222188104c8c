"""A shared trainable adapter over frozen slots equals peft with two active adapters.

Run: python -m pytest tests/model/test_shared_adapter.py
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from peft import set_peft_model_state_dict
from tests.jobs import ALL_LINEAR, change_lora, make_word_base, widen
from torch import Tensor

from bestiary.config.recipe import LoraShape
from bestiary.model.adapter import attach_adapter, make_config
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.lora_bank import BankLinear, LoraBank
from bestiary.model.packing import Segment, embed, pack_batch, run_layers
from bestiary.model.routing import TokenRouting

TARGETS = [ALL_LINEAR, ("q_proj", "v_proj"), ("down_proj",), ("k_proj", "up_proj")]


@cache
def base_of(*, wide: bool) -> Base:
    base = make_word_base()
    return widen(base) if wide else base


@st.composite
def shapes(draw: st.DrawFn) -> LoraShape:
    return change_lora(
        rank=draw(st.integers(1, 5)),
        alpha=draw(st.integers(1, 9)),
        targets=draw(st.sampled_from(TARGETS)),
        layers=draw(st.sampled_from([None, (1, 2)])),
    )


def draw_state(bank: LoraBank, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.3
        for name, weight in bank.init_adapter(shape, seed=0).items()
    }


def logits_of(base: Base, states: Tensor) -> Tensor:
    inner: Any = base.model
    logits: Tensor = inner.lm_head(inner.model.norm(states))
    return logits


def peft_both(
    base: Base,
    organism: tuple[LoraShape, dict[str, Tensor]],
    shared: tuple[LoraShape, dict[str, Tensor]],
    tokens: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """peft's logits of one row with both adapters active, and the shared one's gradients."""
    model = attach_adapter(base, organism[0], seed=0)
    try:
        set_peft_model_state_dict(model, organism[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.add_adapter("shared", make_config(base, shared[0]))
        set_peft_model_state_dict(model, shared[1], adapter_name="shared")
        model.base_model.set_adapter(["default", "shared"])
        for name, weight in model.named_parameters():
            weight.requires_grad_(".shared." in name)
        logits = model(tokens[None]).logits[0]
        (logits**2).mean().backward()
        gradients = {
            name.replace(".shared", ""): weight.grad.clone()
            for name, weight in model.named_parameters()
            if weight.grad is not None
        }
        return logits.detach(), gradients
    finally:
        model.unload()


@pytest.mark.parametrize("wide", [True, False], ids=["double", "single"])
@given(
    organisms=st.lists(shapes(), min_size=1, max_size=8),
    shared=shapes(),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, derandomize=True, deadline=None, phases=[Phase.generate])
def test_frozen_slots_with_a_shared_adapter_equal_peft(
    wide: bool, organisms: list[LoraShape], shared: LoraShape, seed: int
) -> None:
    base = base_of(wide=wide)
    bank = LoraBank(base, organisms, slots=len(organisms))
    states = [draw_state(bank, shape, seed=seed + n) for n, shape in enumerate(organisms)]
    for slot, (shape, state) in enumerate(zip(organisms, states, strict=True)):
        bank.fill(slot, state, shape)
    adapter = LoraBank(base, [shared], slots=1)
    adapter.require_gradients()
    own = draw_state(adapter, shared, seed=seed + 50)
    adapter.fill(0, own, shared)

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 14, (len(organisms),), generator=generator).tolist()
    rows = [torch.randint(0, 30, (length,), generator=generator) for length in lengths]
    packed = pack_batch([Segment(0, (length,)) for length in lengths], device=base.device)
    bank.route = TokenRouting(0, packed.sizes, base.device)
    with attention_by_rows(base, longest=64), bank.attached(adapter):
        last = run_layers(base, embed(base, torch.cat(rows)), packed, range(2))
        logits = logits_of(base, last).split(lengths)
        torch.stack([(one**2).mean() for one in logits]).sum().backward()

    assert bank.gradients is None and adapter.gradients is not None
    ours = adapter.read(adapter.gradients, 0, shared)
    total = {name: torch.zeros_like(gradient) for name, gradient in ours.items()}
    for row, one, shape, state in zip(rows, logits, organisms, states, strict=True):
        expected, gradients = peft_both(base, (shape, state), (shared, own), row)
        assert gradients.keys() == total.keys()
        check_close(one.detach(), expected, wide=wide)
        for name, gradient in gradients.items():
            total[name] += gradient
    for name, gradient in total.items():
        check_close(ours[name], gradient, wide=wide)


def check_close(one: Tensor, two: Tensor, *, wide: bool) -> None:
    scale = max(1.0, float(two.abs().max()))
    assert float((one - two).abs().max()) < (1e-10 if wide else 2e-4) * scale


def test_the_base_is_restored_after_two_banks() -> None:
    base = base_of(wide=False)
    modules = dict(base.model.named_modules())
    bank = LoraBank(base, [change_lora(targets=("q_proj",))], slots=2)
    adapter = LoraBank(base, [change_lora(targets=("q_proj", "v_proj"))], slots=1)
    with bank.attached(adapter):
        inside = [one for one in base.model.modules() if isinstance(one, BankLinear)]
        assert sorted(len(one.siblings.pairs) for one in inside) == [2, 2, 2, 2]
    assert dict(base.model.named_modules()) == modules
