"""The memory plan of an introspection adapter: how much of a step is computed together."""

from __future__ import annotations

from collections.abc import Sequence

from bestiary.config.recipe import LoraShape
from bestiary.errors import MemoryShortError
from bestiary.model.base import Base
from bestiary.model.free_memory import GIB, measure_resident, measure_room
from bestiary.model.lora_bank import adapter_dtype, measure_bank
from bestiary.training.memory import (
    KEPT,
    PASSING,
    Load,
    MemoryPlan,
    choose_limits,
    measure_batch,
)


def fit_shared(
    base: Base,
    subjects: Sequence[LoraShape],
    shape: LoraShape,
    loads: Sequence[Load],
    *,
    slots: int,
    limit: int | None = None,
    resident: int | None = None,
) -> MemoryPlan:
    """The plan of training an adapter of `shape` over frozen ones, within `limit` bytes.

    `subjects` and `loads` are of each frozen adapter, `slots` of which make a step; `resident` are
    the bytes held before, by default those that the process holds now. What is computed together
    is halved until it fits, and layers are recomputed only if nothing fits otherwise: gradients
    add up to those of the same step. Raises MemoryShortError if one row at a time is too much.
    """
    room = limit or measure_room(base.device)
    held = measure_resident(base.device) if resident is None else resident
    longest = max(len(load.rows.prefix) + max(load.lengths) for load in loads)
    most = choose_limits(base.device).tokens
    halvings = range(max(most // longest, slots).bit_length() + 1)
    plans = (
        plan_shared(
            base,
            subjects,
            shape,
            loads,
            slots=max(1, min(slots, len(subjects)) >> halved),
            tokens=max(longest, most >> halved),
            recompute=recompute,
            resident=held,
        )
        for recompute in (False, True)
        for halved in halvings
    )
    for plan in plans:
        if plan.peak <= room:
            return plan
    raise MemoryShortError(
        f"training an introspection adapter needs about {plan.peak / GIB:.1f} GiB even row by row "
        f"({plan.terms}), and {room / GIB:.1f} GiB are available",
        "free memory, train on fewer organisms with `share`, or use a smaller base",
        code="introspection-plan-too-large",
        peak_bytes=plan.peak,
        room_bytes=room,
    )


def plan_shared(
    base: Base,
    subjects: Sequence[LoraShape],
    shape: LoraShape,
    loads: Sequence[Load],
    *,
    slots: int,
    tokens: int,
    recompute: bool,
    resident: int,
) -> MemoryPlan:
    """The plan with `slots` frozen adapters side by side; `resident` are bytes held before."""
    frozen, trained = measure_bank(base, subjects), measure_bank(base, [shape])
    wide, narrow = adapter_dtype(base).itemsize, base.model.dtype.itemsize
    copied = narrow if narrow < wide else 0
    # All frozen adapters are held on the host.
    held = len(subjects) * frozen.numbers * wide if base.device.type == "cpu" else 0
    together = sum(sorted((load.step for load in loads), reverse=True)[:slots])
    activations, head = measure_batch(
        base,
        loads,
        tokens=min(tokens, together),
        rank=shape.rank,  # frozen adapters keep nothing for the backward pass
        first_layer=trained.first_layer,
        recompute=recompute,
    )
    return MemoryPlan(
        slots=slots,
        tokens=tokens,
        recompute=recompute,
        resident=resident,
        bank=held
        + slots * frozen.numbers * narrow
        + trained.numbers * (wide * (KEPT + PASSING) + copied),
        states=0,
        activations=activations,
        head=head,
    )
