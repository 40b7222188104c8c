"""What training takes on a GPU, from the base's configuration alone, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from bestiary.config.gpus import Gpu
from bestiary.config.recipe import Training
from bestiary.errors import OrganismError
from bestiary.model.adapter import layer_of, list_targets
from bestiary.model.base import Base
from bestiary.model.free_memory import FREE_SHARE, GIB
from bestiary.model.packing import Rows
from bestiary.training.memory import GPU_LIMITS, Load, MemoryPlan, fit_memory

FORWARD = 2
"""Operations of a product for each weight and token; the gradient of its input takes as many."""


@dataclass(frozen=True)
class Alike:
    """Organisms that are trained alike, and the rows of one of them."""

    training: Training
    rows: Rows
    count: int

    @property
    def load(self) -> Load:
        """What one of them computes."""
        return Load(self.rows, self.training.optimizer.rows_per_step)


@dataclass(frozen=True)
class Forecast:
    """What training takes."""

    plan: MemoryPlan
    """Of organisms side by side."""
    tokens: int
    """Computed in all epochs of all organisms."""
    operations: float
    hours: float | None
    """At the rate that was measured on this kind of GPU; None where none was."""


def forecast_training(base: Base, organisms: Sequence[Alike], gpu: Gpu, *, name: str) -> Forecast:
    """What the engine takes for some organisms on a GPU of that name.

    `base` may be an outline, whose weights have no values. Raises OrganismError if not even one
    organism fits.
    """
    base.model.bfloat16()
    shapes = [one.training.lora for one in organisms]
    loads = [one.load for one in organisms for _ in range(min(one.count, GPU_LIMITS.slots))]
    largest = sorted(loads, key=lambda load: load.tokens, reverse=True)[: GPU_LIMITS.slots]
    weights = sum(one.numel() * one.element_size() for one in base.model.parameters())
    room = int(FREE_SHARE * gpu.memory_gib * GIB)
    if weights > room:
        raise _too_large_error(base, weights, gpu, name)
    try:
        plan = fit_memory(
            base,
            shapes,
            largest,
            slots=None,
            tokens=GPU_LIMITS.tokens,
            limit=room,
            resident=weights,
        )
    except OrganismError as cause:
        raise _too_large_error(base, room + 1, gpu, name) from cause
    tokens = [one.load.tokens * one.training.optimizer.epochs * one.count for one in organisms]
    operations = sum(
        count * count_operations(base, one, recompute=plan.recompute)
        for count, one in zip(tokens, organisms, strict=True)
    )
    rate = gpu.training_tflops
    hours = None if rate is None else operations / (rate * 1e12) / 3600
    return Forecast(plan, sum(tokens), operations, hours)


def count_operations(base: Base, one: Alike, *, recompute: bool) -> float:
    """Operations of matrix products for one token: forward, backward, and the head.

    Layers below the first adapted one have no backward pass, and run once for all epochs.
    """
    targets = list_targets(base, one.training.lora)
    first = min(layer_of(name) or 0 for name in targets)
    above = below = 0
    for name, module in base.model.named_modules():
        layer = layer_of(name)
        if isinstance(module, nn.Linear) and layer is not None:
            above += module.weight.numel() if layer >= first else 0
            below += module.weight.numel() if layer < first else 0
    config: Any = base.model.config
    supervised = one.load.supervised / one.load.tokens
    head = 2 * supervised * int(config.hidden_size) * int(config.vocab_size)
    passes = 3 if recompute else 2
    return FORWARD * (passes * above + below / one.training.optimizer.epochs + head)


def _too_large_error(base: Base, needed: int, gpu: Gpu, name: str) -> OrganismError:
    """`needed` are the bytes of the weights, or more than there is room for."""
    weights = sum(one.numel() * one.element_size() for one in base.model.parameters())
    cards = -(-needed // int(FREE_SHARE * gpu.memory_gib * GIB))
    return OrganismError(
        f"one organism on {base.identity.name}, whose weights take {weights / GIB:.1f} GiB in "
        f"bf16, does not fit into the {gpu.memory_gib:g} GiB of one {name}",
        f"it would take {cards} of them, or a quantized base, and the engine trains on neither: "
        "choose a smaller base",
        code="base-too-large",
        base=base.identity.name,
        weights_bytes=weights,
        gpu=name,
    )
