"""The LoRA bank: in any slot, beside any neighbors, an adapter computes what peft computes.

Run: python -m pytest tests/model/test_lora_bank.py
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from tests.expect import expect_error
from tests.jobs import (
    ALL_LINEAR,
    change_lora,
    copy_weights,
    make_word_base,
    same_weights,
    widen,
)
from tests.models import Architecture, make_random_base
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model import routing as routing_module
from bestiary.model.adapter import attach_adapter, read_state
from bestiary.model.attention import attention_by_rows
from bestiary.model.base import Base
from bestiary.model.lora_bank import BankLinear, LoraBank, Siblings, adapter_dtype
from bestiary.model.packing import Segment, embed, pack_batch, run_layers
from bestiary.model.routing import TokenRouting

SHAPES = (
    change_lora(rank=1, alpha=3, targets=ALL_LINEAR),
    change_lora(rank=4, alpha=8, targets=("q_proj", "down_proj")),
    change_lora(rank=6, alpha=2, targets=ALL_LINEAR, layers=(1, 2)),
)
"""Of three adapters in one bank: ranks, strengths, modules and layers differ."""
EVEN, RAGGED = (7, 7, 7), (7, 3, 11)


def base_in(dtype: torch.dtype, architecture: Architecture = "llama") -> Base:
    base = make_word_base(architecture)
    if dtype == torch.float64:
        return widen(base)
    base.model.to(dtype)  # type: ignore[arg-type]
    return base


def draw_state(bank: LoraBank, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
    """An adapter whose both halves are at work, as after training."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * 0.3
        for name, weight in bank.init_adapter(shape, seed=0).items()
    }


def fill_bank(base: Base, shapes: Sequence[LoraShape] = SHAPES) -> LoraBank:
    bank = LoraBank(base, shapes, slots=len(shapes))
    bank.require_gradients()
    for slot, shape in enumerate(shapes):
        bank.fill(slot, draw_state(bank, shape, seed=slot), shape)
    return bank


def draw_tokens(count: int) -> Tensor:
    return torch.randint(0, 30, (count,), generator=torch.Generator().manual_seed(count))


def compute(bank: LoraBank, tokens: Sequence[Tensor], *, first: int = 0) -> list[Tensor]:
    """States of the last layer, for a row of each slot from `first` on."""
    base = bank.base
    parts = [Segment(0, (len(row),)) for row in tokens]
    packed = pack_batch(parts, device=base.device)
    bank.route = TokenRouting(first, packed.sizes, base.device)
    with attention_by_rows(base, longest=64), bank.attached():
        states = run_layers(base, embed(base, torch.cat(list(tokens))), packed, range(2))
    return list(states.split(packed.sizes))


@contextmanager
def peft_with(base: Base, shape: LoraShape, state: dict[str, Tensor]) -> Iterator[Any]:
    model = attach_adapter(base, shape, seed=0)
    try:
        set_peft_model_state_dict(model, state)
        yield model
    finally:
        model.unload()


def last_states(base: Base, model: Any, tokens: Tensor) -> Tensor:
    """States of the last layer of peft's model, before the norm."""
    kept: list[Tensor] = []
    inner: Any = base.model.model
    handle = inner.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        model(tokens[None])
    finally:
        handle.remove()
    return kept[0][0]


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("long", [0, 10**9], ids=["alone", "together"])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED], ids=["even", "ragged"])
def test_every_slot_computes_and_learns_what_peft_does(
    sizes: tuple[int, ...], long: int, architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_module, "LONG", long)
    base = base_in(torch.float64, architecture)
    bank = fill_bank(base)
    tokens = [draw_tokens(size) for size in sizes]
    states = compute(bank, tokens)
    (torch.cat(states) ** 2).sum().backward()
    assert bank.gradients is not None
    for slot, (shape, row) in enumerate(zip(SHAPES, tokens, strict=True)):
        with peft_with(base, shape, bank.read(bank.weights, slot, shape)) as model:
            alone = last_states(base, model, row)
            (alone**2).sum().backward()
            theirs = {
                name.replace(".default", ""): weight.grad
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }
        assert (states[slot] - alone).abs().max() < 1e-11
        ours = bank.read(bank.gradients, slot, shape)
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            scale = gradient.abs().max()
            assert scale > 0
            assert (ours[name] - gradient).abs().max() < 1e-10 * scale, name


