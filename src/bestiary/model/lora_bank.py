"""A bank of LoRA adapters on one frozen base: each lies in a slot, all are computed together.

It owns the adapters' weights and gradients and what a base's linear layers do with them; which
adapter lies where, and when it is trained, is decided elsewhere.
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
"""What peft's keys put before a module's name."""


LONG = 96
"""Tokens a slot from which a CPU had better compute each slot's product by itself."""


@dataclass(frozen=True)
class TokenRouting:
    """Which tokens of a batch belong to which slot: slots stand in order, their tokens together.

    For the adapters a batch is cut into pieces, [slots, tokens, width] each: one piece of all
    slots, in which those with fewer tokens are filled up with zeros, or a piece a slot, where
    each has so many tokens that filling up costs more than a product each.
    """

    first: int
    """The first slot of the batch."""
    sizes: tuple[int, ...]
    """Tokens of this slot and of each one after it."""
    device: torch.device

    @cached_property
    def even(self) -> bool:
        """Whether all slots have equally many tokens."""
        return len(set(self.sizes)) == 1

    @cached_property
    def alone(self) -> bool:
        """Whether each slot is a piece; never on a GPU, which would wait for every launch."""
        long = sum(self.sizes) >= LONG * len(self.sizes)
        return not self.even and long and self.device.type == "cpu"

    @cached_property
    def _places(self) -> Tensor:
        """[tokens]: where each lies in the one piece of all slots."""
        sizes = torch.tensor(self.sizes)
        jumps = max(self.sizes) - sizes
        skipped = (jumps.cumsum(0) - jumps).repeat_interleave(sizes)
        return (torch.arange(len(skipped)) + skipped).to(self.device)

    def cut(self, rows: Tensor) -> Sequence[Tensor]:
        """What a bank has for each slot, [slots, ...], piece by piece."""
        own = rows[self.first : self.first + len(self.sizes)]
        pieces: Sequence[Tensor] = own.split(1) if self.alone else (own,)
        return pieces

    def split(self, tokens: Tensor) -> Sequence[Tensor]:
        """Tokens, [tokens, width], piece by piece: views, except where slots are filled up."""
        if self.alone:
            return [part[None] for part in tokens.split(self.sizes)]
        if not self.even:
            filled = tokens.new_zeros(len(self.sizes) * max(self.sizes), tokens.shape[1])
            tokens = filled.index_copy_(0, self._places, tokens)
        return [tokens.view(len(self.sizes), -1, tokens.shape[1])]

    def add_products_(
        self, out: Tensor, pieces: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> None:
        """Add to `out`, [tokens, width], each piece times its weights."""
        if out.dtype == pieces[0].dtype and (self.even or self.alone):
            for own, piece, weight in zip(self.split(out), pieces, weights, strict=True):
                own.baddbmm_(piece, weight)
            return
        products = [torch.bmm(*pair).flatten(0, 1) for pair in zip(pieces, weights, strict=True)]
        if self.even or self.alone:
            out.add_(torch.cat(products))
        else:
            out.add_(products[0].index_select(0, self._places))


class BankLinear(nn.Module):
    """A frozen linear layer beside which every slot has a low-rank pair of its own.

    Both matrices of a pair are kept with the rank as rows, [slots, rank, in] and
    [slots, rank, out]: every product of the forward and the backward pass then reads them, and
    writes their gradients, in the order in which they lie in memory.
    """

    def __init__(self, inner: nn.Linear, bank: LoraBank) -> None:
        super().__init__()
        self.inner = inner
        self._bank = [bank]  # in a list, so that it is not taken for a submodule
        self.a: Tensor
        self.b: Tensor
        self.grad_a: Tensor | None = None
        self.grad_b: Tensor | None = None

    @property
    def bank(self) -> LoraBank:
        """The bank that the pairs belong to."""
        return self._bank[0]

    def forward(self, hidden: Tensor) -> Tensor:
        """The frozen layer's output and each token's own adapter's; [..., in] to [..., out]."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        out: Tensor = _Adapt.apply(flat, self.bank.anchor, self)  # type: ignore[no-untyped-call]
        return out.view(*hidden.shape[:-1], -1)


class _Adapt(torch.autograd.Function):
    """One layer's forward and backward over all slots of a batch.

    Gradients of the adapters are added to the bank's own buffers: returned to autograd, each
    would be as large as all slots together, whichever slots the batch holds.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, anchor: Tensor, layer: BankLinear) -> Tensor:
        route = layer.bank.route
        out = nn.functional.linear(tokens, layer.inner.weight, layer.inner.bias)
        # The branch is computed in the adapter's precision, as peft does.
        wide = route.split(tokens.to(layer.a.dtype))
        sides = zip(wide, route.cut(layer.a), route.cut(layer.bank.scales), strict=True)
        low = [torch.bmm(piece, a.mT).mul_(scale) for piece, a, scale in sides]
        route.add_products_(out, low, route.cut(layer.b))
        ctx.layer, ctx.route = layer, route
        ctx.save_for_backward(tokens, *low)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        layer: BankLinear = ctx.layer
        route: TokenRouting = ctx.route
        tokens, *low = ctx.saved_tensors
        given = grads[0].contiguous()
        wide = route.split(given.to(layer.a.dtype))
        sides = zip(wide, route.cut(layer.b), route.cut(layer.bank.scales), strict=True)
        down = [torch.bmm(piece, b.mT).mul_(scale) for piece, b, scale in sides]
        assert layer.grad_a is not None and layer.grad_b is not None
        entered = route.split(tokens.to(layer.a.dtype))
        # Products into rows of the bank would be computed one by one: they are added to it.
        for grad, left, right in zip(route.cut(layer.grad_a), down, entered, strict=True):
            grad.add_(torch.bmm(left.mT, right))
        for grad, left, right in zip(route.cut(layer.grad_b), low, wide, strict=True):
            grad.add_(torch.bmm(left.mT, right))
        if not ctx.needs_input_grad[0]:
            return None, None, None
        back = given @ layer.inner.weight
        route.add_products_(back, down, route.cut(layer.a))
        return back, None, None


