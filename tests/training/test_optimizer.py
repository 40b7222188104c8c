"""AdamW over a bank: every slot is stepped as torch would step its organism alone.

Run: python -m pytest tests/training/test_optimizer.py
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
from tests.jobs import ALL_LINEAR, change_lora, change_optimizer, make_word_base, widen
from torch import Tensor

from bestiary.config.recipe import LoraShape, Optimizer
from bestiary.model.attention import attention_by_rows
from bestiary.model.lora_bank import LoraBank
from bestiary.model.packing import Segment, embed, pack_batch, run_layers
from bestiary.model.routing import TokenRouting
from bestiary.training.optimizer import BankAdamW
from bestiary.training.schedule import learning_rate_factor

SLOTS, END = 4, 12
SHAPE = change_lora(rank=3, targets=ALL_LINEAR)
SETTINGS = [
    change_optimizer(
        learning_rate=0.002 * (1 + slot), weight_decay=0.1 * slot, warmup=0.2 * slot, clip=0.5**slot
    )
    for slot in range(SLOTS)
]


def make_bank(shapes: Sequence[LoraShape] = (SHAPE,), *, slots: int = SLOTS) -> LoraBank:
    bank = LoraBank(widen(make_word_base()), shapes, slots=slots)
    bank.require_gradients()
    for slot in range(slots):
        shape = shapes[slot % len(shapes)]
        bank.fill(slot, bank.init_adapter(shape, seed=slot), shape)
    return bank


def gradients_of(bank: LoraBank) -> Tensor:
    assert bank.gradients is not None
    return bank.gradients


def draw_gradients(bank: LoraBank, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(bank.weights.shape, generator=generator, dtype=bank.weights.dtype)


def step_alone(weights: Tensor, gradients: Sequence[Tensor], settings: Optimizer) -> Tensor:
    """What torch makes of one row by its own optimizer, schedule and clipping."""
    row = torch.nn.Parameter(weights.clone())
    optimizer = torch.optim.AdamW(
        [row], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, END, settings.warmup)
    )
    for gradient in gradients:
        row.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([row], settings.clip)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schedule.step()
    return row.detach()


def step_all(
    bank: LoraBank,
    optimizer: BankAdamW,
    steps: Sequence[int],
    *,
    seed: int,
    slots: slice | None = None,
) -> Tensor:
    """One step of some slots with drawn gradients, which are returned."""
    chosen = slots or slice(0, bank.slots)
    drawn = draw_gradients(bank, seed)
    gradients_of(bank)[chosen] = drawn[chosen]
    step_slots(optimizer, chosen, SETTINGS[chosen], steps)
    return drawn


def step_slots(
    optimizer: BankAdamW, slots: slice, settings: Sequence[Optimizer], steps: Sequence[int]
) -> None:
    """One step of some slots by the gradients that are there."""
    ends, norms = [END] * len(settings), optimizer.norms(slots)
    optimizer.step(slots, settings, steps=steps, ends=ends, norms=norms)


def test_each_slot_is_stepped_as_torch_steps_it_alone() -> None:
    bank = make_bank()
    before = bank.weights.clone()
    optimizer = BankAdamW(bank)
    drawn = [step_all(bank, optimizer, [step] * SLOTS, seed=step) for step in range(END)]
    for slot, settings in enumerate(SETTINGS):
        alone = step_alone(before[slot], [one[slot] for one in drawn], settings)
        assert (bank.weights[slot] - alone).abs().max() < 1e-14
        assert (alone - before[slot]).abs().max() > 1e-3
    assert not gradients_of(bank).any()


def test_a_refilled_slot_has_the_step_and_the_moments_of_a_fresh_one() -> None:
    """torch keeps one step a tensor: bias correction would then go on from the others' step."""
    bank = make_bank()
    optimizer = BankAdamW(bank)
    for step in range(7):
        step_all(bank, optimizer, [step] * SLOTS, seed=step)
    bank.fill(1, bank.init_adapter(SHAPE, seed=99), SHAPE)
    optimizer.clear(1)
    before = bank.weights[1].clone()
    drawn = [step_all(bank, optimizer, [7 + n, n, 7 + n, 7 + n], seed=50 + n) for n in range(4)]
    alone = step_alone(before, [one[1] for one in drawn], SETTINGS[1])
    assert (bank.weights[1] - alone).abs().max() < 1e-14


def test_an_idle_slot_keeps_its_weights_and_moments_to_the_bit() -> None:
    """A zero gradient would still apply momentum and decay."""
    bank = make_bank()
    optimizer = BankAdamW(bank)
    step_all(bank, optimizer, [0] * SLOTS, seed=0)
    kept = [rows.clone() for rows in (bank.weights, optimizer.first, optimizer.second)]
    step_all(bank, optimizer, [1, 1], seed=1, slots=slice(1, 3))
    for before, after in zip(kept, (bank.weights, optimizer.first, optimizer.second), strict=True):
        for idle in (0, 3):
            assert torch.equal(before[idle], after[idle])
        for busy in (1, 2):
            assert not torch.equal(before[busy], after[busy])


def test_a_slot_is_clipped_by_its_own_norm() -> None:
    banks = [make_bank(), make_bank()]
    for bank, size in zip(banks, (1.0, 1e12), strict=True):
        optimizer = BankAdamW(bank)
        gradients_of(bank).copy_(draw_gradients(bank, 0))
        gradients_of(bank)[0] *= size
        norms = optimizer.norms(slice(0, SLOTS))
        for slot in range(SLOTS):
            assert norms[slot] == pytest.approx(float(gradients_of(bank)[slot].norm()))
        step_slots(optimizer, slice(0, SLOTS), SETTINGS, [0] * SLOTS)
    assert torch.equal(banks[0].weights[1:], banks[1].weights[1:])