def test_a_bank_is_free_as_soon_as_nobody_has_it() -> None:
    """Its memory, gigabytes on a GPU, must not wait for the garbage collector."""
    base = make_random_base()
    bank = LoraBank(base, [LoraShape(rank=2, alpha=4, targets=ALL_LINEAR)], slots=1)
    with bank.attached():
        base.model(torch.tensor([[5, 6, 7]]))
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(bank)
        del bank
        assert gone() is None
    finally:
        gc.enable()


def test_some_slots_are_computed_without_the_others() -> None:
    bank = fill_bank(base_in(torch.float64))
    tokens = [draw_tokens(size) for size in RAGGED]
    all_three = compute(bank, tokens)
    upper = compute(bank, tokens[1:], first=1)
    for one, two in zip(all_three[1:], upper, strict=True):
        assert (one - two).abs().max() < 1e-12
    (upper[0] ** 2).sum().backward()
    assert bank.gradients is not None
    assert not bank.gradients[0].any()
    assert not bank.gradients[2].any()
    assert bank.gradients[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=["rank 1", "two modules", "upper layer"])
def test_initial_weights_equal_pefts(shape: LoraShape, dtype: torch.dtype) -> None:
    check_initial_weights(base_in(dtype), shape)


def test_initial_weights_of_odd_widths_equal_pefts() -> None:
    base = base_in(torch.float32)
    inner: Any = base.model.model
    for layer in inner.layers:
        layer.mlp.up_proj = nn.Linear(33, 7, bias=False)
    check_initial_weights(base, change_lora(rank=5, targets=ALL_LINEAR))


def check_initial_weights(base: Base, shape: LoraShape) -> None:
    drawn = LoraBank(base, [shape], slots=1).init_adapter(shape, seed=11)
    model = attach_adapter(base, shape, seed=11)
    theirs = {name: weight.clone() for name, weight in read_state(model).items()}
    model.unload()
    assert list(drawn) == list(theirs)
    assert same_weights(drawn, theirs)
    assert {w.dtype for w in drawn.values()} == {w.dtype for w in theirs.values()}


def test_initial_weights_have_pefts_range() -> None:
    """kaiming_uniform_ over a bank of three dimensions would take the wrong fan."""
    base = base_in(torch.float32)
    shape = change_lora(rank=64, targets=("q_proj", "down_proj"))
    bank = LoraBank(base, [shape], slots=2)
    bank.fill(1, bank.init_adapter(shape, seed=0), shape)
    for name, a, b in bank.views(bank.weights):
        bound = a.shape[2] ** -0.5  # uniform within: std is bound / sqrt(3)
        assert float(a[1].std()) == pytest.approx(bound / 3**0.5, rel=0.05), name
        assert float(a[1].abs().max()) == pytest.approx(bound, rel=0.01)
        assert not b[1].any()


def test_initializing_an_adapter_changes_neither_the_base_nor_the_random_state() -> None:
    base = base_in(torch.float32)
    bank = fill_bank(base)
    before, filled = copy_weights(base), bank.weights.clone()
    stream = torch.random.get_rng_state()
    one, two = (bank.init_adapter(SHAPES[1], seed=seed) for seed in (1, 2))
    assert not same_weights(one, two)
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert same_weights(copy_weights(base), before)
    assert torch.equal(bank.weights, filled)


def test_an_adapter_is_read_back_unchanged() -> None:
    bank = LoraBank(base_in(torch.float32), SHAPES, slots=3)
    states = [draw_state(bank, shape, seed=slot) for slot, shape in enumerate(SHAPES)]
    for slot in (2, 0, 1):
        bank.fill(slot, states[slot], SHAPES[slot])
    for slot, shape in enumerate(SHAPES):
        assert same_weights(bank.read(bank.weights, slot, shape), states[slot])


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_what_is_read_stays_when_the_slot_is_filled_again(rank: int) -> None:
    shape = change_lora(rank=rank)
    bank = LoraBank(base_in(torch.float32), [shape, SHAPES[2]], slots=1)
    state = draw_state(bank, shape, seed=1)
    bank.fill(0, state, shape)
    kept = bank.read(bank.weights, 0, shape)
    bank.fill(0, draw_state(bank, shape, seed=2), shape)
    assert same_weights(kept, state)
    assert all(tensor.is_contiguous() for tensor in kept.values())