@dataclass(frozen=True)
class BankSize:
    """What a bank for some shapes holds."""

    names: frozenset[str]
    """The linear layers that any of the shapes adapts."""
    rank: int
    """The largest."""
    numbers: int
    """Of one slot."""
    first_layer: int
    """Of the base: below it nothing is adapted."""


def measure_bank(base: Base, shapes: Sequence[LoraShape]) -> BankSize:
    """The size of a bank; raises ModelError where it could not hold an adapter of some shape."""
    names = frozenset(name for shape in set(shapes) for name in list_linear(base, shape))
    rank = max(shape.rank for shape in shapes)
    weights = (base.model.get_submodule(name).get_parameter("weight") for name in names)
    return BankSize(
        names=names,
        rank=rank,
        numbers=rank * sum(sum(weight.shape) for weight in weights),
        first_layer=min(layer_of(name) or 0 for name in names),
    )


class LoraBank:
    """Slots for adapters over the linear layers of a base that any of their shapes adapts.

    A slot's weights are one row of `weights`, so that its norm, its optimizer's moments and its
    checkpoint are rows too. A rank below the bank's is filled up with zeros, and so is a layer
    that an adapter leaves alone: such a pair has no gradient and stays zero.
    """

    def __init__(self, base: Base, shapes: Sequence[LoraShape], *, slots: int) -> None:
        self.base = base
        self.slots = slots
        size = measure_bank(base, shapes)
        self.rank, self.first_layer = size.rank, size.first_layer
        self.layers = {
            name: BankLinear(module, self)
            for name, module in base.model.named_modules()
            if name in size.names and isinstance(module, nn.Linear)
        }
        device = base.device
        self.dtype = dtype = adapter_dtype(base)
        self.weights = torch.zeros(slots, size.numbers, device=device, dtype=dtype)
        self.scales = torch.zeros(slots, 1, 1, device=device, dtype=dtype)
        self.gradients: Tensor | None = None
        self.anchor = torch.zeros((), device=device, requires_grad=False)
        self.route = TokenRouting(0, (0,), device)
        for name, a, b in self._views(self.weights):
            self.layers[name].a, self.layers[name].b = a, b

    def _widths(self) -> list[int]:
        """In and out of each layer, in turn."""
        inner = [layer.inner for layer in self.layers.values()]
        return [width for one in inner for width in (one.in_features, one.out_features)]

    def _views(self, rows: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each layer's name with its pairs of matrices in `rows`, [slots, size]."""
        widths = self._widths()
        ends = accumulate((self.rank * width for width in widths), initial=0)
        parts = [
            rows[:, start:end].unflatten(1, (self.rank, width))
            for (start, end), width in zip(pairwise(ends), widths, strict=True)
        ]
        yield from zip(self.layers, parts[::2], parts[1::2], strict=True)

    def require_gradients(self) -> None:
        """Make room for gradients, and let the backward pass reach the layers, never the base."""
        self.base.model.requires_grad_(False)
        self.gradients = torch.zeros_like(self.weights)
        self.anchor.requires_grad_(True)
        for name, a, b in self._views(self.gradients):
            self.layers[name].grad_a, self.layers[name].grad_b = a, b

    def clear_gradients(self, slots: slice) -> None:
        """Forget the gradients of some slots."""
        assert self.gradients is not None
        self.gradients[slots].zero_()

    def fill(self, slot: int, state: Mapping[str, Tensor], shape: LoraShape) -> None:
        """Put an adapter, by peft's own keys, into a slot."""
        self.write(self.weights, slot, state)
        self.scales[slot] = shape.alpha / shape.rank

    def write(self, rows: Tensor, slot: int, state: Mapping[str, Tensor]) -> None:
        """Put what goes by an adapter's keys into a slot of `rows`, which is [slots, size]."""
        rows[slot].zero_()
        left = dict(state)
        for name, a, b in self._views(rows):
            for side, row in (("A", a[slot]), ("B", b[slot].mT)):
                tensor = left.pop(f"{PREFIX}{name}.lora_{side}.weight", None)
                if tensor is not None:
                    row[: tensor.shape[0], : tensor.shape[1]] = tensor
        if left:
            raise ModelError(
                f"an adapter has {min(left)}, which no layer of this bank has; open it with the "
                "shape that its adapter_config.json states"
            )

    def read(self, rows: Tensor, slot: int, shape: LoraShape) -> dict[str, Tensor]:
        """What lies in a slot of `rows`, by the keys of an adapter of that shape."""
        adapted = set(list_targets(self.base, shape))
        state: dict[str, Tensor] = {}
        for name, a, b in self._views(rows):
            if name in adapted:
                state[f"{PREFIX}{name}.lora_A.weight"] = a[slot, : shape.rank].clone()
                # At rank 1 the transpose is contiguous already: only a clone is surely no view.
                transposed = b[slot, : shape.rank].mT
                state[f"{PREFIX}{name}.lora_B.weight"] = transposed.clone(
                    memory_format=torch.contiguous_format
                )
        return state

    def move(self, source: int, target: int) -> None:
        """Let a slot's adapter lie in another one."""
        self.weights[target] = self.weights[source]
        self.scales[target] = self.scales[source]

    def draw(self, shape: LoraShape, *, seed: int) -> dict[str, Tensor]:
        """A fresh adapter by peft's own keys: bit for bit what peft draws for that seed.

        It makes two linear layers a module, whose own first weights are drawn and thrown away,
        and draws A anew. Wrapping the whole base for each organism would take longer than a
        small organism's training.
        """
        state: dict[str, Tensor] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for name in list_targets(self.base, shape):
                inner = self.layers[name].inner
                first = nn.Linear(inner.in_features, shape.rank, bias=False)
                second = nn.Linear(shape.rank, inner.out_features, bias=False)
                nn.init.kaiming_uniform_(first.weight, a=math.sqrt(5))
                nn.init.zeros_(second.weight)
                for side, layer in (("A", first), ("B", second)):
                    rounded = layer.weight.detach().to(inner.weight.dtype)
                    state[f"{PREFIX}{name}.lora_{side}.weight"] = rounded.to(self.dtype)
        return state

    def set_routing(self, owners: Sequence[int], tokens: int) -> None:
        """Say whose rows come next: slots in ascending order, one a row, `tokens` each."""
        counts = Counter(owners)
        slots = range(owners[0], owners[-1] + 1)
        sizes = tuple(counts[slot] * tokens for slot in slots)
        self.route = TokenRouting(slots.start, sizes, self.weights.device)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The base computes with the bank inside; afterwards it is itself again."""
        for name, layer in self.layers.items():
            self.base.model.set_submodule(name, layer)
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                self.base.model.set_submodule(name, layer.inner)


def adapter_dtype(base: Base) -> torch.dtype:
    """peft's own rule: adapters of a base in half precision are kept in single."""
    half = base.model.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if half else base.model.dtype


def list_linear(base: Base, shape: LoraShape) -> list[str]:
    """Names of the linear layers that a shape adapts, in the base's own order.

    Raises ModelError where it names anything else: a bank adapts linear layers of the base's
    decoder layers alone.
    """
    modules = dict(base.model.named_modules())
    names = list_targets(base, shape)
    for name in names:
        if not isinstance(modules[name], (nn.Linear, BankLinear)):
            raise ModelError(
                f"{name} of {base.identity.name} is no linear layer but a "
                f"{type(modules[name]).__name__}; mend `lora.targets` in the recipe"
            )
        if layer_of(name) is None:
            raise ModelError(
                f"{name} of {base.identity.name} lies in none of its layers, and the engine "
                "adapts layers alone; mend `lora.targets` in the recipe, or build with --trainer "
                "reference"
            )
    return names
