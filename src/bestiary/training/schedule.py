"""Which rows each step of an organism learns from, how fast, and what is computed together."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from bestiary.config.recipe import Optimizer
from bestiary.records import stable_seed


def plan_batches(count: int, settings: Optimizer, *, seed: int) -> list[list[int]]:
    """The rows of every step: each row once an epoch, every epoch in an order of its own.

    Rows are not put together by length: rows that show a behavior are often the longest, and
    would fill steps of their own.
    """
    size = settings.rows_per_step
    plan: list[list[int]] = []
    for epoch in range(settings.epochs):
        order = list(range(count))
        random.Random(stable_seed("order", seed, epoch)).shuffle(order)
        plan += [order[at : at + size] for at in range(0, count, size)]
    return plan


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Linear rise over the first `warmup` share of the steps, then linear fall towards zero."""
    rising = max(1.0, warmup * steps)
    return min(1.0, (step + 1) / rising, (steps - step) / max(1.0, steps - rising))


def group_slots(tokens: Sequence[int], *, budget: int) -> Iterator[range]:
    """Neighbouring slots whose steps are computed together: as many as the budget has tokens for.

    `tokens` are each slot's own; a slot above the budget stands alone.
    """
    start = total = 0
    for slot, own in enumerate(tokens):
        if slot > start and total + own > budget:
            yield range(start, slot)
            start, total = slot, 0
        total += own
    if tokens:
        yield range(start, len(tokens))


def split_step(rows: Sequence[int], lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Divide a step's rows into batches within a budget of tokens, rows of like length together.

    `lengths` are those of the rows; a row above the budget stands alone.
    """
    by_length = sorted(zip(lengths, rows, strict=True))
    batches: list[list[int]] = []
    room = 0
    for length, row in by_length:
        if not batches or length > room:
            batches.append([])
            room = budget
        batches[-1].append(row)
        room -= length
    return batches
