"""A bank of LoRA adapters on one frozen base: one adapter per slot, all computed together.

A bank owns its adapters' weights and gradients, and what the base's linear layers do with them.
A second bank may be attached beside it: a one-slot bank whose adapter every token uses, such as an
introspection adapter over the frozen adapters of many organisms. Their branches are summed.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bestiary.config.recipe import LoraShape
from bestiary.errors import ModelError
from bestiary.model.adapter import layer_of, list_targets
from bestiary.model.base import Base
from bestiary.model.routing import TokenRouting

PREFIX = "base_model.model."
"""Comes before a module's name in peft's keys."""
WEIGHT = ".weight"
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers of one module that read the same tensor, in the architectures with an engine."""


@dataclass
class SiblingPairs:
    """A bank's low-rank pairs of some siblings, a pair per layer and slot, with their gradients.

    Both matrices of a pair keep the rank as rows: every product of the forward and the backward
    pass then reads them, and writes their gradients, in memory order.
    """

    bank: LoraBank
    inner: Mapping[str, nn.Linear]
    """The frozen layers beside the pairs, by name."""
    a: Tensor
    """[slots, layers x rank, in]: one product serves all layers."""
    b: Sequence[Tensor]
    """[slots, rank, out] of each layer; both in the base's precision."""
    grad_a: Tensor | None = None
    grad_b: Sequence[Tensor] = ()
    """Shaped like `a` and `b`, in the bank's precision; none while the bank is frozen."""

    def reduce(self, route: TokenRouting, entered: Sequence[Tensor]) -> list[Tensor]:
        """The scaled output of A, [slots, tokens, layers x rank], of pieces of what entered."""
        sides = zip(entered, route.cut(self.a), route.cut(self.bank.scales), strict=True)
        if self.bank.vectors:
            return [
                piece.new_ones(*piece.shape[:2], a.shape[1]).mul_(scale)
                for piece, a, scale in sides
            ]
        return [torch.bmm(piece, a.mT).mul_(scale) for piece, a, scale in sides]

    def add_products_(
        self, outs: Mapping[str, Tensor], route: TokenRouting, low: Sequence[Tensor]
    ) -> None:
        """Add every layer's branch to its output, [tokens, out]."""
        for name, b, own in zip(self.inner, self.b, self.split_ranks(low), strict=True):
            route.add_products_(outs[name], own, route.cut(b))

    def split_ranks(self, pieces: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
        """Each layer's part of pieces of [slots, tokens, layers x rank]."""
        return zip(*(piece.split(self.bank.rank, -1) for piece in pieces), strict=True)

    def join_ranks(self, route: TokenRouting, given: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Gradients of the output of A, piece by piece, from each layer's output's."""
        layers = [
            [torch.bmm(piece, b.mT) for piece, b in zip(own, route.cut(rows), strict=True)]
            for own, rows in zip(given, self.b, strict=True)
        ]
        joined = [
            torch.cat(parts, -1) if parts[1:] else parts[0] for parts in zip(*layers, strict=True)
        ]
        return [
            piece.mul_(scale)
            for piece, scale in zip(joined, route.cut(self.bank.scales), strict=True)
        ]

    def add_gradients(
        self,
        route: TokenRouting,
        *,
        tokens: Tensor,
        low: Sequence[Tensor],
        given: Sequence[Sequence[Tensor]],
        down: Sequence[Tensor],
    ) -> None:
        """Add a batch's gradients to the buffers."""
        assert self.grad_a is not None
        if not self.bank.vectors:
            _add_gradient(self.grad_a, route, down, route.split(tokens))
        for grad, own, pieces in zip(self.grad_b, self.split_ranks(low), given, strict=True):
            _add_gradient(grad, route, own, pieces)


def _add_gradient(
    grad: Tensor, route: TokenRouting, left: Sequence[Tensor], right: Sequence[Tensor]
) -> None:
    # A product written into a view of the bank is computed slot by slot; adding is faster.
    for rows, one, other in zip(route.cut(grad), left, right, strict=True):
        rows.add_(_multiply(one.mT, other, dtype=rows.dtype))


def _multiply(left: Tensor, right: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Products summed in `dtype`; a CPU rounds their sums to the precision of the factors."""
    if left.dtype != dtype and left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=dtype)
    return torch.bmm(left, right)


class Siblings:
    """Frozen layers that read the same tensors, with the pairs of one or more banks beside them.

    The first that is called computes all, so that they share products; each of the others then
    takes its own output, unless it is given another tensor after all.
    """

    def __init__(self, pairs: Sequence[SiblingPairs]) -> None:
        self.pairs = tuple(pairs)
        self.inner = {name: inner for own in pairs for name, inner in own.inner.items()}
        self.parent, _ = find_siblings(next(iter(self.inner)))
        """The module that has these layers."""
        self._hidden: Tensor | None = None
        self._outs: dict[str, Tensor] = {}
        """Of `_hidden`, not taken yet."""

    def compute(self, name: str, hidden: Tensor) -> Tensor:
        """The output of one layer, [..., in] to [..., out]."""
        if hidden is not self._hidden or name not in self._outs:
            self._hidden, self._outs = hidden, self._compute_all(hidden)
        return self._outs.pop(name)

    def forget(self, *_: object) -> None:
        """Drop what was not taken, at the end of a call of their parent."""
        self._hidden, self._outs = None, {}

    def _compute_all(self, hidden: Tensor) -> dict[str, Tensor]:
        anchor = next(
            (pairs.bank.anchor for pairs in self.pairs if pairs.grad_a is not None),
            self.pairs[0].bank.anchor,
        )
        flat = hidden.reshape(-1, hidden.shape[-1])
        outs = _Adapt.apply(flat, anchor, self)  # type: ignore[no-untyped-call]
        return {
            name: out.view(*hidden.shape[:-1], -1)
            for name, out in zip(self.inner, outs, strict=True)
        }


class BankLinear(nn.Module):
    """A frozen linear layer with the low-rank pairs of one or more banks beside it."""

    def __init__(self, siblings: Siblings, name: str) -> None:
        super().__init__()
        self.inner = siblings.inner[name]
        self.siblings = siblings
        self._name = name

    def forward(self, hidden: Tensor) -> Tensor:
        """The frozen layer's output plus every token's adapters; [..., in] to [..., out]."""
        return self.siblings.compute(self._name, hidden)


class _Adapt(torch.autograd.Function):
    """The forward and backward of siblings over all slots of a batch.

    Gradients of the adapters are added to the banks' own buffers: returned to autograd, each
    would be as large as all slots together, whichever slots the batch holds.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, anchor: Tensor, siblings: Siblings) -> tuple[Tensor, ...]:
        outs = {
            name: nn.functional.linear(tokens, inner.weight, inner.bias)
            for name, inner in siblings.inner.items()
        }
        routes, saved = [], []
        for pairs in siblings.pairs:
            route = pairs.bank.route_tokens(len(tokens))
            low = pairs.reduce(route, route.split(tokens))
            pairs.add_products_(outs, route, low)
            routes.append(route)
            saved += low if pairs.grad_a is not None else []
        ctx.siblings, ctx.routes = siblings, routes
        ctx.save_for_backward(tokens, *saved)
        return tuple(outs.values())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        siblings: Siblings = ctx.siblings
        tokens, *saved = ctx.saved_tensors
        back = None
        layers = dict(zip(siblings.inner, (grad.contiguous() for grad in grads), strict=True))
        if ctx.needs_input_grad[0]:
            back = _multiply_back(siblings, layers)
        remaining = iter(saved)
        for pairs, route in zip(siblings.pairs, ctx.routes, strict=True):
            if back is None and pairs.grad_a is None:
                continue
            given = [route.split(layers[name]) for name in pairs.inner]
            down = pairs.join_ranks(route, given)
            if pairs.grad_a is not None:
                low = [next(remaining) for _ in down]
                pairs.add_gradients(route, tokens=tokens, low=low, given=given, down=down)
            if back is not None:
                route.add_products_(back, down, route.cut(pairs.a))
        return back, None, None


def _multiply_back(siblings: Siblings, grads: Mapping[str, Tensor]) -> Tensor:
    """The gradient of what frozen layers read, [tokens, in], from their outputs'."""
    (first, grad), *others = ((siblings.inner[name], grad) for name, grad in grads.items())
    back = grad @ first.weight
    for inner, own in others:
        back.addmm_(own, inner.weight)
    return back


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

    A bank of `vectors` adds the one row of B to what a layer gives, whatever enters it. A stays
    zero; peft knows such a pair as the bias of B.
    """

    def __init__(
        self, base: Base, shapes: Sequence[LoraShape], *, slots: int, vectors: bool = False
    ) -> None:
        self.base = base
        self.slots = slots
        self.vectors = vectors
        size = measure_bank(base, shapes)
        self.rank, self.first_layer = size.rank, size.first_layer
        inner = {
            name: module
            for name, module in base.model.named_modules()
            if name in size.names and isinstance(module, nn.Linear)
        }
        self._widths = {name: (one.in_features, one.out_features) for name, one in inner.items()}
        groups: dict[tuple[object, ...], list[str]] = {}
        for name, (entering, _) in self._widths.items():
            groups.setdefault((*find_siblings(name), entering), []).append(name)
        device = base.device
        self.dtype = adapter_dtype(base)
        self.operands = torch.zeros(slots, size.numbers, device=device, dtype=base.model.dtype)
        self.weights = self.operands
        self.scales = torch.zeros(slots, 1, 1, device=device, dtype=self.dtype)
        self.gradients: Tensor | None = None
        self.anchor = torch.zeros((), device=device, requires_grad=False)
        self.route: TokenRouting | None = None
        """Set before each batch; a one-slot bank without one adapts every token."""
        self._groups = list(groups.values())
        own = weakref.proxy(self)  # a cycle would keep its memory until a garbage collection
        self.pairs = {
            key: SiblingPairs(own, {name: inner[name] for name in names}, a, b)
            for key, (names, a, b) in zip(groups, self._cut(self.operands), strict=True)
        }
        """By what the siblings have in common, whichever of them this bank adapts."""

    def views(self, rows: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each layer's name and matrices, as views of `rows`, [slots, size]."""
        for names, a, b in self._cut(rows):
            yield from zip(names, a.split(self.rank, 1), b, strict=True)

    def _cut(self, rows: Tensor) -> Iterator[tuple[Sequence[str], Tensor, Sequence[Tensor]]]:
        """Siblings' names, the A of all of them, and the B of each, as views of `rows`."""
        sizes = [
            self.rank * width
            for names in self._groups
            for width in (
                len(names) * self._widths[names[0]][0],
                *(self._widths[name][1] for name in names),
            )
        ]
        parts = iter(rows.split(sizes, 1))
        for names in self._groups:
            a = next(parts).unflatten(1, (len(names) * self.rank, -1))
            yield names, a, [next(parts).unflatten(1, (self.rank, -1)) for _ in names]

    def require_gradients(self) -> None:
        """Allocate gradients; the backward pass reaches the adapters, never the base.

        Slots are filled afterwards: what they held before was rounded to the base's precision.
        """
        self.base.model.requires_grad_(False)
        self.weights = self.operands.to(self.dtype)
        self.gradients = torch.zeros_like(self.weights)
        self.anchor.requires_grad_(True)
        for pairs, (_, a, b) in zip(self.pairs.values(), self._cut(self.gradients), strict=True):
            pairs.grad_a, pairs.grad_b = a, b

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
        """Write tensors by an adapter's keys into a slot of `rows`, [slots, size].

        Raises ModelError if one does not fit its layer, or belongs to no layer of the bank.
        """
        rows[slot].zero_()
        left = _from_biases(state) if self.vectors else dict(state)
        for name, a, b in self.views(rows):
            for side, own in (("A", a[slot]), ("B", b[slot])):
                key = f"{PREFIX}{name}.lora_{side}.weight"
                tensor = left.pop(key, None)
                if tensor is not None:
                    ranks = tensor if side == "A" else tensor.transpose(0, -1)
                    self._check_fit(key, ranks, width=own.shape[1])
                    own[: len(ranks)] = ranks
        if left:
            raise ModelError(
                f"an adapter has {min(left)}, which no layer of this bank has",
                "open it with the shape that its adapter_config.json states",
                code="adapter-of-other-modules",
                tensor=min(left),
            )

    def _check_fit(self, key: str, ranks: Tensor, *, width: int) -> None:
        """Refuse what is not [rank, width], or is of a larger rank than the bank's."""
        if ranks.ndim != 2 or ranks.shape[1] != width or len(ranks) > self.rank:
            raise ModelError(
                f"an adapter has {key} as [rank, width] = {list(ranks.shape)}, and this base and "
                f"its adapter_config.json allow a rank up to {self.rank} and a width of {width}",
                "use it with the base and the adapter_config.json that it was trained with",
                code="adapter-does-not-fit",
                tensor=key,
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
        return _to_biases(state) if self.vectors else state

    def move(self, source: int, target: int) -> None:
        """Copy a slot's adapter to another slot."""
        self.weights[target] = self.weights[source]
        self.scales[target] = self.scales[source]
        self.refresh(slice(target, target + 1))

    def init_adapter(self, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
        """A fresh adapter by peft's keys, bit for bit the one peft initializes for that seed.

        peft creates two linear layers per module, which draw their own weights, and then draws A
        again. Wrapping the base with peft would take longer than training a small organism.
        Vectors start at zero.
        """
        if self.vectors:
            return self.read(torch.zeros_like(self.weights[:1]), 0, shape)
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
        beside: dict[object, list[SiblingPairs]] = {}
        for bank in banks:
            for key, own in bank.pairs.items():
                beside.setdefault(key, []).append(own)
        siblings = [Siblings(pairs) for pairs in beside.values()]
        hooks = []
        for group in siblings:
            for name in group.inner:
                self.base.model.set_submodule(name, BankLinear(group, name))
            parent = self.base.model.get_submodule(group.parent)
            # Also where memory runs out: an output keeps the states of all layers below.
            hooks.append(parent.register_forward_hook(group.forget, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for group in siblings:
                for name, inner in group.inner.items():
                    self.base.model.set_submodule(name, inner)


def find_siblings(name: str) -> tuple[str, Sequence[str]]:
    """The module that a layer is in, and which of its layers read the same tensor."""
    module, _, own = name.rpartition(".")
    return module, next((names for names in SIBLINGS if own in names), (own,))


def _to_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter whose B, of rank 1, is the bias of B instead, by peft's keys."""
    biases = {
        f"{name.removesuffix(WEIGHT)}.bias": weight[:, 0].clone()
        for name, weight in state.items()
        if name.endswith(f"lora_B{WEIGHT}")
    }
    return {name: torch.zeros_like(weight) for name, weight in state.items()} | biases


def _from_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `_to_biases` was given."""
    return {
        name: state[f"{name.removesuffix(WEIGHT)}.bias"][:, None]
        if name.endswith(f"lora_B{WEIGHT}")
        else weight
        for name, weight in state.items()
        if name.endswith(WEIGHT)
    }


def adapter_dtype(base: Base) -> torch.dtype:
    """peft's rule: adapters of a base in half precision are kept in single precision."""
    half = base.model.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half else base.model.dtype
