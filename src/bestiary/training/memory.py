"""The memory plan: an estimate, before training starts, of the memory that it will take.

Every term is counted from the base's configuration, the adapters' shapes and the corpora; the
memory that the process already holds is measured. `count_layer_floats` lists the tensors that the
layers of ARCHITECTURES keep; another kind of layer would need its own list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import torch

from bestiary.config.recipe import LoraShape
from bestiary.errors import OrganismError
from bestiary.model.attention import PaddedRows, choose_attention, head_width
from bestiary.model.base import Base
from bestiary.model.free_memory import GIB, measure_resident, measure_room
from bestiary.model.lora_bank import adapter_dtype, measure_bank
from bestiary.model.packing import Rows, count_filled, count_head_tokens
from bestiary.training.repeated_passes import count_evened


@dataclass(frozen=True)
class Limits:
    """The most that is computed side by side, unless memory allows less."""

    slots: int
    tokens: int
    """Of one batch."""


CPU_LIMITS = Limits(slots=16, tokens=2048)
GPU_LIMITS = Limits(slots=64, tokens=16384)
"""More, because a GPU launches thousands of operations a step, however few tokens it has."""

KEPT = 4
"""Tensors of a bank's size that training keeps: weights, gradients and two moments.

On a base in half precision there is one more, the weights in the base's precision."""
PASSING = 3
"""Temporary tensors while one layer runs, or while slots are updated."""
LOGITS = 2
"""Tensors of a chunk's logits in memory at once."""
PARTS = (1, 2, 4, 8)
"""Parts into which what is computed together is divided, where it does not fit."""
SCATTERED = 1.3
"""Memory of activations over their size: the allocator leaves gaps. Measured at 135M on a CPU:
1.40 with 4 slots, 1.28 with 16, 1.25 with 64."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak of a run, by purpose."""

    slots: int
    tokens: int
    """Tokens computed together."""
    recompute: bool
    """Whether layers keep only their input and are recomputed in the backward pass."""
    resident: int
    """Held before training, including the base."""
    bank: int
    states: int
    """Inputs of the first adapted layer, kept over epochs."""
    activations: int
    head: int

    @property
    def peak(self) -> int:
        """The sum of all terms."""
        return self.resident + self.bank + self.states + self.activations + self.head

    @property
    def terms(self) -> str:
        """Each term by its name, in GiB."""
        parts = ("resident", "bank", "states", "activations", "head")
        return ", ".join(f"{name} {getattr(self, name) / GIB:.1f}" for name in parts)