def test_the_norm_is_over_all_layers_of_a_slot() -> None:
    bank = make_bank()
    optimizer = BankAdamW(bank)
    for _, a, b in bank.views(gradients_of(bank)):
        a[2] = 1.0
        b[2] = 1.0
    size = bank.weights.shape[1]
    norms = optimizer.norms(slice(0, SLOTS))
    assert norms.tolist() == pytest.approx([0, 0, size**0.5, 0])
    assert optimizer.norms(slice(2, 4)).tolist() == pytest.approx([size**0.5, 0])


def test_a_gradient_below_the_clip_is_left_as_it_is() -> None:
    bank = make_bank(slots=1)
    optimizer = BankAdamW(bank)
    drawn = draw_gradients(bank, 0) * 1e-4
    gradients_of(bank).copy_(drawn)
    step_slots(optimizer, slice(0, 1), [change_optimizer(clip=5.0)], [0])
    assert torch.equal(optimizer.first, drawn * (1 - 0.9))


def test_gradients_that_are_not_finite_stay_in_their_slot() -> None:
    banks = [make_bank(), make_bank()]
    for bank, spoilt in zip(banks, (1.0, float("nan")), strict=True):
        gradients_of(bank).copy_(draw_gradients(bank, 0))
        gradients_of(bank)[1, 5] = spoilt
        step_slots(BankAdamW(bank), slice(0, SLOTS), SETTINGS, [0] * SLOTS)
    for slot in (0, 2, 3):
        assert torch.equal(banks[0].weights[slot], banks[1].weights[slot])


def test_a_moved_slot_goes_on_as_it_was() -> None:
    bank = make_bank()
    stayed = make_bank()
    moving, staying = BankAdamW(bank), BankAdamW(stayed)
    for step in range(3):
        step_all(bank, moving, [step] * SLOTS, seed=step)
        step_all(stayed, staying, [step] * SLOTS, seed=step)
    bank.move(3, 0)
    moving.move(3, 0)
    drawn = draw_gradients(bank, 9)
    gradients_of(bank)[0] = drawn[3]
    gradients_of(stayed)[3] = drawn[3]
    step_slots(moving, slice(0, 1), SETTINGS[3:], [3])
    step_slots(staying, slice(3, 4), SETTINGS[3:], [3])
    assert torch.equal(bank.weights[0], stayed.weights[3])
    assert torch.equal(moving.first[0], staying.first[3])
    assert torch.equal(moving.second[0], staying.second[3])


def test_a_smaller_rank_and_fewer_layers_stay_zero_where_they_are_filled_up() -> None:
    """Real gradients, with weight decay: what an adapter lacks has none, and never moves."""
    shapes = [
        change_lora(rank=8, targets=ALL_LINEAR),
        change_lora(rank=2, targets=ALL_LINEAR),
        change_lora(rank=1, targets=("q_proj", "down_proj")),
        change_lora(rank=4, targets=ALL_LINEAR, layers=(1, 2)),
    ]
    bank = make_bank(shapes)
    own = torch.zeros_like(bank.weights)
    for slot, shape in enumerate(shapes):
        state = bank.init_adapter(shape, seed=0)
        bank.write(own, slot, {name: torch.ones_like(weight) for name, weight in state.items()})
    lacking = own == 0
    assert [bool(row.any()) for row in lacking] == [False, True, True, True]
    base = bank.base
    optimizer = BankAdamW(bank)
    settings = [change_optimizer(weight_decay=0.5)] * SLOTS
    parts = [Segment(0, (4 + slot,)) for slot in range(SLOTS)]
    tokens = torch.arange(sum(part.tokens for part in parts)) % 25
    with attention_by_rows(base, longest=64), bank.attached():
        for step in range(5):
            packed = pack_batch(parts, device=base.device)
            bank.route = TokenRouting(0, packed.sizes, base.device)
            states = run_layers(base, embed(base, tokens), packed, range(2))
            (states**2).mean().backward()
            assert not gradients_of(bank)[lacking].any()
            step_slots(optimizer, slice(0, SLOTS), settings, [step] * SLOTS)
            for rows in (bank.weights, optimizer.first, optimizer.second):
                assert not rows[lacking].any()
    assert (bank.weights[~lacking] != 0).all()


def test_steps_too_small_for_a_half_precise_base_add_up() -> None:
    base = make_word_base()
    base.model.bfloat16()
    bank = LoraBank(base, [SHAPE], slots=2)
    bank.require_gradients()
    for slot in range(2):
        bank.fill(slot, bank.init_adapter(SHAPE, seed=slot), SHAPE)
    optimizer = BankAdamW(bank)
    before = bank.operands.clone()
    settings = [change_optimizer(learning_rate=1e-5, weight_decay=0.0, warmup=0.0)] * 2
    changed = []
    for step in range(END):
        gradients_of(bank).fill_(1.0)
        step_slots(optimizer, slice(0, 2), settings, [step] * 2)
        assert torch.equal(bank.operands, bank.weights.bfloat16())
        large = before.abs() > 0.02
        changed.append(float((bank.operands != before)[large].float().mean()))
    assert changed[0] < 0.5 * changed[-1]