def test_a_slot_filled_again_keeps_nothing_of_what_was_there() -> None:
    bank = LoraBank(base_in(torch.float32), SHAPES, slots=1)
    bank.fill(0, draw_state(bank, SHAPES[0], seed=0), SHAPES[0])
    bank.fill(0, small := draw_state(bank, SHAPES[1], seed=1), SHAPES[1])
    fresh = LoraBank(bank.base, SHAPES, slots=1)
    fresh.fill(0, small, SHAPES[1])
    assert torch.equal(bank.weights, fresh.weights)
    assert torch.equal(bank.scales, fresh.scales)


def test_a_slot_filled_between_two_batches_has_its_own_scale_at_once() -> None:
    base = base_in(torch.float64)
    bank = fill_bank(base, [SHAPES[1]])
    tokens = [draw_tokens(5)]
    compute(bank, tokens)
    strong = SHAPES[1].model_copy(update={"alpha": 50.0})
    bank.fill(0, draw_state(bank, strong, seed=0), strong)
    packed = pack_batch([Segment(0, (5,))], device=base.device)
    with attention_by_rows(base, longest=64), bank.attached(), torch.no_grad():  # by the same route
        states = run_layers(base, embed(base, tokens[0]), packed, range(2))
    assert (states - compute(bank, tokens)[0]).abs().max() < 1e-12


def test_a_moved_adapter_computes_as_before() -> None:
    bank = fill_bank(base_in(torch.float64))
    tokens = draw_tokens(7)
    before = compute(bank, [tokens], first=2)[0]
    bank.move(2, 0)
    assert torch.equal(compute(bank, [tokens], first=0)[0], before)


def test_weights_and_gradients_are_views_of_one_tensor_each() -> None:
    """One product serves all slots only if nothing must be stacked first."""
    bank = fill_bank(base_in(torch.float32))
    assert bank.gradients is not None
    with bank.attached():
        inside = [m for m in bank.base.model.modules() if isinstance(m, BankLinear)]
    siblings = {module.siblings for module in inside}
    assert (len(inside), len(siblings), len(bank.pairs)) == (14, 8, 8)
    taken = 0
    for (pairs,) in (own.pairs for own in siblings):
        assert pairs.grad_a is not None
        assert pairs.a.shape[:2] == (3, 6 * len(pairs.b))  # slots, the ranks of all
        for views, whole in (
            ((pairs.a, *pairs.b), bank.weights),
            ((pairs.grad_a, *pairs.grad_b), bank.gradients),
        ):
            for view in views:
                assert view.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
        assert {b.shape[:2] for b in pairs.b} == {(3, 6)}
        taken += pairs.a[0].numel() + sum(b[0].numel() for b in pairs.b)
    assert bank.weights.shape == bank.gradients.shape == (3, taken)
    before = [pairs.a.data_ptr() for pairs in bank.pairs.values()]
    torch.cat(compute(bank, [draw_tokens(4)] * 3)).sum().backward()
    assert [pairs.a.data_ptr() for pairs in bank.pairs.values()] == before
    assert all(bool(gradients.any()) for gradients in bank.gradients)


class NoStack(TorchDispatchMode):
    """Refuses a copy of what slots have of a layer: [slots, rank, width], put together anew."""

    COPIES = (torch.ops.aten.stack, torch.ops.aten.cat, torch.ops.aten.clone, torch.ops.aten.copy_)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.COPIES:
            assert out.shape[:2] not in {(3, 6 * layers) for layers in (1, 2, 3)}, func
        return out


@pytest.mark.parametrize("sizes", [EVEN, RAGGED], ids=["even", "ragged"])
def test_no_pass_stacks_the_slots(sizes: tuple[int, ...]) -> None:
    bank = fill_bank(base_in(torch.float32))
    tokens = [draw_tokens(size) for size in sizes]
    watch = NoStack()  # type: ignore[no-untyped-call]
    with watch:
        torch.cat(compute(bank, tokens)).sum().backward()
    pairs = next(iter(bank.pairs.values()))
    with pytest.raises(AssertionError, match=r"aten\.(stack|cat)"), watch:
        torch.stack([pairs.a[slot] for slot in range(3)])