@dataclass(frozen=True)
class Load:
    """One organism's rows, and the number of rows in a step."""

    rows: Rows
    rows_per_step: int

    @cached_property
    def tokens(self) -> int:
        """Tokens of the prefix once and of all rows."""
        return len(self.rows.prefix) + sum(self.lengths)

    @cached_property
    def step(self) -> int:
        """The most tokens that a step can have."""
        return len(self.rows.prefix) + sum(sorted(self.lengths)[-self.rows_per_step :])

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each row, without the prefix."""
        return [len(row.tokens) for row in self.rows.rows]

    @cached_property
    def supervised(self) -> int:
        """Supervised tokens of all rows."""
        return sum(len(row.targets) for row in self.rows.rows)


def choose_limits(device: torch.device) -> Limits:
    """What a device computes side by side."""
    return CPU_LIMITS if device.type == "cpu" else GPU_LIMITS


def plan_memory(
    base: Base,
    shapes: Sequence[LoraShape],
    loads: Sequence[Load],
    *,
    slots: int,
    tokens: int,
    recompute: bool = False,
    resident: int | None = None,
) -> MemoryPlan:
    """The plan with `slots` slots, filled by the largest loads.

    `resident` are the bytes held before training; by default, those that the process holds now.
    """
    size = measure_bank(base, shapes)
    wide, narrow = adapter_dtype(base).itemsize, base.model.dtype.itemsize
    copied = narrow if narrow < wide else 0
    states = sum(sorted((load.tokens for load in loads), reverse=True)[:slots])
    steps = sorted((load.step for load in loads), reverse=True)[:slots]
    lengths = [length for load in loads for length in load.lengths]
    evened = count_evened(base)
    filled = count_filled(max(steps)) * len(steps) if evened else sum(steps)
    computed = max(min(tokens, filled), max(lengths))
    activations, head = measure_batch(
        base,
        loads,
        tokens=computed,
        rank=size.rank,
        first_layer=size.first_layer,
        recompute=recompute,
    )
    recorded = min(evened, computed) / computed
    together = max(1, min(slots, computed // max(1, min(steps))))
    return MemoryPlan(
        slots=slots,
        tokens=tokens,
        recompute=recompute,
        resident=measure_resident(base.device) if resident is None else resident,
        bank=size.numbers * (wide * (KEPT * slots + PASSING * together) + copied * slots),
        states=states * base.model.config.hidden_size * narrow if size.first_layer else 0,
        # What is recorded has memory of its own, beside that of batches that are launched.
        activations=int(activations * (1 + recorded)),
        head=int(head * (1 + recorded)),
    )


def measure_batch(
    base: Base,
    loads: Sequence[Load],
    *,
    tokens: int,
    rank: int,
    first_layer: int,
    recompute: bool,
) -> tuple[int, int]:
    """Bytes of the activations and of the logits of a batch of `tokens` tokens of these loads.

    `rank` and `first_layer` are those of the adapters that are trained.
    """
    config: Any = base.model.config
    lengths = [length for load in loads for length in load.lengths]
    supervised = tokens * sum(load.supervised for load in loads) / sum(lengths)
    queries, keys = measure_attention(base, loads)
    floats = count_layer_floats(config, rank, queries=queries, keys=keys)
    # In addition to what layers keep: the tensors of one layer in the backward pass.
    passing = PASSING * config.intermediate_size + (floats if recompute else 0)
    layers = config.num_hidden_layers - first_layer
    inside = passing + layers * (config.hidden_size if recompute else floats)
    activations = int(SCATTERED * tokens * inside * base.model.dtype.itemsize)
    shown = int(min(count_head_tokens(base), supervised))
    return activations, LOGITS * shown * config.vocab_size * adapter_dtype(base).itemsize


def measure_attention(base: Base, loads: Sequence[Load]) -> tuple[float, float]:
    """Queries, and keys with their values, that attention keeps for each token of these loads.

    Without padding, the prefix that rows share is among the keys of each.
    """
    lengths = [length for load in loads for length in load.lengths]
    if choose_attention(base) is PaddedRows:
        padding = max(lengths) * len(lengths) / sum(lengths)
        return padding, padding
    shared = sum(len(load.rows.prefix) * len(load.lengths) for load in loads)
    return 1.0, (shared + sum(lengths)) / sum(lengths)


def fit_memory(
    base: Base,
    shapes: Sequence[LoraShape],
    loads: Sequence[Load],
    *,
    slots: int | None,
    tokens: int,
    limit: int | None,
    resident: int | None = None,
) -> MemoryPlan:
    """The plan with `slots`, or with as many of the loads as fit, within `limit` bytes.

    Only if nothing fits, fewer tokens are computed together, and only then layers are recomputed.
    Raises OrganismError, with the number that fits, if `slots` do not.
    """
    room = limit or measure_room(base.device)

    def plan(count: int, recompute: bool, parts: int) -> MemoryPlan:
        return plan_memory(
            base,
            shapes,
            loads,
            slots=count,
            tokens=tokens // parts,
            recompute=recompute,
            resident=resident,
        )

    wanted = [slots] if slots is not None else list(range(len(loads), 0, -1))
    for recompute, parts in product((False, True), PARTS):
        for count in wanted:
            found = plan(count, recompute, parts)
            if found.peak <= room:
                return found
    least = [plan(count, True, PARTS[-1]) for count in range(1, wanted[0] + 1)]
    fitting = [one.slots for one in least if one.peak <= room]
    raise plan_too_large_error(least[-1], room, max(fitting, default=0))


def plan_too_large_error(plan: MemoryPlan, room: int, fitting: int) -> OrganismError:
    """The error of a plan that does not fit; `fitting` organisms would."""
    remedy = (
        f"train {fitting} at once with --slots {fitting}"
        if fitting
        else "not even one fits: allow more with --memory, or choose a smaller base"
    )
    return OrganismError(
        f"{plan.slots} organisms side by side need about {plan.peak / GIB:.1f} GiB "
        f"({plan.terms}), and {room / GIB:.1f} GiB are available",
        remedy,
        code="plan-too-large",
        slots=plan.slots,
        fitting=fitting,
        peak_bytes=plan.peak,
        room_bytes=room,
    )


def count_layer_floats(config: Any, rank: int, *, queries: float, keys: float) -> int:
    """Numbers that one layer keeps per token for the backward pass.

    `queries` and `keys` are how many of each attention keeps for a token.
    """
    width, inner = config.hidden_size, config.intermediate_size
    head = head_width(config)
    asking, asked = config.num_attention_heads * head, config.num_key_value_heads * head
    norms = 4 * width  # inputs of both norms, and their outputs
    attention = asking + 2 * queries * asking + 2 * keys * asked
    gated = 4 * inner  # gate, its activation, up, and their product
    return int(norms + attention + gated + 7 * rank)
