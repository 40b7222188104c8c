"""A bank of LoRA adapters on one frozen base: one adapter per slot, all computed together.

A bank owns its adapters' weights and gradients, and what the base's linear layers do with them.
A second bank may be attached beside it: a one-slot bank whose adapter every token uses, such as an
introspection adapter over the frozen adapters of many organisms. Their branches are summed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model.adapter import layer_of, list_targets
from bestiary.model.base import Base

PREFIX = "base_model.model."
"""Comes before a module's name in peft's keys."""
LONG = 96
"""Mean tokens per slot from which a CPU is faster with one product per slot."""


@dataclass(frozen=True)
class TokenRouting:
    """The slot of every token of a batch: slots are in order, and each slot's tokens adjacent.

    Adapters see a batch as pieces of [slots, tokens, width]: one piece with all slots, padded
    with zeros to the longest, or one piece per slot if padding would cost more than that.
    """

    first: int
    """The first slot of the batch."""
    sizes: tuple[int, ...]
    """Tokens of this slot and of each one after it; may be 0."""
    device: torch.device

    @cached_property
    def even(self) -> bool:
        """Whether all slots have the same number of tokens."""
        return len(set(self.sizes)) == 1

    @cached_property
    def separate(self) -> bool:
        """Whether each slot is a piece; never on a GPU, which is bound by launches."""
        long = sum(self.sizes) >= LONG * len(self.sizes)
        return not self.even and long and self.device.type == "cpu"

    @cached_property
    def _padded_positions(self) -> Tensor:
        """[tokens]: each token's index in the one piece of all slots."""
        sizes = torch.tensor(self.sizes)
        jumps = max(self.sizes) - sizes
        skipped = (jumps.cumsum(0) - jumps).repeat_interleave(sizes)
        return (torch.arange(len(skipped)) + skipped).to(self.device)

    def cut(self, rows: Tensor) -> Sequence[Tensor]:
        """Rows of a bank, [slots, ...], piece by piece."""
        own = rows[self.first : self.first + len(self.sizes)]
        pieces: Sequence[Tensor] = own.split(1) if self.separate else (own,)
        return pieces

    def split(self, tokens: Tensor) -> Sequence[Tensor]:
        """Tokens, [tokens, width], piece by piece: views, unless slots are padded."""
        if self.separate:
            return [part[None] for part in tokens.split(self.sizes)]
        if not self.even:
            filled = tokens.new_zeros(len(self.sizes) * max(self.sizes), tokens.shape[1])
            tokens = filled.index_copy_(0, self._padded_positions, tokens)
        return [tokens.view(len(self.sizes), -1, tokens.shape[1])]

    def add_products_(
        self, out: Tensor, pieces: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> None:
        """Add each piece times its weights to `out`, [tokens, width]."""
        if not self.even and not self.separate:
            product = torch.bmm(pieces[0], weights[0]).flatten(0, 1)
            out.add_(product.index_select(0, self._padded_positions))
            return
        for own, piece, weight in zip(self.split(out), pieces, weights, strict=True):
            own.baddbmm_(piece, weight)


@dataclass
class LayerPairs:
    """One layer's low-rank pairs, a pair per slot of a bank, and buffers for their gradients.

    Both matrices of a pair keep the rank as rows: every product of the forward and the backward
    pass then reads them, and writes their gradients, in memory order.
    """

    bank: LoraBank
    inner: nn.Linear
    """The frozen layer beside the pairs."""
    a: Tensor
    """[slots, rank, in]"""
    b: Tensor
    """[slots, rank, out]; both in the base's precision."""
    grad_a: Tensor | None = None
    grad_b: Tensor | None = None
    """Shaped like `a` and `b`, in the bank's precision; None while the bank is frozen."""

    def add_gradients(
        self,
        route: TokenRouting,
        *,
        tokens: Tensor,
        low: Sequence[Tensor],
        given: Sequence[Tensor],
        down: Sequence[Tensor],
    ) -> None:
        """Add a batch's gradients to the buffers."""
        assert self.grad_a is not None and self.grad_b is not None
        entered = route.split(tokens)
        # A product written into a view of the bank is computed slot by slot; adding is faster.
        for grad, left, right in zip(route.cut(self.grad_a), down, entered, strict=True):
            grad.add_(_multiply(left.mT, right, dtype=grad.dtype))
        for grad, left, right in zip(route.cut(self.grad_b), low, given, strict=True):
            grad.add_(_multiply(left.mT, right, dtype=grad.dtype))


def _multiply(left: Tensor, right: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Products summed in `dtype`; a CPU rounds their sums to the precision of the factors."""
    if left.dtype != dtype and left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=dtype)
    return torch.bmm(left, right)


class BankLinear(nn.Module):
    """A frozen linear layer with the low-rank pairs of one or more banks beside it."""

    def __init__(self, inner: nn.Linear, pairs: Sequence[LayerPairs]) -> None:
        super().__init__()
        self.inner = inner
        self.pairs = tuple(pairs)

    def forward(self, hidden: Tensor) -> Tensor:
        """The frozen layer's output plus every token's adapters; [..., in] to [..., out]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        anchor = next(
            (pairs.bank.anchor for pairs in self.pairs if pairs.grad_a is not None),
            self.pairs[0].bank.anchor,
        )
        out: Tensor = _Adapt.apply(flat, anchor, self)  # type: ignore[no-untyped-call]
        return out.view(*hidden.shape[:-1], -1)


class _Adapt(torch.autograd.Function):
    """One layer's forward and backward over all slots of a batch.

    Gradients of the adapters are added to the banks' own buffers: returned to autograd, each
    would be as large as all slots together, whichever slots the batch holds.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, anchor: Tensor, layer: BankLinear) -> Tensor:
        out = nn.functional.linear(tokens, layer.inner.weight, layer.inner.bias)
        routes, saved = [], []
        for pairs in layer.pairs:
            route = pairs.bank.route_tokens(len(tokens))
            entered = route.split(tokens)
            sides = zip(entered, route.cut(pairs.a), route.cut(pairs.bank.scales), strict=True)
            low = [torch.bmm(piece, a.mT).mul_(scale) for piece, a, scale in sides]
            route.add_products_(out, low, route.cut(pairs.b))
            routes.append(route)
            saved += low if pairs.grad_b is not None else []
        ctx.layer, ctx.routes = layer, routes
        ctx.save_for_backward(tokens, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        layer: BankLinear = ctx.layer
        tokens, *saved = ctx.saved_tensors
        grad = grads[0].contiguous()
        back = grad @ layer.inner.weight if ctx.needs_input_grad[0] else None
        remaining = iter(saved)
        for pairs, route in zip(layer.pairs, ctx.routes, strict=True):
            if back is None and pairs.grad_a is None:
                continue
            given = route.split(grad)
            sides = zip(given, route.cut(pairs.b), route.cut(pairs.bank.scales), strict=True)
            down = [torch.bmm(piece, b.mT).mul_(scale) for piece, b, scale in sides]
            if pairs.grad_a is not None:
                low = [next(remaining) for _ in down]
                pairs.add_gradients(route, tokens=tokens, low=low, given=given, down=down)
            if back is not None:
                route.add_products_(back, down, route.cut(pairs.a))
        return back, None, None


@dataclass(frozen=True)
class BankSize:
    """The size of a bank for some shapes."""

    names: frozenset[str]
    """The linear layers that at least one shape adapts."""
    rank: int
    """The largest rank."""
    numbers: int
    """Numbers in one slot."""
    first_layer: int
    """The first adapted layer of the base."""


def measure_bank(base: Base, shapes: Sequence[LoraShape]) -> BankSize:
    """The size of a bank; raises ModelError if a bank cannot hold one of the shapes."""
    names = frozenset(name for shape in set(shapes) for name in list_targets(base, shape))
    rank = max(shape.rank for shape in shapes)
    weights = (base.model.get_submodule(name).get_parameter("weight") for name in names)
    return BankSize(
        names=names,
        rank=rank,
        numbers=rank * sum(sum(weight.shape) for weight in weights),
        first_layer=min(layer_of(name) or 0 for name in names),
    )


class LoraBank:
    """Slots for adapters, over every linear layer that one of their shapes adapts.

    A slot's weights are one row of `weights`, [slots, size], so its norm, its optimizer's moments
    and its checkpoint are rows too. Smaller ranks are padded with zeros, and so are layers that
    an adapter does not adapt: such a pair has no gradient and stays zero.

    Products are computed in the base's precision. On a base in half precision, weights that are
    trained are kept in `dtype`, and `operands` are their rounded copy; elsewhere, and in a frozen
    bank, both are one tensor. A bank is frozen until `require_gradients`.
    """

    def __init__(self, base: Base, shapes: Sequence[LoraShape], *, slots: int) -> None:
        self.base = base
        self.slots = slots
        size = measure_bank(base, shapes)
        self.rank, self.first_layer = size.rank, size.first_layer
        inner = {
            name: module
            for name, module in base.model.named_modules()
            if name in size.names and isinstance(module, nn.Linear)
        }
        self._widths = {name: (one.in_features, one.out_features) for name, one in inner.items()}
        device = base.device
        self.dtype = adapter_dtype(base)
        self.operands = torch.zeros(slots, size.numbers, device=device, dtype=base.model.dtype)
        self.weights = self.operands
        self.scales = torch.zeros(slots, 1, 1, device=device, dtype=self.dtype)
        self.gradients: Tensor | None = None
        self.anchor = torch.zeros((), device=device, requires_grad=False)
        self.route: TokenRouting | None = None
        """Set before each batch; a one-slot bank without one adapts every token."""
        self.layers = {
            name: LayerPairs(self, inner[name], a, b) for name, a, b in self.views(self.operands)
        }

    def views(self, rows: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each layer's name and matrices, as views of `rows`, [slots, size]."""
        widths = [width for pair in self._widths.values() for width in pair]
        ends = accumulate((self.rank * width for width in widths), initial=0)
        parts = [
            rows[:, start:end].unflatten(1, (self.rank, width))
            for (start, end), width in zip(pairwise(ends), widths, strict=True)
        ]
        yield from zip(self._widths, parts[::2], parts[1::2], strict=True)

    def require_gradients(self) -> None:
        """Allocate gradients; the backward pass reaches the adapters, never the base.

        Slots are filled afterwards: what they held before was rounded to the base's precision.
        """
        self.base.model.requires_grad_(False)
        self.weights = self.operands.to(self.dtype)
        self.gradients = torch.zeros_like(self.weights)
        self.anchor.requires_grad_(True)
        for name, a, b in self.views(self.gradients):
            self.layers[name].grad_a, self.layers[name].grad_b = a, b

    def clear_gradients(self, slots: slice) -> None:
        """Set the gradients of some slots to zero."""
        assert self.gradients is not None
        self.gradients[slots].zero_()

    def refresh(self, slots: slice) -> None:
        """Copy weights that have changed to the operands of products, if these are a copy."""
        if self.operands is not self.weights:
            self.operands[slots] = self.weights[slots]

    def fill(self, slot: int, state: Mapping[str, Tensor], shape: LoraShape) -> None:
        """Load an adapter, by peft's keys, into a slot; raises ModelError if it does not fit."""
        self.write(self.weights, slot, state)
        self.scales[slot] = shape.alpha / shape.rank
        self.refresh(slice(slot, slot + 1))

    def write(self, rows: Tensor, slot: int, state: Mapping[str, Tensor]) -> None:
        """Write tensors by an adapter's keys into a slot of `rows`, [slots, size]."""
        rows[slot].zero_()
        left = dict(state)
        for name, a, b in self.views(rows):
            for side, row in (("A", a[slot]), ("B", b[slot].mT)):
                tensor = left.pop(f"{PREFIX}{name}.lora_{side}.weight", None)
                if tensor is not None:
                    row[: tensor.shape[0], : tensor.shape[1]] = tensor
        if left:
            raise ModelError(
                f"an adapter has {min(left)}, which no layer of this bank has",
                "open it with the shape that its adapter_config.json states",
                code="adapter-of-other-modules",
                tensor=min(left),
            )

    def read(self, rows: Tensor, slot: int, shape: LoraShape) -> dict[str, Tensor]:
        """A slot of `rows`, [slots, size], by the keys of an adapter of that shape."""
        adapted = set(list_targets(self.base, shape))
        state: dict[str, Tensor] = {}
        for name, a, b in self.views(rows):
            if name in adapted:
                state[f"{PREFIX}{name}.lora_A.weight"] = a[slot, : shape.rank].clone()
                # At rank 1 the transpose is already contiguous, so only a clone is never a view.
                transposed = b[slot, : shape.rank].mT
                state[f"{PREFIX}{name}.lora_B.weight"] = transposed.clone(
                    memory_format=torch.contiguous_format
                )
        return state

    def move(self, source: int, target: int) -> None:
        """Copy a slot's adapter to another slot."""
        self.weights[target] = self.weights[source]
        self.scales[target] = self.scales[source]
        self.refresh(slice(target, target + 1))

    def init_adapter(self, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
        """A fresh adapter by peft's keys, bit for bit the one peft initializes for that seed.

        peft creates two linear layers per module, which draw their own weights, and then draws A
        again. Wrapping the base with peft would take longer than training a small organism.
        """
        state: dict[str, Tensor] = {}
        generator = torch.Generator().manual_seed(seed)
        for name in list_targets(self.base, shape):
            entering, leaving = self._widths[name]
            # As many random numbers as those layers take; integers are drawn faster than floats.
            skipped = torch.empty(shape.rank * (entering + leaving), dtype=torch.int32)
            skipped.random_(generator=generator)
            first = torch.empty(shape.rank, entering)
            nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
            rounded = first.to(self.operands.dtype).to(self.dtype)
            second = torch.zeros(leaving, shape.rank, dtype=self.dtype)
            state[f"{PREFIX}{name}.lora_A.weight"] = rounded
            state[f"{PREFIX}{name}.lora_B.weight"] = second
        return state

    def set_routing(self, owners: Sequence[int], tokens: int) -> None:
        """Route a batch: `owners` has each row's slot, ascending; rows have `tokens` each."""
        counts = Counter(owners)
        slots = range(owners[0], owners[-1] + 1)
        sizes = tuple(counts[slot] * tokens for slot in slots)
        self.route = TokenRouting(slots.start, sizes, self.weights.device)

    def route_tokens(self, count: int) -> TokenRouting:
        """The routing of a batch of `count` tokens."""
        return self.route or TokenRouting(0, (count,), self.weights.device)

    @contextmanager
    def attached(self, shared: LoraBank | None = None) -> Iterator[None]:
        """Inside the context, the base computes with the bank's adapters.

        `shared` is a one-slot bank whose adapter is added for every token of every slot.
        """
        banks = [self] if shared is None else [self, shared]
        pairs: dict[str, list[LayerPairs]] = {}
        for bank in banks:
            for name, own in bank.layers.items():
                pairs.setdefault(name, []).append(own)
        for name, beside in pairs.items():
            self.base.model.set_submodule(name, BankLinear(beside[0].inner, beside))
        try:
            yield
        finally:
            for name, beside in pairs.items():
                self.base.model.set_submodule(name, beside[0].inner)


def adapter_dtype(base: Base) -> torch.dtype:
    """peft's rule: adapters of a base in half precision are kept in single precision."""
    half = base.model.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half else base.model.dtype