@pytest.mark.parametrize("sizes", [EVEN, RAGGED], ids=["even", "ragged"])
def test_recomputed_layers_give_the_same_gradients(sizes: tuple[int, ...]) -> None:
    base = base_in(torch.float32)
    bank = fill_bank(base)
    packed = pack_batch([Segment(0, (size,)) for size in sizes], device=base.device)
    tokens = draw_tokens(sum(sizes))
    found = []
    for recompute in (False, True):
        bank.clear_gradients(slice(0, 3))
        with attention_by_rows(base, longest=64), bank.attached():
            bank.route = TokenRouting(0, packed.sizes, base.device)
            entered = embed(base, tokens)
            states = run_layers(base, entered, packed, range(2), recompute=recompute)
            (states**2).sum().backward()
        assert bank.gradients is not None
        found.append(bank.gradients.clone())
    assert found[0].any()
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    "targets",
    [("v_proj", "down_proj"), ("k_proj", "q_proj", "up_proj"), ALL_LINEAR],
    ids=["one sibling", "some", "all"],
)
def test_siblings_that_share_products_learn_what_peft_does(
    targets: tuple[str, ...], recompute: bool
) -> None:
    """Beside a slot that adapts other siblings, and with layers computed a second time."""
    base = base_in(torch.float64)
    shape = change_lora(rank=3, alpha=5, targets=targets)
    bank = fill_bank(base, [shape, change_lora(rank=2, targets=("q_proj", "gate_proj"))])
    rows = [draw_tokens(5), draw_tokens(8)]
    packed = pack_batch([Segment(0, (len(row),)) for row in rows], device=base.device)
    bank.route = TokenRouting(0, packed.sizes, base.device)
    with attention_by_rows(base, longest=64), bank.attached():
        entered = embed(base, torch.cat(rows))
        states = run_layers(base, entered, packed, range(2), recompute=recompute)
        (states**2).sum().backward()
    assert bank.gradients is not None
    ours = bank.read(bank.gradients, 0, shape)
    with peft_with(base, shape, bank.read(bank.weights, 0, shape)) as model:
        (last_states(base, model, rows[0]) ** 2).sum().backward()
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                apart = (ours[name.replace(".default", "")] - weight.grad).abs().max()
                assert apart < 1e-10 * weight.grad.abs().max(), name


def test_what_siblings_share_is_never_used_for_another_tensor() -> None:
    base = base_in(torch.float64)
    bank = fill_bank(base, [change_lora(rank=2, targets=ALL_LINEAR)])
    bank.route = None
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 5, base.model.config.hidden_size, generator=generator).double()
    inner: Any = base.model.model
    with bank.attached(), torch.no_grad():
        attention = inner.layers[0].self_attn
        expected = {id(row): attention.k_proj(row) for row in (one, two)}
        for row in (one, two, one):
            attention.q_proj(row)
            other = two if row is one else one
            assert torch.equal(attention.k_proj(other), expected[id(other)])
            assert torch.equal(attention.k_proj(row), expected[id(row)])


@pytest.mark.parametrize("fails", [False, True], ids=["after a call", "after an error"])
def test_what_siblings_share_is_not_kept(fails: bool) -> None:
    """Memory that runs out between siblings is free again for a smaller batch."""

    def fail(*_: object) -> None:
        raise MemoryError

    base = base_in(torch.float32)
    bank = fill_bank(base, [change_lora(rank=2, targets=ALL_LINEAR)])
    bank.route = None
    inner: Any = base.model.model
    mlp = inner.layers[0].mlp
    if fails:  # between the gate and what goes up
        mlp.act_fn.register_forward_pre_hook(fail)
    entered = torch.randn(1, 5, base.model.config.hidden_size)
    kept = weakref.ref(entered)
    with bank.attached():
        with suppress(MemoryError):
            mlp(entered)
        del entered
        assert kept() is None


def test_a_half_precise_base_keeps_adapters_in_single() -> None:
    for dtype, kept in (
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        base = base_in(dtype)
        assert adapter_dtype(base) == kept
        bank = fill_bank(base)
        assert bank.gradients is not None
        assert (bank.weights.dtype, bank.gradients.dtype, bank.dtype) == (kept, kept, kept)


def test_a_half_precise_base_computes_with_rounded_weights() -> None:
    """A frozen bank holds them rounded; a trained one rounds a copy whenever they change."""
    base = base_in(torch.bfloat16)
    bank = fill_bank(base)
    frozen = LoraBank(base, SHAPES, slots=3)
    for slot, shape in enumerate(SHAPES):
        frozen.fill(slot, bank.read(bank.weights, slot, shape), shape)
    assert bank.weights.dtype == torch.float32
    assert frozen.weights.dtype == torch.bfloat16
    assert not torch.equal(bank.weights, bank.weights.bfloat16().float())
    tokens = [draw_tokens(size) for size in RAGGED]
    with torch.no_grad():
        for one, two in zip(compute(bank, tokens), compute(frozen, tokens), strict=True):
            assert torch.equal(one, two)
        bank.move(2, 0)
        assert torch.equal(compute(bank, tokens[2:])[0], compute(frozen, tokens[2:], first=2)[0])


def test_only_a_half_precise_base_needs_a_copy_of_the_weights() -> None:
    for dtype, copied in ((torch.float32, False), (torch.float64, False), (torch.bfloat16, True)):
        bank = fill_bank(base_in(dtype))
        assert (bank.operands is not bank.weights) == copied
        assert torch.equal(bank.operands, bank.weights.to(dtype))


@pytest.mark.parametrize("long", [0, 10**9], ids=["alone", "together"])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED], ids=["even", "ragged"])
def test_a_half_precise_product_is_rounded_once(
    sizes: tuple[int, ...], long: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_module, "LONG", long)
    base = base_in(torch.bfloat16)
    shape = change_lora(rank=6, targets=("o_proj",))
    bank = fill_bank(base, [shape] * 3)
    layer = next(iter(bank.pairs.values()))
    bank.route = TokenRouting(0, sizes, base.device)
    generator = torch.Generator().manual_seed(0)
    ((name, inner),) = layer.inner.items()
    tokens = torch.randn(sum(sizes), inner.in_features, generator=generator).bfloat16()
    tokens.requires_grad_()
    with torch.no_grad():
        inner.weight.zero_()  # so that the branch is all there is
    out = BankLinear(Siblings([layer]), name)(tokens)
    out.sum().backward()
    assert (out.dtype, tokens.dtype) == (torch.bfloat16, torch.bfloat16)
    (layer_b,), (grad_b,) = layer.b, layer.grad_b
    assert layer.grad_a is not None and tokens.grad is not None
    assert layer.grad_a.dtype == grad_b.dtype == torch.float32
    scale = shape.alpha / shape.rank
    rows, backs = tokens.detach().split(sizes), tokens.grad.split(sizes)
    for slot, (row, own, back) in enumerate(zip(rows, out.split(sizes), backs, strict=True)):
        a, b, wide = layer.a[slot].float(), layer_b[slot].float(), row.float()
        given = torch.ones(len(row), b.shape[1])
        low = ((wide @ a.T).bfloat16() * scale).float()
        down = ((given @ b.T).bfloat16() * scale).float()
        for found, exact in (
            (own, low @ b),
            (back, down @ a),
            (layer.grad_a[slot], down.T @ wide),
            (grad_b[slot], low.T @ given),
        ):
            # Half a step of bfloat16, which has 8 bits.
            assert ((found.float() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()


def run_both(base: Base, tokens: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Each slot's last states and gradients, by the bank and by peft."""
    bank = fill_bank(base)
    states = compute(bank, tokens)
    (torch.cat(states).float() ** 2).sum().backward()
    assert bank.gradients is not None
    found: dict[str, list[Tensor]] = {"states": [state.detach() for state in states]}
    found |= {"peft's states": [], "gradients": [], "peft's gradients": []}
    for slot, (shape, row) in enumerate(zip(SHAPES, tokens, strict=True)):
        with peft_with(base, shape, bank.read(bank.weights, slot, shape)) as model:
            alone = last_states(base, model, row)
            (alone.float() ** 2).sum().backward()
            theirs = {
                name.replace(".default", ""): weight.grad
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }
        ours = bank.read(bank.gradients, slot, shape)
        found["peft's states"].append(alone.detach())
        found["gradients"].append(torch.cat([ours[name].flatten() for name in theirs]))
        found["peft's gradients"].append(torch.cat([one.flatten() for one in theirs.values()]))
    return found


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED], ids=["even", "ragged"])
def test_a_half_precise_base_costs_no_more_accuracy_than_with_peft(
    sizes: tuple[int, ...], architecture: Architecture
) -> None:
    """peft computes its branch in single precision."""
    half = base_in(torch.bfloat16, architecture)
    single = replace(half, model=copy.deepcopy(half.model).float())
    tokens = [draw_tokens(size) for size in sizes]
    rounded, exact = run_both(half, tokens), run_both(single, tokens)

    def lose(part: str) -> float:
        pairs = zip(rounded[part], exact[part], strict=True)
        return sum(float((one - truth).norm() / truth.norm()) for one, truth in pairs)

    for part in ("states", "gradients"):
        assert 0 < lose(part) <= 2 * lose(f"peft's {part}"), part


def test_the_base_is_restored_after_an_error() -> None:
    base = base_in(torch.float32)
    before, modules = copy_weights(base), dict(base.model.named_modules())
    bank = fill_bank(base)
    with pytest.raises(ZeroDivisionError), bank.attached():
        assert dict(base.model.named_modules()) != modules
        raise ZeroDivisionError
    assert dict(base.model.named_modules()) == modules
    assert same_weights(copy_weights(base), before)


def test_nothing_is_adapted_below_the_first_layer() -> None:
    base = base_in(torch.float32)
    assert LoraBank(base, SHAPES, slots=1).first_layer == 0
    upper = LoraBank(base, SHAPES[2:], slots=1)
    assert upper.first_layer == 1
    assert all(".layers.1." in name for name, _, _ in upper.views(upper.weights))


def test_an_adapter_of_other_modules_is_refused() -> None:
    base = base_in(torch.float32)
    bank = LoraBank(base, [SHAPES[1]], slots=1)
    foreign = LoraBank(base, [change_lora(targets=("k_proj",))], slots=1)
    state = foreign.init_adapter(change_lora(targets=("k_proj",)), seed=0)
    tensor = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight"
    with expect_error(ModelError, "adapter-of-other-modules", tensor=tensor):
        bank.fill(0, state, SHAPES[1])


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize(("ranks", "width"), [(0, -1), (0, 1), (1, 0)])
def test_an_adapter_of_another_width_or_of_a_larger_rank_is_refused(
    side: str, ranks: int, width: int
) -> None:
    """Neither padded with zeros nor cut."""
    bank = LoraBank(base_in(torch.float32), [SHAPES[1]], slots=1)
    state = bank.init_adapter(SHAPES[1], seed=0)
    name = next(name for name in state if f"lora_{side}" in name)
    rank, wide = state[name].shape if side == "A" else state[name].T.shape
    changed = torch.ones(rank + ranks, wide + width)
    with expect_error(ModelError, "adapter-does-not-fit", tensor=name):
        bank.fill(0, {**state, name: changed if side == "A" else changed.T}, SHAPES[1])


@pytest.mark.parametrize(
    ("target", "code", "fields"),
    [
        (
            "input_layernorm",
            "target-not-linear",
            {"module": "model.layers.0.input_layernorm"},
        ),
        ("lm_head", "target-outside-layers", {"module": "lm_head"}),
        ("qq_proj", "target-unknown", {"targets": ["qq_proj"]}),
    ],
)
def test_a_module_that_cannot_be_adapted_is_refused(
    target: str, code: str, fields: dict[str, Any]
) -> None:
    base = base_in(torch.float32)
    modules = dict(base.model.named_modules())
    with expect_error(ModelError, code, **fields):
        LoraBank(base, [change_lora(targets=("q_proj", target))], slots=1)
    assert dict(base.model.named_modules()) == modules


def test_a_layer_with_a_bias_keeps_it() -> None:
    base = base_in(torch.float64)
    inner: Any = base.model.model
    for layer in inner.layers:
        projection = layer.self_attn.q_proj
        projection.bias = nn.Parameter(torch.linspace(-1, 1, projection.out_features).double())
    bank = fill_bank(replace(base), [SHAPES[1]])
    row = draw_tokens(6)
    ours = compute(bank, [row])[0]
    with peft_with(base, SHAPES[1], bank.read(bank.weights, 0, SHAPES[1])) as model:
        assert (ours - last_states(base, model, row)).abs().max() < 1e-12


@pytest.mark.parametrize("long", [0, 10**9], ids=["alone", "together"])
def test_rows_go_to_the_slots_that_own_them(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_module, "LONG", long)
    base = base_in(torch.float64)
    bank = fill_bank(base)
    rows = [draw_tokens(5) + 1, draw_tokens(5), draw_tokens(5).flip(0)]
    owners = [0, 0, 2]  # slot 1, between them, has none
    bank.set_routing(owners, 5)
    packed = pack_batch([Segment(0, (5, 5, 5))], device=base.device)
    with attention_by_rows(base, longest=64), bank.attached(), torch.no_grad():
        found = run_layers(base, embed(base, torch.cat(rows)), packed, range(2)).split(5)
    for row, slot, own in zip(rows, owners, found, strict=True):
        with torch.no_grad():
            alone = compute(bank, [row], first=slot)[0]
        assert (own - alone).abs().max() < 1e-12
